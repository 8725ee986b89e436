"""How NumPy fills, sums, blocks and joins masked tensors."""

import math
import typing

import numpy as np
from keras.src import backend
from keras.src.backend.common import masked_kernels as common
from keras.src.backend.common.kinds import Axes
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_kernels import DOT_IS_MATMUL
from keras.src.backend.common.masked_kernels import HAS_SAFE_LOGSUMEXP
from keras.src.backend.common.masked_kernels import as_numpy
from keras.src.backend.common.masked_kernels import careful
from keras.src.backend.common.masked_kernels import constant
from keras.src.backend.common.masked_kernels import index
from keras.src.backend.common.masked_kernels import join_in_place
from keras.src.backend.common.masked_kernels import run_as_one
from keras.src.backend.common.masked_kernels import split_rows as blocks
from keras.src.backend.common.masked_kernels import squares
from keras.src.backend.common.masked_kernels import with_rank
from keras.src.backend.common.masked_tensor import ORDINARY
from keras.src.backend.common.masked_tensor import MaskedTensorBase


def filled_copy(values: np.ndarray, mask: np.ndarray) -> Tensor:
    # To convert copies what has 64 bits.
    copy = backend.convert_to_tensor(values)
    if np.may_share_memory(copy, values):
        copy = copy.copy()
    copy[~mask] = 0
    return copy


def select(mask: Mask, values: Tensor, value: typing.Any) -> Tensor:
    # The backend's makes 32 bits of 64.
    return np.where(common.expand(mask, values.ndim), values, value)


def sorts_last(x: MaskedTensorBase) -> float:
    # Of the types that it did not make itself, NaN has no place.
    return math.nan if x.values.dtype.kind in "fc" else math.inf


def put(x: MaskedTensorBase, value: typing.Any) -> Tensor:
    values = x.values.copy()
    values[~x.mask] = value
    return values


def total(x: MaskedTensorBase, axes: Axes, keepdims: bool) -> Tensor:
    axes_below = range(x.mask.ndim, x.values.ndim)
    mask = np.expand_dims(x.mask, tuple(axes_below))
    return np.sum(x.values, axes, keepdims=keepdims, where=mask)


def apart(x: MaskedTensorBase, function: typing.Callable) -> Tensor:
    # What is there to be warned of comes again.
    with np.errstate(all="ignore"):
        result = function(x.values)
        is_finite = np.isfinite(np.sum(result))
    return result if is_finite else common.apart(x, function)


def is_seen_ordinary(values: np.ndarray) -> bool:
    with np.errstate(all="ignore"):
        return bool(np.linalg.norm(values) <= ORDINARY)


def all_hold_some(x: MaskedTensorBase, axes: Axes) -> bool:
    return bool(x.mask.any(axes).all())


def join_blocks(x: MaskedTensorBase, parts: typing.Iterable[Tensor]) -> Tensor:
    return join_in_place(
        x, parts, lambda part, shape: np.empty(shape, part.dtype)
    )
