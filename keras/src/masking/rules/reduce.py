"""Reductions: over the valid entries; valid where there was one, or plain."""

import math
import operator
import typing

import ml_dtypes

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Axes
from keras.src.backend.common.kinds import DType
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.variables import shape_equal
from keras.src.masking import coverage
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import Rule
from keras.src.masking.calls import as_one
from keras.src.masking.calls import takes_whole
from keras.src.masking.coverage import covers
from keras.src.masking.packing import packs
from keras.src.masking.rules import packed


def canonical_axes(axis: int | typing.Sequence[int] | None, ndim: int) -> Axes:
    """The axes as a sorted tuple of non-negative integers; all for None.

    Args:
        axis: Integer of Python or NumPy, a list or tuple of them, or None.
        ndim: Rank of the tensor.

    Raises:
        ValueError: If there is no such axis, or one is named twice.
    """
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, (list, tuple)) else (axis,)
    axes = [operator.index(a) + (ndim if a < 0 else 0) for a in axes]
    if any(not 0 <= a < ndim for a in axes) or len(set(axes)) < len(axes):
        raise ValueError(
            f"A tensor of rank {ndim} has the axes {-ndim} to {ndim - 1}, each "
            f"of which may be named once. Received: axis={axis}."
        )
    return tuple(sorted(axes))


class Reduction:
    """A reduction of the first operand, seen from its mask.

    Attributes:
        x: The masked operand.
        axes: Axes that are reduced.
        keepdims: Whether they stay, with size 1.
        mask_axes: The reduced axes that the mask covers.
    """

    def __init__(self, call: Call, axis_name: str = "axis"):
        self.call = call
        self.x = call.args[0]
        others = call.kwargs.values()
        if not has_mask(self.x) or any(map(has_mask, others)):
            raise call.refuse("Only the tensor that is reduced may be masked.")
        axis = call.argument(axis_name)
        self.keepdims = bool(call.argument("keepdims", False))
        self.axes = canonical_axes(axis, len(self.x.shape))
        if axis is None and self.keepdims:
            # PyTorch's backend keeps no axis if none is named.
            call.kwargs = call.kwargs | {"axis": self.axes}
        self.mask_axes = tuple(
            a for a in self.axes if a < masks.covered(self.x)
        )

    @property
    def any_valid(self) -> Mask:
        """Whether there was a valid entry, for each entry of the result."""
        return _any(self.x.mask, self.mask_axes, self.keepdims)

    @property
    def is_plain(self) -> bool:
        """Whether no axis of the mask is left."""
        return len(self.mask_axes) == masks.covered(self.x)

    @property
    def out_covered(self) -> int:
        """How many axes the mask of the result covers, 0 if that is plain."""
        if self.is_plain:
            return 0
        gone = 0 if self.keepdims else len(self.mask_axes)
        return masks.covered(self.x) - gone

    @property
    def out_mask(self) -> Mask | None:
        """The mask of the result, None if that is plain."""
        if self.is_plain:
            return None
        return self.any_valid if self.mask_axes else self.x.mask

    def finish(self, values: Tensor) -> AnyTensor:
        """The result, with 0 where no entry was valid."""
        if not self.mask_axes:
            return masks.wrap(values, self.x.mask)
        valid = self.any_valid
        values = masks.fill(values, masks.expand(valid, len(values.shape)), 0)
        return masks.wrap(values, None if self.is_plain else valid)

    @property
    def is_of_none(self) -> bool:
        """Whether there is no entry at all, of an empty batch for one.

        An axis without entries that the mask does not cover is as ever.
        """
        sizes = tuple(self.x.shape)
        others = (a for a in self.axes if a not in self.mask_axes)
        return 0 in sizes and all(sizes[a] != 0 for a in others)

    def of_none(self) -> Tensor:
        """Zeros of the shape of the result.

        Engines refuse the extremes of an empty tensor, of an empty batch, too.
        """
        x, axes, keepdims = self.x.values, self.axes, self.keepdims
        zeros = backend.numpy.sum(
            backend.cast(x, "float32"), axis=axes, keepdims=keepdims
        )
        return backend.cast(zeros, x.dtype)

    def wrap(self, values: Tensor, lead: int = 0) -> AnyTensor:
        """The result, whose mask is repeated along `lead` new first axes."""
        mask = self.out_mask
        if mask is None or not lead:
            return masks.wrap(values, mask)
        shape = backend.shape(values)[: lead + len(mask.shape)]
        mask = backend.numpy.expand_dims(mask, tuple(range(lead)))
        return masks.wrap(values, backend.numpy.broadcast_to(mask, shape))


def reduced(call: Call, spec: Nest) -> int:
    """What is left of the mask."""
    return Reduction(call).out_covered


def ordered(call: Call, spec: Nest) -> int:
    """What is left of the mask; complex numbers are refused."""
    reduction = Reduction(call)
    if reduction.mask_axes:
        need_order(call)
    return reduction.out_covered


def after_new_axes(call: Call, spec: Nest) -> int:
    """What is left of the mask, repeated along new first axes."""
    reduction = Reduction(call)
    covered = reduction.out_covered
    gone = 0 if reduction.keepdims else len(reduction.axes)
    lead = len(spec.shape) - len(reduction.x.shape) + gone
    return covered and lead + covered


def _any(mask, axes, keepdims):
    return backend.numpy.any(mask, axis=axes, keepdims=keepdims)


# How a reduction with this identity is computed of packed steps over time.
_BY_SEGMENTS: dict[float | str, typing.Callable] = {
    "lowest": packed.over_time(packed.extremes("max")),
    "highest": packed.over_time(packed.extremes("min")),
}


def reduce(identity: float | str) -> Rule:
    """Masked entries are the identity, then the op as ever.

    Args:
        identity: Value that leaves the reduction as it is: a scalar, or one of
            "lowest" and "highest" of the dtype.
    """

    @as_one
    @packs(_BY_SEGMENTS.get(identity, packed.reduced()))
    @covers(ordered if isinstance(identity, str) else reduced)
    def rule(call):
        reduction = Reduction(call)
        x = reduction.x
        if isinstance(identity, str):
            if reduction.mask_axes:
                need_order(call)
            if reduction.is_of_none:
                return reduction.finish(reduction.of_none())
        if not reduction.mask_axes:
            # A product would multiply what is masked.
            args = [masks.put(x, 1)] if identity == 1 else []
            return masks.wrap(call.compute(*args), x.mask)
        value = bound(x.dtype, identity)

        def of_block(x):
            return call.compute(masks.put(x, value))

        values = masks.in_blocks(x, reduction.axes, of_block)
        if isinstance(identity, str):
            return reduction.finish(values)
        return reduction.wrap(values)

    rule.__name__ = f"reduce({identity!r})"
    of_none = 0 if isinstance(identity, str) else identity
    rule.__doc__ = f"Over the valid entries; of none it is {of_none}."
    return rule


@as_one
@packs(packed.over_time(packed.sums))
@covers(reduced)
def total(call: Call) -> AnyTensor:
    """The sum of the valid entries; of none it is 0."""
    reduction = Reduction(call)
    if not reduction.mask_axes or not backend.is_float_dtype(reduction.x.dtype):
        return reduce(0)(call)
    sums = masks.total(reduction.x, reduction.axes, reduction.keepdims)
    return reduction.wrap(sums)


def is_complex(x: AnyTensor) -> bool:
    return backend.standardize_dtype(x.dtype).startswith("complex")


def need_order(call: Call) -> None:
    """Refuses complex numbers, in an order on some of the backends only."""
    if is_complex(call.args[0]):
        raise call.refuse("Complex numbers have no order.")


def bound(dtype: DType, identity: float | str) -> typing.Any:
    """The identity of a reduction in a dtype."""
    dtype = backend.standardize_dtype(dtype)
    if identity not in ("lowest", "highest"):
        # Not all engines make a number of a boolean.
        return int(identity) if dtype != "bool" else identity
    if dtype == "bool":
        return identity == "highest"
    if backend.is_float_dtype(dtype):
        return float("-inf") if identity == "lowest" else float("inf")
    bits, signed = int(dtype.removeprefix("u")[3:]), dtype[0] != "u"
    if identity == "lowest":
        return -(2 ** (bits - 1)) if signed else 0
    return 2 ** (bits - signed) - 1


# The smallest and the largest finite number, by floating point type.
FINITE = {
    dtype: (
        float(ml_dtypes.finfo(dtype).min),
        float(ml_dtypes.finfo(dtype).max),
    )
    for dtype in ("bfloat16", "float16", "float32", "float64")
}


@as_one
@packs(packed.over_time(packed.means))
@covers(reduced)
def mean(call: Call) -> AnyTensor:
    """The sum of the valid entries, over their number."""

    def of_block(x, axes, keepdims):
        sums = masks.total(x, axes, keepdims)
        return _divide(sums, x, axes, keepdims)

    return _averaged(call, of_block, floating(call.args[0].dtype))


def _averaged(call, function, dtype):
    """A mean of something, 0 where nothing is valid.

    Small floating point types are summed in float32: their largest number is
    soon exceeded.

    Args:
        call: The call of a reduction.
        function: Gives the result for a masked tensor of a wider type, axes
            and `keepdims`.
        dtype: The dtype of the result.
    """
    reduction = Reduction(call)
    x, axes, keepdims = reduction.x, reduction.axes, reduction.keepdims
    if not reduction.mask_axes:
        # A variance would multiply what is masked.
        return masks.wrap(masks.apart(x, call.compute), x.mask)
    values = function(promoted(x, "float32"), axes, keepdims)
    return reduction.wrap(backend.cast(values, dtype))


def promoted(x: MaskedTensorBase, dtype: DType) -> MaskedTensorBase:
    """A masked tensor in the type that it shares with a real one."""
    return masks.cast(x, floating(x.dtype, other=dtype))


def floating(*dtypes: DType, other: DType = float) -> str:
    """The type that some dtypes share with a real one.

    Upstream makes float32 of float64 where types meet.
    """
    names = [backend.standardize_dtype(dtype) for dtype in dtypes]
    if "float64" in names:
        return "float64"
    return backend.result_type(*names, other)


def _divide(sums, x, axes, keepdims):
    """Sums over the number of valid entries of `x` in each, at least 1."""
    covered = len(x.mask.shape)
    # Not all engines compare complex numbers with 1.
    dtype = backend.standardize_dtype(sums.dtype)
    if is_complex(sums):
        dtype = "float32"
    sizes = backend.shape(x.values)
    size = math.prod([sizes[a] for a in axes if a >= covered])
    count = backend.numpy.sum(
        backend.cast(x.mask, dtype),
        axis=tuple(a for a in axes if a < covered),
        keepdims=keepdims,
    )
    count = backend.numpy.maximum(count, backend.cast(1, dtype))
    count = backend.numpy.multiply(count, backend.cast(size, dtype))
    count = backend.cast(count, sums.dtype)
    return backend.numpy.divide(sums, masks.expand(count, len(sums.shape)))


@as_one
@covers(reduced)
def count_nonzero(call: Call) -> AnyTensor:
    """The number of entries that are valid and not 0."""
    hits = ops.cast(ops.not_equal(call.args[0], 0), "int32")
    return ops.sum(hits, axis=call.argument("axis"))


@as_one
@packs(packed.reduced())
@covers(reduced)
def var(call: Call) -> AnyTensor:
    """The mean squared distance from the mean, both over valid entries."""

    def of_all(x, axes, keepdims):
        def of_block(x):
            mean = masks.quick_total(x, axes, True)
            mean = _divide(mean, x, axes, True)
            distance = backend.numpy.subtract(x.values, mean)
            if is_complex(x):
                distance = backend.numpy.absolute(distance)
            sums = backend.masked_kernels.squares(
                masks.wrap(distance, x.mask), axes, keepdims
            )
            return _divide(sums, x, axes, keepdims)

        return masks.in_blocks(x, axes, of_block)

    return _averaged(call, of_all, floating(call.args[0].dtype))


@as_one
@packs(packed.reduced())
@covers(reduced)
def std(call: Call) -> AnyTensor:
    """The root of the variance of valid entries, with no slope at 0.

    It often is, with one valid entry; the slope of the root is infinite there.
    """
    var = ops.var(call.args[0], **call.kwargs)
    still = ops.equal(var, 0)
    return ops.where(still, 0, ops.sqrt(ops.where(still, 1, var)))


@as_one
@covers(ordered)
def ptp(call: Call) -> AnyTensor:
    """The largest less the smallest of the valid entries."""
    x = call.args[0]
    return ops.subtract(ops.max(x, **call.kwargs), ops.min(x, **call.kwargs))


@takes_whole
def average(call: Call) -> AnyTensor:
    """The weighted mean of what is valid and has a valid weight.

    The weighted sum over the sum of the weights, as in `numpy.ma`.
    """
    x, axis = call.args[0], call.argument("axis")
    if call.argument("weights") is None:
        return ops.cast(ops.mean(x, axis=axis), floating(x.dtype))
    x, weights = map(ops.convert_to_tensor, (x, call.argument("weights")))
    dtype = floating(x.dtype, weights.dtype)
    x, weights = ops.cast(x, dtype), ops.cast(weights, dtype)
    if len(weights.shape) < len(x.shape):
        weights = _along(weights, axis, len(x.shape))
    shares = ops.multiply(ops.ones_like(x), weights)
    total = ops.sum(ops.multiply(x, weights), axis=axis, keepdims=True)
    whole = ops.sum(shares, axis=axis, keepdims=True)
    whole = _one_where_nothing_is_valid(whole, shares, axis)
    axes = canonical_axes(axis, len(x.shape))
    return ops.squeeze(ops.divide(total, whole), axis=axes)


def _along(x, axis, ndim):
    """A tensor with one axis, which goes along `axis` of `ndim`."""
    axis = canonical_axes(axis, ndim)[0]
    added = tuple(a for a in range(ndim) if a != axis)
    return ops.expand_dims(x, added)


def trapezoid(call: Call) -> AnyTensor:
    """The areas between neighbours of which both are valid."""
    y, x = call.args[0], call.argument("x")
    ndim = len(y.shape)
    axis = canonical_axes(call.argument("axis", -1), ndim)[0]
    if axis >= len(y.mask.shape):
        return masks.wrap(call.compute(), y.mask)
    dtype = floating(y.dtype)
    y = ops.cast(y, dtype)
    widths = call.argument("dx", 1.0)
    if x is not None:
        x = backend.convert_to_tensor(x, dtype)
        x = _along(x, axis, ndim) if len(x.shape) == 1 else x
        widths = ops.diff(x, axis=axis)
    before = (slice(None),) * axis
    left, right = y[(*before, slice(-1))], y[(*before, slice(1, None))]
    heights = ops.divide(ops.add(left, right), 2)
    return ops.sum(ops.multiply(heights, widths), axis=axis)


def trace(call: Call) -> AnyTensor:
    """The sum of the valid entries of a diagonal."""
    x, offset = call.args[0], call.argument("offset", 0)
    axes = [
        canonical_axes(call.argument(name, default), len(x.shape))[0]
        for name, default in (("axis1", 0), ("axis2", 1))
    ]
    covered = len(x.mask.shape)
    if min(axes) >= covered:
        return masks.wrap(call.compute(), x.mask)
    values = call.compute(masks.filled(x))
    if set(range(covered)) <= set(axes):
        return values
    mask = masks.to_rank(x.mask, x.values, max(covered, *(a + 1 for a in axes)))
    found = ops.trace(backend.cast(mask, "int32"), offset, *axes)
    return masks.wrap(values, backend.numpy.greater(found, 0))


@takes_whole
@covers(coverage.plain)
def allclose(call: Call) -> AnyTensor:
    """Whether all pairs of valid entries are close."""
    return ops.all(ops.isclose(*call.args, **call.kwargs))


def psnr(call: Call) -> AnyTensor:
    """From the mean squared difference of valid entries; 0 if there is none."""
    x, y = map(ops.convert_to_tensor, call.args[:2])
    if not shape_equal(tuple(x.shape), tuple(y.shape)):
        raise ValueError(
            f"Images of one shape are needed. Received: {x.shape}, {y.shape}"
        )
    largest = ops.square(backend.convert_to_tensor(call.argument("max_val")))
    squares = ops.square(ops.subtract(x, y))
    largest = ops.cast(largest, squares.dtype)
    error = ops.where(ops.any(squares.mask), ops.mean(squares), largest)
    return ops.multiply(ops.log10(ops.divide(largest, error)), 10)


def _check_moments(call):
    if call.argument("synchronized"):
        raise call.refuse("Replicas would have to agree on the valid counts.")


def _moments(call, spec):
    _check_moments(call)
    return Reduction(call, "axes").out_covered


@packs(packed.reduced("axes"))
@covers(_moments)
def moments(call: Call) -> tuple[AnyTensor, AnyTensor]:
    """Mean and variance of the valid entries, in one call."""
    _check_moments(call)
    axes, keepdims = call.argument("axes"), call.argument("keepdims", False)
    x = call.args[0]
    mean = ops.mean(x, axis=axes, keepdims=keepdims)
    variance = ops.var(x, axis=axes, keepdims=keepdims)
    return mean, ops.cast(variance, mean.dtype)


@as_one
@covers(ordered)
def logsumexp(call: Call) -> AnyTensor:
    """Over the valid entries; of none it is 0.

    The largest entry plus the log of the sum of what is left of each.
    """
    reduction = Reduction(call)
    axes, mask_axes = reduction.axes, reduction.mask_axes
    if not mask_axes:
        return masks.wrap(call.compute(), reduction.x.mask)
    need_order(call)
    x = promoted(reduction.x, float)
    if 0 in tuple(x.shape):
        # Not all engines look for the largest of nothing.
        return reduction.finish(call.compute(x.values))
    lowest, highest = FINITE[backend.standardize_dtype(x.dtype)]

    def of_block(x):
        if backend.masked_kernels.HAS_SAFE_LOGSUMEXP:
            return call.compute(masks.put(x, -math.inf))
        # Another number than below: XLA would keep what the two share, a mask
        # of the size of the values.
        top = masks.put(x, lowest)
        top = backend.numpy.max(top, axis=axes, keepdims=True)
        # Kept finite: the distance between two infinite numbers is NaN.
        top = backend.numpy.clip(top, lowest, highest)
        top = backend.core.stop_gradient(top)
        rest = masks.wrap(backend.numpy.subtract(x.values, top), x.mask)
        rest = backend.numpy.exp(masks.put(rest, -math.inf))
        rest = backend.numpy.sum(rest, axis=axes, keepdims=True)
        # The logarithm of 0 has an infinite slope.
        valid = masks.expand(_any(x.mask, mask_axes, True), len(rest.shape))
        result = backend.numpy.log(masks.fill(rest, valid, 1))
        result = result + top
        if reduction.keepdims:
            return result
        return backend.numpy.squeeze(result, axis=axes)

    return reduction.finish(masks.in_blocks(x, axes, of_block))


def _one_where_nothing_is_valid(rest, x, axis):
    if isinstance(rest, MaskedTensorBase):
        return rest
    mask = masks.to_rank(x.mask, x.values, len(x.shape))
    valid = ops.any(mask, axis=axis, keepdims=True)
    return ops.where(valid, rest, 1)


def _first_valid(mask, axis, ndim):
    """The first place along an axis that a mask allows, 0 if it allows none."""
    first = ops.argmax(backend.cast(mask, "int32"), axis, keepdims=True)
    return masks.expand(first, ndim)


def arg_extreme(extreme: str) -> Rule:
    """The place that the engine finds, of the valid entries.

    No sentinel: if the best is no better than what goes under the mask, then
    all that is valid is that number, and the first of it is the best.

    Args:
        extreme: "max" or "min".
    """
    worst = "lowest" if extreme == "max" else "highest"

    @as_one
    @covers(ordered)
    def rule(call):
        reduction = Reduction(call)
        x, axes = reduction.x, reduction.axes
        if not reduction.mask_axes:
            return masks.wrap(call.compute(), x.mask)
        need_order(call)
        value = bound(x.dtype, worst)

        def of_block(x):
            values, mask = masks.fill(x.values, x.mask, value), x.mask
            axis = axes[0]
            if len(axes) > 1:
                mask = masks.to_rank(mask, values, len(values.shape))
                values, mask, axis = ops.ravel(values), ops.ravel(mask), 0
            place = getattr(ops, f"arg{extreme}")(values, axis, keepdims=True)
            best = ops.take_along_axis(values, place, axis=axis)
            first = _first_valid(mask, axis, len(values.shape))
            place = ops.where(ops.equal(best, value), first, place)
            if len(axes) > 1:
                kept = (1,) * len(axes) if reduction.keepdims else ()
                return ops.reshape(place, kept)
            return place if reduction.keepdims else ops.squeeze(place, axis)

        return reduction.finish(masks.in_blocks(x, axes, of_block))

    rule.__name__ = f"arg_{extreme}"
    rule.__doc__ = (
        f"The place of the {extreme} of the valid entries; of none it is 0."
    )
    return rule


def _check_norm(call):
    if call.argument("ord") not in (None, 2, "fro", "euclidean"):
        raise call.refuse("Only the Euclidean norm has a rule yet.")
    is_vector = isinstance(call.argument("axis"), int)
    if call.argument("ord") is not None and not is_vector:
        raise call.refuse("A matrix norm needs all entries of the matrix.")


def _norm(call, spec):
    _check_norm(call)
    return Reduction(call).out_covered


@as_one
@covers(_norm)
def norm(call: Call) -> AnyTensor:
    """The Euclidean norm over valid entries; another order is refused.

    By the op itself, which knows which squares overflow, over 0 in place of
    what is masked; over 1 where nothing is valid, as the norm has no slope at
    0 on some of the engines.
    """
    _check_norm(call)
    reduction = Reduction(call)
    x, keepdims = reduction.x, reduction.keepdims
    if is_complex(x):
        x = masks.wrap(backend.numpy.absolute(x.values), x.mask)
    valid = x.mask
    if reduction.mask_axes:
        valid = _any(x.mask, reduction.mask_axes, True)
        x = masks.wrap(masks.filled(x), x.mask)
    values = masks.fill(x.values, valid, 1)
    if len(reduction.axes) <= 2:
        return reduction.finish(
            backend.linalg.norm(values, axis=reduction.axes, keepdims=keepdims)
        )
    return reduction.finish(_norm_of_rows(values, reduction))


def _norm_of_rows(values, reduction):
    """The norm over more axes than engines take."""
    kept = [a for a in range(len(values.shape)) if a not in reduction.axes]
    values = ops.transpose(values, (*kept, *reduction.axes))
    shape = ops.shape(values)
    values = ops.reshape(values, (*shape[: len(kept)], -1))
    result = backend.linalg.norm(values, axis=-1)
    if reduction.keepdims:
        return ops.expand_dims(result, reduction.axes)
    return result
