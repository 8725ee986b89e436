"""How an engine fills, sums, blocks and joins masked tensors.

Each engine has a `masked_kernels` with these functions, which takes from here
what it does not do better. `keras/src/masking/masks.py` calls them.
"""

import math
import typing

import numpy as np

from keras.src import backend
from keras.src.backend.common.kinds import Axes
from keras.src.backend.common.kinds import DType
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.variables import standardize_dtype

# What a core keeps at hand of the operands and the result of one step.
BLOCK_BYTES = 2**20

# Whether the engine's `logsumexp` has a slope that is no NaN where all entries
# are -inf, once it is selected by the mask.
HAS_SAFE_LOGSUMEXP = False
# Whether upstream's `dot` is a `matmul`, whatever the ranks.
DOT_IS_MATMUL = False


def sorts_last(x: MaskedTensorBase) -> float:
    """The number that the engine's sort puts after all others."""
    return math.nan


def select(mask: Mask, values: Tensor, value: typing.Any) -> Tensor:
    """The values where a mask is True, else a `constant`.

    The mask covers leading axes, or broadcasts with as many as there are.
    """
    mask = expand(mask, len(values.shape))
    return backend.numpy.where(mask, values, value)


def constant(value: typing.Any, dtype: DType) -> typing.Any:
    """A scalar in the dtype of the values among which it is put."""
    dtype = standardize_dtype(dtype)
    if dtype == "string":
        return str(value or "")
    return backend.convert_to_tensor(value, dtype)


def expand(mask: Mask, ndim: int) -> Mask:
    """The mask with axes of size 1 appended until it has `ndim` axes."""
    missing = ndim - len(mask.shape)
    if not missing:
        return mask
    return backend.numpy.expand_dims(mask, tuple(range(len(mask.shape), ndim)))


def fill(values: Tensor, mask: Mask, value: typing.Any) -> Tensor:
    """The values with `value` wherever the mask is False.

    Args:
        values: Backend tensor.
        mask: Mask that covers leading axes of the values, or, with as many
            axes as they have, one that broadcasts with them.
        value: Scalar. Nothing of what was there reaches the result or, by a
            gradient, its source.
    """
    kernels = backend.masked_kernels
    value = kernels.constant(value, values.dtype)
    return kernels.select(mask, values, value)


def filled_copy(values: np.ndarray, mask: np.ndarray) -> Tensor:
    """A tensor of an array of the caller's, with 0 wherever the mask is False.

    Engines that can save a copy: the array may be large.
    """
    values, mask = map(backend.convert_to_tensor, (values, mask))
    return fill(values, mask, 0)


# How the engine computes with what is finite under the mask, measured.


def put(x: MaskedTensorBase, value: typing.Any) -> Tensor:
    """The values with `value` under the mask."""
    return fill(x.values, x.mask, value)


def total(x: MaskedTensorBase, axes: Axes, keepdims: bool) -> Tensor:
    """The sum of the valid entries over some axes."""
    values = backend.masked_kernels.put(x, 0)
    return backend.numpy.sum(values, axis=axes, keepdims=keepdims)


def squares(x: MaskedTensorBase, axes: Axes, keepdims: bool) -> Tensor:
    """The sum of the squares of the valid entries over some axes."""
    values = backend.masked_kernels.put(x, 0)
    squares = backend.numpy.square(values)
    return backend.numpy.sum(squares, axis=axes, keepdims=keepdims)


def careful(x: MaskedTensorBase, function: typing.Callable) -> Tensor:
    """A function of a masked tensor, whatever is under the mask.

    By selection nothing of that reaches the result, and an engine that
    computes with it looks at the result: NaN says that it was not finite.
    """
    return function(x)


def apart(x: MaskedTensorBase, function: typing.Callable) -> Tensor:
    """A function of values that takes each entry of the mask by itself.

    An engine that can look at the result need not fill first: what is finite
    there is a number, and its slope is none.
    """
    return function(backend.masked_kernels.put(x, 0))


def is_seen_ordinary(values: Tensor) -> bool:
    """Whether an engine that can look sees nothing large or infinite.

    To read is a third of to fill. No entry is larger than the norm of all.
    """
    return False


def all_hold_some(x: MaskedTensorBase, axes: Axes) -> bool:
    """Whether all slices over axes of the mask have a valid entry.

    What is compiled cannot look, and would save nothing by it.
    """
    return False


def run_as_one(rule: typing.Callable, call: typing.Any) -> typing.Any:
    """What a rule gives for a call, by one program where that is faster."""
    return rule(call)


def with_rank(values: Tensor, ndim: int) -> Tensor:
    """What an engine computed, whose rank it may have lost, with its rank."""
    return values


def blocks(x: MaskedTensorBase) -> list[MaskedTensorBase]:
    """The parts to compute one by one, each a masked tensor."""
    return [x]


def join_blocks(x: MaskedTensorBase, parts: typing.Iterable[Tensor]) -> Tensor:
    """One tensor of what was computed for each of the `blocks` of `x`."""
    return backend.numpy.concatenate(list(parts), axis=0)


def join_in_place(
    x: MaskedTensorBase,
    parts: typing.Iterable[Tensor],
    empty: typing.Callable,
) -> Tensor:
    """As `join_blocks`, so that the memory of a part serves the next one.

    Fresh memory costs more than the arithmetic.

    Args:
        x: What the parts were made of.
        parts: What was computed, one by one.
        empty: Function of a part and of a shape, which gives a tensor of its
            dtype to write to.
    """
    joined, end = None, 0
    for part in parts:
        if joined is None:
            joined = empty(part, (len(x.values), *part.shape[1:]))
        start, end = end, end + len(part)
        joined[start:end] = part
    return joined


def split_rows(x: MaskedTensorBase) -> list[MaskedTensorBase]:
    """The parts of some rows that stay in a cache, if it is large."""
    length, *rest = x.values.shape
    size = math.prod(rest) * x.values.dtype.itemsize
    rows = max(BLOCK_BYTES // max(size, 1), 1)
    if length < 4 * rows:
        return [x]
    parts = (slice(i, i + rows) for i in range(0, length, rows))
    return [x._wrap(x.values[p], x.mask[p]) for p in parts]


def index(x: Tensor, key: tuple) -> Tensor:
    """`x[key]` of a plain tensor, with arrays among the indices."""
    return x[key]


def as_numpy(x: Tensor) -> np.ndarray:
    """A NumPy view of values or of a mask, where there can be one."""
    return np.asarray(x)
