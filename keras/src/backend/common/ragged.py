"""Rows of unequal length, and ragged tensors of TensorFlow and PyTorch."""

import typing

import numpy as np

from keras.src import backend
from keras.src.backend.common import foreign
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Tensor
from keras.src.utils.module_utils import tensorflow as tf


def is_ragged(x: typing.Any) -> bool:
    """Whether this is a `tf.RaggedTensor` or a nested tensor of PyTorch."""
    return is_ragged_of_tensorflow(x) or (
        _is_named(x, "Tensor", "torch") and x.is_nested
    )


def is_ragged_of_tensorflow(x: typing.Any) -> bool:
    return _is_named(x, "RaggedTensor", "tensorflow.python")


def _is_named(x, name, package):
    """Whether one of the types of `x` has this name; no package is imported."""
    return any(
        type_.__name__ == name and type_.__module__.startswith(package)
        for type_ in type(x).__mro__
    )


def padded(
    rows: typing.Any,
    length: int | tuple[int, ...] | None = None,
    ragged_rank: int | None = None,
) -> tuple[Tensor, Mask]:
    """Values padded to the longest row, and which of them there are.

    Args:
        rows: Nested list of arrays, or of numbers; a nested tensor of PyTorch;
            or a `tf.RaggedTensor`, also within a graph.
        length: Length of the time axis, or a tuple of those of all ragged
            axes, with None for the longest.
        ragged_rank: Number of ragged axes, None to find out.

    Returns:
        The values, with 0 where there are none, and the mask, over the batch
        and the ragged axes. They are NumPy arrays, or tensors of TensorFlow
        within a graph and where several axes are ragged.

    Raises:
        ValueError: If the rows differ in more than their length, or one is
            longer than `length`.
    """
    if is_ragged_of_tensorflow(rows):
        if rows.ragged_rank > 1 or not hasattr(rows.flat_values, "numpy"):
            return _padded_by_tensorflow(rows, length)
        ends = rows.row_splits.numpy()[1:]
        # The last piece is what follows the last row: nothing.
        rows = np.split(rows.flat_values.numpy(), ends)[: len(ends)]
    elif is_ragged(rows):
        rows = [row.detach().cpu() for row in rows.unbind()]
    else:
        rows = foreign.rows_of(rows)
    ragged_rank = ragged_rank or _ragged_rank(rows)
    places, innermost = [], []
    for place, row in _innermost(rows, ragged_rank):
        places.append(place)
        innermost.append(_as_array(row))
    # An empty list says nothing of features, nor of a dtype.
    known = [row for row in innermost if row.shape != (0,)] or innermost
    inner = {row.shape[1:] for row in known}
    sizes = _sizes(places, innermost, ragged_rank)
    lengths = _lengths(length, sizes)
    if len(inner) > 1 or any(map(np.greater, sizes, lengths)):
        raise ValueError(
            "The rows of a ragged list must agree in all but their first "
            f"axis, and be no longer than length={length}. Received rows "
            f"of shapes {sorted({row.shape for row in innermost})}, in lists "
            f"of up to {sizes} entries."
        )
    shape = (len(rows), *lengths)
    trailing = inner.pop() if inner else ()
    dtype = np.result_type(*known) if known else np.dtype(backend.floatx())
    values = np.zeros(shape + trailing, _of_floatx(dtype.name, dtype))
    # Features of a step may be missing one by one.
    has_holes = any(isinstance(row, np.ma.MaskedArray) for row in innermost)
    mask = np.zeros(shape + trailing if has_holes else shape, "bool")
    for place, row in zip(places, innermost):
        if len(row):
            values[place][: len(row)] = row
            valid = ~np.ma.getmaskarray(row) if has_holes else True
            mask[place][: len(row)] = valid
    return values, mask


def _as_array(row):
    """A row as an array, masked where entries of it are missing."""
    row = foreign.as_numpy(row)
    return row if isinstance(row, np.ma.MaskedArray) else np.asarray(row)


def _ragged_rank(rows):
    """The number of axes in which nested lists differ, the first included."""
    if any(hasattr(row, "shape") for row in rows) or _can_stack(rows):
        return 1
    return 1 + max(map(_ragged_rank, rows))


def _can_stack(rows):
    """Whether rows agree in all but their first axis."""
    try:
        return len({np.asarray(row).shape[1:] for row in rows if len(row)}) < 2
    except ValueError:
        # NumPy's own, of a row that is ragged itself.
        return False


def _innermost(rows, ragged_rank, place=()):
    """The rows of the last ragged axis, each with its place."""
    for i, row in enumerate(rows):
        if ragged_rank > 1:
            yield from _innermost(row, ragged_rank - 1, (*place, i))
        else:
            yield (*place, i), row


def _sizes(places, innermost, ragged_rank):
    """How long the longest list along each ragged axis is."""
    outer = (
        max((place[axis] + 1 for place in places), default=0)
        for axis in range(1, ragged_rank)
    )
    return (*outer, max(map(len, innermost), default=0))


def _lengths(length, sizes):
    """The lengths of all ragged axes, of those that are given."""
    given = length if isinstance(length, (tuple, list)) else (length,)
    given = (*given, *[None] * (len(sizes) - len(given)))
    return tuple(
        size if one is None else one
        for one, size in zip(given, sizes, strict=True)
    )


def _of_floatx(name, dtype):
    """The dtype, or `floatx` for any floating point one."""
    return backend.floatx() if backend.is_float_dtype(name) else dtype


def _padded_by_tensorflow(rows, length):
    shape = None
    if length is not None:
        lengths = _lengths(length, (None,) * rows.ragged_rank)
        # What is longer would be cut.
        for axis, one in enumerate(lengths, 1):
            if one is not None:
                tf.debugging.assert_less_equal(
                    rows.bounding_shape()[axis],
                    tf.cast(one, rows.row_splits.dtype),
                    f"A row is longer than length={length}.",
                )
        shape = [None, *lengths]
    there = tf.ones(tf.shape(rows.flat_values)[:1], "bool")
    mask = rows.with_flat_values(there).to_tensor(shape=shape)
    values = rows.to_tensor(shape=shape)
    return tf.cast(values, _of_floatx(values.dtype.name, values.dtype)), mask
