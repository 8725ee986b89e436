"""What ops leave under a mask: ordinary finite numbers, whoever wrote there.

Rows and layers hold whatever finite number is there (`tables_test`,
`properties_test`, `layers_test`). So it is enough that none leaves another: a
constant that is infinite or large, and a dtype that is narrower, end at the op
that brings them.
"""

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src.backend import MaskedTensor
from keras.src.backend.common.masked_tensor import ORDINARY
from keras.src.testing.masked import testing_utils as u

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
    "stack": lambda x: ops.stack([x, with_nan()], axis=-1),
    "add_plain": lambda x: x + with_nan(),
    "matmul_plain": lambda x: x @ ops.swapaxes(with_nan(), 1, 2)[..., :1],
}


def apart(x):
    """What is valid is at most 1, what is masked as large as is ordinary."""
    return ops.where(ops.equal(x, 0), ORDINARY, x / 12)


def many_times(x, function):
    for _ in range(4):
        x = function(x)
    return x


def with_nan():
    return backend.convert_to_tensor(np.where(MASK[..., None], VALUES, NAN))


def named(names, *others):
    return [(f"{name}{i}", name, x) for name in names for i, x in others]


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

    @parameterized.named_parameters((name, name) for name in OTHERS)
    def test_ordinary_numbers(self, name):
        with u.quiet():
            x = OTHERS[name](MaskedTensor(VALUES, MASK))
        self.assert_ordinary(x)
