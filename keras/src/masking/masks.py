"""The one place that aligns, broadcasts and merges masks, and that fills.

Masks are boolean backend tensors, True where valid, over the leading axes of
the values they belong to.
"""

import typing

import ml_dtypes
import numpy as np

from keras.src import backend
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.composite import mask_or_spec
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Axes
from keras.src.backend.common.kinds import DType
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Shape
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_kernels import expand
from keras.src.backend.common.masked_kernels import fill
from keras.src.backend.common.masked_tensor import ORDINARY
from keras.src.backend.common.masked_tensor import MaskedTensorBase


def wrap(values: Tensor, mask: Mask | None) -> AnyTensor:
    """A masked tensor of computed parts; the values as they are without one.

    Args:
        values: Backend tensor, finite under the mask.
        mask: Boolean backend tensor over its leading axes, or None.
    """
    return values if mask is None else backend.MaskedTensor._wrap(values, mask)


def covered(x: typing.Any) -> int:
    """How many leading axes the mask of `x` covers, 0 for what is plain.

    Args:
        x: Tensor, masked tensor or symbolic tensor.
    """
    return len(mask_or_spec(x).shape) if has_mask(x) else 0


def is_masked(x: typing.Any) -> bool:
    """Whether `x` is a masked tensor that has values; see `has_mask`."""
    return isinstance(x, MaskedTensorBase)


def as_bool(mask: Tensor) -> Mask:
    """A mask of any dtype as a boolean one; the same object if it is one."""
    is_one = backend.is_tensor(mask) and (
        backend.standardize_dtype(mask.dtype) == "bool"
    )
    return mask if is_one else backend.cast(mask, "bool")


def to_rank(mask: Mask, values: Tensor, ndim: int) -> Mask:
    """The mask broadcast over the first `ndim` axes of its values."""
    if len(mask.shape) == ndim:
        return mask
    shape = backend.shape(values)[:ndim]
    return backend.numpy.broadcast_to(expand(mask, ndim), shape)


def over_axes(mask: Mask, values: Tensor, ndim: int) -> Mask:
    """As `to_rank`, for a mask that may have axes of size 1 as well."""
    if same_shape(mask.shape, tuple(values.shape)[:ndim]):
        return mask
    shape = backend.shape(values)[:ndim]
    return backend.numpy.broadcast_to(expand(mask, ndim), shape)


def same_shape(shape: Shape, other: Shape) -> bool:
    """Whether two shapes are known to be equal: two unknown sizes are not."""
    shape = tuple(shape)
    return None not in shape and shape == tuple(other)


def filled(x: AnyTensor) -> Tensor:
    """The values of a masked tensor with 0 under the mask; else `x` itself."""
    return fill(x.values, x.mask, 0) if is_masked(x) else x


def put(x: MaskedTensorBase, value: typing.Any) -> Tensor:
    """The values of a masked tensor with `value` under the mask, the fast way.

    As `fill`, for what is finite under the mask, or within `careful`: there
    engines may compute with it. A small dtype is never trusted.

    Args:
        x: Masked tensor.
        value: Scalar.
    """
    if is_wide(x.dtype):
        return backend.masked_kernels.put(x, value)
    return fill(x.values, x.mask, value)


def zero(x: MaskedTensorBase) -> Tensor:
    """The values of a masked tensor with 0 under the mask, the fast way."""
    return put(x, 0)


def apart(
    x: MaskedTensorBase, function: typing.Callable[[Tensor], Tensor]
) -> Tensor:
    """A function of values that takes each entry of the mask by itself.

    Args:
        x: Masked tensor, finite under the mask.
        function: Takes its values, returns a tensor of which each entry is
            made of one of the mask, and computes in numbers that are not small.
    """
    if not is_wide(x.dtype):
        return function(fill(x.values, x.mask, 0))
    return backend.masked_kernels.apart(x, function)


def total(x: MaskedTensorBase, axes: Axes, keepdims: bool) -> Tensor:
    """The sum of the valid entries, a plain tensor.

    Args:
        x: Masked tensor.
        axes: Axes to sum over, as non-negative integers.
        keepdims: Whether they stay, with size 1.
    """
    return careful(x, lambda x: quick_total(x, axes, keepdims))


def quick_total(x: MaskedTensorBase, axes: Axes, keepdims: bool) -> Tensor:
    """As `total`, within a function that is computed carefully as a whole."""
    if is_wide(x.dtype):
        return backend.masked_kernels.total(x, axes, keepdims)
    return backend.numpy.sum(zero(x), axis=axes, keepdims=keepdims)


def is_small(dtype: DType) -> bool:
    """Whether ordinary numbers are soon infinite in a dtype."""
    return not is_wide(dtype) and backend.is_float_dtype(dtype)


def is_wide(dtype: DType) -> bool:
    """Whether ordinary numbers stay finite in a dtype, whatever is computed."""
    return backend.standardize_dtype(dtype) in (
        "bfloat16",
        "float32",
        "float64",
    )


def narrows(dtype: DType, new_dtype: DType) -> bool:
    """Whether a finite number of a dtype may be infinite in a new one."""
    dtypes = map(backend.standardize_dtype, (dtype, new_dtype))
    reach, new_reach = map(_reach, dtypes)
    return new_reach < reach


# Made here: PyTorch's compiler cannot look through it.
_LARGEST = {
    dtype: float(ml_dtypes.finfo(dtype).max)
    for dtype in ("float16", "bfloat16", "float32", "float64")
}


def _reach(dtype):
    """The largest number of a dtype, as far as floating point ones differ."""
    if dtype in _LARGEST:
        return _LARGEST[dtype]
    # The largest integer is beyond float16 alone.
    return float(2**64) if "int" in dtype else 0.0


def cast(x: MaskedTensorBase, dtype: DType) -> MaskedTensorBase:
    """A masked tensor in another dtype, finite under the mask."""
    return recast(x, backend.cast(x.values, dtype))


def recast(x: MaskedTensorBase, values: Tensor) -> MaskedTensorBase:
    """A masked tensor of its values in another dtype, finite under the mask.

    What one dtype holds is infinite in a smaller one, and what is in a small
    one may be infinite already.
    """
    if is_small(x.dtype) or narrows(x.dtype, values.dtype):
        values = fill(values, x.mask, 0)
    return wrap(values, x.mask)


def trusted(x: MaskedTensorBase) -> Tensor:
    """The values of a masked tensor, as an op may compute with them.

    In float16 ordinary numbers are infinite soon: there, 0 is put under the
    mask before each op.
    """
    return fill(x.values, x.mask, 0) if is_small(x.dtype) else x.values


def careful(
    x: MaskedTensorBase, function: typing.Callable[[MaskedTensorBase], Tensor]
) -> Tensor:
    """A function of a masked tensor, whatever is under the mask.

    It is computed the fast way, and once more with 0 there if NaN comes out:
    where an engine puts values by arithmetic, nothing else gives away that
    something was not finite.

    Args:
        x: Masked tensor.
        function: Takes it, returns a plain tensor.
    """
    if not is_wide(x.dtype):
        return function(x)
    return backend.masked_kernels.careful(x, function)


def in_blocks(
    x: MaskedTensorBase,
    axes: Axes,
    function: typing.Callable[[MaskedTensorBase], Tensor],
) -> Tensor:
    """A function of a masked tensor, block by block where that is faster.

    It is computed carefully.

    An engine that runs op by op reads and writes memory for each; a block
    stays in the cache.

    Args:
        x: Masked tensor.
        axes: Axes that the function goes over; the others are independent.
        function: Takes a masked tensor, returns a plain one in which the first
            axis, if it is not among `axes`, is still the first.
    """
    blocks = [x] if 0 in axes else backend.masked_kernels.blocks(x)
    if len(blocks) == 1:
        return careful(blocks[0], function)
    parts = (careful(block, function) for block in blocks)
    return backend.masked_kernels.join_blocks(x, parts)


def merge(operands: typing.Sequence) -> Mask:
    """The mask of an elementwise result: valid where all masked operands are.

    Operands broadcast as their values do, from the last axis on, while a mask
    covers leading axes. Plain operands are neutral.

    Args:
        operands: Masked tensors, plain tensors and scalars, at least one of
            them masked.

    Returns:
        A mask over leading axes of the result, which has the rank of the
        largest operand.
    """
    first = next(x for x in operands if is_masked(x))
    if len(operands) == 1:
        return first.mask
    others = [x for x in operands if x is not first and not is_scalar(x)]
    if all(_adds_nothing(x, first) for x in others):
        return first.mask
    operands = (first, *others)
    masked = [x for x in operands if is_masked(x)]
    ndim = max(len(x.shape) for x in operands)
    covered = reach(masked, ndim)
    merged = None
    for x in masked:
        mask = align(x.mask, len(x.shape), ndim, covered)
        if merged is not None and mask is not merged:
            mask = merged & mask
        merged = mask
    return _stretch(merged, operands, ndim, covered)


def reach(operands: typing.Iterable, ndim: int) -> int:
    """How many leading axes of `ndim` the masks cover after broadcasting.

    Args:
        operands: Tensors, eager or symbolic, at least one of them masked.
        ndim: Rank of the result.
    """
    return max(
        ndim - len(x.shape) + covered(x) for x in operands if has_mask(x)
    )


def align(mask: Mask, own_ndim: int, ndim: int, covered: int) -> Mask:
    """A mask with axes of size 1, so that it broadcasts from the left.

    Args:
        mask: Mask over leading axes of values with `own_ndim` axes.
        own_ndim: Rank of the values it belongs to.
        ndim: Rank of the result that these values broadcast to.
        covered: Number of leading axes of the result to cover.
    """
    lead = ndim - own_ndim
    mask = expand(mask, covered - lead)
    if not lead:
        return mask
    return backend.numpy.expand_dims(mask, tuple(range(lead)))


def guarded(
    operand: typing.Any, mask: Mask, value: typing.Any, ndim: int
) -> typing.Any:
    """The values of an operand, with `value` wherever the result is masked.

    An operand that is the same for all entries of the mask is left alone.

    Args:
        operand: Masked or plain tensor, array or scalar.
        mask: Mask of the result, as `merge` gives it.
        value: Constant in the domain of the operation.
        ndim: Rank of the result.
    """
    masked = is_masked(operand)
    values = operand.values if masked else operand
    if not masked and is_scalar(values):
        return values
    values = backend.convert_to_tensor(values)
    lead = ndim - len(values.shape)
    own_axes = tuple(values.shape)[: max(len(mask.shape) - lead, 0)]
    if not len(mask.shape) or (masked and operand.mask is mask):
        return fill(values, mask, value)
    if not masked and all(n == 1 for n in own_axes):
        return values
    return fill(values, expand(mask, ndim), value)


def within(x: MaskedTensorBase, mask: Mask, ndim: int) -> Tensor:
    """The values of an operand, ordinary wherever the result is masked.

    What is valid there may be infinite, where another operand has nothing.

    Args:
        x: Masked operand.
        mask: Mask of the result, as `merge` gives it.
        ndim: Rank of the result.
    """
    if x.mask is mask or _is_seen_ordinary(x.values):
        return x.values
    return guarded(x, mask, 0, ndim)


def settled(values: Tensor, mask: Mask) -> MaskedTensorBase:
    """A masked tensor whose mask has less than those of the operands.

    What was valid in them, and may be infinite, ends under it.
    """
    if not _is_seen_ordinary(values):
        values = fill(values, mask, 0)
    return wrap(values, mask)


def _is_seen_ordinary(values):
    if not backend.is_float_dtype(values.dtype):
        return True
    return backend.masked_kernels.is_seen_ordinary(values)


def is_ordinary(x: typing.Any) -> bool:
    """Whether a plain operand is not known to hold what is large or infinite.

    That is known of Python's numbers and of NumPy's arrays; what an engine
    holds would have to be fetched, and one number of it is not trusted.
    """
    if isinstance(x, (int, float)):
        return -ORDINARY <= x <= ORDINARY
    if not hasattr(x, "dtype") or not backend.is_float_dtype(x.dtype):
        return True
    if isinstance(x, (np.ndarray, np.generic)):
        # Wide, for it is beyond float16.
        return bool(np.all(np.abs(x) <= np.float64(ORDINARY)))
    return len(x.shape) > 0


def is_scalar(x: typing.Any) -> bool:
    """Whether an operand is None, or plain and without axes."""
    return not is_masked(x) and (x is None or not len(getattr(x, "shape", ())))


def _adds_nothing(x, first):
    """Whether merging with `x` leaves the mask of `first` as it is."""
    ndim, mask_ndim = len(first.shape), len(first.mask.shape)
    if is_masked(x):
        return x.mask is first.mask and len(x.shape) == ndim
    if len(x.shape) > ndim:
        return False
    # A plain operand matters only where it stretches the result along an axis
    # of the mask.
    aligned = (1,) * (ndim - len(x.shape)) + tuple(x.shape)
    pairs = zip(aligned[:mask_ndim], tuple(first.shape)[:mask_ndim])
    return all(n == 1 or (n is not None and n == m) for n, m in pairs)


def _stretch(mask, operands, ndim, covered):
    """The mask, stretched along axes in which only a plain operand extends."""
    static = tuple(_size(operands, ndim, axis) for axis in range(covered))
    if None not in static:
        if same_shape(mask.shape, static):
            return mask
        return backend.numpy.broadcast_to(mask, static)
    for x in operands:
        kept = covered - (ndim - len(x.shape))
        masked = is_masked(x)
        if kept <= 0 or (masked and len(x.mask.shape) >= kept):
            continue
        shape = backend.shape(x.values if masked else x)[:kept]
        ones = backend.numpy.ones(shape, dtype="bool")
        mask = backend.numpy.logical_and(
            mask, align(ones, len(x.shape), ndim, covered)
        )
    return mask


def _size(operands, ndim, axis):
    """Size of the result along an axis, None where it is not known."""
    own = ((x, axis - ndim + len(x.shape)) for x in operands)
    # No set: sizes that PyTorch exports cannot be hashed.
    sizes = [n for n in (x.shape[i] for x, i in own if i >= 0) if n != 1]
    if not sizes:
        return 1
    return sizes[0] if all(n == sizes[0] for n in sizes) else None
