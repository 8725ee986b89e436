"""Reductions over the valid entries."""

import numpy as np

from keras.src.testing.masked.testing_utils import FULL
from keras.src.testing.masked.testing_utils import STEPS
from keras.src.testing.masked.testing_utils import T
from keras.src.testing.masked.testing_utils import X
from keras.src.testing.masked.testing_utils import over_all_axes


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
EXAMPLES = {
    "all": reductions(dtypes=("bool", "float32")),
    "any": reductions(dtypes=("bool", "float32")),
    "amax": reductions(empty=False),
    "amin": reductions(empty=False),
    "argmax": reductions(dtypes=("float32",), empty=False)[::2],
    "argmin": reductions(dtypes=("float32",), empty=False)[::2],
    "count_nonzero": [
        (x, axis) for x, axis, _ in reductions(-1, 1, ("int32",))
    ],
    "logsumexp": reductions(dtypes=("float32",), empty=False),
    "max": reductions(dtypes=(*FLOATS, "int32", "uint8"), empty=False),
    "mean": reductions(0, 3, (*FLOATS, "int32", "bool")),
    "min": reductions(dtypes=("float32", "int32"), empty=False),
    "norm": reductions(dtypes=("float32",)),
    "prod": reductions(dtypes=("float32", "int32")),
    "std": reductions(dtypes=("float32",)),
    "sum": reductions(0, 3, (*FLOATS, "int32", "bool")),
    "var": reductions(dtypes=("float32", "int32")),
    "moments": [
        (X, [1], False),
        (STEPS, [1], True),
        (FULL, [0, -1], False),
        (STEPS, [0, 1, 2], False),
    ],
}
NAMES = {
    **dict.fromkeys(EXAMPLES, ("axis", "keepdims")),
    "count_nonzero": ("axis",),
    "moments": ("axes", "keepdims"),
}

# By name, where NumPy has the function under another one or not at all.
# `numpy.ma` is no help with what has nothing valid: its `argmax` gives 0 there,
# as if the first entry were valid, and its `sum` a masked constant.
FUNCTIONS = {
    "amax": np.max,
    "amin": np.min,
    "logsumexp": lambda x: np.log(np.sum(np.exp(x))),
    "norm": lambda x: np.sqrt(np.sum(np.abs(x) ** 2)),
}
OF_NOTHING = {"prod": 1, "all": 1}


def reduced(x, axis, keepdims, function, of_nothing=0):
    """What a function gives for the valid entries of each group, by a loop.

    Args:
        x: A drawn operand.
        axis: Axes that go together into a group.
        keepdims: Whether they stay, with size 1.
        function: Function of the valid entries of a group and of their places.
        of_nothing: The result where a group has no valid entry.
    """
    ndim = x.values.ndim
    axes = range(ndim) if axis is None else np.atleast_1d(axis) % ndim
    axes = tuple(int(a) for a in axes)
    kept = [a for a in range(ndim) if a not in axes]
    shape = tuple(x.values.shape[a] for a in kept)
    out = np.full(shape, of_nothing, wide(x.values).dtype)
    for index in np.ndindex(shape):
        key = [slice(None)] * ndim
        for a, i in zip(kept, index):
            key[a] = i
        group, cells = x.values[tuple(key)], x.cells[tuple(key)]
        if np.any(cells):
            out[index] = function(wide(group[cells]), np.flatnonzero(cells))
    if keepdims:
        shape = [1 if a in axes else n for a, n in enumerate(x.values.shape)]
        out = out.reshape(shape)
    return out, left(x.mask, axes, keepdims, out.shape)


def wide(entries):
    """The entries as numbers that all fit: oracles are not to round."""
    return entries.astype(np.result_type(entries.dtype, "float64"))


def left(mask, axes, keepdims, shape):
    """What is left of a mask: any over the reduced axes; None if nothing is.

    Args:
        mask: Mask over leading axes of what is reduced.
        axes: Axes that are reduced, as non-negative integers.
        keepdims: Whether they stay, with size 1.
        shape: Shape of the result.
    """
    own = tuple(a for a in axes if a < mask.ndim)
    if len(own) == mask.ndim:
        return None
    return over_all_axes(np.any(mask, own, keepdims=keepdims), shape)


def reduction(name):
    """An oracle: NumPy's function of this name, on the valid entries."""
    function = FUNCTIONS.get(name) or getattr(np, name)
    of_nothing = OF_NOTHING.get(name, 0)

    def oracle(x, axis, keepdims=False):
        def of_group(entries, places):
            del places
            return function(entries)

        return [reduced(x, axis, keepdims, of_group, of_nothing)]

    return oracle


def arg_reduction(name):
    """As `reduction`, for places among all entries of a group."""
    function = getattr(np, name)

    def oracle(x, axis, keepdims=False):
        def of_group(entries, places):
            return places[function(entries)]

        return [reduced(x, axis, keepdims, of_group)]

    return oracle


def moments(x, axes, keepdims):
    return [*MEAN(x, axes, keepdims), *VAR(x, axes, keepdims)]


MEAN, VAR = reduction("mean"), reduction("var")
ORACLES = {
    **{
        name: reduction(name)
        for name in EXAMPLES
        if name not in ("argmax", "argmin", "moments")
    },
    "argmax": arg_reduction("argmax"),
    "argmin": arg_reduction("argmin"),
    "moments": moments,
}
