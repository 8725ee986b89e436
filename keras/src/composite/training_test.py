"""Composite tensors in training, from each source of data."""

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import losses
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.backend import CompositeTensor
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.composite.errors import UnsupportedTypeError
from keras.src.testing.composite_models import CAN_TRAIN
from keras.src.testing.composite_models import MODELS
from keras.src.testing.composite_models import ROWS
from keras.src.testing.composite_models import Interval
from keras.src.testing.composite_models import arrays
from keras.src.testing.composite_models import by_hand
from keras.src.testing.composite_models import graphs
from keras.src.testing.composite_models import weights_of
from keras.src.testing.composite_models import with_weights
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDataset


class Observed(CompositeTensor):
    x: KerasTensor
    more: KerasTensor | None = None
    scale: float = 1.0


class Holder(CompositeTensor):
    inner: Observed
    y: KerasTensor


class Use(layers.Layer):
    def call(self, observed):
        y = observed.x * observed.scale
        return y if observed.more is None else y + observed.more


CHANGES = {
    "scale": (
        {"scale": 2.0},
        "static field `scale` of `Observed` was 1.0 first, then 2.0",
    ),
    "more": (
        {"more": np.ones((4, 3), "float32")},
        "part `more` of `Observed` was None first, then there",
    ),
}


class ChangesTest(testing.TestCase):
    """Of a type, from batch to batch of one call."""

    @parameterized.product(change=list(CHANGES), of_dataset=(False, True))
    def test_in_what_goes_in(self, change, of_dataset):
        if of_dataset and not CAN_TRAIN:
            self.skipTest("Upstream, too, begins an epoch of it twice.")
        fields, text = CHANGES[change]
        x = np.ones((4, 3), "float32")
        batches = [
            (Observed(x, **fields) if i > 2 else Observed(x), x)
            for i in range(4)
        ]

        class Source(PyDataset):
            __len__ = lambda self: len(batches)
            __getitem__ = lambda self, i: batches[i]

        model = models.Sequential([Use()])
        model.compile(loss="mean_squared_error")
        source = Source() if of_dataset else iter(batches)
        source = source if of_dataset else (x for x in source)
        if backend.backend() != "tensorflow":
            self.assertAllClose(model.evaluate(source, verbose=0), 1 / 4)
            return
        with self.assertRaisesRegex(Exception, f"{text}.*train_on_batch"):
            model.evaluate(source, verbose=0)
        # They are of different types, one by one.
        self.assertAllClose(model.test_on_batch(*batches[0]), 0)
        model.reset_metrics()
        self.assertAllClose(model.test_on_batch(*batches[3]), 1)

    @parameterized.parameters(*CHANGES)
    def test_in_what_comes_out(self, change):
        fields, text = CHANGES[change]
        x = np.ones((4, 3), "float32")
        model = models.Sequential([layers.Identity()])
        source = (
            (Observed(x, **fields) if i > 2 else Observed(x),) for i in range(4)
        )
        with self.assertRaisesRegex(Exception, f"{text}.*_on_batch"):
            model.predict(source, verbose=0)


X = np.arange(21, dtype="float32").reshape((7, 3))


def masked(x, axes):
    return keras.MaskedTensor(x, np.arange(axes) != 1)


# Rows, and a layer that gives an array for them.
OF_ROWS = {
    "structure": (
        lambda i: Observed(X[i], -X[i] / 2, scale=3.0),
        Use,
    ),
    "array_like": (
        lambda i: Interval(X[i], X[i] + 1),
        lambda: layers.Lambda(lambda x: x.low + x.high),
    ),
    "masked": (
        lambda i: masked(X[i], 3),
        lambda: layers.Lambda(lambda x: ops.sum(x, axis=-1)),
    ),
    "composite_of_masked": (
        lambda i: Observed(masked(X[i], 3)),
        lambda: layers.Lambda(lambda x: ops.sum(x.x, axis=-1)),
    ),
    "nest": (
        lambda i: {"a": Observed(X[i]), "b": masked(X[i], 3), "c": X[i]},
        lambda: layers.Lambda(
            lambda x: x["a"].x + ops.filled(x["b"], 0) + x["c"]
        ),
    ),
}


def loader_of_pytorch(rows, size):
    from torch.utils.data import DataLoader

    return DataLoader(rows, batch_size=size)


def loader_of_grain(rows, size):
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(rows).to_iter_dataset().batch(size)


LOADERS = {"torch": loader_of_pytorch, "grain": loader_of_grain}


class RowsTest(testing.TestCase):
    """Rows of composite and masked tensors, in loaders and in arrays."""

    @parameterized.named_parameters(
        ("none", (), r"none in `inner.more` of `Holder`.*float"),
        ("others", (6,), r"`inner.x` has 7, `inner.more` has 6, `y` has 7"),
    )
    def test_parts_without_the_same_rows_are_named(self, shape, text):
        holder = Holder(Observed(X, np.ones(shape, "float32")), X)
        model = models.Sequential(
            [layers.Lambda(lambda x: x.y if isinstance(x, Holder) else x)]
        )
        model.compile(loss="mean_squared_error")
        with self.assertRaisesRegex(ValueError, text):
            model.predict(holder, verbose=0)
        if CAN_TRAIN:
            for options in ({}, {"validation_split": 0.5}):
                for data in ((holder, X), (X, holder)):
                    with self.assertRaisesRegex(ValueError, text):
                        model.fit(*data, verbose=0, **options)

    @parameterized.product(loader=list(LOADERS), kind=list(OF_ROWS))
    def test_rows_are_stacked(self, loader, kind):
        row, layer = OF_ROWS[kind]
        rows = [row(i) for i in range(len(X))]
        model = models.Sequential([layer()])
        expected = model(tree.map_structure(lambda *x: ops.stack(x), *rows))
        # The last batch has one row.
        data = LOADERS[loader](rows, 3)
        y = model.predict(data, verbose=0)
        self.assertAllClose(y, expected)
        if CAN_TRAIN:
            pairs = LOADERS[loader]([(x, 0 * X[0, :1]) for x in rows], 3)
            model.compile(loss="mean_absolute_error")
            self.assertGreater(model.evaluate(pairs, verbose=0), 0)

    @parameterized.product(loader=list(LOADERS))
    def test_rows_that_make_no_batch(self, loader):
        if loader == "grain" and backend.backend() == "jax":
            self.skipTest("Grain takes rows apart, and compares them itself.")
        for rows, text in (
            (
                [masked(X[0], 3), masked(X[0, :1], 1)],
                r"\(3,\).*\(1,\).*collate_fn=.*batch_fn=.*from_ragged",
            ),
            ([Observed(X[0]), Observed(X[0], X[0])], "have the same parts"),
            ([Observed(X[0]), Observed(X[0], scale=2.0)], "fields agree"),
        ):
            model = models.Sequential([layers.Identity()])
            with self.assertRaisesRegex(TypeError, text):
                model.predict(LOADERS[loader](rows, 2), verbose=0)

    def test_numpy_stacks_rows_alone(self):
        rows = [Interval(X[i], X[i] + 1) for i in range(2)]
        for batch, shape in (
            (np.stack(rows), (2, 3)),
            (np.expand_dims(rows[0], 0), (1, 3)),
        ):
            self.assertIsInstance(batch, Interval)
            self.assertEqual(tuple(batch.shape), shape)
        with self.assertRaises(UnsupportedTypeError):
            np.stack(rows, axis=1)


class Batches(PyDataset):
    def __init__(self):
        super().__init__()
        self.targets = arrays()[-1]

    def __len__(self):
        return -(-ROWS // 8)

    def __getitem__(self, i):
        rows = slice(8 * i, 8 * i + 8)
        return graphs(rows), self.targets[rows]


def batches():
    dataset = Batches()
    for i in range(len(dataset)):
        yield dataset[i]


def one_epoch(kind):
    """The loss of one epoch of gradient descent, worked out in NumPy."""
    model = with_weights(MODELS[kind]())
    return model, float(
        np.mean((by_hand(weights_of(model)) - arrays()[-1]) ** 2)
    )


@pytest.mark.skipif(not CAN_TRAIN, reason="NumPy does not train.")
class TrainingTest(testing.TestCase):
    @parameterized.named_parameters((name, name) for name in MODELS)
    def test_evaluate_and_fit(self, kind):
        model, expected = one_epoch(kind)
        model.compile("sgd", losses.MeanSquaredError())
        y = arrays()[-1]
        loss = model.evaluate(graphs(), y, batch_size=8, verbose=0)
        self.assertAllClose(loss, expected, rtol=1e-4)
        history = model.fit(
            graphs(hidden=np.nan), y, batch_size=8, epochs=4, verbose=0
        ).history["loss"]
        self.assertLess(history[-1], history[0])
        self.assertTrue(np.isfinite(history).all())

    @parameterized.parameters(
        "arrays", "generator", "dataset", "tf", "torch", "grain"
    )
    def test_each_source_of_data(self, source):
        model, expected = one_epoch("functional")
        y = arrays()[-1]
        data = {
            "arrays": lambda: (graphs(), y),
            "generator": lambda: (batches(),),
            "dataset": lambda: (Batches(),),
            "tf": self._tf_data,
            "torch": self._data_loader,
            "grain": self._grain,
        }[source]()
        model.compile("sgd", losses.MeanSquaredError())
        arguments = {"batch_size": 8} if source == "arrays" else {}
        loss = model.evaluate(*data, verbose=0, **arguments)
        self.assertAllClose(loss, expected, rtol=1e-4)

    def _tf_data(self):
        if backend.backend() != "tensorflow":
            self.skipTest("A `tf.data.Dataset` holds TensorFlow's own types.")
        import tensorflow as tf

        data = (graphs(), arrays()[-1])
        return (tf.data.Dataset.from_tensor_slices(data).batch(8),)

    def _data_loader(self):
        if backend.backend() != "torch":
            self.skipTest("A batch of this type is of PyTorch's tensors.")
        import torch

        dataset = Batches()
        return (
            torch.utils.data.DataLoader(
                range(len(dataset)),
                batch_size=1,
                collate_fn=lambda indices: dataset[indices[0]],
            ),
        )

    def _grain(self):
        grain = pytest.importorskip("grain")
        batches = Batches()
        return (
            grain.MapDataset.source(range(len(batches))).map(
                lambda i: batches[i]
            ),
        )

    def test_validation_split_shuffle_and_batches(self):
        model, _ = one_epoch("functional")
        model.compile("sgd", losses.MeanSquaredError())
        y = arrays()[-1]
        history = model.fit(
            graphs(),
            y,
            batch_size=8,
            validation_split=0.25,
            shuffle=True,
            verbose=0,
        ).history
        kept = slice(int(ROWS * 0.75), None)
        residual = by_hand(weights_of(model))[kept] - y[kept]
        self.assertAllClose(
            history["val_loss"], [np.mean(residual**2)], rtol=1e-4
        )
        # Until 3.15 a batch gives the mean since the last reset.
        model.reset_metrics()
        loss = model.test_on_batch(graphs(), y)
        residual = by_hand(weights_of(model)) - y
        self.assertAllClose(loss, np.mean(residual**2), rtol=1e-4)
        model.reset_metrics()
        self.assertAllClose(model.train_on_batch(graphs(), y), loss, rtol=1e-4)

    def _interval_model(self):
        x = Interval(layers.Input((3,)), layers.Input((3,)))
        model = models.Model(x, layers.Dense(2)(x))
        rng = np.random.default_rng(0)
        low = rng.random((6, 3)).astype("float32")
        data = Interval(low, low + 1)
        y = model.predict(data, verbose=0)
        return model, data, y

    def test_a_loss_for_each_part(self):
        model, x, y = self._interval_model()
        target = Interval(y.low + 1, y.high + 2)
        for loss in (
            {"low": "mean_squared_error", "high": "mean_absolute_error"},
            ["mean_squared_error", "mean_absolute_error"],
        ):
            model.compile("sgd", loss)
            values = model.evaluate(x, target, verbose=0)
            self.assertAllClose(np.ravel(values)[0], 1 + 2, rtol=1e-4)

    def test_a_loss_of_the_whole(self):
        model, x, y = self._interval_model()
        seen = []

        def width(y_true, y_pred):
            seen.append((y_true, y_pred))
            return ops.mean(y_pred.high - y_pred.low, axis=-1)

        def highest(y_true, y_pred):
            return ops.max(y_pred.high, axis=-1)

        expected = np.mean(y.high - y.low)
        weight = np.array([1, 0, 0, 0, 0, 0.0])
        for target in (np.zeros((6, 2)), y):
            model.compile("sgd", width, metrics=[highest])
            loss, metric = model.evaluate(x, target, verbose=0)
            self.assertAllClose(loss, expected, rtol=1e-4)
            self.assertAllClose(metric, y.high.max(-1).mean(), rtol=1e-4)
            self.assertIsInstance(seen[-1][1], Interval)
            is_whole = isinstance(seen[-1][0], Interval)
            self.assertEqual(is_whole, isinstance(target, Interval))
            loss = model.evaluate(x, target, sample_weight=weight, verbose=0)[0]
            self.assertAllClose(
                loss, np.mean((y.high - y.low)[0]) / 6, rtol=1e-4
            )

    def test_a_loss_without_rules_says_what_to_give(self):
        model, x, y = self._interval_model()
        model.compile("sgd", "mean_squared_error")
        with self.assertRaises(UnsupportedTypeError) as raised:
            model.fit(x, y, verbose=0)
        self.assertIn("a loss for each part", str(raised.exception.__notes__))

    def test_metrics_for_each_part(self):
        model, x, y = self._interval_model()
        model.compile(
            "sgd",
            {"low": "mse", "high": "mse"},
            metrics={"low": ["mean_absolute_error"]},
        )
        result = model.evaluate(
            x, Interval(y.low + 3, y.high), verbose=0, return_dict=True
        )
        self.assertAllClose(result["low_mean_absolute_error"], 3, rtol=1e-4)
