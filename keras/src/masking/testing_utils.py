"""Operands, examples and oracles for the tests of the tables.

A row of a table is tested once it has examples in `EXAMPLES`; a test holds the
two against each other, so that no row can be missed.
"""

import typing

import ml_dtypes
import numpy as np

from keras.src import backend
from keras.src import tree
from keras.src.backend.common.masked_tensor import MaskedTensorBase


class T(typing.NamedTuple):
    """What an operand looks like.

    Attributes:
        shape: Its shape.
        mask: Number of leading axes that its mask covers, None for a plain
            operand.
        dtype: Its dtype.
        low: Smallest entry.
        high: Largest entry.
    """

    shape: tuple
    mask: int | None = None
    dtype: str = "float32"
    low: float = -3.0
    high: float = 3.0


class Drawn(typing.NamedTuple):
    """An operand with its entries.

    Attributes:
        values: Array, all of it in the domain of the op.
        mask: Mask over leading axes, None for a plain operand.
    """

    values: np.ndarray
    mask: np.ndarray | None

    @property
    def cells(self):
        """The mask over all axes, all True for a plain operand."""
        if self.mask is None:
            return np.ones(self.values.shape, "bool")
        return over_all_axes(self.mask, self.values.shape)


def over_all_axes(mask, shape):
    mask = np.asarray(mask)
    mask = mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
    return np.broadcast_to(mask, shape)


def numpy_dtype(dtype):
    return ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)


def draw(structure, seed, share):
    """Entries for all operands of a nest.

    Args:
        structure: Nest with `T` in it.
        seed: Seed of the entries.
        share: Share of the entries that are valid.
    """
    rng = np.random.default_rng(seed)

    def one(t):
        if not isinstance(t, T):
            return t
        entries = rng.uniform(t.low, t.high, t.shape)
        if t.dtype == "bool":
            entries = entries > 0
        elif "int" in t.dtype:
            entries = np.round(entries)
        mask = None
        if t.mask is not None:
            mask = rng.uniform(size=t.shape[: t.mask]) < share
        return Drawn(entries.astype(numpy_dtype(t.dtype)), mask)

    return map_leaves(one, structure, T)


def map_leaves(function, structure, kind):
    """As `tree.map_structure`, with the named tuples `kind` as leaves."""
    if isinstance(structure, kind):
        return function(structure)
    if type(structure) in (list, tuple):
        mapped = [map_leaves(function, x, kind) for x in structure]
        return type(structure)(mapped)
    return structure


def leaves(structure, kind=Drawn):
    found = []
    map_leaves(found.append, structure, kind)
    return found


def plain(drawn, fill=None):
    """The nest with plain tensors; `fill` takes the place of masked entries."""

    def one(x):
        values = x.values
        if fill is not None:
            values = np.where(x.cells, values, np.asarray(fill, values.dtype))
        return backend.convert_to_tensor(values)

    return map_leaves(one, drawn, Drawn)


def masked(drawn, poison=None, garbage=None):
    """The nest with masked and plain tensors.

    Args:
        drawn: Nest with `Drawn` in it.
        poison: Number to put under the masks before the constructor.
        garbage: Seed of numbers, some hundreds of both signs, to put there
            after it.
    """

    def one(x):
        if x.mask is None:
            return backend.convert_to_tensor(x.values)
        values = x.values
        if poison is not None and is_float(values):
            values = np.where(x.cells, values, np.asarray(poison, values.dtype))
        result = backend.MaskedTensor(values, x.mask)
        if garbage is None or values.dtype == "bool":
            return result
        # Not by adding to the result: merging would put 0 there again.
        noise = backend.convert_to_tensor(rubbish(x, garbage))
        return backend.MaskedTensor._wrap(result.values + noise, result.mask)

    return map_leaves(one, drawn, Drawn)


def rubbish(x, seed):
    """A plain array that is 0 at valid entries, with hundreds elsewhere."""
    rng = np.random.default_rng(seed)
    numbers = rng.integers(100, 900, x.values.shape)
    numbers = numbers * rng.choice([-1, 1], x.values.shape)
    return np.where(x.cells, 0, numbers).astype(x.values.dtype)


def is_float(x):
    return backend.is_float_dtype(backend.standardize_dtype(x.dtype))


def array(x):
    """A NumPy array of a plain tensor, in a dtype that NumPy knows."""
    x = backend.convert_to_numpy(x)
    return x.astype("float32") if x.dtype == ml_dtypes.bfloat16 else x


def parts(result):
    """Values and mask over all axes of each tensor of a result."""
    pairs = []
    for x in tree.flatten(result):
        if isinstance(x, MaskedTensorBase):
            values = array(x.values)
            pairs.append((values, over_all_axes(array(x.mask), values.shape)))
        else:
            values = array(x)
            pairs.append((values, None))
    return pairs


def gradients(function, arrays):
    """Gradients of a number with respect to arrays, None without an engine."""
    name = backend.backend()
    if name == "jax":
        import jax

        return jax.grad(lambda xs: function(xs))(list(arrays))
    if name == "torch":
        tensors = [backend.convert_to_tensor(x) for x in arrays]
        tensors = [x.detach().clone().requires_grad_() for x in tensors]
        number = function(tensors)
        if number.requires_grad:
            number.backward()
        zero = np.zeros(())
        return [zero if x.grad is None else x.grad for x in tensors]
    if name == "tensorflow":
        import tensorflow as tf

        tensors = [backend.convert_to_tensor(x) for x in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            number = function(tensors)
        found = tape.gradient(number, tensors)
        return [np.zeros(()) if g is None else g for g in found]
    return None


# ----------------------------------------------------------------- examples

X = T((2, 3), 2)
STEPS = T((2, 3, 4), 2)
FULL = T((2, 3, 4), 3)


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
isfinite isinf isnan isneginf isposinf isreal leaky_relu log log10 log1p log2
log_sigmoid logical_not nan_to_num negative rad2deg real reciprocal relu relu6
round rsqrt selu sigmoid sign signbit silu sin sinc sinh soft_shrink softplus
softsign sparse_plus sparse_sigmoid sqrt square squareplus stop_gradient tan
tanh tanh_shrink trunc""".split()
BINARY = """add arctan2 equal fmax fmin greater greater_equal heaviside hypot
isclose less less_equal logaddexp logaddexp2 logical_and logical_or logical_xor
maximum minimum multiply nextafter not_equal subtract""".split()
DIVISIONS = "divide divide_no_nan floor_divide fmod mod true_divide".split()
BITS = "bitwise_and bitwise_or bitwise_xor gcd lcm".split()
SHIFTS = """bitwise_left_shift bitwise_right_shift left_shift
right_shift""".split()
INT = ("int32", 0, 9)

ELEMENTWISE = {
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
    ],
    "batch_normalization": [
        (T((2, 3, 4), 2), T((4,)), T((4,), None, "float32", 0.5, 2.0), -1)
    ],
}


def reductions(low=-3.0, high=3.0, dtypes=("float32", "int32"), empty=True):
    shapes = (
        ((2, 3, 4), 2, 1),
        ((2, 3, 4), 3, (0, 2)),
        ((2, 3, 4), 2, -1),
        ((2, 3, 4), 1, None),
        ((4,), 1, 0),
        *([((2, 0), 2, 1)] if empty else []),
    )
    found = [
        (T(shape, mask, dtypes[0], low, high), axis, i % 2 == 1)
        for i, (shape, mask, axis) in enumerate(shapes)
    ]
    found += [
        (T((2, 3), 2, dtype, low, high), 1, False) for dtype in dtypes[1:]
    ]
    return found


FLOATS = ("float32", "bfloat16", "float16")
REDUCTIONS = {
    "all": reductions(dtypes=("bool", "float32")),
    "any": reductions(dtypes=("bool", "float32")),
    "amax": reductions(empty=False),
    "amin": reductions(empty=False),
    "argmax": reductions(dtypes=("float32",), empty=False)[::2],
    "argmin": reductions(dtypes=("float32",), empty=False)[::2],
    "count_nonzero": reductions(-1, 1, ("int32",)),
    "logsumexp": reductions(dtypes=("float32",), empty=False),
    "max": reductions(dtypes=(*FLOATS, "int32", "uint8"), empty=False),
    "mean": reductions(0, 3, (*FLOATS, "int32", "bool")),
    "min": reductions(dtypes=("float32", "int32"), empty=False),
    "norm": reductions(dtypes=("float32",)),
    "prod": reductions(dtypes=("float32", "int32")),
    "std": reductions(dtypes=("float32",)),
    "sum": reductions(0, 3, (*FLOATS, "int32", "bool")),
    "var": reductions(dtypes=("float32", "int32")),
}
NUMPY_REDUCTION = {
    "amax": np.max,
    "amin": np.min,
    "norm": lambda x: np.sqrt(np.sum(x * x)),
    "logsumexp": lambda x: np.log(np.sum(np.exp(x))),
}
OF_NOTHING = {"prod": 1, "all": 1}


def reduced(name, x, axis, keepdims):
    """NumPy's reduction of the valid entries of each group, by a loop."""
    function = NUMPY_REDUCTION.get(name) or getattr(np, name)
    ndim = x.values.ndim
    axes = range(ndim) if axis is None else np.atleast_1d(axis) % ndim
    axes = tuple(int(a) for a in axes)
    kept = [a for a in range(ndim) if a not in axes]
    shape = tuple(x.values.shape[a] for a in kept)
    out = np.zeros(shape, "float64")
    valid = np.zeros(shape, "bool")
    for index in np.ndindex(shape):
        key = [slice(None)] * ndim
        for a, i in zip(kept, index):
            key[a] = i
        group, mask = x.values[tuple(key)], x.cells[tuple(key)]
        entries = group[mask].astype("float64")
        out[index] = OF_NOTHING.get(name, 0)
        if len(entries):
            out[index] = function(entries)
            valid[index] = True
        if name in ("argmax", "argmin") and len(entries):
            out[index] = np.flatnonzero(mask)[function(entries)]
    if keepdims:
        shape = [1 if a in axes else n for a, n in enumerate(x.values.shape)]
        out, valid = out.reshape(shape), valid.reshape(shape)
    covered = range(x.mask.ndim)
    if not any(a in axes for a in covered):
        # Nothing of the mask is reduced: a row without entries is not masked.
        valid = valid if x.values.size else x.mask
    return out, None if all(a in axes for a in covered) else valid


LAYOUT = {
    "array_split": [(STEPS, 2, 1), (FULL, 3, -1), (STEPS, 2, 2)],
    "broadcast_to": [(T((3, 4), 1), (2, 3, 4)), (T((2, 1), 2), (2, 3))],
    "concatenate": [
        ([STEPS, T((2, 3, 4), 3)], 1),
        ([STEPS, T((2, 2, 4))], 1),
        ([T((2, 3), 1), T((2, 3), 2), T((2, 1))], -1),
    ],
    "expand_dims": [(STEPS, 0), (STEPS, 1), (STEPS, -1), (STEPS, (1, 3))],
    "flip": [(STEPS, 1), (STEPS, -1), (STEPS, None), (FULL, (0, 2))],
    "get_item": [
        (STEPS, (slice(None), slice(1, 3))),
        (STEPS, (..., 0)),
        (STEPS, (0, 1)),
        (STEPS, (slice(None), None, 1)),
    ],
    "moveaxis": [(STEPS, 0, 1), (STEPS, -1, 0), (STEPS, [0, 1], [2, 0])],
    "pad": [
        (STEPS, ((0, 0), (1, 2), (0, 1))),
        (T((2, 3), 2), ((1, 1), (1, 1))),
    ],
    "ravel": [(STEPS,), (FULL,)],
    "repeat": [(STEPS, 2, 1), (STEPS, 2, 2), (STEPS, 2, None)],
    "reshape": [
        (STEPS, (6, 4)),
        (STEPS, (2, 3, 2, 2)),
        (STEPS, (2, 12)),
        (STEPS, (-1,)),
        (T((2, 0, 4), 2), (0, 4)),
    ],
    "roll": [(STEPS, 1, 1), (STEPS, 1, -1), (STEPS, 2, None)],
    "slice": [(STEPS, (0, 1, 0), (2, 2, 4))],
    "split": [(STEPS, 3, 1), (STEPS, [1], 1), (STEPS, 2, -1)],
    "squeeze": [(T((2, 1, 3), 2), 1), (T((2, 1, 3, 1), 3), None)],
    "stack": [([X, T((2, 3), 1)], 0), ([X, T((2, 3))], -1), ([X, X], 1)],
    "swapaxes": [(STEPS, 0, 1), (STEPS, 1, -1)],
    "take": [
        (STEPS, np.array([2, 0]), 1),
        (STEPS, 1, 1),
        (STEPS, np.array([[0, 3]]), -1),
        (STEPS, np.array([5, 2]), None),
    ],
    "take_along_axis": [(STEPS, np.zeros((2, 1, 4), "int32"), 1)],
    "tile": [(STEPS, (1, 2, 1)), (STEPS, 2), (X, (2, 1, 1))],
    "transpose": [(STEPS,), (STEPS, (1, 0, 2)), (STEPS, (2, 0, 1))],
    "unstack": [(STEPS, None, 1), (STEPS, None, -1)],
}
CONTRACTIONS = {
    "dot": [(STEPS, T((4, 5))), (X, T((3, 2), 2)), (T((3,), 1), T((3,), 1))],
    "einsum": [
        ("btf,fd->btd", STEPS, T((4, 5))),
        ("btf,bt->bf", STEPS, X),
        ("btf,bsf->bts", STEPS, T((2, 2, 4), 2)),
        ("b...f,f->...", STEPS, T((4,))),
        ("ij,jk", X, T((3, 2), 1)),
        ("bt->b", X),
        ("btf->", STEPS),
    ],
    "inner": [(X, T((4, 3), 1)), (T((3,), 1), T((3,)))],
    "matmul": [
        (STEPS, T((4, 5))),
        (STEPS, T((2, 4, 3))),
        (T((2, 4, 3)), STEPS),
        (FULL, T((2, 4, 2), 3)),
        (FULL, T((4,), 1)),
        (T((3,), 1), STEPS),
        (T((2, 2, 3)), T((2, 3, 4), 2)),
        (T((5, 1, 2, 3), 2), T((2, 3, 2), 2)),
    ],
    "outer": [(T((2,), 1), T((3,), 1)), (T((2,)), T((3,), 1))],
    "tensordot": [
        (STEPS, T((4, 5)), 1),
        (STEPS, T((3, 4, 2), 1), 2),
        (STEPS, T((2, 5), 2), ((0,), (0,))),
    ],
}
# `take` of a table at masked indices, and others of one case each.
SPECIAL = {
    "activations.mish": [(STEPS,)],
    "activations.relu": [(STEPS, 0.1, 2.0, 0.5), (STEPS,)],
    "log_softmax": [(X, 1), (STEPS, -1), (STEPS, 1)],
    "softmax": [(X, 1), (STEPS, -1), (STEPS, 1), (STEPS, (0, 1))],
    "sparsemax": [(X, 1), (STEPS, -1), (STEPS, 1)],
    "normalize": [(X, 1), (STEPS, -1)],
    "layer_normalization": [
        (STEPS, T((4,)), T((4,)), -1),
        (X, T((3,)), None, 1),
    ],
    "rms_normalization": [(STEPS, T((4,)), -1), (X, T((3,)), 1)],
    "moments": [(X, [1]), (STEPS, [1]), (STEPS, [0, 1, 2])],
    "average_pool": [
        (STEPS, 2, 1, "same"),
        (STEPS, 2, 2, "valid"),
        (FULL, 2, 1, "same"),
    ],
    "max_pool": [
        (STEPS, 2, 1, "same"),
        (STEPS, 2, 2, "valid"),
        (FULL, 2, 1, "same"),
    ],
    "conv": [
        (STEPS, T((2, 4, 3)), 1, "same"),
        (STEPS, T((3, 4, 3)), 1, "valid"),
    ],
    "cumsum": [(STEPS, 1), (STEPS, -1), (STEPS, None)],
    "cumprod": [(STEPS, 1), (STEPS, -1), (STEPS, None)],
    "tril": [(FULL,), (T((3, 3), 1), 1)],
    "triu": [(FULL,), (T((3, 3), 1), -1)],
    "ones_like": [(STEPS,)],
    "zeros_like": [(STEPS,)],
    "empty_like": [(STEPS,)],
    "full_like": [(STEPS, 2.0)],
    "ndim": [(STEPS,)],
    "size": [(STEPS,)],
    "filled": [(STEPS, 2.0), (STEPS,)],
    "get_mask": [(STEPS,)],
    "get_values": [],
}
EXAMPLES = ELEMENTWISE | REDUCTIONS | LAYOUT | CONTRACTIONS | SPECIAL
