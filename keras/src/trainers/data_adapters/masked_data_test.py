"""Masked arrays go through `fit`, `evaluate` and `predict`.

What is expected is worked out with plain NumPy: a mean over the valid steps of
each row, a linear unit, and a weighted squared error.
"""

import functools
import tracemalloc

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import optimizers
from keras.src import testing
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.masking.training import data
from keras.src.models import cloning
from keras.src.trainers.data_adapters import py_dataset_adapter
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

ROWS, STEPS, FEATURES, BATCH = 11, 5, 3, 4
RATE = 0.1
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, STEPS, FEATURES)).astype("float32")
# One row has nothing.
MASK = np.arange(STEPS) < RNG.integers(1, STEPS + 1, ROWS)[:, None]
MASK[3] = False
Y = RNG.normal(size=(ROWS, 1)).astype("float32")
KNOWN = np.arange(ROWS) % 3 != 1
KERNEL = RNG.normal(size=(FEATURES, 1)).astype("float32")
TRAINS = pytest.mark.requires_trainable_backend


def masked_tensor(values, mask):
    return backend.MaskedTensor(values, mask)


def numpy_ma(values, mask):
    hidden = ~mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    return np.ma.MaskedArray(values, np.broadcast_to(hidden, values.shape))


KINDS = {"masked_tensor": masked_tensor, "numpy_ma": numpy_ma}
POISONS = (0.0, np.nan, np.inf, 1e30)
if backend.backend() == "jax":
    # Which compiles each model anew.
    POISONS = POISONS[1:2]


def make(kind, values, mask, poison=np.nan):
    hidden = ~mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    values = np.where(hidden, np.asarray(poison, values.dtype), values)
    return KINDS[kind](values, mask)


def means(rows=slice(None)):
    """The mean of the valid steps of each row, 0 where there is none."""
    weights = MASK[rows, :, None].astype("float64")
    count = np.maximum(weights.sum(1), 1)
    return (X[rows] * weights).sum(1) / count


def trained(weights, epochs, batches):
    """The losses of epochs and the parameters after them, by hand."""
    kernel, bias, losses = KERNEL.astype("float64"), 0.0, []
    for _ in range(epochs):
        total = 0.0
        for rows in batches:
            x, y, w = means(rows), Y[rows], weights[rows][:, None]
            error = x @ kernel + bias - y
            total += (w * error**2).sum() / len(y) * len(y)
            slope = 2 * w * error / len(y)
            kernel = kernel - RATE * x.T @ slope
            bias = bias - RATE * slope.sum()
        losses.append(total / sum(map(len, (Y[rows] for rows in batches))))
    return losses, kernel, bias


def in_order(rows=ROWS):
    return [slice(i, min(i + BATCH, rows)) for i in range(0, rows, BATCH)]


def pooled(rate=RATE, **compile_arguments):
    """A linear unit on the mean over the valid steps."""
    model = models.Sequential(
        [
            layers.Input((None, FEATURES)),
            layers.GlobalAveragePooling1D(),
            layers.Dense(1),
        ]
    )
    model.layers[-1].set_weights([KERNEL, np.zeros(1)])
    model.compile(optimizers.SGD(rate), "mse", **compile_arguments)
    return model


def per_step():
    """A linear unit on each step: its output is masked."""
    model = models.Sequential([layers.Input((None, FEATURES)), layers.Dense(1)])
    model.layers[-1].set_weights([KERNEL, np.zeros(1)])
    model.compile("sgd", "mse")
    return model


def fit(model, x, y=Y, epochs=2, shuffle=False, **kwargs):
    return model.fit(
        x, y, BATCH, epochs=epochs, shuffle=shuffle, verbose=0, **kwargs
    ).history


class MaskedInputsTest(testing.TestCase):
    @parameterized.product(kind=list(KINDS), poison=POISONS)
    @TRAINS
    def test_fit(self, kind, poison):
        model = pooled()
        history = fit(model, make(kind, X, MASK, poison))
        losses, kernel, bias = trained(np.ones(ROWS), 2, in_order())
        self.assertAllClose(history["loss"], losses, atol=1e-5)
        found_kernel, found_bias = model.get_weights()
        self.assertAllClose(found_kernel, kernel, atol=1e-5)
        self.assertAllClose(found_bias[0], bias, atol=1e-5)

    @parameterized.product(kind=list(KINDS), poison=POISONS)
    def test_predict_keeps_the_order_and_the_last_batch(self, kind, poison):
        x = make(kind, X, MASK, poison)
        found = pooled().predict(x, BATCH, verbose=0)
        self.assertAllClose(found, means() @ KERNEL, atol=1e-5)
        steps = per_step().predict(x, BATCH, verbose=0)
        self.assertIsInstance(steps, np.ma.MaskedArray)
        self.assertAllEqual(~steps.mask[..., 0], MASK)
        self.assertAllClose(steps.data[MASK], (X @ KERNEL)[MASK], atol=1e-5)

    @parameterized.parameters(*KINDS)
    def test_evaluate_on_batches_and_on_one(self, kind):
        x, error = make(kind, X, MASK), means() @ KERNEL - Y
        model = pooled()
        for found in (
            model.evaluate(x, Y, BATCH, verbose=0),
            model.test_on_batch(x, Y),
        ):
            self.assertAllClose(found, (error**2).mean(), atol=1e-5)
        found = model.predict_on_batch(x)
        self.assertAllClose(found, means() @ KERNEL, atol=1e-5)

    @parameterized.parameters(*KINDS)
    @TRAINS
    def test_train_on_batch(self, kind):
        model = pooled()
        x = make(kind, X, MASK)
        found = []
        for _ in range(2):
            # Until 3.15 it gives the mean since the last reset.
            model.reset_metrics()
            found.append(model.train_on_batch(x, Y))
        losses, kernel, _ = trained(np.ones(ROWS), 2, [slice(0, ROWS)])
        self.assertAllClose(found, losses, atol=1e-5)
        self.assertAllClose(model.get_weights()[0], kernel, atol=1e-5)

    @parameterized.product(kind=list(KINDS), shuffle=(True, "batch"))
    @TRAINS
    def test_rows_and_their_masks_are_shuffled_together(self, kind, shuffle):
        """Nothing is learned, so that the loss of an epoch has no order."""
        history = fit(pooled(rate=0.0), make(kind, X, MASK), shuffle=shuffle)
        error = means() @ KERNEL - Y
        self.assertAllClose(history["loss"], [(error**2).mean()] * 2, atol=1e-5)

    @parameterized.parameters(*KINDS)
    @TRAINS
    def test_validation_split_takes_the_last_rows(self, kind):
        x, y = make(kind, X, MASK), make(kind, Y, KNOWN)
        history = fit(pooled(rate=0.0), x, y, validation_split=0.4)
        error = (means() @ KERNEL - Y)[:, 0] ** 2 * KNOWN
        split = int(ROWS * 0.6)
        for name, rows in (
            ("loss", slice(0, split)),
            ("val_loss", slice(split, ROWS)),
        ):
            expected = error[rows].mean()
            self.assertAllClose(history[name], [expected] * 2, atol=1e-5)

    @parameterized.parameters(*KINDS)
    @TRAINS
    def test_validation_data(self, kind):
        x, y = make(kind, X, MASK), make(kind, Y, KNOWN)
        history = fit(pooled(rate=0.0), X, validation_data=(x, y))
        error = (means() @ KERNEL - Y)[:, 0] ** 2 * KNOWN
        self.assertAllClose(history["val_loss"], [error.mean()] * 2, atol=1e-5)

    @parameterized.parameters("list", "dict", "tuple")
    def test_masked_and_plain_inputs_in_a_structure(self, structure):
        structure = {"list": list, "dict": dict, "tuple": tuple}[structure]
        steps = layers.Input((STEPS, FEATURES), name="steps")
        extra = layers.Input((1,), name="extra")
        pooling = layers.GlobalAveragePooling1D()(steps)
        model = models.Model(
            {"steps": steps, "extra": extra}
            if structure is dict
            else structure([steps, extra]),
            layers.Concatenate()([pooling, extra]),
        )
        for kind in KINDS:
            x = make(kind, X, MASK)
            if structure is dict:
                data = {"steps": x, "extra": Y}
            else:
                data = structure([x, Y])
            found = model.predict(data, BATCH, verbose=0)
            expected = np.concatenate([means(), Y], axis=1)
            self.assertAllClose(found, expected, atol=1e-5)

    @parameterized.parameters("int32", "bool")
    def test_values_that_are_no_floats(self, dtype):
        ids = RNG.integers(0, 2, (ROWS, STEPS)).astype(dtype)
        inputs = layers.Input((STEPS,), dtype=dtype)
        counts = ops.sum(ops.cast(inputs, "int32"), axis=1)
        model = models.Model(inputs, counts)
        for kind in KINDS:
            x = make(kind, ids, MASK, poison=1)
            found = model.predict(x, BATCH, verbose=0)
            self.assertAllEqual(np.asarray(found), (ids * MASK).sum(1))

    @parameterized.parameters(*KINDS)
    @TRAINS
    def test_an_own_train_step_sees_masked_tensors_and_weights(self, kind):
        seen = []

        class Looks(models.Sequential):
            def train_step(self, *args):
                seen.append(args[-1])
                return super().train_step(*args)

        model = Looks(pooled().layers)
        model.compile("sgd", "mse", run_eagerly=True)
        fit(model, make(kind, X, MASK), make(kind, Y, KNOWN), epochs=1)
        for rows, (x, y, weights) in zip(in_order(), seen, strict=True):
            self.assertTrue(ops.is_masked(x))
            mask = backend.convert_to_numpy(x.mask)
            self.assertAllEqual(
                mask.reshape(*mask.shape[:2], -1)[..., 0], MASK[rows]
            )
            self.assertFalse(ops.is_masked(y))
            # The mask of a `numpy.ma` array has all axes of the target.
            self.assertAllEqual(
                np.reshape(weights, -1), KNOWN[rows].astype("float32")
            )

    def test_no_more_is_copied_than_of_a_plain_array(self):
        plain = np.ones((2_000, 1_000), "float32")
        hidden = np.zeros(plain.shape, bool)
        for x in (plain, np.ma.MaskedArray(plain, hidden)):
            # What is imported and compiled for the first time counts as well.
            few = ArrayDataAdapter(x[:8], x[:8], batch_size=8)
            next(few.get_numpy_iterator())
            tracemalloc.start()
            batches = ArrayDataAdapter(x, x, batch_size=8).get_numpy_iterator()
            shapes = [next(batches)[0].shape for _ in range(3)]
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            self.assertLess(peak, plain.nbytes / 20)
            self.assertEqual({tuple(shape) for shape in shapes}, {(8, 1_000)})


def batches_of(kind, y=Y, known=KNOWN):
    """Batches with masked inputs and targets, which `known` may be None for."""
    for rows in in_order():
        targets = y[rows]
        if known is not None:
            targets = make(kind, targets, known[rows])
        yield make(kind, X[rows], MASK[rows]), targets


def generator(kind):
    while True:
        yield from batches_of(kind)


class Batches(py_dataset_adapter.PyDataset):
    def __init__(self, kind, y=Y, known=KNOWN, batches=None, **kwargs):
        super().__init__(**kwargs)
        self.batches = batches or list(batches_of(kind, y, known))

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def collate(rows, kind):
    return make(kind, X[rows], MASK[rows]), make(kind, Y[rows], KNOWN[rows])


def data_loader(kind, **kwargs):
    import torch

    return torch.utils.data.DataLoader(
        range(ROWS),
        batch_size=BATCH,
        collate_fn=functools.partial(collate, kind=kind),
        **kwargs,
    )


def loader_of(batches):
    import torch

    return torch.utils.data.DataLoader(
        batches, batch_size=1, collate_fn=lambda one: one[0]
    )


def grain_of(batches):
    import grain

    return grain.MapDataset.source(batches)


def grain_dataset(kind):
    return grain_of(list(batches_of(kind)))


def grain_loader(kind):
    return grain_loader_of(list(batches_of(kind)))


def grain_loader_of(batches):
    import grain

    return grain.DataLoader(
        data_source=batches,
        sampler=grain.samplers.SequentialSampler(
            len(in_order()), grain.sharding.NoSharding()
        ),
    )


def tf_dataset(kind, y=Y, known=KNOWN):
    import tensorflow as tf

    # There are no `numpy.ma` arrays in it.
    targets = y if known is None else make("masked_tensor", y, known)
    arrays = make("masked_tensor", X, MASK), targets
    return tf.data.Dataset.from_tensor_slices(arrays).batch(BATCH)


SOURCES = {
    "generator": generator,
    "py_dataset": Batches,
    "threads": lambda kind: Batches(kind, workers=2),
    "data_loader": data_loader,
    "grain_dataset": grain_dataset,
    "grain_loader": grain_loader,
}
# Those that give the batches of a list, in their order.
SOURCES_OF = {
    "generator": lambda batches: (batch for batch in batches),
    "py_dataset": lambda batches: Batches(None, batches=batches),
    "data_loader": loader_of,
    "grain_dataset": grain_of,
    "grain_loader": grain_loader_of,
}
# Whose masked tensors a pipeline of TensorFlow's can hold.
if backend.backend() == "tensorflow":
    SOURCES["tf_dataset"] = tf_dataset


class MaskedBatchesTest(testing.TestCase):
    # Threads do not begin with the first batch, of plain arrays neither.
    @parameterized.product(
        source=[s for s in SOURCES if s != "threads"], kind=list(KINDS)
    )
    @TRAINS
    def test_fit(self, source, kind):
        model = pooled()
        history = model.fit(
            SOURCES[source](kind),
            epochs=2,
            steps_per_epoch=len(in_order()) if source == "generator" else None,
            shuffle=False,
            verbose=0,
        ).history
        losses, kernel, bias = trained(KNOWN * 1.0, 2, in_order())
        self.assertAllClose(history["loss"], losses, atol=1e-5)
        self.assertAllClose(model.get_weights()[0], kernel, atol=1e-5)
        self.assertAllClose(model.get_weights()[1][0], bias, atol=1e-5)

    @parameterized.product(source=list(SOURCES), kind=list(KINDS))
    def test_evaluate_and_predict(self, source, kind):
        steps = len(in_order()) if source == "generator" else None
        error = (means() @ KERNEL - Y)[:, 0] ** 2 * KNOWN
        found = pooled().evaluate(SOURCES[source](kind), steps=steps, verbose=0)
        self.assertAllClose(found, error.mean(), atol=1e-5)
        found = per_step().predict(
            SOURCES[source](kind), steps=steps, verbose=0
        )
        self.assertAllEqual(~found.mask[..., 0], MASK)
        self.assertAllClose(found.data[MASK], (X @ KERNEL)[MASK], atol=1e-5)

    @pytest.mark.filterwarnings("ignore:.*fork:")
    def test_worker_processes_make_numpy_arrays(self):
        """Which any backend takes: few can be forked themselves."""
        for source in (
            data_loader("numpy_ma", num_workers=1),
            Batches("numpy_ma", workers=1, use_multiprocessing=True),
        ):
            error = (means() @ KERNEL - Y)[:, 0] ** 2 * KNOWN
            found = pooled().evaluate(source, verbose=0)
            self.assertAllClose(found, error.mean(), atol=1e-5)

    @parameterized.product(
        source=[s for s in SOURCES if s in ("py_dataset", "tf_dataset")],
        kind=list(KINDS),
        known=(KNOWN, None),
    )
    @TRAINS
    def test_weights_of_classes(self, source, kind, known):
        classes = (np.arange(ROWS) % 3).astype("float32")
        history = (
            pooled(rate=0.0)
            .fit(
                SOURCES[source](kind, classes[:, None], known),
                class_weight={0: 0.5, 1: 2.0, 2: 1.0},
                shuffle=False,
                verbose=0,
            )
            .history
        )
        weights = np.array([0.5, 2.0, 1.0])[classes.astype(int)]
        weights = weights if known is None else weights * known
        error = (means() @ KERNEL)[:, 0] - classes
        self.assertAllClose(
            history["loss"], [(error**2 * weights).mean()], atol=1e-5
        )


class MaskedTargetsTest(testing.TestCase):
    @parameterized.product(
        kind=list(KINDS), poison=POISONS, weighted=(False, True)
    )
    @TRAINS
    def test_the_mask_is_a_weight(self, kind, poison, weighted):
        given = np.linspace(0.5, 2, ROWS).astype("float32")
        weights = {"sample_weight": given} if weighted else {}
        model = pooled(weighted_metrics=["mae"])
        y = make(kind, Y, KNOWN, poison)
        history = fit(model, make(kind, X, MASK), y, **weights)
        expected = KNOWN * (given if weighted else 1.0)
        losses, kernel, _ = trained(expected, 2, in_order())
        self.assertAllClose(history["loss"], losses, atol=1e-5)
        self.assertAllClose(model.get_weights()[0], kernel, atol=1e-5)
        self.assertTrue(np.isfinite(history["mae"]).all())

    @parameterized.product(kind=list(KINDS), rank=(1, 2))
    def test_weights_and_masks_of_each_step(self, kind, rank):
        y = RNG.normal(size=(ROWS, STEPS, 1)).astype("float32")
        weights = RNG.uniform(size=(ROWS, STEPS)[:rank]).astype("float32")
        expected = MASK * (weights if rank > 1 else weights[:, None])
        error = ((X @ KERNEL - y) ** 2)[..., 0] * expected
        model = per_step()
        for found in (
            model.evaluate(X, make(kind, y, MASK), BATCH, 0, weights),
            model.test_on_batch(X, make(kind, y, MASK), weights),
        ):
            self.assertAllClose(found, error.mean(), atol=1e-5)

    @parameterized.parameters(*KINDS)
    def test_one_masked_output_of_two(self, kind):
        steps = layers.Input((STEPS, FEATURES))
        first = layers.GlobalAveragePooling1D(name="first")(steps)
        last = layers.GlobalMaxPooling1D(name="last")(steps)
        model = models.Model(steps, {"first": first, "last": last})
        model.compile(loss={"first": "mse", "last": "mse"})
        y = RNG.normal(size=(ROWS, FEATURES)).astype("float32")
        targets = {"first": make(kind, y, KNOWN), "last": y}
        # In one batch: on TensorFlow, the losses of outputs are means over
        # batches, however large.
        found = model.evaluate(
            make(kind, X, MASK), targets, ROWS, 0, return_dict=True
        )
        error = ((means() - y) ** 2).mean(1)
        self.assertAllClose(
            found["first_loss"], (error * KNOWN).mean(), atol=1e-5
        )
        valid = np.where(MASK[..., None], X, -np.inf).max(1)
        valid = np.where(np.isfinite(valid), valid, 0)
        self.assertAllClose(
            found["last_loss"], ((valid - y) ** 2).mean(), atol=1e-5
        )

    @parameterized.parameters(*KINDS)
    @TRAINS
    def test_weights_of_classes(self, kind):
        classes = (np.arange(ROWS) % 3).astype("int32")
        by_class = {0: 0.5, 1: 1.0, 2: 3.0}
        model = models.Sequential([layers.Dense(3, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        found = model.train_on_batch(
            Y, make(kind, classes, KNOWN, 7), class_weight=by_class
        )
        again = cloning.clone_model(model)
        again.compile("sgd", "sparse_categorical_crossentropy")
        weights = np.array([by_class[c] for c in classes]) * KNOWN
        model.set_weights(again.get_weights())
        found = fit(
            model, Y, make(kind, classes, KNOWN, 7), class_weight=by_class
        )
        expected = fit(again, Y, classes, sample_weight=weights)
        self.assertAllClose(found["loss"], expected["loss"], atol=1e-5)
        with self.assertRaisesRegex(ValueError, "cannot be used together"):
            fit(
                model,
                Y,
                make(kind, classes, KNOWN, 7),
                class_weight=by_class,
                sample_weight=weights,
            )

    @parameterized.product(
        kind=list(KINDS),
        of=("tags", "tags of one", "one hot"),
        source=("arrays", "on batch", "py_dataset", "tf_dataset"),
    )
    @TRAINS
    def test_weights_of_the_classes_of_each_tag(self, kind, of, source):
        if source == "tf_dataset":
            if backend.backend() != "tensorflow" or kind == "numpy_ma":
                self.skipTest("holds no such tensors")
        if of == "one hot" and kind == "numpy_ma":
            self.skipTest("whose mask is of single classes")
        tags = np.random.default_rng(0).integers(0, 4, (ROWS, STEPS))
        by_class = {1: 2.0, 2: 0.5, 3: 4.0}
        model = tagger()
        weights = np.array([1.0, 2.0, 0.5, 4.0])[tags] * MASK
        expected = (tags_by_hand(model, tags) * weights).mean()
        model.optimizer.learning_rate = 0.0
        if of == "one hot":
            model.compile(optimizers.SGD(0.0), "categorical_crossentropy")
        y = {
            "tags": tags,
            "tags of one": tags[..., None],
            "one hot": np.eye(4, dtype="float32")[tags],
        }[of]
        y = make(kind, y, MASK, 0)
        if source == "on batch":
            found = model.train_on_batch(X, y, class_weight=by_class)
        else:
            if source == "arrays":
                given = X, y, ROWS
            elif source == "py_dataset":
                given = (Batches(None, batches=[(X, y)]),)
            else:
                import tensorflow as tf

                given = (tf.data.Dataset.from_tensors((X, y)),)
            history = model.fit(
                *given, verbose=0, shuffle=False, class_weight=by_class
            )
            found = history.history["loss"][0]
        self.assertAllClose(found, expected, atol=1e-5)

    def test_what_may_be_tags_or_one_hot_is_refused(self):
        y = backend.MaskedTensor(np.ones((ROWS, 3), "int32"), KNOWN)
        with self.assertRaisesRegex(
            ValueError, r"\(11, 3\) and dtype int32.*\(11,\).*full shape"
        ):
            data.weights_of_classes(y, None, {0: 1.0})

    def test_masked_weights_weigh_nothing_where_masked(self):
        weights = np.linspace(0.5, 2, ROWS).astype("float32")
        error = (means() @ KERNEL - Y)[:, 0] ** 2
        for kind in KINDS:
            found = pooled().evaluate(
                make(kind, X, MASK),
                Y,
                BATCH,
                0,
                make(kind, weights, KNOWN),
            )
            self.assertAllClose(
                found, (error * weights * KNOWN).mean(), atol=1e-5
            )

    def test_the_number_of_rows_must_agree(self):
        for kind in KINDS:
            with self.assertRaisesRegex(ValueError, "number of samples"):
                pooled().evaluate(make(kind, X, MASK), Y[:-1], verbose=0)

    @parameterized.parameters("masked", "weighted")
    def test_weights_of_single_features(self, kind):
        """Of several tasks, some labels are missing."""
        y = RNG.uniform(size=(ROWS, 3)).astype("float32")
        some = (RNG.uniform(size=y.shape) < 0.5).astype("float32")
        poisoned = np.where(some, y, np.nan)
        data = Y, poisoned, some
        if kind == "masked":
            data = Y, np.ma.MaskedArray(poisoned, some == 0)
        model = models.Sequential([layers.Input((1,)), layers.Dense(3)])
        model.compile("sgd", "mse", weighted_metrics=["mae"])
        error = (Y @ np.asarray(model.get_weights()[0]) - y) * some
        for loss, mae in (
            model.test_on_batch(*data),
            model.evaluate(*data[:2], BATCH, 0, *data[2:]),
        ):
            self.assertAllClose(loss, (error**2).mean(), atol=1e-5)
            expected = np.abs(error).sum() / some.sum()
            self.assertAllClose(mae, expected, atol=1e-5)

    def test_weights_of_single_classes_are_refused(self):
        y = np.eye(3, dtype="float32")[np.arange(ROWS) % 3]
        some = RNG.uniform(size=y.shape) < 0.5
        model = models.Sequential(
            [layers.Input((1,)), layers.Dense(3, "softmax")]
        )
        model.compile("sgd", "categorical_crossentropy")
        with self.assertRaisesRegex(
            ValueError,
            r"(?s)\(11, 3\) weighs single entries.*`categorical_crossentropy`"
            r" of shape \(11,\).*keras.MaskedTensor\(y.data",
        ):
            model.test_on_batch(Y, np.ma.MaskedArray(y, some))
        # As it says.
        there = MASK.any(1)
        some = np.broadcast_to(~there[:, None], y.shape)
        y = np.ma.MaskedArray(y, some)
        rows = backend.MaskedTensor(y.data, ~np.ma.getmaskarray(y)[..., 0])
        p = model.predict(Y, verbose=0)
        each = -np.log((p * y.data).sum(-1)) * there
        self.assertAllClose(model.test_on_batch(Y, rows), each.mean())

    @parameterized.product(
        source=("arrays", "on batches", *SOURCES_OF),
        none=("nomask", "none", "whole rows"),
    )
    def test_tags_of_each_step(self, source, none):
        """Which values a mask has tells nothing of the axes that it covers.

        In the first batches there is nothing masked, or a row as a whole.
        """
        tags = np.random.default_rng(0).integers(0, 4, (ROWS, STEPS))
        there = np.ones(tags.shape, bool)
        if none == "whole rows":
            there[[0, 9]] = False
        there[ROWS - 1, 2:] = False
        model = tagger()
        each = tags_by_hand(model, tags) * there

        def batches():
            for rows in in_order():
                hidden = ~there[rows]
                if none == "nomask" and not hidden.any():
                    hidden = np.ma.nomask
                yield X[rows], np.ma.MaskedArray(tags[rows], hidden)

        if source == "arrays":
            y = np.ma.MaskedArray(tags, ~there)
            found = model.evaluate(X, y, BATCH, verbose=0)
        elif source == "on batches":
            found = 0
            for x, y in batches():
                # NumPy's trainer does not do so by itself.
                model.reset_metrics()
                found += len(x) * model.test_on_batch(x, y) / ROWS
        else:
            steps = len(in_order()) if source == "generator" else None
            data = SOURCES_OF[source](list(batches()))
            found = model.evaluate(data, steps=steps, verbose=0)
        self.assertAllClose(found, each.mean(), atol=1e-5)


def tagger():
    """The scores of four tags for each step, and a loss of each."""
    model = models.Sequential(
        [layers.Input((None, FEATURES)), layers.Dense(4, "softmax")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


def tags_by_hand(model, tags):
    """The loss of each tag."""
    scores = np.asarray(X @ np.asarray(model.get_weights()[0]), "float64")
    p = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    return -np.log(np.take_along_axis(p, tags[..., None], -1)[..., 0])


class BadDataTest(testing.TestCase):
    @parameterized.parameters(*KINDS)
    def test_no_rows(self, kind):
        model, x = pooled(), make(kind, X[:0], MASK[:0])
        methods = [model.predict, functools.partial(model.evaluate, y=Y[:0])]
        if backend.backend() != "numpy":
            methods.append(functools.partial(model.fit, y=Y[:0]))
        for method in methods:
            with self.assertRaisesRegex(ValueError, r"no rows.*\(0, 5, 3\)"):
                method(x, verbose=0)

    @parameterized.parameters(*KINDS)
    def test_a_model_whose_first_op_refuses(self, kind):
        inputs = layers.Input((STEPS, FEATURES))
        outputs = ops.corrcoef(ops.max(inputs, axis=0))
        model = models.Model(inputs, outputs)
        with self.assertRaisesRegex(
            UnsupportedMaskError, r"corrcoef(.|\n)*keras.ops.filled"
        ):
            model.predict(make(kind, X, MASK), verbose=0)

    @parameterized.parameters(*KINDS)
    def test_inputs_of_other_lengths_than_the_targets(self, kind):
        with self.assertRaisesRegex(ValueError, "same number of samples"):
            pooled().evaluate(make(kind, X, MASK), Y[:-1], verbose=0)

    @pytest.mark.skipif(
        backend.backend() != "torch", reason="moves tensors between devices"
    )
    def test_a_mask_on_another_device(self):
        import torch

        mask = torch.ones(X.shape[:2], dtype=torch.bool, device="meta")
        with self.assertRaisesRegex(ValueError, r"on cpu.*on meta.*mask\.to"):
            backend.MaskedTensor(torch.as_tensor(X), mask)
