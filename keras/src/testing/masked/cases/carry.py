"""Control flow, scatters and random draws."""

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src.random import random
from keras.src.testing.masked.testing_utils import FULL
from keras.src.testing.masked.testing_utils import STEPS
from keras.src.testing.masked.testing_utils import T
from keras.src.testing.masked.testing_utils import X

# ------------------------------------------------------------ control flow
# Functions as a user writes them, each with its twin in plain NumPy: a
# function of pairs `(values, valid)` that returns such a pair, with None for
# the valid entries where the result is plain.


def _affine(x):
    return x * 2.0 + 1.0


def _mean_over_steps(x):
    return ops.mean(x, axis=0)


def _product(pair):
    return pair[0] * pair[1]


def _sum(a, b):
    return a + b


def _accumulate(carry, x):
    return carry + x, carry + x


def _accumulate_valid(carry, x):
    total = carry + ops.filled(x, 0)
    return total, total


def _mean_twin(x):
    values, valid = x
    count = np.maximum(np.sum(valid, 0), 1)
    return np.sum(values * valid, 0) / count, None


TWINS = {
    _affine: lambda x: (x[0] * 2 + 1, x[1]),
    _mean_over_steps: _mean_twin,
    _product: lambda x, y: (x[0] * y[0], x[1] & y[1]),
    _accumulate: lambda c, x: (c[0] + x[0], c[1] & x[1]),
    _accumulate_valid: lambda c, x: (c[0] + x[0] * x[1], c[1]),
}


def _alone(operands):
    """The masks that cover the first axis alone, joined; None without any."""
    found = [x.mask for x in operands if x.mask is not None]
    found = [mask for mask in found if mask.ndim == 1]
    return np.logical_and.reduce(found) if found else None


def _below(mask, x):
    return mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))


def mapped(f, xs):
    """The twin for each element; one that is not there gives none."""
    operands = xs if type(xs) is tuple else (xs,)
    results = [
        TWINS[f](*((x.values[i], x.cells[i]) for x in operands))
        for i in range(len(operands[0].values))
    ]
    values = np.stack([values for values, _ in results])
    valid = [valid for _, valid in results]
    there = _alone(operands)
    if valid[0] is None:
        return [(values, None)]
    valid = np.stack(valid)
    if there is not None:
        valid = valid & _below(there, valid)
    masked = any(x.mask is not None for x in operands)
    return [(values, valid if masked else None)]


def scanned(f, init, xs, length, reverse):
    """A loop over the steps that are there."""
    carry = init.values, init.cells
    ys = np.zeros((len(xs.values), *init.values.shape))
    valid = np.zeros(ys.shape, "bool")
    steps = range(len(ys))
    alone = xs.mask is not None and xs.mask.ndim == 1
    for i in reversed(steps) if reverse else steps:
        if alone and not xs.mask[i]:
            continue
        carry = TWINS[f](carry, (xs.values[i], xs.cells[i]))
        ys[i], valid[i] = carry
    masked = init.mask is not None
    if f is _accumulate and xs.mask is not None and xs.mask.ndim > 1:
        # So is a carry that adds up masked steps.
        masked = True
    return [
        (carry[0], carry[1] if masked else None),
        (ys, valid if masked or alone else None),
    ]


def cumulated(f, x, reverse, axis):
    """Running sums, valid as long as all entries so far are."""
    del f
    values, valid = x.values, x.cells
    if reverse:
        values, valid = np.flip(values, axis), np.flip(valid, axis)
    values = np.cumsum(values, axis)
    valid = np.logical_and.accumulate(valid, axis)
    if reverse:
        values, valid = np.flip(values, axis), np.flip(valid, axis)
    return [(values, valid)]


def _constant(factor):
    def branch():
        x = np.arange(6, dtype="float32").reshape(2, 3) * factor
        return backend.MaskedTensor(x, np.array([True, False]))

    return branch


ONES, TENS = _constant(1), _constant(10)


def chosen(pred, true_fn, false_fn):
    del true_fn, false_fn
    values = np.arange(6).reshape(2, 3) * (1 if pred.values else 10)
    return [(values, np.array([[True] * 3, [False] * 3]))]


def _halved(x):
    return x / 2.0


def switched(index, branches, x):
    values = x.values * 2 + 1 if index.values == 0 else x.values / 2
    return [(values, x.cells)]


def _add_index(i, x):
    return x + ops.cast(i, "float32")


def _fewer_than_three(x, i):
    return i < 3


def _doubled(x, i):
    return x * 2, i + 1


def _any_is_small(x):
    return ops.any(x < 100)


def _tripled(x):
    return x * 3


def looped(condition, body, loop_vars):
    del condition, body
    if type(loop_vars) is tuple:
        x, i = loop_vars
        return [(x.values * 8, x.cells), (i.values + 3, None)]
    values = loop_vars.values.copy()
    while np.any(values[loop_vars.cells] < 100):
        values *= 3
    return [(values, loop_vars.cells)]


def _square(x):
    return x * x


def sloped(f, primals, tangents):
    """By the derivative that is known; a masked tangent counts as 0."""
    (x,), (t,) = primals, tangents
    slope = t.values * t.cells * x.cells
    if f is _square:
        return [(x.values**2, x.cells), (2 * x.values * slope, x.cells)]
    count = np.maximum(np.sum(x.cells, 0), 1)
    return [
        (np.sum(x.values * x.cells, 0) / count, None),
        (np.sum(slope, 0) / count, None),
    ]


OVER_ELEMENTS = [
    (_affine, STEPS),
    (_affine, T((3, 4), 1)),
    (_mean_over_steps, STEPS),
    (_product, (STEPS, T((2, 3, 4)))),
    (_product, (FULL, T((2, 3, 4), 1))),
]
INDEX = T((), None, "int32", 0, 0)

# ------------------------------------------------------------------ scatters


def scattered(indices, values, shape):
    out = np.zeros(shape, values.values.dtype)
    for i in range(len(indices.values)):
        if indices.cells[i].all():
            place = tuple(indices.values[i])
            out[place] += values.values[i] * values.cells[i]
    return [(out, None)]


UPDATES = {
    None: lambda old, new: new,
    "add": lambda old, new: old + new,
    "max": max,
    "min": min,
    "mul": lambda old, new: old * new,
}


def updated(inputs, indices, updates, reduction):
    """Entry by entry, in order; a reduction leaves out what is masked."""
    out, valid = inputs.values.copy(), inputs.cells.copy()
    indices = np.asarray(indices)
    for i, place in enumerate(indices):
        rest = out.shape[len(place) :]
        for more in np.ndindex(rest):
            at = (*place, *more)
            new, is_valid = updates.values[i][more], updates.cells[i][more]
            if reduction is None:
                out[at], valid[at] = new, is_valid
            elif is_valid:
                both = valid[at]
                out[at] = UPDATES[reduction](out[at], new) if both else new
                valid[at] = True
    masked = inputs.mask is not None
    masked = masked or (reduction is None and updates.mask is not None)
    return [(out, valid if masked else None)]


def windowed(inputs, starts, updates):
    out, valid = inputs.values.copy(), inputs.cells.copy()
    window = tuple(
        slice(s, s + n) for s, n in zip(starts, updates.values.shape)
    )
    out[window], valid[window] = updates.values, updates.cells
    return [(out, valid)]


def by_segment(function):
    def oracle(data, ids, count):
        shape = (count, *data.values.shape[1:])
        out, valid = np.zeros(shape), np.zeros(shape, "bool")
        for index in np.ndindex(shape):
            column = (slice(None), *index[1:])
            rows = (ids.values == index[0]) & ids.cells & data.cells[column]
            if rows.any():
                out[index] = function(data.values[column][rows])
                valid[index] = True
        return [(out, valid)]

    return oracle


def segments(low=-3.0):
    ids = T((5,), None, "int32", 0, 2)
    return [
        (T((5, 2), 1, "float32", low), ids, 4),
        (T((5, 2), 2, "float32", low), ids, 4),
        (T((5, 2), 2, "float32", low), ids._replace(mask=1), 3),
        (T((5, 2), None, "float32", low), ids._replace(mask=1), 3),
        *whole_segments(),
    ]


def whole_segments():
    ids = T((5,), None, "int32", 0, 2)
    return [
        (T((5,), 1, "int32", 1, 4), ids, 4),
        (T((5, 2), 2, "int32", 1, 4), ids._replace(mask=1), 3),
        (T((0, 2), 1, "int32"), T((0,), None, "int32"), 3),
    ]


# --------------------------------------------------------------------- draws
# The numbers are those that the backend draws for plain parameters.


def _plain_draw(function, *args, **kwargs):
    return backend.convert_to_numpy(function(*args, **kwargs))


def dropped(x, rate, seed):
    values = backend.convert_to_tensor(x.values)
    return [(_plain_draw(random.dropout, values, rate, seed=seed), x.cells)]


def shuffled(x, axis, seed):
    both = [backend.convert_to_tensor(y) for y in (x.values, x.cells * 1.0)]
    draws = [_plain_draw(random.shuffle, y, axis, seed=seed) for y in both]
    return [(draws[0], draws[1] > 0)]


def drawn_classes(logits, count, seed):
    """A class that is not there has no probability."""
    there = logits.cells | ~logits.cells.any(1, keepdims=True)
    values = np.where(there, logits.values, -np.inf)
    values = backend.convert_to_tensor(values.astype("float32"))
    classes = _plain_draw(random.categorical, values, count, seed=seed)
    valid = logits.cells.any(1, keepdims=True)
    return [(classes, np.broadcast_to(valid, classes.shape))]


def drawn_from(function, *constants):
    def oracle(shape, *parameters, seed=None):
        *parameters, seed = parameters
        valid = np.ones(shape, "bool")
        for x in parameters:
            valid = valid & x.cells
        filled = [
            backend.convert_to_tensor(
                np.where(valid, x.values, constant).astype(x.values.dtype)
            )
            for x, constant in zip(parameters, constants)
        ]
        return [(_plain_draw(function, shape, *filled, seed=seed), valid)]

    return oracle


def windows():
    # TensorFlow's has no gradient.
    dtype = "int32" if backend.backend() == "tensorflow" else "float32"

    def t(shape, mask=None):
        return T(shape, mask, dtype)

    return [
        (t((2, 3, 4), 2), (0, 1, 0), t((2, 1, 4), 2)),
        (t((2, 3, 4), 2), (0, 1, 0), t((2, 1, 4))),
        (t((2, 3, 4), 2), (0, 1, 1), t((2, 2, 2))),
        (t((2, 3)), (0, 1), t((1, 2), 2)),
        (t((2, 3, 4), 3), (1, 0, 0), t((1, 3, 2), 1)),
    ]


# TensorFlow's counts have the dtype of the probabilities.
COUNTS = T((2, 3), 2, "int32", 2, 9)
if backend.backend() == "tensorflow":
    COUNTS = COUNTS._replace(dtype="float32")
POSITIVE = T((2, 3), 2, "float32", 0.5, 2.0)

EXAMPLES = {
    "associative_scan": [
        (_sum, T((5, 2), 2), False, 0),
        (_sum, T((2, 5, 3), 2), True, 1),
        (_sum, T((2, 4), 1), False, 1),
        (_sum, T((4, 2), 1, "int32"), False, 0),
    ],
    "cond": [(T((), None, "bool"), ONES, TENS)],
    "fori_loop": [(0, 3, _add_index, STEPS), (0, 3, _add_index, FULL)],
    "map": OVER_ELEMENTS,
    # NumPy's backend has no derivatives.
    "jvp": []
    if backend.backend() == "numpy"
    else [
        (_square, (STEPS,), (T((2, 3, 4)),)),
        (_square, (X,), (T((2, 3), 1),)),
        (_mean_over_steps, (T((3, 2), 1),), (T((3, 2)),)),
    ],
    "scan": [
        (_accumulate, T((4,), 1), T((3, 4), 2), None, False),
        (_accumulate, T((4,), 1), T((3, 4)), None, True),
        (_accumulate, T((4,)), T((3, 4), 1), None, False),
        (_accumulate, T((4,), 1), T((3, 4), 1), None, True),
        (_accumulate_valid, T((4,)), T((3, 4), 2), None, False),
        (_accumulate, T((4,)), T((3, 4), 2), None, True),
        (_accumulate, T((4, 2)), T((3, 4, 2), 2), None, False),
    ],
    "switch": [
        (INDEX, [_affine, _halved], STEPS),
        (INDEX._replace(low=1, high=1), [_affine, _halved], FULL),
    ],
    "vectorized_map": OVER_ELEMENTS,
    "while_loop": [
        (_fewer_than_three, _doubled, (X._replace(dtype="int32"), INDEX)),
        (_any_is_small, _tripled, T((2, 3), 1, "int32", 1, 9)),
    ],
    # Scatters.
    "scatter": [
        (T((4, 1), None, "int32", 0, 4), T((4, 2), 2), (5, 2)),
        (T((4, 1), 1, "int32", 0, 4), T((4, 2)), (5, 2)),
        (T((4, 2), 2, "int32", 0, 2), T((4,), 1), (3, 3)),
        (T((4, 2), None, "int32", 0, 2), T((4,), 1, "int32"), (3, 3)),
    ],
    "scatter_update": [
        (T((5, 2), 2), [[0], [3]], T((2, 2), 1), None),
        (T((5, 2), 1), [[0], [3]], T((2, 2), 2), None),
        (T((5, 2), 1), [[0], [3]], T((2, 2)), None),
        (T((5, 2), 1), [[0, 1], [3, 0]], T((2,)), None),
        (T((5, 2)), [[0], [3]], T((2, 2), 1), None),
        (T((5, 2), 2), [[0], [3], [0]], T((3, 2), 1), "add"),
        (T((5, 2)), [[0], [3], [0]], T((3, 2), 2), "add"),
        *(
            (T((5,), m, "int32"), [[0], [3], [0]], T((3,), 1, "int32"), how)
            for how in ("max", "min", "mul")
            for m in (1, None)
        ),
    ],
    "segment_max": segments(),
    "segment_min": segments(),
    # JAX has no gradient of a product over places that repeat.
    "segment_prod": whole_segments()
    if backend.backend() == "jax"
    else segments(0.5),
    "segment_sum": segments(),
    "slice_update": windows(),
    # Draws.
    "random.beta": [
        ((2, 3), POSITIVE, POSITIVE._replace(mask=None), 1),
        ((2, 3), POSITIVE._replace(mask=1), POSITIVE, 1),
    ],
    "random.binomial": [
        ((2, 3), COUNTS, T((3,), None, "float32", 0.1, 0.9), 1)
    ],
    "random.categorical": [(X, 4, 1), (T((2, 3), 1), 4, 1)],
    "random.dropout": [(STEPS, 0.5, 1), (FULL, 0.5, 1)],
    "random.gamma": [
        ((2, 3), POSITIVE, 1),
        ((4, 2), POSITIVE._replace(shape=(2,), mask=1), 1),
    ],
    "random.normal": [],
    "random.randint": [],
    "random.shuffle": [
        (STEPS, 0, 1),
        (STEPS, 1, 1),
        (T((4, 3), 1), 1, 1),
        (T((4, 3), 2, "int32"), 0, 1),
    ],
    "random.truncated_normal": [],
    "random.uniform": [],
}
NAMES = {
    "associative_scan": ("reverse", "axis"),
    "scan": ("length", "reverse"),
    "scatter_update": ("reduction",),
    "random.beta": ("seed",),
    "random.binomial": ("seed",),
    "random.categorical": ("seed",),
    "random.dropout": ("seed",),
    "random.gamma": ("seed",),
    "random.shuffle": ("axis", "seed"),
}
ORACLES = {
    "associative_scan": cumulated,
    "cond": chosen,
    "fori_loop": lambda low, up, f, x: [(x.values + 3, x.cells)],
    "jvp": sloped,
    "map": mapped,
    "scan": scanned,
    "switch": switched,
    "vectorized_map": mapped,
    "while_loop": looped,
    "scatter": scattered,
    "scatter_update": updated,
    "segment_max": by_segment(np.max),
    "segment_min": by_segment(np.min),
    "segment_prod": by_segment(np.prod),
    "segment_sum": by_segment(np.sum),
    "slice_update": windowed,
    "random.beta": drawn_from(random.beta, 1, 1),
    "random.binomial": drawn_from(random.binomial, 1, 0.5),
    "random.categorical": drawn_classes,
    "random.dropout": dropped,
    "random.gamma": drawn_from(random.gamma, 1),
    "random.shuffle": shuffled,
}
SPECS_DIFFER = {
    name: "random functions have no operation, and so no symbolic form"
    for name in EXAMPLES
    if name.startswith("random.")
}
