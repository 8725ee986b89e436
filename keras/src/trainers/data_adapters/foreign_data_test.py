"""Tables with holes through `fit` and `predict`, beside plain NumPy.

The oracle is a model of one weight for each feature, whose gradient and
predictions are written down for the entries that are there.
"""

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xarray as xr
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDataset

RATE, BATCH, NAMES = 0.25, 4, ["a", "b", "c"]


def drawn(seed, rows=11):
    """Values, and where they are there; some in each column, none in a row."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 3)).astype("float32")
    there = rng.random(values.shape) < 0.6
    there[0], there[1] = True, False
    return values, there


def columns_of(values, there):
    return {
        name: [
            float(v) if t else None for v, t in zip(values[:, i], there[:, i])
        ]
        for i, name in enumerate(NAMES)
    }


def pandas_table(dtype):
    return lambda x, m: pd.DataFrame(columns_of(x, m)).astype(dtype)


def as_xarray(x, m):
    return xr.DataArray(np.where(m, x, np.nan), attrs={"_FillValue": -1.0})


class Capsule:
    def __init__(self, table):
        self._table = table

    def __arrow_c_stream__(self, requested_schema=None):
        return self._table.__arrow_c_stream__(requested_schema)


TABLES = {
    "pandas": pandas_table("Float64"),
    "pandas_float32": pandas_table("Float32"),
    "pandas_arrow": pandas_table("double[pyarrow]"),
    "pandas_objects": pandas_table(object),
    "arrow": lambda x, m: pa.table(columns_of(x, m)),
    "polars": lambda x, m: pl.DataFrame(columns_of(x, m)),
    "capsule": lambda x, m: Capsule(pa.table(columns_of(x, m))),
    "xarray": as_xarray,
    "numpy.ma": lambda x, m: np.ma.MaskedArray(x, ~m),
    "from_missing": lambda x, m: keras.MaskedTensor.from_missing(
        np.where(m, x, np.nan)
    ),
}
SLICED = ("pandas", "pandas_arrow", "polars", "arrow", "xarray", "numpy.ma")


def cut(table, start, end):
    if isinstance(table, pa.Table):
        return table.slice(start, end - start)
    return (table.iloc if hasattr(table, "iloc") else table)[start:end]


def slices(table, y):
    for start in range(0, len(y), BATCH):
        end = start + BATCH
        yield cut(table, start, end), y[start:end]


class Slices(PyDataset):
    def __init__(self, table, y):
        super().__init__()
        self.batches = list(slices(table, y))

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def by_generator(table, y):
    return slices(table, y)


def by_torch(table, y):
    # Late: torch may be missing.
    from torch.utils.data import DataLoader

    def collate(places):
        return next(slices(cut(table, places[0], len(y)), y[places[0] :]))

    return DataLoader(range(len(y)), batch_size=BATCH, collate_fn=collate)


def by_grain(table, y):
    # Late: grain may be missing.
    grain = pytest.importorskip("grain")

    batches = list(slices(table, y))
    return grain.MapDataset.source(range(len(batches))).map(batches.__getitem__)


STREAMS = {
    "generator": by_generator,
    "PyDataset": Slices,
    "DataLoader": by_torch,
    "grain": by_grain,
}


def linear():
    """A model that is the sum of weighted features, and of a number."""
    model = models.Sequential([layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(RATE), "mse")
    model.build((None, 3))
    model.set_weights([np.array([[0.5], [-1.0], [2.0]], "float32")])
    return model


def by_name():
    """The same, with an input of its own for each feature."""
    inputs = {n: layers.Input((1,), name=n) for n in reversed(NAMES)}
    joined = layers.Concatenate()([inputs[n] for n in NAMES])
    model = models.Model(inputs, layers.Dense(1, use_bias=False)(joined))
    model.compile(keras.optimizers.SGD(RATE), "mse")
    model.set_weights([np.array([[0.5], [-1.0], [2.0]], "float32")])
    return model


def trained(values, there, y, weights, epochs=1):
    """The weights after training, by hand; what is missing counts as 0."""
    x, w = np.where(there, values, 0.0), np.array([0.5, -1.0, 2.0])
    for _ in range(epochs):
        for start in range(0, len(y), BATCH):
            rows = slice(start, start + BATCH)
            error = (x[rows] @ w - y[rows]) * weights[rows]
            w = w - RATE * 2 * (error[:, None] * x[rows]).mean(0)
    return w


class ForeignDataTest(testing.TestCase):
    @parameterized.product(source=tuple(TABLES), seed=(1, 2))
    def test_predict_counts_what_is_there(self, source, seed):
        values, there = drawn(seed)
        table, model = TABLES[source](values, there), linear()
        wanted = np.where(there, values, 0) @ [0.5, -1.0, 2.0]
        of_all = model.predict(table, batch_size=BATCH, verbose=0)
        for found in (of_all, model.predict_on_batch(table)):
            self.assertIsInstance(found, np.ma.MaskedArray)
            rows = ~np.ma.getmaskarray(found)[:, 0]
            self.assertAllEqual(rows, there.any(1))
            self.assertAllClose(found.data[rows, 0], wanted[rows], atol=1e-5)
        found = model(table)
        self.assertMaskedClose(found, wanted[:, None], there.any(1), atol=1e-5)

    @parameterized.parameters(*TABLES)
    @pytest.mark.requires_trainable_backend
    def test_fit_learns_of_what_is_there(self, source):
        values, there = drawn(3)
        y = np.arange(len(values)) / 10
        weights = there.any(1).astype("float32")
        table, model = TABLES[source](values, there), linear()
        given = {"sample_weight": weights, "verbose": 0}
        model.fit(table, y, batch_size=BATCH, shuffle=False, **given)
        wanted = trained(values, there, y, weights)
        self.assertAllClose(ops.squeeze(model.weights[0], 1), wanted, atol=1e-5)
        loss = model.evaluate(table, y, batch_size=len(y), **given)
        error = np.where(there, values, 0) @ wanted - y
        self.assertAllClose(loss, (error**2 * weights).mean(), atol=1e-5)

    @parameterized.parameters(
        *((source, "generator") for source in SLICED),
        *(("pandas", kind) for kind in STREAMS),
        *(("polars", kind) for kind in STREAMS),
    )
    @pytest.mark.requires_trainable_backend
    def test_streams_of_batches(self, source, kind):
        values, there = drawn(4)
        # The second batch holds all, and is of the type of the others.
        there[BATCH : 2 * BATCH] = True
        there[1, 0] = True
        y = np.arange(len(values)) / 10
        table, model = TABLES[source](values, there), linear()
        given = {"shuffle": False} if kind == "PyDataset" else {}
        model.fit(STREAMS[kind](table, y), verbose=0, **given)
        wanted = trained(values, there, y, np.ones(len(y)))
        self.assertAllClose(ops.squeeze(model.weights[0], 1), wanted, atol=1e-5)

    @pytest.mark.requires_trainable_backend
    def test_a_split_of_a_column_is_of_one_type(self):
        values, there = drawn(5)
        there[-5:] = True
        there[1, 0] = True

        class Watched(layers.Layer):
            def call(self, x):
                return x if ops.is_masked(x) else x * np.nan

        model = models.Sequential([Watched(), layers.Dense(1)])
        model.compile("sgd", "mse")
        table = TABLES["polars"](values, there)
        history = model.fit(
            table, np.ones(11), validation_split=0.3, batch_size=2, verbose=0
        )
        for name in ("loss", "val_loss"):
            self.assertTrue(np.isfinite(history.history[name][0]), name)

    @parameterized.parameters("pandas", "polars", "arrow", "numpy.ma")
    def test_targets_with_holes(self, source):
        x, _ = drawn(6)
        y, there = drawn(7)
        model = models.Sequential([layers.Identity()])
        model.compile(loss="mse", weighted_metrics=["mae"])
        loss, error = model.evaluate(
            x, TABLES[source](y, there), batch_size=len(x), verbose=0
        )
        self.assertAllClose(loss, ((x - y) ** 2 * there).mean(), rtol=1e-4)
        self.assertAllClose(error, np.abs(x - y)[there].mean(), rtol=1e-4)

    def test_classes_with_holes(self):
        y = pd.Series([0, 1, None, 2], dtype="Int64")
        share = np.array([0.2, 0.3, 0.5], "float32")
        model = models.Sequential([layers.Identity()])
        model.compile(
            loss="sparse_categorical_crossentropy",
            weighted_metrics=["accuracy"],
        )
        loss, accuracy = model.evaluate(np.tile(share, (4, 1)), y, verbose=0)
        self.assertAllClose(loss, -np.log(share).sum() / 4, rtol=1e-4)
        self.assertAllClose(accuracy, 1 / 3)

    @pytest.mark.requires_trainable_backend
    def test_class_weight(self):
        y = pd.Series([0, 1, None, 1], dtype="Int64")
        model = models.Sequential([layers.Identity()])
        model.compile("sgd", "binary_crossentropy")
        x = np.full((4, 1), 0.2, "float32")
        history = model.fit(x, y, class_weight={0: 1.0, 1: 3.0}, verbose=0)
        wanted = -(np.log(0.8) + 2 * 3 * np.log(0.2)) / 4
        self.assertAllClose(history.history["loss"], [wanted], rtol=1e-4)

    @parameterized.parameters("pandas", "polars")
    def test_weights_with_holes(self, source):
        x, there = drawn(8)
        weight = TABLES[source](np.abs(x), there)["a"]
        model = models.Sequential([layers.Identity()])
        model.compile(loss="mse")
        y = np.zeros_like(x)
        loss = model.evaluate(x, y, sample_weight=weight, verbose=0)
        weights = np.where(there, np.abs(x), 0)[:, 0]
        self.assertAllClose(loss, ((x**2).mean(1) * weights).mean(), rtol=1e-4)

    @parameterized.parameters("pandas", "polars", "arrow")
    def test_inputs_by_name(self, source):
        values, there = drawn(9)
        inputs = {n: layers.Input((1,), name=n) for n in reversed(NAMES)}
        joined = layers.Concatenate()([inputs[n] for n in NAMES])
        model = models.Model(inputs, layers.Dense(2)(joined))
        model.compile(loss="mse")
        table = TABLES[source](values, there)
        wanted = model({n: values[:, [i]] for i, n in enumerate(NAMES)})
        wanted = ops.convert_to_numpy(wanted)
        rows = there.all(1)
        for found in (model(table), keras.MaskedTensor(model.predict(table))):
            self.assertAllClose(
                ops.convert_to_numpy(found).data[rows], wanted[rows]
            )
        several = models.Model([inputs[n] for n in NAMES], model.outputs)
        self.assertAllClose(
            ops.convert_to_numpy(several(table)).data[rows], wanted[rows]
        )

    @parameterized.product(source=("pandas", "arrow"), kind=tuple(STREAMS))
    def test_streams_of_inputs_by_name(self, source, kind):
        values, there = drawn(10)
        # One batch is whole, and of the type of the others.
        there[BATCH : 2 * BATCH] = True
        y = np.arange(len(values)) / 10
        table, model = TABLES[source](values, there), by_name()
        wanted = np.where(there, values, 0) @ [0.5, -1.0, 2.0]
        found = model.predict(STREAMS[kind](table, y), verbose=0)
        rows = ~np.ma.getmaskarray(found)[:, 0]
        self.assertAllEqual(rows, there.any(1))
        self.assertAllClose(found.data[rows, 0], wanted[rows], atol=1e-5)
        if backend.backend() == "numpy":
            return
        weights = there.any(1).astype("float32")[:BATCH]
        loss = model.train_on_batch(cut(table, 0, BATCH), y[:BATCH], weights)
        error = (wanted - y)[:BATCH] * weights
        self.assertAllClose(loss, (error**2).mean(), rtol=1e-4)

    @parameterized.parameters("fit", "evaluate")
    def test_what_is_validated_goes_by_name(self, method):
        values, there = drawn(11)
        there[:] = True
        y = np.arange(len(values)) / 10
        table, model = TABLES["pandas"](values, there), by_name()
        loss = ((values @ [0.5, -1.0, 2.0] - y) ** 2).mean()
        if method == "evaluate":
            found = model.evaluate(table, y, verbose=0)
        elif backend.backend() == "numpy":
            self.skipTest("It cannot train.")
        else:
            model.optimizer.learning_rate = 0.0
            history = model.fit(
                slices(table, y), validation_data=slices(table, y), verbose=0
            )
            (found,) = history.history["val_loss"]
        self.assertAllClose(found, loss, rtol=1e-4)

    @parameterized.parameters("pandas", "polars", "arrow")
    def test_targets_by_name(self, source):
        x, _ = drawn(12)
        y, there = drawn(13)
        inputs = layers.Input((3,))
        outputs = {n: inputs[:, i : i + 1] for i, n in enumerate("ba")}
        model = models.Model(inputs, outputs)
        model.compile("sgd", "mse", weighted_metrics={"a": ["mae"], "b": []})
        table = TABLES[source](y, there)
        found = model.evaluate(x, table, verbose=0, return_dict=True)
        on_batch = model.test_on_batch(x, table, return_dict=True)
        for place, name in enumerate("ba"):
            column = NAMES.index(name)
            error = (x[:, place] - y[:, column])[there[:, column]]
            loss = (error**2).sum() / len(x)
            for logs in (found, on_batch):
                self.assertAllClose(logs[f"{name}_loss"], loss, rtol=1e-4)
                if name == "a":
                    wanted = np.abs(error).mean()
                    self.assertAllClose(logs["a_mae"], wanted, rtol=1e-4)

    def test_columns_that_no_input_has_are_left_out(self):
        values, there = drawn(14)
        table = TABLES["pandas"](values, there)
        wanted = by_name().predict(table, verbose=0)
        table["unread"] = "text"
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = by_name().predict(table, verbose=0)
        self.assertAllClose(found.filled(0), wanted.filled(0))
        some, wanted = table[["a", "c"]], r"named \['b'\].*\['a', 'c'\]"
        for call in (by_name(), by_name().predict, by_name().predict_on_batch):
            with self.assertRaisesRegex(ValueError, wanted):
                call(some)

    def test_a_table_for_the_one_input_of_a_dictionary(self):
        values, there = drawn(15)
        inputs = {"all": layers.Input((3,), name="all")}
        model = models.Model(inputs, layers.Dense(1)(inputs["all"]))
        wanted = model.predict({"all": values}, verbose=0)
        there[:] = True
        table = TABLES["pandas"](values, there)
        for given in (table, table.astype("float32")):
            found = model.predict(given, verbose=0)
            self.assertAllClose(np.ma.getdata(found), wanted, atol=1e-5)

    def test_strings_are_refused_where_no_engine_has_them(self):
        table = pd.DataFrame({"a": [1.0, 2.0], "kind": ["x", None]})
        inputs = {
            "a": layers.Input((1,), name="a"),
            "kind": layers.Input((1,), name="kind", dtype="string"),
        }
        if backend.backend() == "tensorflow":
            lookup = layers.StringLookup(vocabulary=["x"])
            outputs = layers.Embedding(3, 2)(lookup(inputs["kind"]))
            model = models.Model(inputs, [outputs, inputs["a"]])
            found, _ = model.predict(table, verbose=0)
            self.assertEqual(
                np.ma.getmaskarray(found)[:, 0, 0].tolist(), [False, True]
            )
            return
        inputs["kind"] = layers.Input((1,), name="kind")
        outputs = layers.Dense(1)(layers.Add()(list(inputs.values())))
        model = models.Model(inputs, outputs)
        for call in (model, lambda x: model.predict(x, verbose=0)):
            with self.assertRaisesRegex(TypeError, "`kind`.*FeatureSpace"):
                call(table)
