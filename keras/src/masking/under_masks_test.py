"""What ops leave under a mask: ordinary finite numbers, whoever wrote there.

Rows and layers hold whatever finite number is there (`tables_test`,
`properties_test`, `layers_test`). So it is enough that none leaves another: a
constant that is infinite or large, and a dtype that is narrower, end at the op
that brings them.
"""

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src.backend import MaskedTensor
from keras.src.backend.common.masked_tensor import ORDINARY
from keras.src.masking.layers.explicit import narrowed
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.cases.merge import BINARY
from keras.src.testing.masked.cases.merge import DIVISIONS
from keras.src.testing.masked.row_checks import NO_GRADIENT

INF, NAN = np.inf, np.nan
MASK = np.array([[True, True, False], [True, False, False]])
VALUES = np.arange(1, 13, dtype="float32").reshape(2, 3, 2)
EXTREMES = (INF, -INF, NAN, 1e30, -1e9, np.float32(INF))


def by_feature(*numbers):
    return np.array(numbers, "float32")


def on_engine(number):
    return backend.convert_to_tensor(number, "float32")


# Ops of a masked tensor, and of a number that nothing ordinary is near to.
OF_A_NUMBER = {
    "add": lambda x, c: x + c,
    "add_reflected": lambda x, c: c + x,
    "add_on_engine": lambda x, c: x + on_engine(c),
    "add_by_feature": lambda x, c: x + by_feature(c, 0),
    "clip": lambda x, c: ops.clip(x, c, c),
    "divide": lambda x, c: x / c,
    "divide_reflected": lambda x, c: c / (x - x),
    "full_like": ops.full_like,
    "leaky_relu": lambda x, c: ops.leaky_relu(x - 3, abs(c)),
    "maximum": ops.maximum,
    "minimum": ops.minimum,
    "mod": ops.mod,
    "multiply": lambda x, c: x * c,
    "multiply_by_feature": lambda x, c: x * by_feature(1, c),
    "pad": lambda x, c: ops.pad(x, ((0, 0), (1, 1), (0, 0)), "constant", c),
    "power": lambda x, c: x**c,
    "power_reflected": lambda x, c: ops.power(c, x),
    "select": lambda x, c: ops.select([x > 2], [c], x),
    "subtract": lambda x, c: x - c,
    "threshold": lambda x, c: ops.threshold(x, 2, c),
    "where": lambda x, c: ops.where(ops.equal(x, 0), c, x),
    "where_other": lambda x, c: ops.where(x > 0, x, c),
    "where_causal": lambda x, c: ops.where(
        np.tril(np.ones((3, 2), "bool")), x, c
    ),
    "where_array": lambda x, c: ops.where(x > 0, x, by_feature(c, c)),
}
# Other ways in, each with ordinary numbers only.
OTHERS = {
    "diff": lambda x: ops.diff(of_first(x), axis=1),
    "divide_by_feature": lambda x: x / by_feature(0, 1),
    "divide_by_feature_on_engine": lambda x: (
        x / backend.convert_to_tensor(by_feature(0, 1))
    ),
    "divide_by_zero": lambda x: x / 0,
    "divide_by_little": lambda x: x / 1e-30,
    "floor_divide_by_feature": lambda x: x // by_feature(0, 1),
    "chain_of_squares": lambda x: ops.square(ops.square(ops.square(x - 1.6e9))),
    "chain_of_products": lambda x: many_times(apart(x), lambda y: y * y),
    "chain_of_products_of_two": lambda x: many_times(
        apart(x), lambda y: ops.multiply(y, y / 2)
    ),
    "chain_of_powers": lambda x: many_times(apart(x), lambda y: y**2),
    "chain_of_grams": lambda x: many_times(
        apart(x), lambda y: (y @ ops.swapaxes(y, 1, 2)) @ y
    ),
    "chain_of_exponentials": lambda x: many_times(x, ops.exp),
    "concatenate": lambda x: ops.concatenate([x, with_nan()], axis=-1),
    "patches": lambda x: ops.image.extract_patches(
        of_first(x)[..., None], size=(3, 2)
    ),
    "softmax_of_some": lambda x: narrowed(
        of_first(x), backend.convert_to_tensor(np.zeros((3, 2), "bool"))
    ),
    "stack": lambda x: ops.stack([x, with_nan()], axis=-1),
    "add_plain": lambda x: x + with_nan(),
    "matmul_plain": lambda x: x @ ops.swapaxes(with_nan(), 1, 2)[..., :1],
}


# Ops of two masked tensors, for which no mask is that of the result.
OF_TWO = {
    "concatenate": lambda x, y: ops.concatenate([x, y], axis=-1),
    "einsum": lambda x, y: ops.einsum("btf,btf->btf", x, y),
    "einsum_by_step": lambda x, y: ops.einsum("btf,bt->btf", x, y[..., 0]),
    "linspace": lambda x, y: ops.linspace(x, y, 3),
    "matmul_by_step": lambda x, y: x[:, :, None] @ y[..., None],
    "select": lambda x, y: ops.select([x > 2], [x], y),
    "stack": lambda x, y: ops.stack([x, y], axis=-1),
    "take_along_axis": lambda x, y: ops.take_along_axis(
        x, ops.where(ops.isfinite(y), 0, 0), axis=1
    ),
    "where_of_one": lambda x, y: ops.where(y > 0, x, 0.0),
    "where_of_both": lambda x, y: ops.where(x > 1, x, y),
    "where_by_steps": lambda x, y: ops.where(VALUES > 3, x, y),
    "where_in_rows": lambda x, y: ops.where(y > 0, x, x),
}
OF_INDICES = ["take_along_axis"]
# They take entries of one operand or the other, which may be there alone.
SELECTS = """concatenate einsum_by_step matmul_by_step select where_by_steps
where_of_both""".split()
for _name in (*BINARY, *DIVISIONS, "power"):
    if u.is_there(_name):
        OF_TWO[_name] = getattr(ops, _name)
OTHER_MASKS = {
    "more": np.ones((2, 3), "bool"),
    "crossed": MASK[:, ::-1],
    "of_rows": np.array([True, False]),
    "of_entries": np.broadcast_to([True, False], VALUES.shape),
}


def beyond(mask, other):
    """Values that are infinite where they alone are there."""
    mask, other = (
        np.broadcast_to(m.reshape(m.shape + (1,) * (3 - m.ndim)), VALUES.shape)
        for m in (mask, other)
    )
    return np.where(mask & ~other, INF, VALUES)


def apart(x):
    """What is valid is at most 1, what is masked as large as is ordinary."""
    return ops.where(ops.equal(x, 0), ORDINARY, x / 12)


def of_first(x):
    """What is there is infinite, so that no window of two steps is."""
    first = np.array([True, False, False])
    return MaskedTensor(np.full(x.shape, INF, "float32"), MASK & first)


def many_times(x, function):
    for _ in range(4):
        x = function(x)
    return x


def with_nan():
    return backend.convert_to_tensor(np.where(MASK[..., None], VALUES, NAN))


def named(names, *others):
    return [(f"{name}{i}", name, x) for name in names for i, x in others]


def pairs_of_masks(names):
    """Cases of ops of two, with each other mask, in both orders."""
    return [
        (f"{name}_{other}_{i}", name, mask, bool(i))
        for name in sorted(names)
        for other, mask in OTHER_MASKS.items()
        for i in range(2)
    ]


class UnderMasksTest(testing.TestCase):
    def assert_ordinary(self, x):
        """Finite and not large, under the mask."""
        for values, mask in u.parts(x):
            hidden = u.widened(values)[~mask]
            self.assertTrue(np.all(np.abs(hidden) <= ORDINARY), hidden)

    @parameterized.named_parameters(
        named(OF_A_NUMBER, *enumerate(EXTREMES)),
    )
    def test_a_number(self, name, number):
        def function(x):
            return OF_A_NUMBER[name](x, number)

        with u.quiet():
            result = function(MaskedTensor(VALUES, MASK))
        self.assert_ordinary(result)

    @parameterized.named_parameters(pairs_of_masks(OF_TWO))
    def test_what_one_of_two_holds_beyond_the_other(self, name, mask, swapped):
        x = MaskedTensor(beyond(MASK, mask), MASK)
        y = MaskedTensor(beyond(mask, MASK), mask)
        with u.quiet():
            result = OF_TWO[name](*((y, x) if swapped else (x, y)))
        self.assert_ordinary(result)

    @parameterized.named_parameters(
        case
        for case in pairs_of_masks({*OF_TWO} - {*NO_GRADIENT, *OF_INDICES})
        if not (case[1] in SELECTS and "of_entries" in case[0])
    )
    @pytest.mark.skipif(backend.backend() == "numpy", reason="no gradients")
    def test_no_gradient_of_it(self, name, mask, swapped):
        values = beyond(MASK, mask), beyond(mask, MASK)

        def total(weights):
            before, after = weights
            x = MaskedTensor(values[0], MASK) + before
            y = MaskedTensor(values[1], mask) + before
            result = OF_TWO[name](*((y, x) if swapped else (x, y)))
            return ops.sum(ops.filled(ops.cast(result, "float32") * after, 0))

        zero, one = np.zeros(1, "float32"), np.ones(1, "float32")
        for gradient in u.gradients(total, [zero, one]):
            self.assertTrue(np.all(np.isfinite(np.asarray(gradient))))

    @parameterized.parameters("bfloat16", "float16", "float8_e4m3fn")
    def test_two_masks_of_small_numbers(self, dtype):
        if "float8" in dtype and backend.backend() == "tensorflow":
            self.skipTest("TensorFlow makes no float8 of the number 0.")
        values = ops.cast(VALUES, dtype)
        x = MaskedTensor(values, MASK)
        y = MaskedTensor(values, OTHER_MASKS["more"])
        joined = ops.concatenate([x, y], axis=-1)
        self.assertEqual(backend.standardize_dtype(joined.dtype), dtype)
        self.assertAllEqual(joined.mask, MASK)

    def test_a_function_with_a_gradient_of_its_own(self):
        @ops.custom_gradient
        def log(x):
            def slope(*args, upstream=None):
                return (args[0] if upstream is None else upstream) / x

            return ops.log(x), slope

        x = MaskedTensor(VALUES, MASK)
        with u.quiet():
            self.assert_ordinary(log(x))
        if backend.backend() == "numpy":
            return

        def total(weights):
            before, after = weights
            return ops.sum(ops.filled(log(x * before) * after, 0))

        valid = VALUES[MASK]
        before, after = u.gradients(total, np.ones((2, 1), "float32"))
        self.assertAllClose(before, [valid.size])
        self.assertAllClose(after, [np.sum(np.log(valid))])

    @parameterized.named_parameters((name, name) for name in OTHERS)
    def test_ordinary_numbers(self, name):
        with u.quiet():
            x = OTHERS[name](MaskedTensor(VALUES, MASK))
        self.assert_ordinary(x)
