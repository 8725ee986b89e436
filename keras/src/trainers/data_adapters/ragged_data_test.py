"""Ragged and nested tensors go into models as masked tensors.

Their rows are the valid steps of the rows in `masked_data_test`, whose expected
values are worked out with plain NumPy.
"""

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.backend import MaskedTensor
from keras.src.trainers.data_adapters import masked_data_test as masked
from keras.src.trainers.data_adapters import py_dataset_adapter

MASK, X, Y = masked.MASK, masked.X, masked.Y
ROWS, STEPS, FEATURES = X.shape
TRAINS = masked.TRAINS
ON_TENSORFLOW = backend.backend() == "tensorflow"
# The shortest first: on TensorFlow, two batches tell which axes vary.
BATCHES = masked.in_order()[::-1]


def tf_ragged(values, mask):
    import tensorflow as tf

    return tf.RaggedTensor.from_row_lengths(values[mask], mask.sum(1))


def torch_jagged(values, mask, layout="jagged"):
    import torch

    rows = [torch.as_tensor(row[there]) for row, there in zip(values, mask)]
    layout = getattr(torch, layout)
    return torch.nested.nested_tensor(rows, layout=layout)


def torch_nested(values, mask):
    return torch_jagged(values, mask, "strided")


KINDS = {f.__name__: f for f in (tf_ragged, torch_jagged, torch_nested)}


def batches_of(kind):
    for rows in BATCHES:
        yield KINDS[kind](X[rows], MASK[rows]), Y[rows]


class Batches(py_dataset_adapter.PyDataset):
    def __init__(self, kind):
        super().__init__()
        self.batches = list(batches_of(kind))

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def tf_dataset(kind):
    import tensorflow as tf

    arrays = KINDS[kind](X, MASK), Y
    return tf.data.Dataset.from_tensor_slices(arrays).batch(masked.BATCH)


@pytest.mark.filterwarnings("ignore:.*nested tensors is in prototype stage")
class RaggedDataTest(testing.TestCase):
    @parameterized.parameters(*KINDS)
    def test_from_ragged(self, kind):
        for length in (None, STEPS + 3):
            x = MaskedTensor.from_ragged(KINDS[kind](X, MASK), length)
            self.assertEqual(tuple(x.shape)[1], length or MASK.sum(1).max())
            rows = x.to_ragged()
            self.assertLen(rows, ROWS)
            for found, values, mask in zip(rows, X, MASK):
                self.assertAllEqual(found, values[mask])
            self.assertEqual(backend.standardize_dtype(x.dtype), "float32")
        with self.assertRaisesRegex(ValueError, r"no longer than length=2"):
            MaskedTensor.from_ragged(KINDS[kind](X, MASK), 2)

    def test_from_several_ragged_axes(self):
        import tensorflow as tf

        rows = [[[1, 2], [], [3]], [], [[4, 5, 6]]]
        x = MaskedTensor.from_ragged(tf.ragged.constant(rows))
        expected = np.zeros((3, 3, 3), "int32")
        expected[0, 0, :2], expected[0, 2, 0], expected[2, 0] = (
            (1, 2),
            3,
            (4, 5, 6),
        )
        self.assertAllEqual(x.mask, expected > 0)
        self.assertAllEqual(x.values, expected)

    @parameterized.product(depth=(1, 2, 3), features=((), (2,)))
    def test_nested_lists(self, depth, features):
        """Documents of sentences of words, each maybe with features."""
        rng = np.random.default_rng(depth)
        expected, places = {}, []

        def make(place):
            n = rng.integers(0, 4)
            if len(place) < depth:
                return [make((*place, i)) for i in range(n)]
            for i in range(n):
                value = rng.integers(1, 99, features)
                expected[(*place, i)] = value
                places.append((*place, i))
            return [expected[(*place, i)].tolist() for i in range(n)]

        rows = [make((i,)) for i in range(6)]
        x = MaskedTensor.from_ragged(rows, ragged_rank=depth)
        shape = np.max(places, 0) + 1
        self.assertEqual(tuple(x.mask.shape)[1:], tuple(shape)[1:])
        self.assertEqual(tuple(x.shape), (*x.mask.shape, *features))
        self.assertIn("int", backend.standardize_dtype(x.dtype))
        mask = ops.convert_to_numpy(x.mask)
        self.assertEqual({*zip(*np.nonzero(mask))}, {*places})
        values = ops.convert_to_numpy(x.values)
        for place, value in expected.items():
            self.assertAllEqual(values[place], value)
        if not features:
            found = MaskedTensor.from_ragged(rows)
            self.assertAllEqual(found.mask, mask)
            lengths = tuple(int(n) + 1 for n in mask.shape[1:])
            longer = MaskedTensor.from_ragged(rows, lengths)
            self.assertEqual(tuple(longer.shape)[1:], lengths)
            with self.assertRaisesRegex(ValueError, "no longer than length"):
                MaskedTensor.from_ragged(rows, (*mask.shape[1:-1], 1))

    def test_of_one_rank_though_regular_by_chance(self):
        rows = [[[1, 2], [3, 4]], [[5, 6]]]
        for rank in (1, 2):
            x = MaskedTensor.from_ragged(rows, ragged_rank=rank)
            self.assertEqual(tuple(x.shape), (2, 2, 2))
            self.assertLen(x.mask.shape, 1 + rank)

    @parameterized.parameters(
        ([[1, 2], []], "int"),
        ([[], []], "float"),
        ([], "float"),
        ([[True], []], "bool"),
        ([[1.0], [2]], "float"),
        ([np.zeros(2, "float64"), []], "float"),
        ([np.zeros(2, "float16")], "float"),
        ([np.zeros((2, 3), "uint8"), []], "uint8"),
        ([[[1], []], []], "int"),
    )
    def test_the_dtype_of_rows_of_which_some_are_empty(self, rows, kind):
        found = MaskedTensor.from_ragged(rows)
        dtype = backend.standardize_dtype(found.dtype)
        if kind == "float":
            self.assertEqual(dtype, backend.floatx())
        self.assertTrue(dtype.startswith(kind), dtype)

    @parameterized.parameters(*KINDS)
    def test_floats_of_ragged_tensors_are_of_floatx(self, kind):
        x = MaskedTensor.from_ragged(KINDS[kind](X.astype("float64"), MASK))
        dtype = backend.standardize_dtype(x.dtype)
        self.assertEqual(dtype, backend.floatx())

    def test_rows_of_differing_features_are_refused(self):
        import torch

        rows = [torch.ones(2, 3), torch.ones(4, 2)]
        with self.assertRaisesRegex(ValueError, r"\(2, 3\), \(4, 2\)"):
            MaskedTensor.from_ragged(torch.nested.nested_tensor(rows))

    @parameterized.parameters(*KINDS)
    @TRAINS
    def test_fit(self, kind):
        x = KINDS[kind](X, MASK)
        model = masked.pooled()
        history = masked.fit(model, x, validation_data=(x, Y))
        losses, kernel, _ = masked.trained(np.ones(ROWS), 2, masked.in_order())
        self.assertAllClose(history["loss"], losses, atol=1e-5)
        self.assertAllClose(model.get_weights()[0], kernel, atol=1e-5)
        self.assertAllClose(
            history["val_loss"][-1], model.evaluate(x, Y, verbose=0), atol=1e-5
        )

    @parameterized.parameters(*KINDS)
    @TRAINS
    def test_validation_split(self, kind):
        model = masked.pooled(rate=0.0)
        x = KINDS[kind](X, MASK)
        history = masked.fit(model, x, validation_split=0.4)
        error = ((masked.means() @ masked.KERNEL - Y) ** 2)[int(ROWS * 0.6) :]
        self.assertAllClose(history["val_loss"], [error.mean()] * 2, atol=1e-5)

    @parameterized.parameters(*KINDS)
    def test_predict_and_evaluate(self, kind):
        x = KINDS[kind](X, MASK)
        expected = masked.means() @ masked.KERNEL
        model = masked.pooled()
        for found in (
            model.predict(x, masked.BATCH, verbose=0),
            model.predict_on_batch(x),
        ):
            self.assertAllClose(found, expected, atol=1e-5)
        for found in (
            model.evaluate(x, Y, masked.BATCH, verbose=0),
            model.test_on_batch(x, Y),
        ):
            self.assertAllClose(found, ((expected - Y) ** 2).mean(), atol=1e-5)
        steps = masked.per_step().predict(x, masked.BATCH, verbose=0)
        self.assertAllEqual(~steps.mask[..., 0], MASK[:, : steps.shape[1]])

    @parameterized.parameters(*KINDS)
    def test_ragged_targets_are_weights(self, kind):
        y = masked.RNG.normal(size=(ROWS, STEPS, 1)).astype("float32")
        error = ((X @ masked.KERNEL - y) ** 2)[..., 0] * MASK
        model = masked.per_step()
        y = KINDS[kind](y, MASK)
        for found in (
            model.evaluate(X, y, masked.BATCH, verbose=0),
            model.test_on_batch(X, y),
        ):
            self.assertAllClose(found, error.mean(), atol=1e-5)

    @parameterized.parameters(*KINDS)
    def test_in_a_structure(self, kind):
        steps = layers.Input((None, FEATURES), name="steps")
        extra = layers.Input((1,), name="extra")
        pooled = layers.GlobalAveragePooling1D()(steps)
        model = models.Model({"steps": steps, "extra": extra}, pooled * extra)
        data = {"steps": KINDS[kind](X, MASK), "extra": Y}
        found = model.predict(data, masked.BATCH, verbose=0)
        self.assertAllClose(found, masked.means() * Y, atol=1e-5)

    @parameterized.product(
        source=(batches_of, Batches, tf_dataset), kind=list(KINDS)
    )
    def test_sources_of_batches(self, source, kind):
        if source is tf_dataset and kind != "tf_ragged":
            self.skipTest("A tf.data.Dataset holds no tensors of PyTorch")
        if source is Batches and kind == "tf_ragged" and ON_TENSORFLOW:
            self.skipTest("A PyDataset hands ragged tensors on, as upstream")
        expected = masked.means() @ masked.KERNEL
        model = masked.pooled()
        steps = len(BATCHES) if source is batches_of else None
        found = model.evaluate(source(kind), steps=steps, verbose=0)
        self.assertAllClose(found, ((expected - Y) ** 2).mean(), atol=1e-5)
        if backend.backend() != "numpy":
            history = model.fit(
                source(kind), steps_per_epoch=steps, shuffle=False, verbose=0
            ).history
            order = masked.in_order() if source is tf_dataset else BATCHES
            losses, *_ = masked.trained(np.ones(ROWS), 1, order)
            self.assertAllClose(history["loss"], losses, atol=1e-5)

    @TRAINS
    def test_weights_of_classes_in_a_dataset(self):
        import tensorflow as tf

        classes = (np.arange(ROWS) % 3).astype("float32")
        arrays = tf_ragged(X, MASK), classes[:, None]
        data = tf.data.Dataset.from_tensor_slices(arrays).batch(ROWS)
        history = masked.pooled(rate=0.0).fit(
            data,
            class_weight={0: 0.5, 1: 2.0, 2: 1.0},
            shuffle=False,
            verbose=0,
        )
        error = (masked.means() @ masked.KERNEL)[:, 0] - classes
        weights = np.array([0.5, 2.0, 1.0])[classes.astype(int)]
        self.assertAllClose(
            history.history["loss"][0], (error**2 * weights).mean(), atol=1e-5
        )

    @pytest.mark.skipif(not ON_TENSORFLOW, reason="has ragged tensors itself")
    def test_a_model_for_ragged_tensors_gets_them(self):
        seen = []

        class Looks(layers.Layer):
            def call(self, x):
                seen.append(type(x).__name__)
                return x

        inputs = layers.Input((None, FEATURES), ragged=True)
        model = models.Model(inputs, Looks()(inputs))
        seen.clear()
        model.predict(tf_ragged(X, MASK), verbose=0)
        self.assertEqual(set(seen), {"RaggedTensor"})

    @pytest.mark.skipif(
        ON_TENSORFLOW, reason="A layer of others may be made for ragged tensors"
    )
    def test_a_layer_gets_a_masked_tensor(self):
        seen = []

        class Looks(layers.Layer):
            def call(self, x):
                seen.append(ops.is_masked(x))
                return ops.mean(x, axis=1)

        inputs = layers.Input((None, FEATURES))
        model = models.Model(inputs, Looks()(inputs))
        seen.clear()
        found = model.predict(tf_ragged(X, MASK), verbose=0)
        self.assertEqual(set(seen), {True})
        there = MASK.any(1)
        self.assertAllClose(found[there], masked.means()[there], atol=1e-5)
