"""What a decoder reads, what it is to say next, and what counts of that."""

import typing

import numpy as np

from keras.src import backend
from keras.src.api_export import keras_export
from keras.src.backend.common.composite import has_mask
from keras.src.masking.calls import from_foreign


@keras_export("keras.utils.shifted_targets")
def shifted_targets(
    sequences: typing.Sequence, start: int, end: int, maxlen: int | None = None
) -> tuple:
    """Makes the data that train a decoder to say the next id.

    The decoder reads `start` and then each id, and at each step it is to say
    the id that comes next, at the last one `end`. So of a sequence of `n` ids
    `n + 1` steps count: each id once, and `end` once. Padding never does.

    Args:
        sequences: List of sequences of ids, or a masked tensor of shape
            `(batch, time)`, or the `numpy.ma` array of one.
        start: Id that stands before each sequence.
        end: Id that stands after each sequence.
        maxlen: Number of steps of the result. Longer sequences lose their
            end, and `end` with it. Defaults to what the longest one takes.

    Returns:
        A tuple of three, each of shape `(batch, maxlen)`: the inputs, a masked
        tensor; the targets, a NumPy array with 0 for padding; and the sample
        weights, a NumPy array of 1 and 0.

    Raises:
        ValueError: If a sequence has more axes than time, or `maxlen` is less
            than 1.

    Example:

    >>> x, y, weights = keras.utils.shifted_targets([[5, 6], [7]], 1, 2)
    >>> x
    <MaskedTensor shape=(2, 3), dtype=int32, mask shape=(2, 3)
    [[1 5 6]
     [1 7 --]]>
    >>> y
    array([[5, 6, 2],
           [7, 2, 0]], dtype=int32)
    >>> weights
    array([[1., 1., 1.],
           [1., 1., 0.]], dtype=float32)
    """
    rows = [np.asarray(row, "int32") for row in _rows(sequences)]
    if any(row.ndim != 1 for row in rows):
        raise ValueError(
            "`shifted_targets` takes sequences of ids, with one axis each. "
            f"Received sequences of shapes {sorted({r.shape for r in rows})}."
        )
    if maxlen is None:
        maxlen = 1 + max(map(len, rows), default=0)
    if maxlen < 1:
        raise ValueError(
            f"There is at least one step, `start`. Received maxlen={maxlen}."
        )
    x, y = np.zeros((2, len(rows), maxlen), "int32")
    valid = np.zeros(x.shape, bool)
    for i, row in enumerate(rows):
        n = min(len(row) + 1, maxlen)
        x[i, :n] = [start, *row][:n]
        y[i, :n] = [*row, end][:n]
        valid[i, :n] = True
    weights = valid.astype(backend.floatx())
    return backend.MaskedTensor(x, valid), y, weights


def _rows(sequences):
    sequences = from_foreign(sequences)
    return sequences.to_ragged() if has_mask(sequences) else sequences
