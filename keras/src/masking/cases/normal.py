"""Normalizations and windows over a mask."""

import numpy as np

from keras.src.masking.testing_utils import T

HEADS = T((2, 3, 2, 4), 2)
EXAMPLES = {
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


NAMES = {"dot_product_attention": ("mask", "is_causal")}
ORACLES = {"dot_product_attention": attended}
