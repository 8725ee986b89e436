"""Packing is storage: every row and every layer gives what padded ones get.

The padded result is held against oracles elsewhere. Here each example is run on
packed operands as well, of one layout and of different ones, and compared.
"""

import os
import pickle
import warnings
import zlib
from unittest import mock

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import testing
from keras.src.backend.common.remat import remat
from keras.src.masking import packing
from keras.src.masking import registry
from keras.src.masking.layers import layers_test
from keras.src.masking.training import data
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.packed import BATCH
from keras.src.testing.masked.packed import FEATURES
from keras.src.testing.masked.packed import MASK
from keras.src.testing.masked.packed import TIME
from keras.src.testing.masked.packed import VALUES
from keras.src.testing.masked.packed import Block
from keras.src.testing.masked.packed import SameResults
from keras.src.testing.masked.packed import compiled
from keras.src.testing.masked.packed import counted
from keras.src.testing.masked.packed import hidden
from keras.src.testing.masked.packed import packed
from keras.src.testing.masked.packed import padded_and_packed
from keras.src.testing.masked.packed import with_one_mask
from keras.src.testing.masked.row_checks import EXAMPLES
from keras.src.testing.masked.row_checks import call
from keras.src.testing.masked.row_checks import tolerance_of
from keras.src.utils import sequence_utils
from keras.src.utils import set_random_seed
from keras.src.utils import traceback_utils
from patchset.markers import when

MaskedTensor = backend.MaskedTensor
# Calls that are wrong whatever a tensor of `VALUES` is stored as.
WRONG = (
    lambda x: x + np.ones((FEATURES + 2,), "float32"),
    lambda x: ops.where(x > 0, x, np.ones((FEATURES + 2,), "float32")),
    lambda x: ops.matmul(x, np.ones((FEATURES + 2, 2), "float32")),
    lambda x: ops.einsum("btf,fh->bth", x, np.ones((2, 2), "float32")),
    lambda x: ops.expand_dims(x, axis=5),
    lambda x: ops.transpose(x, (0, 1, 1)),
    lambda x: ops.repeat(x, [1, 2], axis=2),
    lambda x: ops.sum(x, axis=4),
    lambda x: ops.concatenate([x, x[..., None]], axis=2),
    lambda x: ops.split(x, 2, axis=2),
)
if backend.backend() != "torch":  # Which leaves such an axis alone.
    WRONG = (*WRONG, lambda x: ops.squeeze(x, axis=2))


def packed_examples():
    """The examples in which a mask covers batch and time."""
    found = []
    for name, examples in EXAMPLES.items():
        for i, example in enumerate(examples):
            masks = [t.mask for t in u.leaves(example, u.T)]
            if 2 in masks:
                found.append((f"{name}_{i}", name, example))
    return found


def some(cases):
    """All on NumPy, a third elsewhere: ways are written in ops of Keras."""
    cases = list(cases)
    if backend.backend() == "torch" and not os.environ.get("EVERY_CASE"):
        return cases[2::3]
    return u.part(cases)


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


# All shapes that broadcast with the values.
BESIDE = [
    (), (1,), (3,), (6, 3), (1, 3), (6, 1), (4, 6, 3), (1, 6, 3), (4, 1, 3),
    (4, 6, 1), (1, 1, 3), (1, 1, 1), (2, 1, 1, 1), (2, 4, 6, 3),
]  # fmt: skip


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

    @parameterized.parameters(
        ("a", TypeError),
        (40.0, TypeError),
        (True, TypeError),
        (np.True_, TypeError),
        ([24], TypeError),
        (-1, ValueError),
    )
    def test_a_capacity_is_a_number_of_steps(self, capacity, kind):
        for x in (*padded_and_packed(), self.hashable_capacity()):
            with self.assertRaisesRegex(kind, "is a number of steps"):
                x.packed(capacity)
            self.assertEqual(x.packed(np.int64(24)).flat.shape[0], 24)

    def hashable_capacity(self):
        """One whose capacity is equal to numbers of other types."""
        return MaskedTensor(np.ones((1, 1)), np.ones((1, 1), "bool")).packed(1)

    @parameterized.parameters(*range(len(WRONG)))
    def test_errors_are_those_of_padded_ones(self, i):
        texts = []
        for x in padded_and_packed():
            with self.assertRaises(Exception) as caught:
                WRONG[i](x)
            error = caught.exception
            notes = getattr(error, "__notes__", [])
            texts.append((type(error), str(error), *notes))
        self.assertEqual(*texts)

    def test_warnings_are_those_of_padded_ones(self):
        found = []
        for x in padded_and_packed(values=VALUES[..., :1]):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                ops.softmax(x)
            found.append({str(warning.message) for warning in caught})
        self.assertEqual(*found)
        self.assertLen(found[0], 1)

    def test_a_fault_of_a_way_is_not_covered_up(self):
        """A rule that works on padded operands does not replace it."""

        def at_fault(call, x):
            raise ZeroDivisionError("of the way")

        _, x = padded_and_packed()
        rule = registry.rows()[ops.numpy.Exp].rule
        with mock.patch.object(rule, "packed", at_fault):
            with self.assertRaisesRegex(ZeroDivisionError, "of the way"):
                ops.exp(x)

    def test_users_know_one_type(self):
        _, x = padded_and_packed()
        with self.assertRaisesRegex(TypeError, "of type MaskedTensor and"):
            MaskedTensor(x)
        with self.assertRaisesRegex(AttributeError, "'MaskedTensor' object"):
            x.of_none  # noqa: B018
        loaded = pickle.loads(pickle.dumps(x))
        self.assertTrue(loaded.is_packed)

    def test_rows_turn_round_where_those_of_padded_ones_do(self):
        found = []
        for x in padded_and_packed():
            try:
                found.append(x[::-1])
            except ValueError as error:
                found.append(str(error))
        if isinstance(found[0], str):
            self.assertEqual(*found)
        else:
            self.assert_same(found[1], found[0], 0, "")

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

    @parameterized.parameters((0,), (2, 0), (0, 2), (1, 0, 0))
    def test_steps_without_entries(self, *shape):
        x, y = padded_and_packed(MASK, np.zeros((BATCH, TIME, *shape), "int8"))
        for function in (
            lambda x: x,
            lambda x: ops.cumsum(x, axis=1),
            lambda x: ops.concatenate([x, x], axis=1),
            lambda x: x[1:],
            lambda x: ops.flip(x, axis=1),
            lambda x: ops.cast(x, "float32") + 1,
            lambda x: ops.sum(ops.cast(x, "float32"), axis=1),
            lambda x: ops.sum(x, axis=-1),
        ):
            self.assert_same(function(y), function(x), 0, "")
            self.assert_same(compiled(function)(y), function(x), 0, "")

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
        values[0, :, 2] = -np.inf if name == "max" else np.inf
        values[0, 1, 0], values[3, 0, 1] = np.inf, np.nan
        values[2, :, 2] = 0.1
        x, y = padded_and_packed(values=values)
        function = getattr(ops, name)
        with counted() as padded:
            result = function(y, axis=1)
        # TensorFlow pads faster than it finds them in segments.
        pads = backend.backend() == "tensorflow"
        self.assertEqual(len(padded), pads)
        wanted = function(x, axis=1)
        self.assert_same(result, wanted, 0, "")
        self.assertTrue(
            np.isfinite(ops.convert_to_numpy(result.values)[1]).all()
        )
        wanted = function(x, axis=1, initial=0.5)
        self.assert_same(function(y, axis=1, initial=0.5), wanted, 0, "")
        if backend.backend() == "numpy":
            return
        values[0, 1, 0] = values[3, 0, 1] = values[0, :, 2] = 0
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

    @parameterized.parameters(
        lambda x: ops.exp(x),
        lambda x: ops.where(x > 0, x, ops.exp(x)),
        lambda x: ops.matmul(ops.tanh(x), np.eye(FEATURES, dtype="float32")),
        lambda x: ops.softmax(x * x),
        lambda x: ops.sum(x * x, axis=1),
        lambda x: ops.max(x * x, axis=(0, 1)),
        lambda x: ops.cumsum(ops.exp(x), axis=1),
        lambda x: ops.cumsum(x, axis=1) + ops.roll(x, 1, axis=1),
        lambda x: ops.cumsum(x, axis=1).values * x.values,
        lambda x: layers.GlobalMaxPooling1D()(ops.exp(x)),
        layers.LayerNormalization,
        Block,
    )
    def test_gradients_of_what_is_computed_anew(self, function):
        if backend.backend() == "numpy":
            self.skipTest("NumPy has no gradients.")
        # As users have it: layers then put their arguments into errors.
        self.addCleanup(traceback_utils.disable_traceback_filtering)
        traceback_utils.enable_traceback_filtering()
        if isinstance(function, type):
            set_random_seed(1)
            function = function()
            function(MaskedTensor(VALUES, MASK))

        def number(arrays, run):
            y = run(MaskedTensor(arrays[0], MASK).packed())
            return ops.sum(y * y)

        wanted, found = (
            u.gradients(lambda a, run=run: number(a, run), [VALUES])
            for run in (function, remat(function))
        )
        self.assertAllClose(found, wanted, atol=1e-5)

    # Until 3.15 no constant of NumPy can be part of a graph of PyTorch's.
    @when(">=3.15")
    def test_within_a_compiler(self):
        """It goes in and comes out as it is."""
        x, y = padded_and_packed()

        def function(x):
            return ops.softmax(ops.exp(x) + 1), ops.mean(x, axis=1)

        self.assert_same(compiled(function)(y), function(x), 1e-5, "")
        self.assertTrue(compiled(function)(y)[0].is_packed)

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

    def test_packing_within_a_compiler(self):
        if backend.backend() != "jax":
            self.skipTest("Elsewhere what is valid is known, or may be many.")
        x, _ = padded_and_packed()
        pack = compiled(lambda x, capacity: x.packed(capacity) + 1, 1)
        self.assert_same(pack(x, MASK.size), x + 1, 0, "")
        with self.assertRaisesRegex(ValueError, "pack before the function"):
            pack(x, None)

    def test_rows_are_not_mapped_over(self):
        if backend.backend() == "jax":
            # Late: only the engine that runs is imported.
            from jax import vmap
        elif backend.backend() == "torch":
            from torch import vmap
        else:
            self.skipTest("`vmap` is of JAX and PyTorch.")
        square = MaskedTensor(np.ones((4, 4)), np.eye(4) == 1).packed(4)
        with self.assertRaisesRegex(ValueError, "across the batch"):
            vmap(lambda x: x + 1)(square)
        x, y = padded_and_packed()
        if backend.backend() == "jax":
            with self.assertRaisesRegex(ValueError, r"write `x.padded\(\)`"):
                vmap(lambda x: x + 1)(y)
        # What is only used there comes back padded.
        factors = ops.arange(3, dtype="float32")
        with self.assertRaisesRegex(ValueError, r"return `x.padded\(\)`"):
            vmap(lambda factor: y * factor)(factors)
        self.assert_same(
            vmap(lambda factor: (y * factor).padded())(factors),
            vmap(lambda factor: x * factor)(factors),
            0,
            "",
        )
