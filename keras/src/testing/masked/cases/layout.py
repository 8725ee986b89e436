"""What moves, joins and makes entries."""

import functools

import numpy as np

from keras.src import backend
from keras.src import tree
from keras.src.testing.masked.cases.merge import where
from keras.src.testing.masked.testing_utils import FULL
from keras.src.testing.masked.testing_utils import STEPS
from keras.src.testing.masked.testing_utils import Drawn
from keras.src.testing.masked.testing_utils import T
from keras.src.testing.masked.testing_utils import X
from keras.src.testing.masked.testing_utils import map_leaves
from keras.src.testing.masked.testing_utils import over_all_axes
from keras.src.testing.masked.testing_utils import widened

VECTOR = T((4,), 1)
POSITIVE = T((3,), None, "float32", 1.0, 4.0)
EXAMPLES = {
    "array_split": [(STEPS, 2, 1), (FULL, 3, -1), (STEPS, 2, 2)],
    "broadcast_to": [(T((3, 4), 1), (2, 3, 4)), (T((2, 1), 2), (2, 3))],
    "concatenate": [
        ([STEPS, T((2, 3, 4), 3)], 1),
        ([STEPS, T((2, 2, 4))], 1),
        ([T((2, 3), 1), T((2, 3), 2), T((2, 1))], -1),
        ([T((2, 1, 3), 1), T((2, 2, 3)), T((2, 1, 3), 1)], 1),
        ([T((2, 3), 1), T((2, 1), 1)], 1),
    ],
    "column_stack": [
        ([X, T((2, 1))],),
        ([T((2,), 1), T((2,))],),
        ([STEPS, FULL],),
    ],
    "expand_dims": [(STEPS, 0), (STEPS, 1), (STEPS, -1), (STEPS, (1, 3))],
    "flip": [(STEPS, 1), (STEPS, -1), (STEPS, None), (FULL, (0, 2))],
    "get_item": [
        (STEPS, (slice(None), slice(1, 3))),
        (STEPS, (..., 0)),
        (STEPS, ()),
        (STEPS, (0, 1)),
        (STEPS, (slice(None), None, 1)),
        (STEPS, np.array([1, 0, 1])),
        (FULL, (slice(None), np.array([2, 0, 2]))),
    ],
    "moveaxis": [(STEPS, 0, 1), (STEPS, -1, 0), (STEPS, [0, 1], [2, 0])],
    "pad": [
        (STEPS, ((0, 0), (1, 2), (0, 1))),
        (T((2, 3), 2), ((1, 1), (1, 1))),
    ],
    "ravel": [(STEPS,), (FULL,)],
    "image.reconstruct_patches": [
        (T((2, 2, 3, 12), mask), 2, None, "valid") for mask in (1, 3, 4)
    ]
    + [(T((2, 2, 2, 12), 3), 2, (4, 3), "same")],
    "repeat": [(STEPS, 2, 1), (STEPS, 2, 2), (STEPS, 2, None)],
    "reshape": [
        (STEPS, (6, 4)),
        (STEPS, (2, 3, 2, 2)),
        (STEPS, (2, 3, 1, 4)),
        (STEPS, (-1, 3, 4, 1)),
        (STEPS, (2, 12)),
        (STEPS, (-1,)),
        (T((2, 0, 4), 2), (0, 4)),
    ],
    "roll": [(STEPS, 1, 1), (STEPS, 1, -1), (STEPS, 2, None)],
    "slice": [(STEPS, (0, 1, 0), (2, 2, 4))],
    "split": [(STEPS, 3, 1), (STEPS, [1], 1), (STEPS, 2, -1)],
    "squeeze": [(T((2, 1, 3), 2), 1), (T((2, 1, 3, 1), 3), None)],
    "stack": [
        ([X, T((2, 3), 1)], 0),
        ([X, T((2, 3))], -1),
        ([X, X], 1),
        ([T((2, 3), 1), T((2, 3)), T((2, 3), 1)], 1),
        ([T((2,), 1), T((2,), 1)], -1),
        ([T((2, 3), 1), T((2, 3), 1)], 2),
    ],
    "swapaxes": [(STEPS, 0, 1), (STEPS, 1, -1)],
    "take": [
        (STEPS, np.array([2, 0]), 1),
        (STEPS, 1, 1),
        (STEPS, np.array([[0, 3]]), -1),
        (STEPS, np.array([5, 2]), None),
        (T((4, 3)), T((2, 3), 2, "int32", 0, 3), 0),
        (T((2, 4, 3)), T((3, 2), 1, "int32", 0, 3), 1),
        (STEPS, T((3, 2), 1, "int32", 0, 2), 1),
        (T((4, 3), 1), T((2, 3), 2, "int32", 0, 3), 0),
        (T((4, 3), 1), T((2, 3), 1, "int32", 0, 2), 1),
        (X, T((4,), 1, "int32", 0, 5), None),
    ],
    "take_along_axis": [
        (STEPS, np.zeros((2, 1, 4), "int32"), 1),
        (STEPS, T((2, 5, 4), 2, "int32", 0, 2), 1),
        (STEPS, T((2, 2, 1), 2, "int32", 0, 2), 1),
        (T((2, 3, 4)), T((2, 3, 2), 3, "int32", 0, 3), -1),
        (X, T((4,), 1, "int32", 0, 5), None),
    ],
    "tile": [(STEPS, (1, 2, 1)), (STEPS, 2), (X, (2, 1, 1))],
    "transpose": [(STEPS,), (STEPS, (1, 0, 2)), (STEPS, (2, 0, 1))],
    "unstack": [
        (STEPS, None, 1),
        (STEPS, None, -1),
        (T((3,), 1), None, 0),
        (T((3, 2), 1), None, 0),
    ],
    "tril": [(FULL,), (T((3, 3), 1), 1)],
    "triu": [(FULL,), (T((3, 3), 1), -1)],
    "append": [(X, T((2, 3), 1), 1), (STEPS, T((5,)), None), (X, X, 0)],
    "diag": [(VECTOR,), (VECTOR, 1), (T((3, 4), 1),), (T((3, 4), 2), -1)],
    "diagflat": [(VECTOR,), (X, 1)],
    "diagonal": [(STEPS,), (FULL, 1, 1, 2), (T((3, 4), 1),)],
    "dsplit": [(STEPS, 2), (FULL, [1, 3])],
    "dstack": [([X, T((2, 3))],), ([VECTOR, VECTOR],), ([STEPS, FULL],)],
    "fliplr": [(STEPS,), (T((2, 3), 1),)],
    "flipud": [(STEPS,), (VECTOR,)],
    "full": [((2, 3, 4), T((3, 4), 1)), ((2, 3), T((3,), 1, "int32"))],
    "geomspace": [
        (T((3,), 1, "float32", 1, 4), T((3,), None, "float32", 1, 4), 4)
    ],
    "hsplit": [(STEPS, 3), (VECTOR, 2)],
    "hstack": [([X, T((2, 1))],), ([VECTOR, T((2,))],), ([STEPS, FULL],)],
    "linspace": [
        (T((2, 3), 2), T((2, 3), 1), 4, 0),
    ],
    "logspace": [(VECTOR, T((4,)), 3)],
    "meshgrid": [(VECTOR, T((3,)), T((2,), 1)), (T((2,)), VECTOR)],
    "rearrange": [
        (STEPS, "b t f -> t b f", 3),
        (STEPS, "b t f -> b (t f)", 3),
        (T((2, 6), 2), "b (t f) -> b t f", 2),
    ],
    "rot90": [(STEPS,), (T((2, 3, 4), 1), 1, (1, 2))],
    "select": [
        ([T((2, 3), 2, "bool"), T((2, 3), None, "bool")], [X, T((2, 3))], 0.0),
        ([T((2, 3), None, "bool")], [X], T((2, 3), 1)),
        ([T((2, 3), None, "bool")], [T((2, 3))], X),
    ],
    "unravel_index": [(T((6,), 1, "int32", 0, 5), (2, 3))],
    "vander": [(VECTOR,), (VECTOR, 3, True)],
    "view": [(X, "int32"), (T((2, 3), 2, "int32", 0, 9), "float32")],
    "vsplit": [(STEPS, 2), (X, [1])],
    "vstack": [([X, T((1, 3))],), ([VECTOR, T((4,))],), ([STEPS, FULL],)],
}
if backend.backend() != "torch":
    # Upstream's for PyTorch takes no other axis, and no scalar beside a tensor.
    EXAMPLES["linspace"] += [
        (T((2, 3), 2), T((2, 3)), 4, -1),
        (T((2, 3), 2), T((2, 3)), 4, 1),
        (0.0, VECTOR, 3, 0),
    ]
if backend.backend() != "tensorflow":
    # Upstream's for TensorFlow mixes up the axes.
    EXAMPLES["rot90"].append((STEPS, 2, (0, 2)))
_OF_VECTORS = "upstream's spec takes vectors for matrices"
SPECS_DIFFER = {
    "dstack_1": _OF_VECTORS,
    "hstack_1": _OF_VECTORS,
    "vstack_1": _OF_VECTORS,
    "rot90_2": "upstream's spec turns by 90 degrees, whatever `k` is",
}
NAMES = {
    "array_split": ("indices_or_sections", "axis"),
    "concatenate": ("axis",),
    "stack": ("axis",),
    "unstack": ("num", "axis"),
    "append": ("axis",),
    "linspace": ("num", "axis"),
    "image.reconstruct_patches": ("size", "output_size", "padding"),
    "rearrange": ("t",),
    "geomspace": ("num",),
    "logspace": ("num",),
}


def moved(function):
    """An oracle: the motion of the values, and the same one of the mask."""

    def oracle(*drawn):
        values = function(*map_leaves(lambda x: x.values, drawn, Drawn))
        cells = function(*map_leaves(lambda x: x.cells, drawn, Drawn))
        return list(zip(tree.flatten(values), tree.flatten(cells)))

    return oracle


def entry(function):
    """As `moved`; one entry has no axis left for a mask, and is 0 if masked."""

    def oracle(x, *args):
        ((values, cells),) = moved(function)(x, *args)
        if np.ndim(values):
            return [(values, cells)]
        return [(values * cells, None)]

    return oracle


def among_zeros(function):
    """As `moved`, where the entries that the op makes are valid.

    `numpy.ma.diag` has it so, too.
    """

    def oracle(x, *args):
        return [(function(x.values, *args), ~function(~x.cells, *args))]

    return oracle


def joined(function):
    """The masks are joined as the values; merged along an axis without one.

    Not by NumPy's `concatenate` on `numpy.ma` arrays, which loses the masks.
    """

    def oracle(xs, axis):
        # NumPy does not know what bfloat16 shares with other types.
        values = function([widened(x.values) for x in xs], axis)
        covered = max(0 if x.mask is None else x.mask.ndim for x in xs)
        axis %= values.ndim
        # Steps that are put together, each with a mask of rows.
        is_time = covered == axis == 1 and not (
            function is np.concatenate and values.ndim == 2
        )
        if axis < covered or is_time:
            return [(values, function([x.cells for x in xs], axis))]
        own = [
            np.ones((), "bool")
            if x.mask is None
            else over_all_axes(x.mask, x.values.shape[:covered])
            for x in xs
        ]
        both = np.broadcast_to(
            functools.reduce(np.logical_and, own), values.shape[:covered]
        )
        return [(values, over_all_axes(both, values.shape))]

    return oracle


def get_item(x, key):
    key = key if isinstance(key, tuple) else (key,)
    if any(isinstance(k, np.ndarray) for k in key):
        return moved(lambda y: y[key])(x)
    return indexed(x, key)


def indexed(x, key):
    """As `moved`; plain where a number stands for each axis of the mask."""
    values, cells = x.values[key], x.cells[key]
    named = [k for k in key if k is not None]
    if Ellipsis in named:
        i = named.index(Ellipsis)
        rest = [slice(None)] * (x.values.ndim - len(named) + 1)
        named = named[:i] + rest + named[i + 1 :]
    numbers = [isinstance(k, int) for k in named[: x.mask.ndim]]
    if len(numbers) == x.mask.ndim and all(numbers):
        return [(values * cells, None)]
    return [(values, cells)]


def looked_up(x, indices, axis):
    """`take` with a masked index, which looks up 0 and is masked."""
    places = np.where(indices.cells, indices.values, 0)
    values, cells = (
        np.take(x.values, places, axis),
        np.take(x.cells, places, axis),
    )
    lead = 0 if axis is None else axis % x.values.ndim
    rest = values.ndim - lead - places.ndim
    own = indices.cells.reshape((1,) * lead + places.shape + (1,) * rest)
    return [(values, cells & own)]


def taken_along_axis(x, indices, axis):
    if isinstance(indices, np.ndarray):
        return moved(np.take_along_axis)(x, indices, axis)
    places = np.where(indices.cells, indices.values, 0)
    values = np.take_along_axis(x.values, places, axis)
    cells = np.take_along_axis(x.cells, places, axis)
    return [(values, cells & indices.cells)]


def taken(x, indices, axis):
    if type(indices) is Drawn:
        return looked_up(x, indices, axis)
    if axis is None:
        return entry(np.take)(x, indices)
    if np.ndim(indices) == 0:
        key = (slice(None),) * (axis % x.values.ndim)
        return indexed(x, (*key, int(indices)))
    return moved(np.take)(x, indices, axis)


def padded(x, widths):
    """What is added along an axis of the mask is masked."""
    values = np.pad(x.values, widths)
    widths = np.broadcast_to(widths, (x.values.ndim, 2))
    own = np.pad(x.mask, widths[: x.mask.ndim])
    return [(values, over_all_axes(own, values.shape))]


def unstacked(x, num, axis):
    key = (slice(None),) * (axis % x.values.ndim)
    places = range(x.values.shape[axis])
    return [pair for i in places for pair in indexed(x, (*key, i))]


def sliced(x, starts, sizes):
    return x[tuple(slice(i, i + n) for i, n in zip(starts, sizes))]


def triangle(function):
    """What the op makes 0 keeps its mask."""
    return lambda x, *args: [(function(x.values, *args), x.cells)]


def stacked(axis, ndim):
    """As `joined`, of tensors with this many axes at least, as NumPy has it."""
    at_least = {1: np.atleast_1d, 2: np.atleast_2d, 3: np.atleast_3d}[ndim]

    def raised(x):
        # A vector becomes a row, so that its mask does, too.
        mask = x.mask
        if mask is not None and x.values.ndim == 1 and ndim > 1:
            mask = mask[None]
        return Drawn(at_least(x.values), mask)

    def oracle(xs):
        xs = [raised(x) for x in xs]
        return joined(np.concatenate)(xs, min(axis, xs[0].values.ndim - 1))

    return oracle


def columns(xs):
    """As `joined`, of matrices; a vector becomes a column."""
    xs = [
        x if x.values.ndim > 1 else Drawn(x.values[:, None], x.mask) for x in xs
    ]
    return joined(np.concatenate)(xs, 1)


def of_patches(x, size, output_size, padding):
    """A picture of its patches; those at the border may reach beyond it."""
    batch, rows, columns, entries = x.shape
    channels = entries // size**2
    x = x.reshape(batch, rows, columns, size, size, channels).swapaxes(2, 3)
    x = x.reshape(batch, rows * size, columns * size, channels)
    if padding == "valid":
        return x
    top, left = ((n - m) // 2 for n, m in zip(x.shape[1:3], output_size))
    return x[:, top : top + output_size[0], left : left + output_size[1]]


def appended(x, y, axis):
    if axis is None:
        x, y = (
            Drawn(widened(z.values).ravel(), z.cells.ravel()) for z in (x, y)
        )
        axis = 0
    return joined(np.concatenate)([x, y], axis)


def spaced(function):
    def oracle(start, stop, num, axis=0):
        start, stop = (
            x if isinstance(x, Drawn) else Drawn(np.float32(x), None)
            for x in (start, stop)
        )
        ends = widened(start.values), widened(stop.values)
        values = function(*ends, num, axis=axis)
        both = np.expand_dims(start.cells & stop.cells, axis)
        return [(values, np.broadcast_to(both, values.shape))]

    return oracle


def meshgrid(*vectors):
    grids = np.meshgrid(*(x.values for x in vectors))
    cells = np.meshgrid(*(x.cells for x in vectors))
    return [
        (grid, None if x.mask is None else mask)
        for x, grid, mask in zip(vectors, grids, cells)
    ]


def select(conditions, choices, default):
    """As `where` upon `where`, from the last condition on."""
    result = default
    for condition, choice in zip(conditions[::-1], choices[::-1]):
        ((values, cells),) = where(condition, choice, result)
        result = Drawn(values, cells)
    return [(result.values, result.cells)]


def rearrange(x, pattern, t):
    def move(array):
        if pattern == "b t f -> t b f":
            return np.transpose(array, (1, 0, 2))
        first, second, *_ = array.shape
        if pattern == "b t f -> b (t f)":
            return array.reshape(first, second * array.shape[2])
        return array.reshape(first, t, second // t)

    return [(move(x.values), move(x.cells))]


def unravel_index(x, shape):
    return [(y, x.cells) for y in np.unravel_index(x.values, shape)]


def vander(x, *args):
    values = np.vander(widened(x.values), *args)
    return [(values, np.broadcast_to(x.cells[:, None], values.shape))]


ORACLES = {
    **{
        name: moved(getattr(np, name))
        for name in """array_split broadcast_to expand_dims flip moveaxis ravel
        repeat reshape roll split swapaxes tile
        transpose""".split()
    },
    "concatenate": joined(np.concatenate),
    "get_item": get_item,
    "pad": padded,
    "slice": moved(sliced),
    "squeeze": entry(np.squeeze),
    "stack": joined(np.stack),
    "take": taken,
    "take_along_axis": taken_along_axis,
    "tril": triangle(np.tril),
    "triu": triangle(np.triu),
    "unstack": unstacked,
    "append": appended,
    "diag": among_zeros(np.diag),
    "diagflat": among_zeros(np.diagflat),
    "diagonal": moved(np.diagonal),
    "dsplit": moved(np.dsplit),
    "column_stack": columns,
    "dstack": stacked(2, 3),
    "fliplr": moved(np.fliplr),
    "flipud": moved(np.flipud),
    "full": moved(np.full),
    "geomspace": spaced(np.geomspace),
    "hsplit": moved(np.hsplit),
    "hstack": stacked(1, 1),
    "linspace": spaced(np.linspace),
    "logspace": spaced(np.logspace),
    "meshgrid": meshgrid,
    "image.reconstruct_patches": moved(of_patches),
    "rearrange": rearrange,
    "rot90": moved(np.rot90),
    "select": select,
    "unravel_index": unravel_index,
    "vander": vander,
    "view": lambda x, dtype: [(x.values.view(dtype), x.cells)],
    "vsplit": moved(np.vsplit),
    "vstack": stacked(0, 2),
}
