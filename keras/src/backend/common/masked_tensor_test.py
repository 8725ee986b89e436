import copy
import operator
import pickle

import ml_dtypes
import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.backend import MaskedTensor
from keras.src.backend.common import global_state
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.operators import COMPARISON
from keras.src.masking import UnsupportedMaskError
from patchset.markers import when

if when("<3.16"):
    from keras.src.backend.openvino import masked_tensor as openvino

VALUES = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]], "float32")
OTHER = np.array([[2.0, 1, 3], [3, 2, 1], [1, 2, 2]], "float32")
MASK = np.array([[True, False, True], [True, True, False], [False] * 3])
OTHER_MASK = np.array([[True] * 3, [False, True, True], [True] * 3])

ARITHMETIC = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "truediv": operator.truediv,
    "floordiv": operator.floordiv,
    "mod": operator.mod,
    "pow": operator.pow,
    "matmul": operator.matmul,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
}
BITWISE = {
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "lshift": operator.lshift,
    "rshift": operator.rshift,
}
PARTNERS = {
    "masked": lambda a: MaskedTensor(a, OTHER_MASK),
    "scalar": lambda a: a.reshape(-1)[0].item(),
    "array": lambda a: a,
    "numpy_scalar": lambda a: a.reshape(-1)[0],
    "tensor": backend.convert_to_tensor,
    "variable": lambda a: backend.Variable(a, dtype=a.dtype, trainable=False),
    "symbolic": lambda a: backend.KerasTensor(a.shape, str(a.dtype)),
    "numpy_ma": lambda a: np.ma.MaskedArray(a, ~OTHER_MASK),
}


def array(x):
    return backend.convert_to_numpy(x)


def masked(values=VALUES, mask=MASK):
    return MaskedTensor(values, mask)


def cells(x):
    """The mask over all axes of the values."""
    values, mask = array(x.values), array(x.mask)
    mask = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    return np.broadcast_to(mask, values.shape)


class MaskedCase(testing.TestCase):
    def assert_masked(self, x, values, mask):
        """Values are compared where they are valid, masks exactly."""
        self.assertIsInstance(x, MaskedTensorBase)
        mask = np.asarray(mask)
        mask = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
        valid = cells(x)
        self.assertAllEqual(valid, np.broadcast_to(mask, valid.shape))
        values = np.broadcast_to(values, valid.shape)
        self.assertAllClose(
            array(x.values)[valid], values[valid], rtol=1e-5, atol=1e-6
        )
        finite = np.isfinite(array(x.values).astype("float32"))
        self.assertTrue(np.all(finite))


class ConstructionTest(MaskedCase):
    def test_parts_are_backend_tensors(self):
        x = masked()
        self.assertTrue(backend.is_tensor(x.values))
        self.assertTrue(backend.is_tensor(x.mask))
        self.assertEqual(tuple(x.shape), (3, 3))
        self.assertEqual(backend.standardize_dtype(x.dtype), "float32")
        self.assertEqual(x.ndim, 2)
        self.assertEqual(len(x), 3)

    def test_a_mask_covers_leading_axes(self):
        x = MaskedTensor(np.ones((2, 3, 4)), [[True, False, True]] * 2)
        self.assertEqual(tuple(x.mask.shape), (2, 3))
        self.assertAllEqual(array(x.values)[:, 1], np.zeros((2, 4)))

    @parameterized.parameters(
        ((2, 3), (3,)), ((2, 3), (2, 3, 1)), ((2, 3), (2, 1)), ((2, 3), ())
    )
    def test_another_mask_shape_is_an_error_with_both_shapes(self, shape, mask):
        with self.assertRaises(ValueError) as caught:
            MaskedTensor(np.ones(shape), np.ones(mask, "bool"))
        self.assertIn(f"values of shape {shape}", str(caught.exception))
        self.assertIn(f"mask of shape {mask}", str(caught.exception))

    @parameterized.parameters("int32", "float32")
    def test_a_mask_that_is_not_boolean_is_an_error(self, dtype):
        with self.assertRaisesRegex(TypeError, f"{dtype}.*mask != 0"):
            MaskedTensor(VALUES, MASK.astype(dtype))

    @parameterized.parameters(np.nan, np.inf, -np.inf, 1e30)
    def test_poison_ends_at_the_door(self, poison):
        x = masked(np.where(MASK, VALUES, np.float32(poison)))
        self.assertAllEqual(array(x.values), np.where(MASK, VALUES, 0))

    @parameterized.parameters(
        "bool", "uint8", "int32", "float16", "bfloat16", "float32"
    )
    def test_dtypes(self, dtype):
        kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        x = masked(VALUES.astype(kind))
        self.assertEqual(backend.standardize_dtype(x.dtype), dtype)
        filled = np.where(MASK, VALUES.astype(kind), np.zeros((), kind))
        self.assertAllEqual(
            array(x.values).astype("float32"), filled.astype("float32")
        )

    def test_a_variable_gives_its_value(self):
        x = MaskedTensor(backend.Variable(VALUES), MASK)
        self.assert_masked(x, VALUES, MASK)

    def test_it_is_immutable(self):
        x = masked()
        for name in ("values", "mask", "_keras_mask", "other"):
            with self.assertRaisesRegex(AttributeError, "immutable"):
                setattr(x, name, x.values)
        with self.assertRaisesRegex(TypeError, "immutable"):
            x[0] = 1.0

    def test_from_ragged(self):
        rows = [np.array([1.0, 2.0]), np.array([3.0]), np.zeros(0)]
        x = MaskedTensor.from_ragged(rows)
        mask = [[True, True], [True, False], [False, False]]
        self.assert_masked(x, [[1, 2], [3, 0], [0, 0]], mask)
        longer = MaskedTensor.from_ragged(rows, length=4)
        self.assertEqual(tuple(longer.shape), (3, 4))

    def test_from_ragged_keeps_inner_axes_and_dtype(self):
        rows = [np.ones((2, 4), "int32"), np.ones((1, 4), "int32")]
        x = MaskedTensor.from_ragged(rows)
        self.assertEqual(tuple(x.shape), (2, 2, 4))
        self.assertEqual(tuple(x.mask.shape), (2, 2))
        self.assertEqual(backend.standardize_dtype(x.dtype), "int32")

    def test_from_ragged_names_the_shapes_that_do_not_fit(self):
        with self.assertRaisesRegex(ValueError, r"\(1, 2\), \(1, 3\)"):
            MaskedTensor.from_ragged([np.ones((1, 2)), np.ones((1, 3))])
        with self.assertRaisesRegex(ValueError, "length=1"):
            MaskedTensor.from_ragged([np.ones(2)], length=1)

    def test_symbolic_parts_give_a_symbolic_tensor(self):
        values = backend.KerasTensor((None, 3))
        mask = backend.KerasTensor((None, 3), "bool")
        x = MaskedTensor(values, mask)
        self.assertIsInstance(x, backend.KerasTensor)
        self.assertTrue(ops.is_masked(x))
        self.assertEqual(x.mask.shape, (None, 3))

    @when("<3.16")
    def test_openvino_refuses_by_name(self):
        with self.assertRaisesRegex(NotImplementedError, "OpenVINO"):
            openvino.MaskedTensor(VALUES, MASK)


class OperatorTest(MaskedCase):
    @parameterized.product(name=[*ARITHMETIC, *BITWISE], kind=[*PARTNERS])
    def test_operator(self, name, kind):
        self.check(name, kind, reflected=False)

    @parameterized.product(name=[*ARITHMETIC, *BITWISE], kind=[*PARTNERS])
    def test_reflected_operator(self, name, kind):
        self.check(name, kind, reflected=True)

    def check(self, name, kind, reflected):
        op = (ARITHMETIC | BITWISE)[name]
        dtype = "int32" if name in BITWISE else "float32"
        own, other = VALUES.astype(dtype), OTHER.astype(dtype)
        scalar = kind in ("scalar", "numpy_scalar")
        if name == "matmul" and scalar:
            self.skipTest("no product with a scalar")
        x, partner = masked(own), PARTNERS[kind](other)
        if kind == "numpy_ma" and reflected and name in COMPARISON:
            # The comparisons of `numpy.ma` do not ask the right operand.
            with self.assertRaisesRegex(TypeError, "mask"):
                op(partner, x)
            return
        result = op(partner, x) if reflected else op(x, partner)
        if kind == "symbolic":
            self.assertIsInstance(result, backend.KerasTensor)
            mask_ndim = 1 if name == "matmul" and not reflected else 2
            self.assertEqual(result._mask_spec.shape, (3,) * mask_ndim)
            self.assertEqual(result.shape, (3, 3))
            return
        if scalar:
            other = other.reshape(-1)[0]
        other_mask = np.ones((3, 3), "bool")
        if kind in ("masked", "numpy_ma"):
            other_mask = OTHER_MASK
        pairs = [(own, MASK), (other, other_mask)]
        (a, a_mask), (b, b_mask) = pairs[::-1] if reflected else pairs
        if name == "matmul":
            values = (a * a_mask) @ (b * b_mask)
            mask = (a_mask.astype(int) @ b_mask.astype(int)) > 0
        else:
            values, mask = op(a, b), a_mask & b_mask
        self.assert_masked(result, values, mask)

    @parameterized.parameters(
        (operator.neg,), (operator.pos,), (abs,), (round,)
    )
    def test_unary(self, op):
        values = VALUES - 4.4
        expected = np.round(values) if op is round else op(values)
        self.assert_masked(op(masked(values)), expected, MASK)

    def test_invert(self):
        x = masked(VALUES > 3)
        self.assert_masked(~x, VALUES <= 3, MASK)
        integers = VALUES.astype("int32")
        self.assert_masked(~masked(integers), ~integers, MASK)

    @parameterized.parameters(
        (operator.and_,), (operator.or_,), (operator.xor,)
    )
    def test_logic_of_booleans(self, op):
        truth, other = VALUES > 3, OTHER > 1
        for partner in (other, True, masked(other, OTHER_MASK)):
            result = op(masked(truth), partner)
            both = partner is not other and partner is not True
            mask = MASK & OTHER_MASK if both else MASK
            plain = True if partner is True else other
            self.assert_masked(result, op(truth, plain), mask)
            self.assertEqual(backend.standardize_dtype(result.dtype), "bool")

    def test_round_takes_digits(self):
        x = masked(VALUES + 0.126)
        self.assert_masked(round(x, 2), VALUES + 0.13, MASK)

    def test_the_same_mask_is_not_computed_anew(self):
        x = masked()
        self.assertIs((x + x).mask, x.mask)
        self.assertIs((x * 2.0).mask, x.mask)
        self.assertIs((x + VALUES).mask, x.mask)

    def test_eager_arithmetic_uses_up_no_automatic_name(self):
        global_state.clear_session()
        x = masked()
        x + x
        ops.add(x, x)
        self.assertEqual(layers.Add().name, "add")

    def test_reflected_by_name_like_direct(self):
        x = masked()
        self.assertAllEqual(array((2.0 - x).values), 2 - array(x.values))

    def test_a_variable_refuses_a_masked_value(self):
        variable = backend.Variable(VALUES)
        as_numpy = np.ma.MaskedArray(VALUES, ~MASK)
        for value in (masked(), as_numpy):
            with self.assertRaisesRegex(UnsupportedMaskError, "assign"):
                variable.assign(value)
            with self.assertRaisesRegex(UnsupportedMaskError, "Variable"):
                backend.Variable(value)
        with self.assertRaisesRegex(UnsupportedMaskError, "assign"):
            variable.assign_add(masked())
        self.assertAllEqual(array(variable.value), VALUES)


class IndexingTest(MaskedCase):
    KEYS = {
        "row": 1,
        "last": -1,
        "slice": slice(1, 3),
        "step": slice(None, None, 2),
        "reverse": slice(None, None, -1),
        "column": (slice(None), 1),
        "new_axis": (slice(None), None),
        "new_first": None,
        "ellipsis": (..., 0),
        "both": (slice(0, 2), slice(1, 3)),
        "entry": (0, 2),
        "everything": ...,
        "empty": slice(0, 0),
    }

    @parameterized.product(key=[*KEYS], features=[False, True])
    def test_the_mask_is_indexed_along(self, key, features):
        key = self.KEYS[key]
        if key == slice(None, None, -1) and backend.backend() == "torch":
            self.skipTest("PyTorch has no negative steps")
        values = np.arange(18, dtype="float32").reshape(3, 3, 2) + 1
        if not features:
            values = values[..., 0]
        x = MaskedTensor(values, MASK)
        full = MASK if not features else np.repeat(MASK[..., None], 2, -1)
        result, valid = x[key], full[key]
        if not isinstance(result, MaskedTensorBase):
            expected = np.where(valid, values[key], 0)
            self.assertAllClose(array(result), expected)
            self.assertLessEqual(np.ndim(result), int(features))
            return
        self.assertAllEqual(cells(result), valid)
        self.assertAllClose(array(result.values)[valid], values[key][valid])

    def test_integer_array(self):
        index = np.array([2, 0])
        self.assert_masked(masked()[index], VALUES[index], MASK[index])

    def test_a_masked_integer_key_looks_up_0_and_is_masked(self):
        table = backend.convert_to_tensor(VALUES)
        key = MaskedTensor(np.array([2, 1], "int32"), [True, False])
        result = ops.get_item(table, key)
        self.assert_masked(result, VALUES[[2, 0]], [True, False])

    def test_a_masked_boolean_key_raises(self):
        table = backend.convert_to_tensor(VALUES)
        key = MaskedTensor(np.ones(3, "bool"), [True, False, True])
        with self.assertRaisesRegex(UnsupportedMaskError, "boolean key"):
            ops.get_item(table, key)

    def test_iteration_gives_masked_rows(self):
        rows = list(masked())
        self.assertLen(rows, 3)
        self.assert_masked(rows[1], VALUES[1], MASK[1])

    def test_in_is_refused(self):
        with self.assertRaisesRegex(TypeError, "any"):
            1.0 in masked()  # noqa: B015


class ConversionTest(MaskedCase):
    def test_nothing_makes_a_plain_value_of_it(self):
        x = masked()
        for function in (
            np.asarray,
            np.array,
            np.sin,
            np.sum,
            lambda x: np.concatenate([x, x]),
            lambda x: np.where(x, 1, 0),
            lambda x: np.stack([x], axis=1),
            float,
            int,
            bool,
            backend.convert_to_numpy,
            backend.convert_to_tensor,
            lambda x: operator.index(x),
        ):
            with self.assertRaisesRegex(TypeError, "mask|Mask"):
                function(x)

    def test_the_functions_of_the_engine_raise(self):
        x = masked()
        if backend.backend() == "jax":
            import jax.numpy as engine
        elif backend.backend() == "torch":
            import torch as engine
        elif backend.backend() == "tensorflow":
            import tensorflow as engine
        else:
            import numpy as engine
        for name in ("sin", "sqrt", "concat"):
            argument = [x, x] if name == "concat" else x
            with self.assertRaises((TypeError, ValueError)):
                getattr(engine, name)(argument, *([0] * (name == "concat")))

    def test_the_error_names_the_ways_out(self):
        with self.assertRaises(TypeError) as caught:
            np.asarray(masked())
        for text in ("filled", "x.values", "(3, 3)", "convert_to_numpy"):
            self.assertIn(text, str(caught.exception))

    def test_no_engine_makes_a_plain_tensor_of_it(self):
        """Whichever backend is used, by whatever an object may offer."""
        import jax
        import tensorflow as tf
        import torch

        for x in (masked(), masked()[0]):
            for function in (
                np.asarray,
                np.array,
                np.from_dlpack,
                torch.tensor,
                torch.as_tensor,
                torch.asarray,
                torch.from_dlpack,
                torch.FloatTensor,
                jax.numpy.asarray,
                jax.numpy.array,
                jax.dlpack.from_dlpack,
                tf.constant,
                tf.experimental.dlpack.from_dlpack,
            ):
                with self.assertRaises((TypeError, ValueError, RuntimeError)):
                    function(x)

    def test_shape_questions_of_numpy_are_answered(self):
        self.assertEqual(np.shape(masked()), (3, 3))
        self.assertEqual(np.ndim(masked()), 2)
        self.assertEqual(np.size(masked()), 9)

    def test_filled_and_values(self):
        x = masked()
        self.assertAllEqual(
            array(ops.filled(x, -1)), np.where(MASK, VALUES, -1)
        )
        self.assertFalse(ops.is_masked(x.values))
        self.assertAllEqual(array(ops.filled(VALUES, -1)), VALUES)

    def test_convert_to_numpy_gives_numpy_ma(self):
        x = ops.convert_to_numpy(masked())
        self.assertIsInstance(x, np.ma.MaskedArray)
        self.assertAllEqual(np.ma.getmaskarray(x), ~MASK)
        self.assertAllEqual(x.data[MASK], VALUES[MASK])

    def test_numpy_ma_becomes_masked(self):
        x = np.ma.MaskedArray(VALUES, ~MASK)
        self.assert_masked(ops.convert_to_tensor(x), VALUES, MASK)
        as_int = ops.convert_to_tensor(x, dtype="int32")
        self.assert_masked(as_int, VALUES, MASK)
        self.assertEqual(backend.standardize_dtype(as_int.dtype), "int32")
        self.assert_masked(ops.add(x, 1.0), VALUES + 1, MASK)
        self.assertAllClose(array(ops.sum(x)), VALUES[MASK].sum())

    def test_numpy_ma_without_a_mask_is_all_valid(self):
        x = ops.convert_to_tensor(np.ma.MaskedArray(VALUES))
        self.assert_masked(x, VALUES, np.ones((3, 3), "bool"))

    def test_inquiry(self):
        x = masked()
        self.assertTrue(ops.is_masked(x))
        self.assertIs(ops.get_mask(x), x.mask)
        self.assertFalse(ops.is_masked(x.values))
        self.assertIsNone(ops.get_mask(x.values))
        self.assertTrue(ops.is_tensor(x))
        self.assertFalse(backend.is_tensor(x))
        self.assertEqual(tuple(ops.shape(x)), (3, 3))

    def test_old_readers(self):
        x = masked()
        self.assertIs(x._keras_mask, x.mask)
        self.assertIs(backend.get_keras_mask(x), x.mask)
        backend.set_keras_mask(x, x.mask)
        for mask in (None, x.values):
            with self.assertRaisesRegex(AttributeError, "immutable"):
                backend.set_keras_mask(x, mask)

    def test_it_is_one_leaf_of_a_tree(self):
        x = masked()
        self.assertEqual(len(tree.flatten({"a": [x]})), 1)
        self.assertIs(tree.map_structure(lambda y: y, [x])[0], x)


class ObjectTest(MaskedCase):
    def test_repr_shows_masked_entries_as_dashes(self):
        text = repr(masked())
        self.assertIn("shape=(3, 3), dtype=float32, mask shape=(3, 3)", text)
        self.assertIn("[1.0 -- 3.0]", text)

    def test_pickle_and_deepcopy(self):
        x = masked()
        for twin in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x)):
            self.assertIsInstance(twin, MaskedTensor)
            self.assertAllEqual(array(twin.values), array(x.values))
            self.assertAllEqual(array(twin.mask), MASK)
        self.assertIs(copy.copy(x), x)

    def test_hash_goes_by_identity_and_equality_by_entry(self):
        x, y = masked(), masked()
        self.assertEqual(len({x, y}), 2)
        self.assertEqual({x: 1}[x], 1)
        self.assert_masked(x == y, np.ones((3, 3), "bool"), MASK)


def total(x):
    """A plain number that depends on all valid entries."""
    return ops.sum(ops.square(x * 2.0 + x))


EXPECTED_TOTAL = np.sum(np.square(3 * VALUES[MASK]))
EXPECTED_GRADIENT = np.where(MASK, 18 * VALUES, 0)


@pytest.mark.skipif(backend.backend() != "jax", reason="JAX")
class JaxTest(MaskedCase):
    def test_jit_and_repr_under_tracing(self):
        import jax

        texts = []

        def run(x):
            texts.append(repr(x))
            return x + 1.0

        result = jax.jit(run)(masked())
        self.assert_masked(result, VALUES + 1, MASK)
        self.assertIn("shape=(3, 3)", texts[0])

    def test_gradient_through(self):
        import jax

        def loss(values):
            return total(MaskedTensor(values, MASK))

        gradient = jax.jit(jax.grad(loss))(VALUES)
        self.assertAllClose(gradient, EXPECTED_GRADIENT)
        poisoned = np.where(MASK, VALUES, np.nan)
        self.assertAllClose(jax.grad(loss)(poisoned), EXPECTED_GRADIENT)

    def test_vmap(self):
        import jax

        result = jax.vmap(lambda x: x * 2.0)(masked())
        self.assert_masked(result, VALUES * 2, MASK)
        sums = jax.vmap(ops.sum)(masked())
        self.assertAllClose(sums, (VALUES * MASK).sum(axis=1))

    def test_scan(self):
        import jax

        def step(carry, x):
            return carry + ops.sum(x), x + 1.0

        carry, result = jax.lax.scan(step, 0.0, masked())
        self.assertAllClose(carry, VALUES[MASK].sum())
        self.assert_masked(result, VALUES + 1, MASK)

    def test_cond_and_device_put(self):
        import jax

        x = jax.device_put(masked())
        result = jax.lax.cond(True, lambda x: x + 1.0, lambda x: x * 2.0, x)
        self.assert_masked(result, VALUES + 1, MASK)


@pytest.mark.skipif(backend.backend() != "tensorflow", reason="TensorFlow")
class TensorFlowTest(MaskedCase):
    @parameterized.parameters(False, True)
    def test_function_and_repr_under_tracing(self, jit_compile):
        import tensorflow as tf

        texts = []

        @tf.function(jit_compile=jit_compile)
        def run(x):
            texts.append(repr(x))
            return x + 1.0, total(x)

        result, number = run(masked())
        self.assert_masked(result, VALUES + 1, MASK)
        self.assertAllClose(number, EXPECTED_TOTAL)
        self.assertIn("shape=(3, 3)", texts[0])

    def test_unknown_dimensions(self):
        import tensorflow as tf

        spec = MaskedTensor.Spec(
            tf.TensorSpec([None, None, 3]), tf.TensorSpec([None, None], "bool")
        )

        @tf.function(input_signature=[spec])
        def run(x):
            weights = tf.ones([tf.shape(x.values)[1], 1])
            return (
                x + x[:, :1],
                ops.mean(x, axis=1),
                ops.softmax(x, axis=1),
                ops.reshape(x, (-1, 3)),
                ops.concatenate([x, x], axis=1),
                weights * x,
                ops.transpose(x, (1, 0, 2)),
            )

        x = MaskedTensor(np.stack([VALUES] * 2), MASK[:2])
        added, mean, soft, flat, joined, product, turned = run(x)
        self.assertAllEqual(array(added.mask), MASK[:2] & MASK[:2, :1])
        self.assertAllClose(array(mean.values)[0], VALUES[[0, 2]].mean(axis=0))
        self.assertAllClose(array(ops.sum(soft, 1).values), np.ones((2, 3)))
        self.assertAllEqual(array(flat.mask), MASK[:2].reshape(-1))
        self.assertAllEqual(
            array(joined.mask), np.concatenate([MASK[:2]] * 2, 1)
        )
        self.assertAllEqual(array(product.mask), MASK[:2])
        self.assertAllEqual(array(turned.mask), MASK[:2].T)

    def test_cond_and_while(self):
        import tensorflow as tf

        @tf.function
        def run(x, flag):
            x = tf.cond(flag, lambda: x + 1.0, lambda: x * 2.0)
            for _ in tf.range(2):
                x = x + 1.0
            return x

        result = run(masked(), tf.constant(True))
        self.assert_masked(result, VALUES + 3, MASK)

    def test_dataset(self):
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices(masked())
        data = data.map(lambda x: x + 1.0).batch(2)
        first, second = list(data)
        self.assert_masked(first, VALUES[:2] + 1, MASK[:2])
        self.assert_masked(second, VALUES[2:] + 1, MASK[2:])

    def test_what_takes_the_parts_of_an_element_alone_says_so(self):
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices(masked())
        for function in (
            lambda: data.window(2),
            lambda: data.reduce(next(iter(data)), lambda state, x: x),
            lambda: data.scan(0, lambda state, x: (state, x)),
        ):
            with self.assertRaisesRegex(
                NotImplementedError, r"take tensors only.*x\.values, x\.mask"
            ):
                function()
        parts = data.map(lambda x: (x.values, x.mask)).window(2)
        values, mask = next(iter(parts))
        self.assertAllClose(np.stack(list(mask)), MASK[:2])

    def test_gradient_through(self):
        import tensorflow as tf

        values = tf.constant(np.where(MASK, VALUES, np.nan))
        with tf.GradientTape() as tape:
            tape.watch(values)
            loss = total(MaskedTensor(values, MASK))
        self.assertAllClose(tape.gradient(loss, values), EXPECTED_GRADIENT)

    def test_softmax_keeps_the_logits_that_losses_look_for(self):
        from keras.src import activations

        x = MaskedTensor(VALUES, MASK[:, 0])
        result = activations.softmax(x)
        self.assertAllClose(result.values._keras_logits, x.values)


@pytest.mark.skipif(backend.backend() != "torch", reason="PyTorch")
class TorchTest(MaskedCase):
    def test_gradient_through(self):
        import torch

        values = torch.tensor(np.where(MASK, VALUES, np.nan))
        values.requires_grad_()
        total(MaskedTensor(values, MASK)).backward()
        self.assertAllClose(values.grad, EXPECTED_GRADIENT)

    def test_compile(self):
        import torch

        tensor = torch.tensor(OTHER)

        @torch.compile(backend="eager")
        def run(x, tensor):
            return tensor + x, tensor * x + 1.0, tensor < x, x - tensor

        added, product, less, difference = run(masked(), tensor)
        self.assert_masked(added, OTHER + VALUES, MASK)
        self.assert_masked(product, OTHER * VALUES + 1, MASK)
        self.assert_masked(less, OTHER < VALUES, MASK)
        self.assert_masked(difference, VALUES - OTHER, MASK)

    def test_compile_constructs_and_reduces(self):
        import torch

        @torch.compile(backend="eager")
        def run(values, mask):
            return total(MaskedTensor(values, mask))

        result = run(torch.tensor(VALUES), torch.tensor(MASK))
        self.assertAllClose(result, EXPECTED_TOTAL)

    # Until 3.15 no constant of NumPy can be part of a graph.
    @when(">=3.15")
    def test_compiles_to_one_graph(self):
        """Where a graph breaks, nothing is fused."""
        import torch

        @torch.compile(backend="eager", fullgraph=True)
        def attend(x):
            scores = ops.matmul(x, ops.swapaxes(x, 1, 2))
            x = ops.matmul(ops.softmax(scores, axis=-1), x)
            x = (x - ops.mean(x, axis=1, keepdims=True)) / ops.std(x)
            x = x - ops.max(x, axis=1, keepdims=True)
            x = x / ops.logsumexp(x - ops.min(x, axis=0), axis=0)
            return ops.sum(ops.reshape(x, (3, -1)), axis=1)

        x = MaskedTensor(np.random.normal(size=(3, 3, 4)), MASK)
        result, expected = attend(x), attend.__wrapped__(x)
        self.assertAllEqual(result.mask, expected.mask)
        self.assertAllClose(result.values, expected.values)

    def test_the_error_names_the_function(self):
        import torch

        with self.assertRaisesRegex(TypeError, "`torch.sin`.*filled"):
            torch.sin(masked())
