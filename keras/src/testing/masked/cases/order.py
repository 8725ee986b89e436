"""Sorting, ranks, counts, running results, and reductions in terms of these."""

import functools

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.cases.layout import moved
from keras.src.testing.masked.cases.reduce import arg_reduction
from keras.src.testing.masked.cases.reduce import reduced
from keras.src.testing.masked.cases.reduce import reduction
from keras.src.testing.masked.cases.reduce import reductions
from keras.src.testing.masked.testing_utils import FULL
from keras.src.testing.masked.testing_utils import STEPS
from keras.src.testing.masked.testing_utils import T
from keras.src.testing.masked.testing_utils import X
from keras.src.testing.masked.testing_utils import widened

INTS = T((2, 6), 2, "int32", 0, 4)
# Valid and masked entries tie.
TIED = T((3, 9), 2, "int32", -1, 1)
IDS = T((7,), 1, "int32", 0, 5)
V = T((7,), 1)
EDGES = np.array([-1.0, 0.5, 2.0], "float32")
METHODS = ("linear", "lower", "higher", "midpoint", "nearest")
SORTED = [
    (STEPS, 1),
    (STEPS, -1),
    (STEPS, 0),
    (FULL, 1),
    (FULL, None),
    (STEPS, None),
    (TIED, 1),
    (T((2, 20), 2), -1),
    (T((0, 2, 3), 2), 1),
]


def quantiles(q, q_of_many):
    return [
        (STEPS, q, 1, "linear", False),
        (FULL, q, (0, 2), "linear", True),
        (FULL, q_of_many, (0, 2), "linear", True),
        (STEPS, q_of_many, 1, "linear", False),
        (STEPS, q_of_many, -1, "linear", False),
        (T((2, 3, 4), 1), q, None, "linear", False),
        (FULL, q_of_many, None, "linear", True),
        (T((2, 5), 2, "int32"), q, 1, "linear", False),
        *((T((2, 5), 2), q, 1, method, False) for method in METHODS),
    ]


SOME, MANY = 0.3, [0.0, 0.3, 0.5, 1.0]
PERCENTS = [100 * q for q in MANY]
RUNNING = [(STEPS, 1), (STEPS, -1), (STEPS, None), (INTS, 1)]
PAIRED = [
    (STEPS, T((2, 3, 4), 3)),
    (T((2, 3, 4)), STEPS),
    (STEPS, T((2, 3, 4))),
    (T((2, 3), 2, "int32"), T((2, 3), 1, "int32")),
]
EXAMPLES = {
    "last": [(STEPS, 1), (FULL, 1), (STEPS, -1), (X, 0), (T((4,), 1), 0)],
    "allclose": [*PAIRED, (T((2, 3), 2, "float32", 0, 1e-6), T((2, 3)))],
    "argpartition": [(x, 1, axis) for x, axis in SORTED if axis != 0],
    "argsort": [*SORTED, (T((2, 3), 2, "bfloat16"), 1)],
    "average": [
        (STEPS, None, 1),
        (STEPS, T((3,), None, "float32", 0.5, 2), 1),
        (STEPS, T((3,), 1, "float32", 0.5, 2), 1),
        (STEPS, T((2, 3, 4), 3, "float32", 0.5, 2), 1),
        (STEPS, T((4,), None, "float32", 0.5, 2), -1),
        (STEPS, T((2, 3, 4), None, "float32", 0.5, 2), None),
        (T((2, 3)), T((2, 3), 2, "float32", 0.5, 2), 1),
        (T((2, 3)), T((3,), 1, "float32", 0.5, 2), -1),
        (T((2, 3), 2, "int32"), T((2, 3), 2, "int32", 1, 4), 0),
        (T((7,), 1), T((7,), None, "float32", 0.5, 2), None),
    ],
    # Plain weights: PyTorch's own function has no gradient for them.
    "bincount": [
        (IDS, None, 0),
        (IDS, None, 9),
        (IDS, np.arange(-3, 4, dtype="float32"), 6),
        (IDS, np.arange(7, dtype="int32"), 6),
        (T((3, 7), 2, "int32", 0, 5), None, 6),
        (T((3, 7), 1, "int32", 0, 5), np.ones((3, 7), "float32") / 2, 6),
    ],
    "cdist": [
        (STEPS, T((2, 5, 4), 2)),
        (STEPS, T((2, 5, 4))),
        (T((5, 4)), T((2, 3, 4), 1)),
        (T((3, 4), 1), T((2, 2, 4), 2)),
        (T((2, 3), 1, "int32"), T((4, 3), 1, "int32")),
    ],
    "corrcoef": [],
    "cov": [],
    "cumprod": RUNNING,
    "cumsum": RUNNING,
    "correlate": [
        (V, T((3,), 1), "valid"),
        (V, T((3,)), "same"),
        (T((7,)), T((3,), 1), "full"),
        (T((5,), 1, "int32"), T((2,), 1, "int32"), "full"),
    ],
    "diff": [
        (STEPS, 1, 1),
        (STEPS, 1, -1),
        (STEPS, 1, 0),
        (T((2, 5), 2), 2, -1),
        (T((2, 5), 2), 7, 1),
        (T((2, 5), 2, "int32"), 1, 1),
        (T((2, 5), 2, "bool"), 1, 1),
    ],
    "digitize": [(STEPS, EDGES), (FULL, EDGES), (T((5,), 1, "int32"), EDGES)],
    "extract_sequences": [
        (T((2, 9), 2), 4, 2),
        (T((2, 3, 9), 2), 4, 3),
        (T((9,), 1), 3, 1),
    ],
    "histogram": [(V, 4, None), (V, 5, (-2.0, 2.5)), (T((1,), 1), 3, None)],
    "in_top_k": [
        (T((5,), 1, "int32", 0, 5), T((5, 6), 2), 2),
        (T((5,), None, "int32", 0, 5), T((5, 6), 2), 3),
        (T((5,), 1, "int32", 0, 5), T((5, 6)), 1),
        (T((5,), None, "int32", 0, 5), T((5, 6), 1), 2),
    ],
    "isin": [
        (T((2, 5), 2, "int32", 0, 9), np.array([1, 4, 7], "int32"), False),
        (T((2, 5), 1, "int32", 0, 9), IDS, False),
        (T((2, 5), 2, "int32", 0, 9), T((2, 2), 1, "int32", 0, 9), True),
        (T((2, 5), None, "int32", 0, 9), IDS, True),
    ],
    "kron": [
        # Of one rank: upstream's spec is wrong for others.
        (X, T((2, 2), 1)),
        (X, T((2, 2))),
        (T((2, 1, 2)), STEPS),
        (T((3,), 1, "int32"), T((2,), 1, "int32")),
    ],
    "median": [*reductions(empty=False), (T((3, 6), 2), 1, False)],
    "nanargmax": reductions(dtypes=("float32", "int32"), empty=False)[::2],
    "nanargmin": reductions(dtypes=("float32", "int32"), empty=False)[::2],
    "nancumprod": RUNNING,
    "nancumsum": RUNNING,
    "nanmax": reductions(empty=False),
    "nanmean": reductions(),
    "nanmedian": [*reductions(empty=False), (T((3, 6), 2), 1, False)],
    "nanmin": reductions(empty=False),
    "nanpercentile": quantiles(100 * SOME, PERCENTS),
    "nanprod": reductions(),
    "nanquantile": quantiles(SOME, MANY),
    "nanstd": reductions(dtypes=("float32",)),
    "nansum": reductions(),
    "nanvar": reductions(),
    "nonzero": [],
    "percentile": quantiles(100 * SOME, PERCENTS),
    "psnr": [
        *((x, y, 2.0) for x, y in PAIRED[:3]),
        (T((2, 3), 1), T((2, 3), 2), 1.0),
    ],
    "ptp": reductions(empty=False),
    "quantile": quantiles(SOME, MANY),
    "searchsorted": [
        (EDGES, STEPS, "left"),
        (EDGES, T((5,), 1), "right"),
        (T((7,), 1), T((2, 3)), "left"),
        (T((7,), 1), T((2, 3), 1), "right"),
        (T((7,), 1, "int32", 0, 4), T((2, 3), 1, "int32", 0, 4), "left"),
        (T((7,), 1, "int32", 0, 4), T((2, 3), None, "int32", 0, 4), "right"),
    ],
    "sort": [
        *SORTED,
        (INTS, 1),
        (T((2, 5), 2, "bool"), 1),
        (T((2, 5), 2, "bfloat16"), 1),
        (T((2, 5), 2, "uint8", 0, 9), 1),
    ],
    "top_k": [
        (T((2, 6), 2), 3),
        (T((2, 6), 2), 6),
        (FULL, 2),
        (STEPS, 2),
        (T((6,), 1), 1),
    ],
    "trace": [
        (T((2, 3, 3), 1), 0, 1, 2),
        (T((3, 3), 2), 0, 0, 1),
        (T((3, 4), 1), 1, 0, 1),
        (FULL, 0, 1, 2),
        (STEPS, 0, -1, 0),
        (STEPS, 0, 0, 1),
        (T((3, 3), 2, "int32"), -1, 0, 1),
        (T((3, 3, 2), 2, "bool"), 0, 1, 0),
    ],
    "trapezoid": [
        (STEPS, None, 1.0, 1),
        (STEPS, None, 0.5, -1),
        (FULL, np.array([0.0, 1.0, 3.0, 3.5], "float32"), 1.0, -1),
        (STEPS, np.array([0.0, 1.0, 3.0], "float32"), 1.0, 1),
        (T((5,), 1), None, 2.0, 0),
        (T((2, 5), 2, "int32"), None, 1.0, -1),
    ],
    "unique": [],
    "vdot": [(V, T((7,), 1)), (V, T((7,))), (T((7,), None, "int32"), IDS)],
}
NAMES = {
    **dict.fromkeys(("argsort", "nancumprod", "nancumsum", "sort"), ("axis",)),
    **dict.fromkeys(
        """median nanargmax nanargmin nanmax nanmean nanmedian nanmin nanprod
        nanstd nansum nanvar ptp""".split(),
        ("axis", "keepdims"),
    ),
    **dict.fromkeys(
        ("nanpercentile", "nanquantile", "percentile", "quantile"),
        ("q", "axis", "method", "keepdims"),
    ),
    "argpartition": ("kth", "axis"),
    "cumprod": ("axis",),
    "cumsum": ("axis",),
    "average": ("weights", "axis"),
    "bincount": ("weights", "minlength"),
    "correlate": ("mode",),
    "diff": ("n", "axis"),
    "extract_sequences": ("sequence_length", "sequence_stride"),
    "histogram": ("bins", "range"),
    "in_top_k": ("k",),
    "isin": ("invert",),
    "searchsorted": ("side",),
    "top_k": ("k",),
    "trace": ("offset", "axis1", "axis2"),
    "trapezoid": ("x", "dx", "axis"),
}
SPECS_DIFFER = {
    "bincount": "How long it is depends on the data.",
}
if backend.backend() == "tensorflow":
    SPECS_DIFFER["isin"] = "Upstream's cannot be traced."


def by_row(function, x, axis):
    """Puts what a function makes of the valid entries of each row first.

    Args:
        function: Function of the places of valid entries and of these entries.
        x: A drawn operand.
        axis: The axis along which rows go, None to flatten.
    """
    values, cells = widened(x.values), x.cells
    if axis is None:
        values, cells, axis = values.ravel(), cells.ravel(), 0
    values, cells = (np.moveaxis(y, axis, -1) for y in (values, cells))
    out, valid = np.zeros_like(values), np.zeros(values.shape, "bool")
    for index in np.ndindex(values.shape[:-1]):
        places = np.flatnonzero(cells[index])
        out[index][: len(places)] = function(places, values[index][places])
        valid[index][: len(places)] = True
    return [tuple(np.moveaxis(y, -1, axis) for y in (out, valid))]


def sort(x, axis):
    return by_row(lambda places, entries: np.sort(entries), x, axis)


def argsort(x, axis):
    return by_row(backend_order(ops.argsort, x, axis), x, axis)


def backend_order(function, x, axis):
    """The places of a row in the order of a backend, without the masked.

    Which of two equal entries is first is up to the backend. It may also
    depend on what else is in the row, so there is a 0 for what is masked.
    """
    size = x.values.size if axis is None else x.values.shape[axis]

    def of_row(places, entries):
        row = np.zeros(size, x.values.dtype)
        row[places] = entries
        order = u.array(function(backend.convert_to_tensor(row)))
        return order[np.isin(order, places)]

    return of_row


def argpartition(x, kth, axis):
    # Any partition would do; ours is the sorted one.
    return argsort(x, axis)


def top_k(x, k):
    def order(row):
        return ops.top_k(row, row.shape[0])[1]

    ((values, mask),) = sort(u.Drawn(-widened(x.values), x.mask), -1)
    ((places, _),) = by_row(backend_order(order, x, -1), x, -1)
    return [(-values[..., :k], mask[..., :k]), (places[..., :k], mask[..., :k])]


def in_top_k(targets, predictions, k):
    size = len(targets.values)
    out, valid = np.zeros(size, "bool"), np.zeros(size, "bool")
    for i, target in enumerate(targets.values):
        seen = np.flatnonzero(predictions.cells[i])
        valid[i] = targets.cells[i] and target in seen
        scores = predictions.values[i]
        out[i] = np.sum(scores[seen] > scores[target]) < k
    return [(out, valid)]


def searchsorted(sequence, values, side):
    if isinstance(sequence, u.Drawn):
        sequence = np.sort(sequence.values[sequence.cells])
    found = np.searchsorted(sequence, values.values, side)
    return [(found, None if values.mask is None else values.cells)]


def quantile(scale, x, q, axis, method, keepdims):
    found = []
    for one in np.atleast_1d(q):

        def of_group(entries, places, q=one * scale):
            del places
            return np.quantile(entries, q, method=method)

        found.append(reduced(x, axis, keepdims, of_group))
    values, masks = zip(*found)
    if not np.ndim(q):
        return found
    return [(np.stack(values), None if masks[0] is None else np.stack(masks))]


def running(function, identity, x, axis):
    values = np.where(x.cells, x.values, identity)
    values = function(values, axis=axis)
    return [(values, x.cells.reshape(values.shape))]


def average(x, weights, axis):
    """As `numpy.ma`, whose entries with a masked weight are masked as well.

    With all weights of a row 0 it masks the row; none of ours are.
    """
    values = np.ma.MaskedArray(widened(x.values), ~x.cells)
    covered = 0 if x.mask is None else x.mask.ndim
    if weights is not None:
        own = np.ma.MaskedArray(weights.values, ~weights.cells)
        if weights.mask is not None:
            covered = max(covered, weights.mask.ndim)
        if own.ndim < values.ndim:
            shape = [1] * values.ndim
            shape[axis] = -1
            own = own.reshape(shape)
            if weights.mask is not None:
                covered = max(covered, axis % values.ndim + 1)
        hidden = np.broadcast_to(np.ma.getmaskarray(own), values.shape)
        weights = np.broadcast_to(own.data, values.shape)
        weights = np.ma.MaskedArray(weights, hidden)
    found = np.ma.average(values, axis=axis, weights=weights)
    mask = ~np.ma.getmaskarray(found)
    axes = range(values.ndim) if axis is None else [axis % values.ndim]
    left = set(range(covered)) - set(axes)
    return [(np.ma.filled(found, 0.0), mask if left else None)]


def allclose(x, y):
    cells = np.broadcast_to(x.cells & y.cells, x.values.shape)
    close = np.isclose(x.values, y.values, 1e-5, 1e-8)
    return [(np.all(close[cells]), None)]


def psnr(x, y, max_val):
    cells = x.cells & y.cells
    if not np.any(cells):
        return [(np.zeros(()), None)]
    error = np.mean((x.values - y.values)[cells] ** 2)
    return [(20 * np.log10(max_val) - 10 * np.log10(error), None)]


def bincount(x, weights, minlength):
    shape = x.values.shape
    rows = [()] if len(shape) == 1 else list(np.ndindex(shape[:1]))
    size = np.max(x.values, where=x.cells, initial=0) + 1
    size = size if x.values.size else 0
    found = []
    for row in rows:
        own = None if weights is None else weights[row][x.cells[row]]
        entries = x.values[row][x.cells[row]]
        found.append(np.bincount(entries, own, max(size, minlength)))
    if len(shape) == 1:
        return [(found[0], None)]
    return [(np.stack(found), over(np.any(x.cells, axis=1), found))]


def over(mask, rows):
    return u.over_all_axes(mask, np.stack(rows).shape)


def histogram(x, bins, bounds):
    entries = x.values[x.cells]
    if not len(entries) and bounds is None:
        bounds = (-0.5, 0.5)
    counts, edges = np.histogram(entries, bins, bounds)
    return [(counts, None), (edges, None)]


def isin(x, elements, invert):
    if isinstance(elements, u.Drawn):
        elements = elements.values[elements.cells]
    found = np.isin(x.values, elements, invert=invert)
    return [(found, None if x.mask is None else x.cells)]


def pairwise(function, x, y, *statics):
    own, other = (widened(z.values) * z.cells for z in (x, y))
    values = function(own, other, *statics)
    counts = function(x.cells.astype(int), y.cells.astype(int), *statics)
    return [(values, counts > 0)]


def cdist(x, y):
    left, right = widened(x.values), widened(y.values)
    difference = left[..., :, None, :] - right[..., None, :, :]
    own, other = (u.Drawn(z.values[..., 0:1].sum(-1), z.mask) for z in (x, y))
    cells = own.cells[..., :, None] & other.cells[..., None, :]
    return [(np.linalg.norm(difference, axis=-1), cells)]


def vdot(x, y):
    cells = x.cells & y.cells
    products = np.conj(widened(x.values)) * widened(y.values)
    return [(np.sum(products[cells]), None)]


def diff(x, n, axis):
    mask = x.cells
    if axis % mask.ndim < x.mask.ndim:
        size = mask.shape[axis]
        windows = [
            np.all(np.take(mask, range(i, i + n + 1), axis), axis)
            for i in range(size - n)
        ]
        if not windows:
            values = np.diff(x.values, n, axis)
            return [(values, np.zeros(values.shape, "bool"))]
        mask = np.stack(windows, axis)
    else:
        mask = np.take(mask, range(mask.shape[axis] - n), axis)
    return [(np.diff(x.values, n, axis), mask)]


def digitize(x, bins):
    return [(np.digitize(x.values, bins), x.cells)]


def extract_sequences(x, length, stride):
    last = x.values.shape[-1] - length
    places = np.arange(0, last + 1, stride)[:, None] + np.arange(length)
    return moved(lambda y: y[..., places])(x)


def last(x, axis):
    """The last valid entry of each row, one by one."""
    values, cells = (np.moveaxis(y, axis, -1) for y in (x.values, x.cells))
    if axis % x.values.ndim >= x.mask.ndim:
        return [(values[..., -1], cells[..., -1])]
    found = np.zeros(values.shape[:-1], values.dtype)
    for place in np.ndindex(found.shape):
        for value in values[place][cells[place]][-1:]:
            found[place] = value
    return [(found, cells.any(-1) if x.mask.ndim > 1 else None)]


def trace(x, offset, axis1, axis2):
    values, cells = (
        np.diagonal(y, offset, axis1, axis2) for y in (x.values, x.cells)
    )
    axes = {axis1 % x.values.ndim, axis2 % x.values.ndim}
    left = set(range(x.mask.ndim)) - axes
    found = np.sum(values.astype("float64") * cells, -1)
    return [(found, np.any(cells, -1) if left else None)]


def trapezoid(y, x, dx, axis):
    values, cells = (np.moveaxis(z, axis, -1) for z in (y.values, y.cells))
    out = np.zeros(values.shape[:-1])
    valid = np.zeros(values.shape[:-1], "bool")
    for *index, i in np.ndindex(
        *values.shape[:-1], max(values.shape[-1] - 1, 0)
    ):
        both, index = (*index, slice(i, i + 2)), tuple(index)
        if np.all(cells[both]):
            width = dx if x is None else x[i + 1] - x[i]
            out[index] += width * np.mean(values[both])
            valid[index] = True
    axis = axis % y.values.ndim
    if set(range(y.mask.ndim)) <= {axis}:
        return [(out, None)]
    if axis >= y.mask.ndim:
        valid = np.take(y.cells, 0, axis)
    return [(out, valid)]


ORACLES = {
    **{
        function.__name__: function
        for function in (
            allclose,
            argpartition,
            argsort,
            average,
            bincount,
            cdist,
            diff,
            digitize,
            extract_sequences,
            histogram,
            in_top_k,
            isin,
            last,
            psnr,
            searchsorted,
            sort,
            top_k,
            trace,
            trapezoid,
            vdot,
        )
    },
    "median": reduction("median"),
    "ptp": reduction("ptp"),
    # What is drawn has no NaN. `order_test` has some.
    "nanargmax": arg_reduction("argmax"),
    "nanargmin": arg_reduction("argmin"),
    **{
        f"nan{name}": reduction(name)
        for name in "max mean median min prod std sum var".split()
    },
    "cumprod": functools.partial(running, np.cumprod, 1),
    "cumsum": functools.partial(running, np.cumsum, 0),
    "correlate": functools.partial(pairwise, np.correlate),
    "kron": functools.partial(pairwise, np.kron),
    "nancumprod": functools.partial(running, np.cumprod, 1),
    "nancumsum": functools.partial(running, np.cumsum, 0),
    "nanpercentile": functools.partial(quantile, 0.01),
    "nanquantile": functools.partial(quantile, 1),
    "percentile": functools.partial(quantile, 0.01),
    "quantile": functools.partial(quantile, 1),
}
