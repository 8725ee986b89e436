"""Questions about a tensor, and tensors of the same shape."""

import numpy as np

from keras.src.testing.masked.testing_utils import STEPS
from patchset.markers import when

EXAMPLES = {
    "empty_like": [(STEPS,)],
    "filled": [(STEPS, 2.0), (STEPS,)],
    "full_like": [(STEPS, 2.0)],
    "get_mask": [(STEPS,)],
    "ndim": [(STEPS,)],
    "ones_like": [(STEPS,)],
    "size": [(STEPS,)],
    "zeros_like": [(STEPS,)],
    # What lies under the mask included, so not the same with other garbage.
    "get_values": [],
}


def like(x, value):
    return [(np.full_like(x.values, value), x.cells)]


ORACLES = {
    "empty_like": lambda x: like(x, 0),
    "filled": lambda x, value=0: [(np.where(x.cells, x.values, value), None)],
    "full_like": like,
    "get_mask": lambda x: [(x.mask, None)],
    "ndim": lambda x: [(np.asarray(x.values.ndim), None)],
    "ones_like": lambda x: like(x, 1),
    "size": lambda x: [(np.asarray(x.values.size), None)],
    "zeros_like": lambda x: like(x, 0),
}

if when(">=3.16"):  # Which makes no operation of these.
    del EXAMPLES["ndim"], EXAMPLES["size"]
    del ORACLES["ndim"], ORACLES["size"]
