"""What moves, joins and makes entries."""

import numpy as np

from keras.src import backend
from keras.src import tree
from keras.src.masking.testing_utils import FULL
from keras.src.masking.testing_utils import STEPS
from keras.src.masking.testing_utils import Drawn
from keras.src.masking.testing_utils import T
from keras.src.masking.testing_utils import X
from keras.src.masking.testing_utils import map_leaves

VECTOR = T((4,), 1)
POSITIVE = T((3,), None, "float32", 1.0, 4.0)
EXAMPLES = {
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
    "append": ("axis",),
    "linspace": ("num", "axis"),
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


def among_zeros(function):
    """As `moved`, where the entries that the op makes are valid.

    `numpy.ma.diag` has it so, too.
    """

    def oracle(x, *args):
        return [(function(x.values, *args), ~function(~x.cells, *args))]

    return oracle


def dstack(xs):
    values = np.dstack([x.values for x in xs])
    if xs[0].values.ndim < 3:
        # Joined along an axis that no mask covers: the masks are merged.
        cells = [np.atleast_3d(x.cells) for x in xs]
        return [(values, np.broadcast_to(cells[0] & cells[1], values.shape))]
    return [(values, np.dstack([x.cells for x in xs]))]


def spaced(function):
    def oracle(start, stop, num, axis=0):
        start, stop = (
            x if isinstance(x, Drawn) else Drawn(np.float32(x), None)
            for x in (start, stop)
        )
        values = function(start.values, stop.values, num, axis=axis)
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
    every = [x for x in (*conditions, *choices, default) if type(x) is Drawn]
    values = np.select(
        [x.values for x in conditions],
        [x.values for x in choices],
        default.values if type(default) is Drawn else default,
    )
    return [(values, np.logical_and.reduce([x.cells for x in every]))]


def rearrange(x, pattern, t):
    def move(array):
        if pattern == "b t f -> t b f":
            return np.transpose(array, (1, 0, 2))
        if pattern == "b t f -> b (t f)":
            return array.reshape(2, -1)
        return array.reshape(2, t, -1)

    return [(move(x.values), move(x.cells))]


def unravel_index(x, shape):
    return [(y, x.cells) for y in np.unravel_index(x.values, shape)]


def vander(x, *args):
    values = np.vander(x.values, *args)
    return [(values, np.broadcast_to(x.cells[:, None], values.shape))]


ORACLES = {
    "append": moved(np.append),
    "diag": among_zeros(np.diag),
    "diagflat": among_zeros(np.diagflat),
    "diagonal": moved(np.diagonal),
    "dsplit": moved(np.dsplit),
    "dstack": dstack,
    "fliplr": moved(np.fliplr),
    "flipud": moved(np.flipud),
    "full": moved(np.full),
    "geomspace": spaced(np.geomspace),
    "hsplit": moved(np.hsplit),
    "hstack": moved(np.hstack),
    "linspace": spaced(np.linspace),
    "logspace": spaced(np.logspace),
    "meshgrid": meshgrid,
    "rearrange": rearrange,
    "rot90": moved(np.rot90),
    "select": select,
    "unravel_index": unravel_index,
    "vander": vander,
    "view": lambda x, dtype: [(x.values.view(dtype), x.cells)],
    "vsplit": moved(np.vsplit),
    "vstack": moved(np.vstack),
}
