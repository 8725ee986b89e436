"""Elementwise ops: each entry by itself."""

import functools

import numpy as np

from keras.src.testing.masked.testing_utils import STEPS
from keras.src.testing.masked.testing_utils import Drawn
from keras.src.testing.masked.testing_utils import T
from keras.src.testing.masked.testing_utils import function_of
from keras.src.testing.masked.testing_utils import leaves
from keras.src.testing.masked.testing_utils import parts
from keras.src.testing.masked.testing_utils import plain
from keras.src.testing.masked.testing_utils import widened


def signals(low=-3.0, high=3.0, dtype="float32"):
    """One operand, of the shapes and masks that matter."""
    return [
        (T(shape, mask, dtype, low, high),)
        for shape, mask in (((2, 3, 4), 2), ((0, 2, 3), 2))
    ]


def pairs(low=-3.0, high=3.0, dtype="float32", low2=None, high2=None):
    """Two operands that broadcast, masked on either side or on both."""
    other = (dtype, low if low2 is None else low2, high2 or high)
    return [
        (T(a, m, dtype, low, high), T(b, n, *other))
        for a, m, b, n in (
            ((2, 3, 4), 2, (2, 3, 4), 3),
            ((2, 3, 1), 2, (3, 4), 1),
            ((2, 3, 4), None, (3, 4), 1),
            ((2, 1), 2, (1, 3), None),
            ((2, 3), 1, (), None),
        )
    ]


DOMAINS = {
    "arccos": (-0.9, 0.9),
    "arccosh": (1.2, 4),
    "arcsin": (-0.9, 0.9),
    "arctanh": (-0.9, 0.9),
    "cbrt": (0.2, 4),
    "erfinv": (-0.9, 0.9),
    "lgamma": (0.3, 4),
    "log": (0.2, 4),
    "log10": (0.2, 4),
    "log1p": (-0.5, 4),
    "log2": (0.2, 4),
    "reciprocal": (0.3, 4),
    "rsqrt": (0.3, 4),
    "sqrt": (0.3, 4),
    "tan": (-1.2, 1.2),
}
UNARY = """absolute angle arccos arccosh arcsin arcsinh arctan arctanh array
cbrt ceil celu conjugate copy cos cosh deg2rad elu erf erfc erfinv exp exp2
expm1 fabs floor gelu hard_shrink hard_sigmoid hard_silu hard_tanh i0 imag
isfinite isinf isnan isneginf isposinf isreal leaky_relu lgamma log log10
log1p log2 log_sigmoid logical_not nan_to_num negative rad2deg real reciprocal
relu relu6 round rsqrt selu sigmoid sign signbit silu sin sinc sinh
soft_shrink softplus softsign sparse_plus sparse_sigmoid sqrt square
squareplus stop_gradient tan tanh tanh_shrink trunc""".split()
BINARY = """add arctan2 copysign equal fmax fmin greater greater_equal
heaviside hypot isclose less less_equal logaddexp logaddexp2 logical_and
logical_or logical_xor maximum minimum multiply nextafter not_equal
subtract""".split()
DIVISIONS = "divide divide_no_nan floor_divide fmod mod true_divide".split()
BITS = "bitwise_and bitwise_or bitwise_xor gcd lcm".split()
SHIFTS = """bitwise_left_shift bitwise_right_shift left_shift
right_shift""".split()
INT = ("int32", 0, 9)

EXAMPLES = {
    **{name: signals(*DOMAINS.get(name, ())) for name in UNARY},
    **{name: pairs() for name in BINARY},
    **{name: pairs(low2=0.5) for name in DIVISIONS},
    # Upstream's specs of these have the shape of the first operand.
    **{name: pairs(0, 9, "int32")[::4] for name in BITS},
    **{name: pairs(0, 9, "int32", high2=3)[::4] for name in SHIFTS},
    "bitwise_invert": signals(*INT[1:], INT[0]),
    "bitwise_not": signals(*INT[1:], INT[0]),
    "ldexp": [
        (T((2, 3, 4), 2), T((2, 3, 4), 3, "int32")),
        (T((2, 3), 1), T((3,), None, "int32")),
    ],
    "float_power": pairs(0.5, 2.0),
    "gammainc": pairs(0.5, 2.0),
    "power": pairs(0.5, 2.0),
    "clip": [(x, -1.0, 1.0) for (x,) in signals()],
    "cast": [(x, "int32") for (x,) in signals()],
    "saturate_cast": [(x, "int32") for (x,) in signals()],
    "convert_to_tensor": signals(),
    "threshold": [(x, 0.5, -1.0) for (x,) in signals()],
    "where": [
        (T((2, 3), 2, "bool"), T((2, 3), 1), T((2, 3), None)),
        (T((2, 1), None, "bool"), T((2, 3), 2), T((3,), 1)),
        (T((2, 3), 2, "bool"), 1.0, 0.0),
        # States that are kept: of one number, and of several.
        (T((3,), None, "bool"), T((3,), 1), T((3,), 1)),
        (T((2, 3, 1), None, "bool"), T((2, 3, 4), 2), T((2, 3, 4), 1)),
        (T((2, 1, 1), 1, "bool"), T((2, 3, 4)), T((2, 3, 4), 2)),
        (T((2, 3, 4), 2, "bool"), T((2, 3, 4), 2), T((2, 3, 4), 2)),
        (T((), None, "bool"), T((2, 3), 2), T((2, 3), 2)),
        # Fills.
        (T((3, 3), None, "bool"), T((2, 3, 3), 3), -9.0),
        (T((3, 3), None, "bool"), T((2, 3, 3), 2), T((3, 3))),
        (T((2, 3, 4), None, "bool"), T((2, 1, 4), 1), T((3, 4), 1)),
        (T((2, 3), 1, "bool"), T((2, 3)), T((3,))),
    ],
    "activations.mish": [(STEPS,)],
    "activations.relu": [(STEPS, 0.1, 2.0, 0.5), (STEPS,)],
}


def merged(name, *drawn):
    """The op on plain tensors, valid where all operands are."""
    values = parts(function_of(name)(*plain(drawn)))
    cells = np.logical_and.reduce(
        np.broadcast_arrays(*(x.cells for x in leaves(drawn)))
    )
    return [(x, np.broadcast_to(cells, x.shape)) for x, _ in values]


def where(condition, *branches):
    """That of `numpy.ma`, with a fill as valid as what it fills.

    No mask becomes one of single entries by a condition that is.
    """
    branches = [
        x if type(x) is Drawn else Drawn(np.asarray(x, "float32"), None)
        for x in branches
    ]
    operands = (condition, *branches)
    ndim = max(x.values.ndim for x in operands)
    covered = max(
        (
            ndim - x.values.ndim + x.mask.ndim
            for x in operands
            if x.mask is not None
        ),
        default=ndim,
    )
    own = condition.values.shape
    if np.prod(own[max(covered - ndim + len(own), 0) :]) > 1:
        return merged("where", *operands)
    masked = [
        masked_array(widened(x.values), valid_as(x, other))
        for x, other in (branches, branches[::-1])
    ]
    condition = masked_array(condition.values, condition.cells)
    found = np.ma.where(condition, *masked)
    return [(found.data, ~np.ma.getmaskarray(found))]


def masked_array(values, cells):
    arrays = np.broadcast_arrays(values, ~cells)
    return np.ma.array(arrays[0], mask=arrays[1])


def valid_as(x, other):
    """Where one branch is valid: as it is itself, or a fill as the other."""
    ndim = max(x.values.ndim, other.values.ndim)
    own, theirs = (
        (1,) * (ndim - y.values.ndim) + y.values.shape for y in (x, other)
    )
    end = 0
    if other.mask is not None:
        end = ndim - other.values.ndim + other.mask.ndim
    axes = range(ndim - other.values.ndim, end)
    lacks = x.values.ndim < other.values.ndim and other.mask is not None
    is_fill = lacks or any(own[a] == 1 != theirs[a] for a in axes)
    return x.cells & other.cells if is_fill else x.cells


def mish(x):
    return [(x.values * np.tanh(np.log1p(np.exp(x.values))), x.cells)]


def relu(x, negative_slope=0.0, max_value=np.inf, threshold=0.0):
    below = negative_slope * (x.values - threshold)
    values = np.where(x.values < threshold, below, x.values)
    return [(np.minimum(values, max_value), x.cells)]


ORACLES = {
    **{name: functools.partial(merged, name) for name in EXAMPLES},
    "activations.mish": mish,
    "activations.relu": relu,
    "where": where,
}
