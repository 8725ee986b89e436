"""Packing is storage: every row and every layer gives what padded ones get.

The padded result is held against oracles elsewhere. Here each example is run on
packed operands as well, of one layout and of different ones, and compared.
"""

import contextlib
import os
import pickle
import zlib
from unittest import mock

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.distribution import distribution_lib
from keras.src.masking import packing
from keras.src.masking.layers import layers_test
from keras.src.masking.training import data
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.row_checks import EXAMPLES
from keras.src.testing.masked.row_checks import call
from keras.src.testing.masked.row_checks import tolerance_of
from keras.src.utils import sequence_utils
from keras.src.utils import set_random_seed
from patchset.markers import when

MaskedTensor = backend.MaskedTensor


def is_packable(x):
    return isinstance(x, MaskedTensorBase) and len(x.mask.shape) == 2


def packed(args):
    """The operands, packed where they can be; of one layout if they agree.

    Where the flat steps make up a capacity, what is none of them holds a large
    number, as an op may leave one there.
    """
    found = []

    def one(x):
        if not is_packable(x):
            return x
        for other in found:
            if other.mask is x.mask:
                return hidden(other.with_flat(packing.packed(x.values, other)))
        found.append(x.packed())
        return hidden(found[-1])

    return map_nest(one, args)


def hidden(x):
    if x.there is None or not u.is_float(x.flat):
        return x
    large = ops.cast(1e30 if x.dtype != "float16" else 6e4, x.dtype)
    there = ops.expand_dims(x.there, tuple(range(1, len(x.flat.shape))))
    return x.with_flat(ops.where(there, x.flat, large))


@contextlib.contextmanager
def counted():
    """The shapes of flat steps that are padded meanwhile."""
    found, plain = [], packing.unpacked

    def unpacked(flat, layout):
        found.append(tuple(flat.shape))
        return plain(flat, layout)

    with mock.patch.object(packing, "unpacked", unpacked):
        yield found


def map_nest(function, x):
    return u.map_leaves(function, x, MaskedTensorBase)


def with_one_mask(args):
    """The operands, those whose masks have one shape with one mask."""
    known = {}

    def one(x):
        mask = known.setdefault(tuple(x.mask.shape), x.mask)
        return MaskedTensor(x.values, mask)

    return map_nest(one, args)


def packed_examples():
    """The examples in which a mask covers batch and time."""
    found = []
    for name, examples in EXAMPLES.items():
        for i, example in enumerate(examples):
            masks = [t.mask for t in u.leaves(example, u.T)]
            if 2 in masks:
                found.append((f"{name}_{i}", name, example))
    return found


class Watch(layers.Layer):
    """Notes its name where it is called on what is packed."""

    seen = set()

    def call(self, x):
        # To build a model, layers are traced with padded tensors.
        if packing.is_packed(x):
            Watch.seen.add(self.name)
        return x


class Noting(models.Sequential):
    """Notes whether a target comes packed to its loss."""

    packed = False

    def compute_loss(self, x, y, *args, **kwargs):
        Noting.packed |= packing.is_packed(y)
        return super().compute_loss(x, y, *args, **kwargs)


def some(cases):
    """All on NumPy, a third elsewhere: ways are written in ops of Keras."""
    cases = list(cases)
    if backend.backend() == "torch" and not os.environ.get("EVERY_CASE"):
        return cases[2::3]
    return u.part(cases)


class SameResults:
    def assert_same(self, result, expected, tolerance, label):
        """The same masks, and the same values where they are True."""
        found, wanted = tree.flatten(result), tree.flatten(expected)
        self.assertEqual(len(found), len(wanted), label)
        for one, other in zip(u.parts(found), u.parts(wanted)):
            values, mask = one
            right, right_mask = other
            self.assertEqual(values.shape, right.shape, label)
            self.assertEqual(values.dtype, right.dtype, label)
            self.assertEqual(mask is None, right_mask is None, label)
            if mask is not None:
                np.testing.assert_array_equal(mask, right_mask, label)
                values, right = values[mask], right[mask]
            if values.dtype.kind in "SUOb":
                np.testing.assert_array_equal(values, right, label)
                continue
            np.testing.assert_allclose(
                values, right, rtol=tolerance, atol=tolerance, err_msg=label
            )


class TablesTest(testing.TestCase, SameResults):
    @parameterized.named_parameters(some(packed_examples()))
    def test_row(self, name, example):
        for share in (0.0, 0.5):
            label = f"{name} {example} share={share}"
            drawn = u.draw(example, zlib.crc32(label.encode()), share)
            args = u.masked(drawn)
            for padded in (args, with_one_mask(args)):
                expected, error = outcome(name, padded)
                result, own_error = outcome(name, packed(padded))
                self.assertEqual(type(own_error), type(error), label)
                if error is None:
                    self.assert_same(
                        result, expected, tolerance_of(drawn), label
                    )

    @parameterized.named_parameters(
        some(
            (label, case)
            for label, case in layers_test.NAMED_CASES
            if 2 in [t.mask for t in u.leaves(case.args, u.T)]
        )
    )
    def test_layer(self, case):
        args = u.masked(layers_test.drawn_of(case))
        set_random_seed(1)
        layer = case.make()
        layer(*args)
        states = [backend.convert_to_numpy(v) for v in layer.variables]
        for training in (False, True):
            kwargs = {}
            if "training" in layer._call_signature.parameters:
                kwargs["training"] = training
            # PyTorch draws by a state of its own where no seed is given.
            set_random_seed(2)
            expected = layer(*args, **kwargs)
            after = [backend.convert_to_numpy(v) for v in layer.variables]
            for variable, value in zip(layer.variables, states):
                variable.assign(value)
            set_random_seed(2)
            result = layer(*packed(args), **kwargs)
            self.assert_same(result, expected, 1e-4, f"training={training}")
            for variable, value in zip(layer.variables, after):
                self.assertAllClose(variable, value, msg=variable.path)


def outcome(name, args):
    """What a row gives, or the error that it raises."""
    try:
        return call(name, args), None
    except Exception as error:
        return None, error


BATCH, TIME, FEATURES = 4, 6, 3
MASK = np.array(
    [
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 1, 0, 1, 1, 0],
        [1, 0, 0, 0, 0, 0],
    ],
    "bool",
)
VALUES = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES))
VALUES = VALUES.astype("float32")
# All shapes that broadcast with the values.
BESIDE = [
    (), (1,), (3,), (6, 3), (1, 3), (6, 1), (4, 6, 3), (1, 6, 3), (4, 1, 3),
    (4, 6, 1), (1, 1, 3), (1, 1, 1), (2, 1, 1, 1), (2, 4, 6, 3),
]  # fmt: skip


def padded_and_packed(mask=MASK, values=VALUES):
    x = MaskedTensor(values, mask)
    return x, hidden(x.packed())


class Block(layers.Layer):
    """Attention and a feed-forward part, as users write it."""

    def __init__(self):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 3)
        self.normalization = layers.LayerNormalization()
        self.hidden = layers.Dense(8, "gelu")
        self.outer = layers.Dense(FEATURES)

    def call(self, x):
        x = x + self.attention(x, x)
        return x + self.outer(self.hidden(self.normalization(x)))


class StorageTest(testing.TestCase, SameResults):
    def test_it_is_a_masked_tensor(self):
        x, y = padded_and_packed()
        self.assertIsInstance(y, MaskedTensor)
        self.assertTrue(y.is_packed)
        self.assertFalse(x.is_packed)
        self.assertFalse(y.padded().is_packed)
        self.assertEqual(tuple(y.shape), VALUES.shape)
        self.assertEqual(y.ndim, 3)
        self.assertEqual(tuple(ops.shape(y)), VALUES.shape)
        self.assertIs(y.packed(), y)
        self.assert_same(y, x, 0, "")
        self.assert_same(y.padded(), x, 0, "")
        self.assertLess(y.flat.shape[0], MASK.size)
        self.assertIn("packed in", repr(y))
        self.assert_same(pickle.loads(pickle.dumps(y)), x, 0, "")

    def test_ragged_rows(self):
        ragged = [[1, 2, 3], [], [4]]
        x = MaskedTensor.from_ragged(ragged, packed=True)
        self.assertTrue(x.is_packed)
        found = [row.tolist() for row in x.to_ragged()]
        self.assertEqual(found, ragged)

    def test_padded_sequences(self):
        pad = sequence_utils.pad_sequences
        for padding in ("pre", "post"):
            kwargs = {"padding": padding, "masked": True}
            x = pad([[1, 2, 3], [], [4]], packed=True, **kwargs)
            self.assertTrue(x.is_packed)
            self.assert_same(x, pad([[1, 2, 3], [], [4]], **kwargs), 0, "")
        with self.assertRaisesRegex(ValueError, "masked=True, packed=True"):
            pad([[1]], packed=True)

    @parameterized.parameters(
        ((4,), "rows as a whole"), ((4, 6, 3), "inside of steps")
    )
    def test_a_mask_of_another_rank(self, shape, reason):
        x = MaskedTensor(VALUES, np.ones(shape, "bool"))
        with self.assertRaisesRegex(ValueError, reason):
            x.packed()

    def test_capacity(self):
        x, _ = padded_and_packed()
        count = MASK.sum()
        for capacity in (count, count + 3, MASK.size):
            y = hidden(x.packed(int(capacity)))
            self.assertEqual(y.flat.shape[0], capacity)
            self.assert_same(y + 1, x + 1, 0, "")
            self.assert_same(ops.mean(y), ops.mean(x), 1e-6, "")
        with self.assertRaisesRegex(ValueError, "8 valid steps"):
            x.packed(int(count) - 1)

    def test_capacities_are_few_and_near(self):
        found = {n: packing.capacity_for(n) for n in range(1, 5000)}
        for count, capacity in found.items():
            self.assertGreaterEqual(capacity, count)
            self.assertLessEqual(capacity, count * 9 / 8)
        known = set(found.values())
        for count in (9, 100, 2000):
            near = [n for n in known if count < n <= 2 * count]
            self.assertLessEqual(len(near), 8)

    def test_an_epoch_compiles_few_programs(self):
        """A thousand batches of 32 rows of any length up to 128."""
        rng = np.random.default_rng(0)
        found = set()
        for _ in range(1000):
            lengths = rng.integers(1, 129, 32)
            mask = np.arange(128) < lengths[:, None]
            places = np.flatnonzero(mask)
            found.add(
                (
                    packing.capacity_for(len(places)),
                    packing._limit(places, 128)
                    if not backend.PackedTensor._is_exact
                    else None,
                )
            )
        self.assertLessEqual(len(found), 8)

    @parameterized.parameters(np.nan, np.inf, 1e30)
    def test_nothing_under_the_mask_goes_in(self, poison):
        values = np.where(MASK[..., None], VALUES, np.float32(poison))
        x = MaskedTensor._wrap(
            *map(backend.convert_to_tensor, (values, MASK))
        ).packed()
        wanted, _ = padded_and_packed()
        for function in (ops.exp, ops.square, ops.softmax, ops.mean, ops.var):
            self.assert_same(function(x), function(wanted), 1e-5, "")

    @parameterized.parameters(*[[shape] for shape in BESIDE])
    def test_plain_operands(self, shape):
        """Those that go with batch and time are taken to the flat steps."""
        x, y = padded_and_packed()
        other = np.random.default_rng(1).normal(size=shape)
        other = other.astype("float32")
        poisoned = other.copy()
        if shape == VALUES.shape:
            poisoned[~MASK] = np.nan
        for function in (ops.add, ops.multiply, ops.divide, ops.maximum):
            for one, two in ((other, x), (x, other)):
                wanted = function(one, two)
                for plain in (other, poisoned):
                    pair = (plain, y) if one is other else (y, plain)
                    label = f"{function} {shape}"
                    self.assert_same(function(*pair), wanted, 1e-5, label)
        for condition in (True, False):
            wanted = ops.where(x > 0 if condition else other > 0, x, other)
            result = ops.where(y > 0 if condition else other > 0, y, other)
            self.assert_same(result, wanted, 0, f"where {shape}")

    def test_rows_of_the_batch(self):
        x, y = padded_and_packed()
        for key in (slice(2), slice(1, 2), slice(1, 4, 2), slice(0)):
            self.assertTrue(y[key].is_packed)
            self.assert_same(y[key], x[key], 0, str(key))
            self.assert_same(y[key] + 1, x[key] + 1, 0, str(key))

    def test_nothing_valid(self):
        for mask in (np.zeros_like(MASK), np.zeros((0, 6), "bool")):
            values = VALUES[: len(mask)]
            x, y = padded_and_packed(mask, values)
            self.assert_same(y, x, 0, "")
            functions = [ops.mean, ops.sum, lambda x: ops.exp(x) + 1]
            if len(mask):
                functions.append(lambda x: ops.max(x, -1))
            for function in functions:
                self.assert_same(function(y), function(x), 0, "")

    def test_a_chain_stays_packed(self):
        """Nothing is padded but what attention makes its scores of."""
        x = MaskedTensor(np.ones(MASK.shape, "int32"), MASK).packed()
        model = [layers.Embedding(4, FEATURES), Block(), Block()]
        model.append(layers.Dense(2))
        for layer in model:
            x = layer(x)
        x = MaskedTensor(np.ones(MASK.shape, "int32"), MASK).packed()
        with counted() as padded:
            for layer in model:
                x = layer(x)
        self.assertTrue(x.is_packed)
        # Query, key and value of each block.
        self.assertEqual(len(padded), 6)

    @parameterized.parameters(True, False)
    def test_ids_that_are_0_are_masked(self, mask_zero):
        ids = np.array([[1, 0, 2, 3, 0, 0]] + [[2, 2, 0, 1, 3, 3]] * 3, "int32")
        embedding = layers.Embedding(4, FEATURES, mask_zero=mask_zero)
        for none in (False, True):
            x = MaskedTensor(np.maximum(ids, 1) if none else ids, MASK)
            wanted = ops.exp(embedding(x))
            with counted() as padded:
                result = ops.exp(embedding(hidden(x.packed())))
            self.assertTrue(result.is_packed)
            # The mask itself is one of batch and time.
            self.assertLessEqual({len(shape) for shape in padded}, {1})
            self.assert_same(result, wanted, 1e-6, "")
            self.assert_same(ops.mean(result, 1), ops.mean(wanted, 1), 1e-6, "")

    @when(">=3.15")  # Which has `segment_min`.
    @parameterized.parameters("max", "min")
    def test_extremes_over_time(self, name):
        """Rows with several of them, without one, and with what is none."""
        values = np.round(VALUES)
        values[0, 1, 0], values[3, 0, 1] = np.inf, np.nan
        values[2, :, 2] = 0.1
        x, y = padded_and_packed(values=values)
        function = getattr(ops, name)
        with counted() as padded:
            result = function(y, axis=1)
        self.assertEqual(padded, [])
        wanted = function(x, axis=1)
        self.assert_same(result, wanted, 0, "")
        self.assertTrue(
            np.isfinite(ops.convert_to_numpy(result.values)[1]).all()
        )
        wanted = function(x, axis=1, initial=0.5)
        self.assert_same(function(y, axis=1, initial=0.5), wanted, 0, "")
        if backend.backend() == "numpy":
            return
        values[0, 1, 0] = values[3, 0, 1] = 0
        weights = backend.convert_to_tensor(VALUES[:, 0])
        slopes = [
            u.gradients(
                lambda a, pack=pack: ops.sum(
                    function(pack(MaskedTensor(a[0], MASK)), axis=1).values
                    * weights
                ),
                [values],
            )
            for pack in (MaskedTensor.padded, MaskedTensor.packed)
        ]
        self.assertAllClose(*slopes, 1e-6)

    @parameterized.product(
        kind=("LSTM", "GRU"), options=((), ("return_sequences",))
    )
    def test_recurrent_layers_go_over_valid_steps(self, kind, options):
        """On PyTorch; each row by itself, those without a step included."""
        if backend.backend() != "torch":
            self.skipTest("Others have no function for that.")
        set_random_seed(1)
        layer = getattr(layers, kind)(
            4, return_state=True, **dict.fromkeys(options, True)
        )
        x, y = padded_and_packed()
        count = len(layer(x)) - 1
        states = [np.float32(VALUES[:, i, :1] + [0, 1, 2, 3]) for i in range(2)]
        for given in (None, states[:count]):
            wanted = layer(x, initial_state=given)
            for packed in (y, hidden(x.packed(20))):
                with counted() as padded:
                    result = layer(packed, initial_state=given)
                self.assertEqual(padded, [])
                self.assert_same(result, wanted, 1e-6, str(given))

    def test_recurrent_layers_skip_steps_in_between(self):
        """Which stay where they are among the flat ones."""
        ids = np.array([[1, 0, 2, 3, 0, 0]] + [[2, 2, 0, 1, 3, 3]] * 3, "int32")
        embedding = layers.Embedding(4, FEATURES, mask_zero=True)
        for kind in ("LSTM", "GRU"):
            layer = getattr(layers, kind)(4, return_sequences=True)
            for one in (layer, layers.Bidirectional(layer)):
                x, y = MaskedTensor(ids, MASK), MaskedTensor(ids, MASK).packed()
                wanted = one(embedding(x))
                self.assert_same(one(embedding(y)), wanted, 1e-6, kind)

    @parameterized.product(
        kind=("LSTM", "GRU"),
        option=("go_backwards", "stateful", "dropout", "recurrent_dropout"),
        both=(False, True),
        sequences=(False, True),
    )
    def test_recurrent_layers_in_their_other_forms(
        self, kind, option, both, sequences
    ):
        """Twice each, for states and draws that the first call leaves."""
        given = {option: 0.5 if "dropout" in option else True}
        results = []
        for x in padded_and_packed():
            set_random_seed(1)
            layer = getattr(layers, kind)(
                4, return_sequences=sequences, return_state=True, **given
            )
            if both and option != "go_backwards":
                layer = layers.Bidirectional(layer)
            elif both:
                layer = layers.Bidirectional(
                    getattr(layers, kind)(4, return_sequences=sequences),
                    merge_mode="sum",
                )
            layer(x)
            with counted() as padded:
                found = [layer(x, training=True) for _ in range(2)]
            over_steps = x.is_packed and option != "recurrent_dropout"
            if backend.backend() == "torch" and over_steps:
                self.assertEqual(padded, [])
                first = tree.flatten(found[0])[0]
                self.assertEqual(ops.is_masked(first), sequences)
                if sequences:
                    self.assertTrue(first.is_packed)
            results.append(found)
        self.assert_same(*results, 1e-6, "")

    @parameterized.product(
        kind=("LSTM", "GRU"),
        options=(
            {},
            {"go_backwards": True},
            {"dropout": 0.5},
            {"stateful": True},
        ),
        capacity=(None, 3),
    )
    def test_recurrent_layers_of_no_step(self, kind, options, capacity):
        x = MaskedTensor(VALUES, np.zeros_like(MASK))
        for sequences in (False, True):
            layer = getattr(layers, kind)(
                4, return_sequences=sequences, **options
            )
            plain = getattr(layers, kind)(4, return_sequences=sequences)
            for one in (layer, layers.Bidirectional(plain)):
                wanted = one(x, training=True)
                result = one(x.packed(capacity), training=True)
                self.assert_same(result, wanted, 1e-6, "")

    @parameterized.parameters(
        ("GRU", {"reset_after": False}),
        ("LSTM", {"activation": "relu"}),
        ("GRU", {"recurrent_activation": "hard_sigmoid"}),
    )
    def test_recurrent_layers_of_unusual_forms(self, kind, options):
        """Which the engine's function has not: they get padded tensors."""
        results = []
        for x in padded_and_packed():
            set_random_seed(1)
            layer = getattr(layers, kind)(4, return_sequences=True, **options)
            both = layers.Bidirectional(
                getattr(layers, kind)(4, go_backwards=True),
                backward_layer=getattr(layers, kind)(4, **options),
            )
            results.append([one(x, training=True) for one in (layer, both)])
        self.assert_same(*results, 1e-6, "")

    @parameterized.parameters("concat", "sum", "ave", "mul", None)
    def test_both_directions(self, merge_mode):
        for kind in ("LSTM", "GRU"):
            set_random_seed(1)
            layer = layers.Bidirectional(
                getattr(layers, kind)(4, return_sequences=True),
                merge_mode=merge_mode,
            )
            x, y = padded_and_packed()
            result = layer(y)
            self.assert_same(result, layer(x), 1e-6, "")
            if backend.backend() == "torch":
                self.assertTrue(tree.flatten(result)[0].is_packed)

    def test_a_stateful_layer_wants_its_batches(self):
        layer = layers.LSTM(4, stateful=True)
        x, y = padded_and_packed()
        layer(y)
        with self.assertRaisesRegex(ValueError, "batch size"):
            layer(y[:2])

    @parameterized.parameters(None, 20)
    def test_times_turned_round(self, capacity):
        x, _ = padded_and_packed()
        y = hidden(x.packed(capacity))

        def twice(x):
            once = ops.flip(x, axis=1)
            return once, ops.flip(ops.exp(once), axis=-2)

        for function in (twice, compiled(twice)):
            with counted() as padded:
                found = function(y)
            self.assertEqual(padded, [])
            self.assertTrue(all(one.is_packed for one in found))
            self.assert_same(found, twice(x), 1e-6, "")
        # It is the layout from which it came.
        self.assertIs(twice(y)[1].mask, y.mask)
        self.assertTrue((twice(y)[1] + y).is_packed)

    @parameterized.parameters(
        lambda kind: getattr(layers, kind)(4, return_sequences=True),
        lambda kind: layers.Bidirectional(getattr(layers, kind)(4)),
        lambda kind: layers.Bidirectional(
            getattr(layers, kind)(4, return_sequences=True)
        ),
        lambda kind: getattr(layers, kind)(4, stateful=True),
    )
    def test_gradients_of_recurrent_layers(self, make):
        if backend.backend() != "torch":
            self.skipTest("Others have no function for that.")
        for kind in ("LSTM", "GRU"):
            set_random_seed(1)
            layer = make(kind)
            slopes = []
            for x in padded_and_packed():
                layer(x)
                layer.zero_grad()
                if getattr(layer, "stateful", False):
                    layer.reset_state()
                ops.sum(ops.square(layer(x))).backward()
                slopes.append([v.value.grad for v in layer.trainable_variables])
            for one, other in zip(*slopes):
                self.assertAllClose(one, other, 1e-5)

    def test_gradients(self):
        if backend.backend() == "numpy":
            self.skipTest("NumPy has no gradients.")
        set_random_seed(1)
        weights = np.random.default_rng(2).normal(size=(FEATURES, FEATURES))
        factors = np.random.default_rng(3).normal(size=VALUES.shape)

        def number(kind, arrays):
            values, kernel = arrays
            x = MaskedTensor(values, MASK)
            x = x.packed() if kind == "packed" else x
            x = ops.matmul(x, kernel) * factors.astype("float32")
            x = ops.softmax(x + ops.cumsum(x, axis=1))
            return ops.sum(ops.mean(x, axis=1).values * kernel[0])

        arrays = [VALUES, weights.astype("float32")]
        padded, packed_ones = (
            u.gradients(lambda a, kind=kind: number(kind, a), arrays)
            for kind in ("padded", "packed")
        )
        for one, other in zip(padded, packed_ones):
            self.assertAllClose(one, other, atol=1e-5)

    def test_a_dataset_of_packed_targets(self):
        """Their masks are weights, as in a dataset of padded ones."""
        if backend.backend() != "tensorflow":
            self.skipTest("Datasets of others hold no masked tensors.")
        import tensorflow as tf

        x = MaskedTensor(VALUES, MASK)
        y = MaskedTensor(VALUES[..., :1], MASK)
        padded = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
        packed = padded.map(lambda x, y: (x.packed(), y.packed()))
        model = models.Sequential([layers.Dense(1)])
        model.compile("sgd", "mse", weighted_metrics=["mae"], jit_compile=False)
        wanted = model.evaluate(x, y, verbose=0)
        for dataset in (padded, packed):
            self.assertAllClose(model.evaluate(dataset, verbose=0), wanted)

    # Until 3.15 no constant of NumPy can be part of a graph of PyTorch's.
    @when(">=3.15")
    def test_within_a_compiler(self):
        """It goes in and comes out as it is."""
        x, y = padded_and_packed()

        def function(x):
            return ops.softmax(ops.exp(x) + 1), ops.mean(x, axis=1)

        self.assert_same(compiled(function)(y), function(x), 1e-5, "")
        self.assertTrue(compiled(function)(y)[0].is_packed)

    def test_training_knows_the_longest_row(self):
        """So scores of attention are computed up to that one."""
        seen = []

        class Limit(layers.Layer):
            def call(self, x):
                if packing.is_packed(x):
                    seen.append(x.limit)
                return x

        mask = np.tile(np.arange(64) < 5, (4, 1))
        x = MaskedTensor(np.ones((4, 64, 2), "float32"), mask).packed()
        model = models.Sequential([Limit(), layers.Dense(2)])
        model.compile("sgd", "mse")
        calls = {
            "predict_on_batch": lambda: model.predict_on_batch(x),
            "test_on_batch": lambda: model.test_on_batch(x, x),
            "predict": lambda: model.predict(x, verbose=0),
            "generator": lambda: model.evaluate(
                (pair for pair in [(x, x)]), verbose=0
            ),
        }
        if backend.backend() != "numpy":
            calls["train_on_batch"] = lambda: model.train_on_batch(x, x)
            calls["fit"] = lambda: model.fit(x, x, verbose=0)
        for name, run in calls.items():
            seen.clear()
            run()
            of_pipeline = "batch" not in name
            if backend.backend() == "tensorflow" and of_pipeline:
                # Its functions are traced for batches of any length.
                self.assertEqual({*seen}, {64}, name)
                continue
            if backend.backend() != "jax":
                # Which compiled a function that knows it before.
                self.assertNotEqual(seen, [], name)
            self.assertLessEqual(max(seen, default=0), 8, name)

    def test_training(self):
        """Batches are packed anew, and train as padded ones do."""
        ids = np.arange(10 * TIME).reshape(10, TIME) % 5
        mask = np.tile(MASK, (3, 1))[:10]
        y = MaskedTensor((ids * 7 % 3)[..., None], mask)
        x = MaskedTensor(ids.astype("int32"), mask)
        results = []
        for inputs, targets in ((x, y), (x.packed(), y.packed())):
            set_random_seed(1)
            Watch.seen.clear()
            Noting.packed = False
            model = Noting(
                [
                    Watch(name="before"),
                    layers.Embedding(5, FEATURES),
                    Block(),
                    Watch(name="behind"),
                    layers.Dropout(0.5, seed=3),
                    layers.Dense(3, "softmax"),
                ]
            )
            model.compile("sgd", "sparse_categorical_crossentropy")
            found = {}
            if backend.backend() != "numpy":
                history = model.fit(
                    inputs, targets, 4, 2, shuffle=False, validation_split=0.2,
                    verbose=0,
                )  # fmt: skip
                found |= history.history
                found["on_batch"] = model.train_on_batch(inputs, targets)
            batches = ((inputs[i:][:5], targets[i:][:5]) for i in (0, 5))
            found["generator"] = model.evaluate(batches, verbose=0)
            predicted = model.predict(inputs, 4, verbose=0)
            found["predict"] = predicted.filled(0)
            results.append(found)
            wanted = {"before", "behind"} if inputs.is_packed else set()
            self.assertEqual(Watch.seen, wanted)
            self.assertEqual(Noting.packed, inputs.is_packed)
        padded, packed_ones = results
        self.assertEqual(set(padded), set(packed_ones))
        for name, value in padded.items():
            self.assertAllClose(packed_ones[name], value, 1e-5, msg=name)

    def test_positions_in_a_graph_of_unknown_batch(self):
        if backend.backend() != "tensorflow":
            self.skipTest("Elsewhere the size of a batch is known.")
        # Late: only the engine that runs is imported.
        import tensorflow as tf

        x, y = padded_and_packed()
        positions = VALUES[0]
        spec = backend.PackedTensor.Spec(
            flat=tf.TensorSpec((None, FEATURES)),
            mask=tf.TensorSpec((None, TIME), tf.bool),
            index=tf.TensorSpec((None,), tf.int32),
            there=tf.TensorSpec((None,), tf.bool),
            limit=y.limit,
        )
        function = tf.function(lambda x: x + positions, input_signature=[spec])
        self.assertTrue(function(y).is_packed)
        self.assert_same(function(y), x + positions, 1e-6, "")

    @parameterized.parameters(None, 17)
    def test_what_makes_up_a_capacity_is_no_step_of_a_batch(self, capacity):
        """Also as `train_on_batch` and generators hand it on."""
        x, _ = padded_and_packed()
        y = hidden(x.packed(capacity))
        found, *_ = data.whole_batch(y)
        self.assertTrue(found.is_packed)
        self.assert_same(found, x, 0, "")
        self.assert_same(ops.mean(found), ops.mean(x), 1e-6, "")

    def test_data_pipelines_of_tensorflow(self):
        if backend.backend() != "tensorflow":
            self.skipTest("They hold tensors of TensorFlow.")
        # Late: only the engine that runs is imported.
        import tensorflow as tf

        x, y = padded_and_packed()
        dataset = tf.data.Dataset.from_tensors(x)
        for batch in dataset.map(lambda x: x.packed() + 1):
            self.assertTrue(batch.is_packed)
            self.assert_same(batch, x + 1, 0, "")
        dataset = tf.data.Dataset.from_tensors(y)
        self.assertTrue(next(iter(dataset)).is_packed)
        for refused in (
            lambda: dataset.batch(2),
            lambda: tf.data.Dataset.from_tensor_slices(y),
        ):
            with self.assertRaisesRegex(ValueError, "pack each batch"):
                refused()

    def test_packing_within_a_compiler(self):
        if backend.backend() != "jax":
            self.skipTest("Elsewhere what is valid is known, or may be many.")
        x, _ = padded_and_packed()
        pack = compiled(lambda x, capacity: x.packed(capacity) + 1, 1)
        self.assert_same(pack(x, MASK.size), x + 1, 0, "")
        with self.assertRaisesRegex(ValueError, "pack before the function"):
            pack(x, None)

    def test_several_devices_are_refused(self):
        if backend.backend() != "jax":
            self.skipTest("Others have one device here.")
        _, x = padded_and_packed()
        model = models.Sequential([layers.Dense(2)])
        model.compile("sgd", "mse")
        distribution_lib.set_distribution(distribution_lib.DataParallel())
        try:
            with self.assertRaisesRegex(ValueError, "x.padded"):
                model.fit(x, VALUES[..., :2], verbose=0)
        finally:
            distribution_lib.set_distribution(None)

    def test_rows_are_not_mapped_over(self):
        if backend.backend() != "jax":
            self.skipTest("`jax.vmap` is JAX's.")
        # Late: only the engine that runs is imported.
        import jax

        square = MaskedTensor(np.ones((4, 4)), np.eye(4) == 1).packed(4)
        with self.assertRaisesRegex(ValueError, "across the batch"):
            jax.vmap(lambda x: x + 1)(square)


def compiled(function, *static):
    """The function as the engine compiles it."""
    name = backend.backend()
    # Late: only the engine that runs is imported.
    if name == "jax":
        import jax

        return jax.jit(function, static_argnums=static)
    if name == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if name == "torch":
        import torch

        return torch.compile(function, backend="aot_eager", fullgraph=True)
    return function
