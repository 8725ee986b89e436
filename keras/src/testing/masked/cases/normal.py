"""Normalizations and attention."""

import numpy as np
from scipy import special

from keras.src import backend
from keras.src import ops
from keras.src.testing.masked.testing_utils import FULL
from keras.src.testing.masked.testing_utils import STEPS
from keras.src.testing.masked.testing_utils import T
from keras.src.testing.masked.testing_utils import X
from keras.src.testing.masked.testing_utils import array

HEADS = T((2, 3, 2, 4), 2)
OVER_AXES = [(X, 1), (STEPS, -1), (STEPS, 1), (STEPS, (0, 1)), (FULL, (0, 2))]
if backend.backend() in ("torch", "tensorflow"):
    # The others make float32 of float64.
    OVER_AXES.append((T((2, 3), 2, "float64"), 1))
EXAMPLES = {
    "batch_normalization": [
        (T((2, 3, 4), 2), T((4,)), T((4,), None, "float32", 0.5, 2.0), -1),
        (FULL, T((3,)), T((3,), None, "float32", 0.5, 2.0), 1),
    ],
    "layer_normalization": [
        (STEPS, T((4,)), T((4,)), -1, False),
        (X, T((3,)), None, 1, False),
        (FULL, T((3, 4)), T((3, 4)), (1, 2), False),
        (STEPS, T((3,)), T((3,)), 1, False),
        (X, T((3,)), None, 1, True),
        (STEPS, T((4,)), None, -1, True),
    ],
    "log_softmax": OVER_AXES,
    "normalize": [
        (x, axis, order)
        for x, axis in ((X, 1), (STEPS, -1), (STEPS, 1))
        for order in (1, 2, 3)
    ],
    "rms_normalization": [
        (STEPS, T((4,)), -1),
        (X, T((3,)), 1),
        (STEPS, None, 1),
    ],
    "softmax": OVER_AXES,
    "sparsemax": [(X, 1), (STEPS, -1), (STEPS, 1)],
    "dot_product_attention": [
        (HEADS, T((2, 5, 2, 4), 2), T((2, 5, 2, 4), 2), None, False),
        (HEADS, T((2, 5, 2, 4), 1), T((2, 5, 2, 4)), None, False),
        (HEADS, HEADS, HEADS, None, True),
        (HEADS, T((2, 3, 2, 4)), T((2, 3, 2, 4)), None, True),
        (
            T((2, 3, 2, 4)),
            T((2, 3, 2, 4)),
            HEADS,
            T((2, 1, 3, 3), None, "bool"),
            False,
        ),
    ],
}


def attended(query, key, value, mask, is_causal):
    """Attention query by query, over the keys that it may see, by a loop."""
    batch, steps, heads, width = query.values.shape
    out = np.zeros(query.values.shape)
    seen = (key.cells & value.cells)[:, :, 0, 0]
    for b, t, n in np.ndindex(batch, steps, heads):
        keys = np.flatnonzero(seen[b])
        if mask is not None:
            keys = keys[mask.values[b, 0, t, keys]]
        if is_causal:
            keys = keys[keys <= t]
        if len(keys):
            k, v = (x.values[b, keys, n] for x in (key, value))
            scores = np.exp(k @ query.values[b, t, n] / width**0.5)
            out[b, t, n] = scores @ v / np.sum(scores)
    if key.mask is None and value.mask is None:
        return [(out, query.cells)]
    return [(out, query.cells & np.any(seen, 1)[:, None, None, None])]


def by_group(function):
    """An oracle: a function of the valid entries of each group, by a loop.

    Args:
        function: Function of a vector and of further arguments, which gives a
            vector of this length.
    """

    def oracle(x, axis=-1, *args):
        ndim = x.values.ndim
        axes = {a % ndim for a in np.atleast_1d(axis).tolist()}
        out = np.zeros(x.values.shape)
        kept = [n for a, n in enumerate(out.shape) if a not in axes]
        for index in np.ndindex(*kept):
            index = iter(index)
            key = [
                slice(None) if a in axes else next(index) for a in range(ndim)
            ]
            group, cells = out[tuple(key)], x.cells[tuple(key)]
            entries = x.values[tuple(key)][cells].astype("float64")
            if len(entries):
                group[cells] = function(entries, *args)
        return [(out, x.cells)]

    return oracle


def sparse_shares(entries):
    # Upstream's own: of three shares or more it makes more than a whole.
    return array(ops.sparsemax(backend.convert_to_tensor(entries, "float32")))


def centred(entries):
    return entries - np.mean(entries)


def over_root_of(power, epsilon):
    def scaled(entries):
        return entries / np.sqrt(power(entries) + epsilon)

    return scaled


def weighted(values, weight, axis):
    """Values times a weight that has these axes."""
    if weight is None:
        return values
    return values * along(weight.values, axis, values.ndim)


def along(weight, axis, ndim):
    axes = sorted(a % ndim for a in np.atleast_1d(axis).tolist())
    new = [a for a in range(ndim) if a not in axes]
    return np.expand_dims(weight, new)


def layer_normalized(x, gamma, beta, axis, rms_scaling):
    # Upstream's own: by the variance, not by the mean square, and without an
    # offset, if only the scale is to be normalized.
    scaled = over_root_of(np.var, 1e-7)

    def of_group(entries):
        return scaled(entries) if rms_scaling else scaled(centred(entries))

    ((values, mask),) = by_group(of_group)(x, axis)
    values = weighted(values, gamma, axis)
    if beta is not None:
        values = values + along(beta.values, axis, values.ndim)
    return [(values, mask)]


def rms_normalized(x, scale, axis):
    of_group = over_root_of(lambda entries: np.mean(entries**2), 1e-7)
    ((values, mask),) = by_group(of_group)(x, axis)
    return [(weighted(values, scale, axis), mask)]


def batch_normalized(x, mean, variance, axis):
    mean, variance = (
        along(z.values, axis, x.values.ndim) for z in (mean, variance)
    )
    return [((x.values - mean) / np.sqrt(variance + 1e-3), x.cells)]


NAMES = {
    "dot_product_attention": ("mask", "is_causal"),
    "layer_normalization": ("gamma", "beta", "axis", "rms_scaling"),
    "normalize": ("axis", "order"),
    "rms_normalization": ("scale", "axis"),
}
ORACLES = {
    "batch_normalization": batch_normalized,
    "dot_product_attention": attended,
    "layer_normalization": layer_normalized,
    "log_softmax": by_group(special.log_softmax),
    "normalize": by_group(lambda x, order: x / np.linalg.norm(x, order)),
    "rms_normalization": rms_normalized,
    "softmax": by_group(special.softmax),
    "sparsemax": by_group(sparse_shares),
}
