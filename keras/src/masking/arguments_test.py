"""Arguments of all rows: axes and sizes, lists of tensors for one tensor.

And what a reduction gives in the corners: empty axes, NaN, infinity, dtypes.
"""

import collections
import inspect
from functools import partial

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.masking import registry
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.row_checks import EXAMPLES
from keras.src.testing.masked.row_checks import NAMES
from keras.src.testing.masked.row_checks import call
from patchset.markers import when

Pair = collections.namedtuple("Pair", ["first", "second"])


class OwnList(list):
    """A list as a library may make one, unknown to `keras.tree`."""


def names():
    found = [n for n in sorted(EXAMPLES) if EXAMPLES[n]]
    if backend.backend() == "torch":
        found.remove("imag")  # PyTorch's takes complex numbers only.
    return found


def bound(name, args):
    """The arguments of an example by name."""
    own = NAMES.get(name, ())
    positional = args[: len(args) - len(own)]
    named = dict(zip(own, args[len(positional) :]))
    signature = inspect.signature(u.function_of(name))
    return signature.bind(*positional, **named)


def run(arguments, name):
    kwargs = dict(arguments.kwargs)
    if "padding" in arguments.arguments:
        kwargs["data_format"] = "channels_last"
    return u.function_of(name)(*arguments.args, **kwargs)


def is_single():
    """Whether functions of two operands make float32 of double precision.

    On PyTorch they do since 3.16, upstream's too.
    """
    product = ops.multiply(np.ones(1), np.ones(1))
    return backend.standardize_dtype(product.dtype) == "float32"


# By what name a row is told an axis.
AXES = "axis axes axis1 axis2 axisa axisb axisc source destination".split()


def rows_with_axes():
    found = []
    for name in names():
        known = inspect.signature(u.function_of(name)).parameters
        for axis in set(AXES) & set(known):
            label = f"{name}_{axis}".replace(".", "_")
            found.append((label, name, axis))
    return sorted(found)


def numpy_integers(x):
    if type(x) is int:
        return np.int64(x)
    if type(x) in (list, tuple):
        return type(x)(map(numpy_integers, x))
    return x


def raised(function):
    """The error that a call raises, of whatever class the engine's are."""
    try:
        function()
    except Exception as error:
        return error
    return None


def parts(result):
    return [x for x in u.parts(result) if x[0].dtype != object]


class AxesAndSizesTest(testing.TestCase):
    @parameterized.named_parameters(u.part(rows_with_axes()))
    def test_an_axis_that_is_not_there(self, name, axis):
        """Or that is named twice: an error about axes, never an answer."""
        example = EXAMPLES[name][0]
        drawn = u.masked(u.draw(example, 0, 0.6))
        rank = max(len(x.shape) for x in u.leaves(example, u.T))
        wrong = [rank + 2, -rank - 3]
        bare = bound(name, example)
        bare.apply_defaults()
        if name == "tensordot":
            wrong = [[[rank], [0]], [[0], [-rank - 1]], [[0, 0], [0, 1]], 9, -1]
        elif isinstance(bare.arguments[axis], (list, tuple)):
            wrong = [(0, rank + 2), (-rank - 3, 0), (0, 0), (0, -rank)]
        for value in wrong:
            arguments = bound(name, drawn)
            arguments.arguments[axis] = value
            error = raised(partial(run, arguments, name))
            label = f"{name} {axis}={value}: {error!r}"
            self.assertIsNotNone(error, label)
            plain = bound(name, u.plain(u.draw(example, 0, 0.6)))
            plain.arguments[axis] = value
            # As upstream says it of plain tensors, if it does.
            if raised(partial(run, plain, name)) is None:
                told = f"{error}".lower()
                self.assertRegex(told, "ax[ei]s|dim|source", label)

    @parameterized.named_parameters(
        (name.replace(".", "_"), name) for name in names()
    )
    def test_integers_of_numpy(self, name):
        """Where plain tensors take them for an axis or a size."""
        for example in EXAMPLES[name][:2]:
            drawn = u.draw(example, 0, 0.6)
            if drawn == numpy_integers(drawn) and not any(
                type(x) is int for x in tree.flatten(u.masked(drawn))
            ):
                continue
            try:
                call(name, numpy_integers(u.plain(drawn)))
            except Exception:
                continue
            expected = parts(call(name, u.masked(drawn)))
            found = parts(call(name, numpy_integers(u.masked(drawn))))
            if name.startswith("random."):
                continue
            for (x, mask), (y, other) in zip(found, expected, strict=True):
                self.assertAllClose(u.widened(x), u.widened(y), msg=name)
                self.assertEqual(mask is None, other is None, name)
                if mask is not None:
                    self.assertAllEqual(mask, other, name)


def one_operand_rows():
    """Rows of which the first operand, and it alone, is a tensor."""
    rows = {row.fn: row for row in registry.rows().values()}
    found = []
    for name in names():
        row = rows.get(u.function_of(name))
        leaves = u.leaves(EXAMPLES[name][0], u.T)
        if row is None or row.takes_nests or len(leaves) != 1:
            continue
        if name in ("cond", "get_mask"):
            continue  # A list is no predicate, and it has no mask.
        if isinstance(EXAMPLES[name][0][0], u.T):
            found.append((name.replace(".", "_"), name))
    return found


VALUES = np.arange(24, dtype="float32").reshape(2, 3, 4)
MASK = np.array([[True, True, False], [True, False, False]])


def x():
    return keras.MaskedTensor(VALUES, MASK)


class ListsTest(testing.TestCase):
    @parameterized.named_parameters(u.part(one_operand_rows()))
    def test_a_list_is_stacked(self, name):
        """As upstream stacks plain tensors, by every row of one operand."""
        example = EXAMPLES[name][0]
        if name.startswith("random."):
            self.skipTest("Two draws differ.")
        masked = u.masked(u.draw(example, 0, 0.6))
        first, rest = masked[0], masked[1:]
        plain = backend.convert_to_tensor(first.values)
        if raised(partial(call, name, ([plain, plain], *rest))):
            self.skipTest("Nor does upstream take a list.")
        stacked = (ops.stack([first, first]), *rest)
        if isinstance(raised(partial(call, name, stacked)), TypeError):
            with self.assertRaises(UnsupportedMaskError):
                call(name, ([first, first], *rest))
            return
        expected = parts(call(name, stacked))
        for nest in (list, tuple, OwnList, lambda xs: Pair(*xs)):
            found = parts(call(name, (nest([first, first]), *rest)))
            for (x, mask), (y, other) in zip(found, expected, strict=True):
                self.assertEqual(mask is None, other is None, name)
                if mask is not None:
                    self.assertAllEqual(mask, other, name)
                    x, y = x[mask], y[mask]
                self.assertAllClose(u.widened(x), u.widened(y), msg=name)

    def test_lists_beside_operators(self):
        stacked = ops.stack([x(), x()])
        for found in (x() + [x(), x()], [x(), x()] + x(), x() + (x(), x())):
            self.assertAllEqual(found.mask, stacked.mask)
            self.assertAllClose(found.values, 2 * u.array(stacked.values))
        found = ops.convert_to_tensor([[x(), x()], [x(), VALUES]])
        self.assertEqual(tuple(found.shape), (2, 2, 2, 3, 4))
        self.assertAllEqual(found.mask[0, 1], MASK)
        self.assertTrue(np.all(u.array(found.mask[1, 1])))
        found = ops.sum([x(), VALUES], axis=0)
        self.assertAllClose(found.values[0, 2], VALUES[0, 2])

    def test_a_list_of_numbers_stretches_the_mask(self):
        column = keras.MaskedTensor(np.ones((3, 1)), np.ones((3, 1), "bool"))
        for found in (column + [1.0, 2.0], ops.power(column, (1.0, 2.0))):
            self.assertEqual(tuple(found.mask.shape), (3, 2))

    @parameterized.named_parameters(
        ("tuple", tuple),
        ("own_list", OwnList),
        ("named_tuple", lambda xs: Pair(*xs)),
    )
    def test_nests_of_any_kind(self, nest):
        for op in (ops.concatenate, ops.stack, ops.hstack, ops.dstack):
            expected, found = op([x(), x()]), op(nest([x(), x()]))
            self.assertAllEqual(found.mask, expected.mask)
            self.assertAllEqual(found.values, expected.values)

    def test_a_list_that_a_layer_tracks(self):
        class Halves(layers.Layer):
            def call(self, x):
                self.parts = ops.split(x, 2, axis=-1)
                return ops.concatenate(self.parts, axis=-1)

        self.assertAllEqual(Halves()(x()).mask, MASK)


def all_valid(values):
    return keras.MaskedTensor(values, np.ones(np.shape(values), "bool"))


def tensor(values, dtype):
    return backend.cast(backend.convert_to_tensor(values), dtype)


class CornersTest(testing.TestCase):
    @parameterized.product(
        op=("argmax", "argmin"),
        row=([1, 0, np.nan], [np.nan, 1, 0], [1, np.nan, np.nan, 0]),
    )
    def test_places_beside_nan_are_the_plain_ones(self, op, row):
        row = np.array(row, "float32")
        plain = getattr(ops, op)(backend.convert_to_tensor(row))
        self.assertEqual(int(getattr(ops, op)(all_valid(row))), int(plain))

    @parameterized.product(
        op=("argmax", "argmin"),
        shape=((5,), (4, 5), (2, 3, 4)),
        keepdims=(False, True),
    )
    def test_places_where_infinity_is_valid(self, op, shape, keepdims):
        """Against NumPy on the valid entries, for any axis and rank."""
        rng = np.random.default_rng(0)
        inf = np.inf if op == "argmin" else -np.inf
        for _ in range(4):
            values = rng.choice([inf, inf, inf, 1.0], shape).astype("float32")
            for rank in range(1, len(shape) + 1):
                mask = rng.uniform(size=shape[:rank]) < 0.5
                for axis in (None, *range(len(shape))):
                    found = getattr(ops, op)(
                        keras.MaskedTensor(values, mask),
                        axis=axis,
                        keepdims=keepdims,
                    )
                    self.check_place(found, values, mask, op, axis, keepdims)

    def check_place(self, found, values, mask, op, axis, keepdims):
        cells = u.over_all_axes(mask, values.shape)
        rows, valid = values.reshape(-1), cells.reshape(-1)
        if axis is not None:
            n = values.shape[axis]
            rows, valid = (
                np.moveaxis(a, axis, -1).reshape(-1, n) for a in (values, cells)
            )
        rows, valid = np.atleast_2d(rows, valid)
        expected = [
            np.flatnonzero(v)[getattr(np, op)(r[v])] if v.any() else 0
            for r, v in zip(rows, valid)
        ]
        result = found.values if ops.is_masked(found) else found
        # Where the mask does not cover the axis, rows of it are masked whole.
        there = valid.any(-1)
        place = u.array(result).reshape(-1)
        self.assertAllEqual(place[there], np.array(expected)[there])
        shape = np.sum(values, axis, keepdims=keepdims).shape
        self.assertEqual(tuple(result.shape), shape)

    @parameterized.product(
        op=("argmax", "argmin", "logsumexp", "median", "norm"),
        shape=((0, 3), (2, 0, 3)),
        dtype=("float32", "float16"),
    )
    def test_no_rows(self, op, shape, dtype):
        values = np.zeros(shape, dtype)
        found = getattr(ops, op)(all_valid(values), axis=len(shape) - 1)
        self.assertEqual(tuple(found.shape), shape[:-1])
        self.assertEqual(tuple(found.mask.shape), shape[:-1])

    @parameterized.named_parameters(
        (op, op) for op in ("logsumexp", "mean", "sum", "std", "norm", "median")
    )
    def test_rows_of_nothing(self, op):
        """As rows that hold nothing valid; they are masked."""
        found = getattr(ops, op)(all_valid(np.zeros((2, 0), "f")), axis=1)
        self.assertAllEqual(found.mask, [False, False])
        self.assertAllEqual(found.values, [0, 0])
        found = getattr(ops, op)(all_valid(np.zeros((0,), "f")))
        self.assertEqual(float(found), 0)

    def test_a_place_in_nothing(self):
        """No row has one, as of plain tensors."""
        for op in (ops.argmax, ops.argmin):
            nothing = np.zeros((2, 0), "float32")
            for x in (backend.convert_to_tensor(nothing), all_valid(nothing)):
                self.assertIsNotNone(raised(partial(op, x, axis=1)))

    def test_between_infinite_entries(self):
        for row, expected in (
            ([-np.inf, 2], -np.inf),
            ([2, np.inf], np.inf),
            ([-np.inf, -np.inf, 1, 2, 3, 4], 1.5),
            ([-3e38, 3e38], 0),
        ):
            row = np.array([*row, 7], "float32")
            mask = np.arange(len(row)) < len(row) - 1
            x = keras.MaskedTensor(row, mask)
            for found in (ops.median(x), ops.quantile(x, 0.5)):
                self.assertAllClose(found, expected)

    @parameterized.named_parameters(
        *[
            (name, op, q)
            for name, op, q in (
                ("high", "quantile", 1.2),
                ("low", "quantile", -0.1),
                ("one_of_two", "quantile", [0.5, 1.01]),
                ("hundredths", "percentile", 100.5),
                ("skipping_nan", "nanquantile", 1.5),
            )
            if hasattr(ops, op)  # Keras 3.14 has no `percentile`.
        ]
    )
    def test_a_share_that_no_sample_has(self, op, q):
        with self.assertRaisesRegex(ValueError, r"range \[0, 1(00)?\]"):
            getattr(ops, op)(x(), q, axis=1)
        with self.assertRaisesRegex(ValueError, r"range \[0, 1(00)?\]"):
            getattr(ops, op)(x(), backend.convert_to_tensor(q), axis=1)

    @parameterized.product(
        op=("all", "any", "argmax", "argmin", "count_nonzero", "max", "sum"),
        dtype=("bool", "bfloat16", "float16", "uint8", "complex64"),
    )
    def test_dtypes(self, op, dtype):
        rows = [[1, 0, 1], [0, 0, 0], [1, 1, 0]]
        valid = np.array([[True, False, True], [True] * 3, [False] * 3])
        x = keras.MaskedTensor(tensor(rows, dtype), valid)
        if dtype == "complex64" and op in ("argmax", "argmin", "max"):
            with self.assertRaisesRegex(TypeError, "no order"):
                getattr(ops, op)(x, axis=1)
            return
        found = getattr(ops, op)(x, axis=1)
        self.assertAllEqual(found.mask, [True, True, False])
        function = {"max": np.max, "sum": np.sum}.get(op, getattr(np, op))
        expected = [
            function(np.array(row)[v]) for row, v in zip(rows[:2], valid)
        ]
        if op == "argmin":
            expected = [0, 0]
        self.assertAllEqual(u.array(found.values)[:2], expected)

    @parameterized.named_parameters(
        (op, op) for op in ("std", "var", "trapezoid", "median", "average")
    )
    def test_double_precision_stays(self, op):
        if is_single():
            self.skipTest("It computes in single precision.")
        values = np.array([[1.0, 1.0 + 1e-9, 9.0]])
        x = keras.MaskedTensor(values, [[True, True, False]])
        found = getattr(ops, op)(x, axis=1).values
        self.assertEqual(backend.standardize_dtype(found.dtype), "float64")
        function = np.trapezoid if op == "trapezoid" else getattr(np, op)
        expected = function(values[:, :2], axis=1)
        self.assertAllClose(found, expected, rtol=1e-12, atol=1e-13)

    @when(">=3.15")  # Which has `cdist`.
    def test_double_precision_of_distances(self):
        if is_single():
            self.skipTest("It computes in single precision.")
        x = keras.MaskedTensor(np.array([[1.0], [1.0 + 1e-9]]), [True, True])
        found = ops.cdist(x, x).values
        self.assertAllClose(found, [[0, 1e-9], [1e-9, 0]], atol=1e-15)

    @parameterized.named_parameters(
        ("int64", np.array([2**40, 5, 3])),
        ("float64", np.array([1 + 1e-12, 5, 3])),
        ("int8", np.array([100, 5, 3], "int8")),
    )
    def test_a_fill_keeps_dtypes(self, values):
        if backend.backend() == "jax" and values.itemsize == 8:
            self.skipTest("It has 32 bits.")
        x = keras.MaskedTensor(values, [True, False, True])
        self.assertEqual(backend.standardize_dtype(x.dtype), str(values.dtype))
        self.assertAllEqual(u.array(x.values)[[0, 2]], values[[0, 2]])
        found = ops.filled(x, 7)
        self.assertAllEqual(u.array(found), [values[0], 7, values[2]])

    def test_norms(self):
        """As upstream computes them, over what is valid."""
        big = tensor([[300.0, 400.0, 1.0], [0.0, 0.0, 1.0]], "float16")
        valid = [[True, True, False]] * 2
        with np.errstate(over="ignore"):
            found = ops.norm(keras.MaskedTensor(big, valid), axis=1)
            plain = u.array(ops.norm(big[:, :2], axis=1))
        self.assertAllClose(u.array(found.values), plain)
        cube = np.arange(24, dtype="float32").reshape(2, 3, 4)
        x = keras.MaskedTensor(cube, MASK)
        cells = np.where(MASK[..., None], cube, 0)
        for axis in (None, (0, 1), (-1, 0), (2, 0, 1), 1):
            for keepdims in (False, True):
                found = ops.norm(x, axis=axis, keepdims=keepdims)
                squares = np.sum(cells**2, axis, keepdims=keepdims)
                self.assertAllClose(ops.filled(found), np.sqrt(squares))

    def test_the_slope_of_a_norm(self):
        """None of nothing; of a valid zero vector the plain one."""
        if backend.backend() == "numpy":
            self.skipTest("NumPy has no gradients.")
        values = np.array([[0.0, 0.0, 5.0], [1.0, 2.0, 3.0]], "float32")

        def total(axis, mask):
            def loss(arrays):
                x = keras.MaskedTensor(arrays[0], mask)
                return ops.sum(ops.filled(ops.norm(x, axis=axis)))

            return u.array(u.gradients(loss, [values])[0])

        nothing = np.zeros((2, 3), "bool")
        for axis, mask in ((1, nothing), (0, nothing), (None, nothing)):
            self.assertAllEqual(total(axis, mask), np.zeros((2, 3)))
        self.assertAllEqual(total(1, [False, False]), np.zeros((2, 3)))
        rows = np.array([[True, True, False]] * 2)
        found = total(1, rows)
        self.assertAllClose(found[1], [1 / 5**0.5, 2 / 5**0.5, 0])
        self.assertEqual(found[0, 2], 0)
        if backend.backend() == "torch":
            self.assertAllEqual(found[0], [0, 0, 0])

    def test_tensordot_of_too_many_axes(self):
        for axes in (9, -1, [[0, 1], [0]]):
            with self.assertRaisesRegex(ValueError, "axes"):
                ops.tensordot(x(), x(), axes=axes)


class OperandsTest(testing.TestCase):
    @parameterized.parameters("x_min", "x_max")
    def test_a_bound_alone_may_be_masked(self, name):
        x, bound = VALUES, np.where(MASK[..., None], VALUES + 0.1, np.nan)
        bounds = {"x_min": -np.inf, "x_max": np.inf}
        function = {"x_min": np.maximum, "x_max": np.minimum}[name]
        bounds[name] = keras.MaskedTensor(bound, MASK)
        clipped = ops.clip(x, **bounds)
        values = backend.convert_to_numpy(clipped.values)
        self.assertAllEqual(backend.convert_to_numpy(clipped.mask), MASK)
        self.assertAllClose(values[MASK], function(x, bound)[MASK])

    @parameterized.parameters("bias", "mask")
    def test_what_attention_adds_is_plain(self, name):
        x = np.ones((2, 3, 1, 4), "float32")
        added = np.ones((2, 1, 3, 3), "bool" if name == "mask" else "float32")
        masked = keras.MaskedTensor(added, np.ones((2, 1), "bool"))
        with self.assertRaisesRegex(UnsupportedMaskError, "operand 3"):
            ops.dot_product_attention(x, x, x, **{name: masked})

    def test_a_list_of_axes(self):
        x = keras.MaskedTensor(np.ones((1, 3, 1, 2)), [[True, False, True]])
        for axis in ([0, 2], (0, 2)):
            squeezed = ops.squeeze(x, axis=axis)
            self.assertEqual(tuple(squeezed.shape), (3, 2))
            self.assertAllEqual(squeezed.mask, [True, False, True])

    @parameterized.product(ranks=[(3, 3), (2, 3), (3, 2), (1, 3), (3, 1)])
    def test_a_dot_of_any_rank(self, ranks):
        x, y = (
            np.ones({1: (5,), 2: (4, 5), 3: (2, 4, 5)}[ranks[0]], "float32"),
            np.ones({1: (5,), 2: (5, 3), 3: (2, 5, 3)}[ranks[1]], "float32"),
        )
        # All steps of the second row of the one of rank 3 are missing.
        first = ranks[0] == 3
        mask = np.array([[True] * 4, [False] * 4])
        mask = mask if first else np.array([[True] * 5, [False] * 5])
        if first:
            result = ops.dot(keras.MaskedTensor(x, mask), y)
        else:
            result = ops.dot(x, keras.MaskedTensor(y, mask))
        plain = backend.convert_to_numpy(ops.dot(x, y))
        # Those of the first row alone, wherever the engine puts it.
        ones = np.ones_like(x if first else y)
        ones[1] = 0
        there = ops.dot(ones, y) if first else ops.dot(x, ones)
        there = backend.convert_to_numpy(there) > 0
        values = backend.convert_to_numpy(result.values)
        mask = backend.convert_to_numpy(result.mask)
        mask = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
        self.assertAllEqual(np.broadcast_to(mask, values.shape), there)
        self.assertAllClose(values[there], plain[there])

    def test_places_in_all_entries(self):
        x = keras.MaskedTensor(VALUES, MASK)
        places = np.arange(VALUES.size, dtype="int32")[::-5]
        valid = np.broadcast_to(MASK[..., None], VALUES.shape)
        taken = ops.take_along_axis(x, places, axis=None)
        expected = valid.ravel()[places]
        self.assertAllEqual(taken.mask, expected)
        values = backend.convert_to_numpy(taken.values)
        self.assertAllClose(values[expected], VALUES.ravel()[places][expected])

    @parameterized.parameters((0,), (1,), (2,))
    def test_shares_of_any_rank(self, rank):
        q = np.full((1,) * rank, 0.3, "float32")
        x = keras.MaskedTensor(VALUES, MASK)
        found = ops.quantile(x, q, axis=1)
        rows = [v[m] for v, m in zip(VALUES, MASK)]
        self.assertEqual(len(found.shape), rank + VALUES.ndim - 1)
        values = backend.convert_to_numpy(found.values)
        for i, row in enumerate(rows):
            if len(row):
                expected = np.quantile(row, 0.3, axis=0)
                self.assertAllClose(values[(0,) * rank][i], expected)

    def test_it_is_not_none(self):
        x = keras.MaskedTensor(VALUES, MASK)
        for other in (None, "x"):
            self.assertIs(x == other, False)
            self.assertIs(x != other, True)

    @parameterized.parameters("conv", "conv_transpose", "max_pool")
    def test_a_window_over_fewer_axes(self, name):
        x = keras.MaskedTensor(
            np.ones((2, 3, 5, 4)), np.ones((2, 3, 5), "bool")
        )
        window = (2,) if name == "max_pool" else np.ones((2, 4, 4))
        with self.assertRaisesRegex(UnsupportedMaskError, "1 of the 2 axes"):
            getattr(ops, name)(x, window, 1, data_format="channels_last")


class PartsTest(testing.TestCase):
    def test_a_mask_is_not_deleted(self):
        masked = x()
        for name in ("mask", "values", "_keras_mask"):
            with self.assertRaisesRegex(AttributeError, "immutable"):
                delattr(masked, name)
        self.assertAllEqual(masked.mask, MASK)

    def test_it_does_not_change_with_the_arrays_it_is_made_of(self):
        values, mask = VALUES.copy(), MASK.copy()
        masked = keras.MaskedTensor(values, mask)
        values[:], mask[:] = -1, False
        self.assertAllEqual(masked.mask, MASK)
        self.assertAllEqual(u.array(masked.values)[MASK], VALUES[MASK])

    @pytest.mark.skipif(backend.backend() != "torch", reason="of PyTorch")
    def test_it_does_not_change_with_the_tensors_it_is_made_of(self):
        import torch

        values, mask = torch.tensor(VALUES), torch.tensor(MASK)
        masked = keras.MaskedTensor(values, mask)
        values.fill_(-1)
        mask.fill_(False)
        self.assertAllEqual(masked.mask, MASK)
        self.assertAllEqual(u.array(masked.values)[MASK], VALUES[MASK])
