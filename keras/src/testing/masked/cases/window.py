"""Pools and convolutions: windows that slide over a signal."""

import numpy as np

from keras.src.testing.masked.testing_utils import FULL
from keras.src.testing.masked.testing_utils import STEPS
from keras.src.testing.masked.testing_utils import T

PICTURES = [T((2, 4, 5, 2), mask) for mask in (1, 2, 3, 4)]
POOLS = [
    (STEPS, 2, 1, "same"),
    (STEPS, 2, 2, "valid"),
    (FULL, 2, 1, "same"),
    (T((2, 7, 3), 2), 3, 2, "same"),
    (T((3, 8, 3), 2), 3, 1, "valid"),
    # Padded by as much on either side: by less on one, PyTorch's average pool
    # repeats the border.
    *((x, (3, 3), (1, 2), "same") for x in PICTURES),
    (PICTURES[2], (3, 2), 2, "valid"),
]
EXAMPLES = {
    "average_pool": POOLS,
    "conv": [
        (STEPS, T((2, 4, 3)), 1, "same", 1),
        (STEPS, T((3, 4, 3)), 1, "valid", 1),
        (FULL, T((3, 4, 2)), 2, "same", 1),
        (T((2, 7, 3), 2), T((3, 3, 2)), 1, "same", 2),
        (T((2, 7, 3), 3), T((3, 3, 2)), 1, "valid", 2),
        *((x, T((2, 3, 2, 3)), (1, 2), "same", 1) for x in PICTURES),
        (PICTURES[2], T((2, 2, 2, 3)), 1, "valid", 1),
    ],
    "max_pool": POOLS,
}
NAMES = {
    "average_pool": ("pool_size", "strides", "padding"),
    "conv": ("kernel", "strides", "padding", "dilation_rate"),
    "max_pool": ("pool_size", "strides", "padding"),
}


class Window:
    """The places of a window along one axis, wherever it can be.

    Attributes:
        places: For each position of the window the places that it sees.
        anchors: For each position the place in its middle, the earlier of two.
        whole: Whether the window may reach over no end of a row.
    """

    def __init__(self, length, size, stride, padding, dilation=1):
        self.length = length
        self.whole = padding == "valid"
        extent = (size - 1) * dilation + 1
        if padding == "same":
            count = -(-length // stride)
            before = max((count - 1) * stride + extent - length, 0) // 2
        else:
            count, before = (length - extent) // stride + 1, 0
        starts = [i * stride - before for i in range(count)]
        self.places = [range(s, s + extent, dilation) for s in starts]
        self.anchors = [s + (extent - 1) // 2 for s in starts]

    def fits(self, position, row):
        """Whether a window stays in a row, given as bools along the axis."""
        if not self.whole:
            return True
        own, valid = self.places[position], np.flatnonzero(row)
        return len(valid) and valid[0] <= own[0] and own[-1] <= valid[-1]

    def seen(self, position):
        """The pairs of a place in the window and a place in the signal."""
        return [
            (i, place)
            for i, place in enumerate(self.places[position])
            if 0 <= place < self.length
        ]


def windows(x, size, strides, padding, dilation=1):
    """A `Window` for each axis between the first and the last."""
    lengths = x.values.shape[1:-1]
    options = (
        np.broadcast_to(option, len(lengths)).tolist()
        for option in (size, strides, dilation)
    )
    return [
        Window(length, k, stride, padding, d)
        for length, k, stride, d in zip(lengths, *options)
    ]


def each(found):
    """The positions of windows along several axes, with what is seen there."""
    shape = [len(window.places) for window in found]
    for position in np.ndindex(*shape):
        seen = [window.seen(i) for window, i in zip(found, position)]
        in_window, in_signal = (
            np.ix_(*([pair[j] for pair in pairs] for pairs in seen))
            for j in range(2)
        )
        anchor = tuple(w.anchors[i] for w, i in zip(found, position))
        yield position, in_window, in_signal, anchor


def is_valid(found, position, anchor, cells):
    """Whether a result is: its anchor is, and it stays in the row.

    Args:
        found: A `Window` for each spatial axis.
        position: The place of the result.
        anchor: The place of its anchor.
        cells: The mask over the spatial axes.
    """
    axes = range(cells.ndim)
    rows = [cells.any(tuple(a for a in axes if a != axis)) for axis in axes]
    fits = map(Window.fits, found, position, rows)
    return cells[anchor] and all(fits)


def pooled(function):
    """A function of the valid entries in each window."""

    def oracle(x, size, strides, padding):
        found = windows(x, size, strides, padding)
        spatial = [len(window.places) for window in found]
        out = np.zeros((len(x.values), *spatial, x.values.shape[-1]))
        mask = np.zeros(out.shape, "bool")
        for b, c in np.ndindex(out.shape[0], out.shape[-1]):
            values, cells = x.values[b, ..., c], x.cells[b, ..., c]
            for position, _, places, anchor in each(found):
                entries = values[places][cells[places]]
                out[(b, *position, c)] = (
                    function(entries) if len(entries) else 0
                )
                mask[(b, *position, c)] = is_valid(
                    found, position, anchor, cells
                )
        return [(out, mask)]

    return oracle


def convolved(x, kernel, strides, padding, dilation):
    """Valid where any channel is, of the anchor and of the row."""
    size = kernel.values.shape[:-2]
    found = windows(x, size, strides, padding, dilation)
    spatial = [len(window.places) for window in found]
    out = np.zeros((len(x.values), *spatial, kernel.values.shape[-1]))
    mask = np.zeros(out.shape, "bool")
    signal = np.where(x.cells, x.values, 0).astype("float64")
    for b in range(len(out)):
        for position, steps, places, anchor in each(found):
            weights = kernel.values[steps]
            out[(b, *position)] = np.tensordot(
                signal[b][places], weights, weights.ndim - 1
            )
            cells = x.cells[b].any(-1)
            mask[(b, *position)] = is_valid(found, position, anchor, cells)
    return [(out, mask)]


ORACLES = {
    "average_pool": pooled(np.mean),
    "conv": convolved,
    "max_pool": pooled(np.max),
}
