"""How PyTorch fills, sums, blocks and joins masked tensors."""

import math
import string
import typing

import numpy as np

import torch
from keras.src import backend
from keras.src.backend.common import masked_kernels as common
from keras.src.backend.common.kinds import Axes
from keras.src.backend.common.kinds import DType
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_kernels import careful
from keras.src.backend.common.masked_kernels import index
from keras.src.backend.common.masked_kernels import put
from keras.src.backend.common.masked_kernels import run_as_one
from keras.src.backend.common.masked_kernels import sorts_last
from keras.src.backend.common.masked_kernels import squares
from keras.src.backend.common.masked_kernels import with_rank
from keras.src.backend.common.masked_tensor import ORDINARY
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from patchset.markers import when

HAS_SAFE_LOGSUMEXP = True
DOT_IS_MATMUL = True
if when(">=3.16"):
    DOT_IS_MATMUL = False


def _computes_eagerly_on_cpu(values):
    """Whether memory is slow beside arithmetic, which is exact.

    On GPUs a product of matrices may round to fewer digits, and nothing can be
    read without waiting for it. A compiler fuses selections, and can look at
    no result.
    """
    return (
        values.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._functorch.is_batchedtensor(values)
    )


def as_numpy(x: Tensor) -> typing.Any:
    # NumPy reads only some of PyTorch's tensors by itself.
    return backend.convert_to_numpy(x)


def select(mask: Mask, values: Tensor, value: typing.Any) -> Tensor:
    if isinstance(mask, torch.Tensor) and isinstance(values, torch.Tensor):
        # The backend's looks for the dtype that they share.
        return torch.where(common.expand(mask, values.ndim), values, value)
    return common.select(mask, values, value)


def filled_copy(values: np.ndarray, mask: np.ndarray) -> Tensor:
    # Converting copies the array.
    copy = backend.convert_to_tensor(values)
    valid = common.expand(backend.convert_to_tensor(mask), copy.ndim)
    return copy.masked_fill_(valid.logical_not(), 0)


def constant(value: typing.Any, dtype: DType) -> typing.Any:
    is_float = isinstance(dtype, torch.dtype) and dtype.is_floating_point
    if is_float and isinstance(value, (int, float)):
        return value
    return common.constant(value, dtype)


def total(x: MaskedTensorBase, axes: Axes, keepdims: bool) -> Tensor:
    if not _computes_eagerly_on_cpu(x.values):
        return common.total(x, axes, keepdims)
    # It rounds products, and lets plain sums be as wide as they are.
    with torch.autocast("cpu", enabled=False):
        result = _product(x, axes)
    # What is not finite under the mask, 0 times it is NaN.
    checksum = result.detach().sum().item()
    if checksum != checksum:
        return common.total(x, axes, keepdims)
    if not keepdims:
        return result
    shape = x.values.shape
    return result.reshape(
        [1 if a in axes else shape[a] for a in range(len(shape))]
    )


def apart(x: MaskedTensorBase, function: typing.Callable) -> Tensor:
    if not _computes_eagerly_on_cpu(x.values):
        return common.apart(x, function)
    # To fill takes as long as a normalization.
    result = function(x.values)
    if math.isfinite(result.detach().sum().item()):
        return result
    return common.apart(x, function)


def is_seen_ordinary(values: Tensor) -> bool:
    # Of float8 it has no norm.
    if not _computes_eagerly_on_cpu(values) or values.dtype.itemsize == 1:
        return False
    return torch.linalg.vector_norm(values.detach()).item() <= ORDINARY


def all_hold_some(x: MaskedTensorBase, axes: Axes) -> bool:
    if not _computes_eagerly_on_cpu(x.values):
        return False
    return bool(x.mask.any(axes).all())


def _product(x, axes):
    """The sum over axes as a product of matrices, values and mask.

    No tensor of the size of the values is made.
    """
    letters = string.ascii_letters[: x.values.ndim]
    covered = x.mask.ndim
    kept = "".join(
        letter
        for axis, letter in enumerate(letters)
        if axis >= covered or axis not in axes
    )
    result = torch.einsum(
        f"{letters[:covered]},{letters}->{kept}",
        x.mask.to(x.values.dtype),
        x.values,
    )
    left = [kept.index(letters[a]) for a in axes if a >= covered]
    return result.sum(left) if left else result


def blocks(x: MaskedTensorBase) -> list[MaskedTensorBase]:
    if _computes_eagerly_on_cpu(x.values):
        return common.split_rows(x)
    return [x]


def join_blocks(x: MaskedTensorBase, parts: typing.Iterable[Tensor]) -> Tensor:
    if torch.is_grad_enabled() and x.values.requires_grad:
        return common.join_blocks(x, parts)
    return common.join_in_place(x, parts, torch.Tensor.new_empty)
