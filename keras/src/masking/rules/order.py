"""Sorts, ranks and quantiles: masked entries come last, and take no part.

What decides an order is the pair of mask and value, never an extreme number in
place of what is masked: a valid infinity would tie with it. Where only the
sorted values are asked for, what ties is equal, and the number does.
"""

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.kinds import AnyTensor
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import takes_whole
from keras.src.masking.calls import values_of
from keras.src.masking.coverage import covers
from keras.src.masking.rules.layout import full_rank
from keras.src.masking.rules.merge import kept
from keras.src.masking.rules.merge import only_operand
from keras.src.masking.rules.reduce import Reduction
from keras.src.masking.rules.reduce import after_new_axes
from keras.src.masking.rules.reduce import bound
from keras.src.masking.rules.reduce import canonical_axes
from keras.src.masking.rules.reduce import floating
from keras.src.masking.rules.reduce import is_complex
from keras.src.masking.rules.reduce import need_order


def _sorted(call, spec):
    """The mask stays; without an axis all entries are in one row."""
    x = only_operand(call)
    is_flat = call.argument("axis", -1) is None
    return 1 if is_flat else masks.covered(x)


@covers(_sorted)
def sort(call: Call) -> AnyTensor:
    """What is valid in ascending order, then what is masked."""
    x, axis = _sorted_axis(call)
    if axis >= len(x.mask.shape):
        return masks.wrap(call.compute(), x.mask)

    def of_block(x):
        values = ops.sort(masks.fill(x.values, x.mask, _last(x)), axis=axis)
        return masks.fill(values, _valid_first(x, axis), 0)

    values = masks.in_blocks(x, (axis,), of_block)
    return masks.wrap(values, _valid_first(x, axis))


def _last(x):
    """What sorts after all entries of a masked tensor, or equals the last."""
    is_real = backend.is_float_dtype(backend.standardize_dtype(x.dtype))
    if is_real or is_complex(x):
        return backend.masked_kernels.sorts_last(x)
    return bound(x.dtype, "highest")


@covers(_sorted)
def argsort(call: Call) -> AnyTensor:
    """The indices that sort; those of masked entries are masked."""
    x, axis = _sorted_axis(call)
    if axis >= len(x.mask.shape):
        return masks.wrap(call.compute(), x.mask)
    order = masks.in_blocks(x, (axis,), lambda x: _order(x, axis))
    return masks.wrap(order, _valid_first(x, axis))


@takes_whole
@covers(_sorted)
def argpartition(call: Call) -> AnyTensor:
    """The indices that sort, which is one of the partitions."""
    # Upstream rounds the entries to integers on two of the backends.
    return ops.argsort(only_operand(call), axis=call.argument("axis", -1))


def _sorted_axis(call):
    """The operand and the axis along which it is sorted; flat if it is None."""
    x, axis = only_operand(call), call.argument("axis", -1)
    if axis is None:
        return ops.ravel(x), 0
    return x, canonical_axes(axis, len(x.shape))[0]


def _order(x, axis):
    """Indices that sort along an axis, those of masked entries last."""
    # With what is masked out of the way: not all sorts are stable, and its
    # numbers would decide between valid entries that are equal.
    values = masks.filled(x)
    return _masked_last(ops.argsort(values, axis=axis), x, axis)


def _masked_last(order, x, axis):
    """An order in which the indices of masked entries move to the end."""
    size = backend.shape(x.values)[axis]
    mask = ops.take_along_axis(full_rank(x), order, axis=axis)
    places = _places(size, len(x.shape), axis)
    keys = backend.numpy.where(mask, places, places + size)
    return ops.take_along_axis(order, ops.argsort(keys, axis=axis), axis=axis)


def _places(size, ndim, axis):
    """0, 1, 2, ... along one axis of `ndim`."""
    return masks.expand(backend.numpy.arange(size, dtype="int32"), ndim - axis)


def _valid_first(x, axis):
    """The mask once what is valid is first: as many as there were."""
    count = backend.numpy.sum(
        backend.cast(x.mask, "int32"), axis=axis, keepdims=True
    )
    size = backend.shape(x.mask)[axis]
    return _places(size, len(x.mask.shape), axis) < count


@covers(kept)
def top_k(call: Call) -> tuple[AnyTensor, AnyTensor]:
    """The largest that are valid; masked where there are fewer than `k`."""
    x, k = only_operand(call), call.argument("k")
    axis = len(x.shape) - 1
    if axis >= len(x.mask.shape):
        values, order = call.compute()
        mask = x.mask
    else:
        size = backend.shape(x.values)[axis]
        _, order = call.row.fn(masks.filled(x), size)
        order = _masked_last(order, x, axis)[..., :k]
        values = ops.take_along_axis(x.values, order, axis=axis)
        mask = _valid_first(x, axis)[..., :k]
    return masks.wrap(values, mask), masks.wrap(order, mask)


def in_top_k(call: Call) -> AnyTensor:
    """Whether fewer than `k` valid classes exceed that of the target.

    Masked where the target is, or the prediction for its class.
    """
    targets, predictions = call.args
    classes = ops.filled(targets, 0)
    score = ops.take_along_axis(
        predictions, ops.expand_dims(classes, -1), axis=-1
    )
    better = ops.cast(ops.greater(predictions, score), "int32")
    found = ops.less(ops.sum(better, axis=-1), call.argument("k"))
    return masks.wrap(
        values_of(found),
        masks.merge([targets, ops.squeeze(score, -1), found]),
    )


def searchsorted(call: Call) -> AnyTensor:
    """Places among the valid entries of the sequence, for each value.

    The sequence need not hold what is masked last.
    """
    sequence, values = call.args
    mask = ops.get_mask(values)
    values = backend.convert_to_tensor(values_of(values))
    # TensorFlow's backend takes one axis of values only.
    flat = ops.reshape(values, (-1,))
    if ops.is_masked(sequence):
        places = _among_valid(call, ops.sort(sequence), flat)
    else:
        places = call.compute(sequence, flat)
    return masks.wrap(ops.reshape(places, backend.shape(values)), mask)


def _among_valid(call, sequence, values):
    """Places in a sequence that holds what is masked last.

    The last valid entry is repeated, and no place is beyond it.
    """
    if sequence.shape[0] == 0:
        return call.compute(sequence.values, values)
    count = backend.numpy.sum(backend.cast(sequence.mask, "int32"))
    last = backend.numpy.maximum(count - 1, 0)
    last = backend.numpy.take(sequence.values, last, axis=0)
    filled = backend.numpy.where(sequence.mask, sequence.values, last)
    places = call.compute(filled, values)
    return backend.numpy.minimum(places, backend.cast(count, places.dtype))


def _quantiles(call, spec):
    _check_quantile(call)
    return after_new_axes(call, spec)


@covers(_quantiles)
def median(call: Call) -> AnyTensor:
    """The middle of the valid entries, or between the two in the middle."""
    return _quantile(call, 0.5)


@covers(_quantiles)
def quantile(call: Call) -> AnyTensor:
    """As `median`, for any share of the valid entries."""
    return _quantile(call, call.argument("q"))


@covers(_quantiles)
def percentile(call: Call) -> AnyTensor:
    """As `quantile`, in hundredths."""
    return _quantile(call, call.argument("q"), whole=100)


# How a place between two entries is rounded to the one below and above.
_ROUNDINGS = {
    "linear": ("floor", "ceil"),
    "midpoint": ("floor", "ceil"),
    "lower": ("floor", "floor"),
    "higher": ("ceil", "ceil"),
    "nearest": ("round", "round"),
}


def _check_quantile(call):
    only_operand(call)
    if not Reduction(call).mask_axes:
        return
    need_order(call)
    if call.argument("method", "linear") not in _ROUNDINGS:
        raise call.refuse(f"The method must be one of {[*_ROUNDINGS]}.")


def _quantile(call, q, whole=1):
    """Sorts each row, and looks up the places that its count makes of `q`."""
    _check_quantile(call)
    x, reduction = call.args[0], Reduction(call)
    dtype = floating(x.dtype)
    wide = backend.result_type(dtype, "float32")
    wide = dtype if dtype == "float64" else wide
    q = backend.convert_to_tensor(q, wide)
    _check_share(q, whole)
    if not reduction.mask_axes:
        return reduction.wrap(call.compute(), len(q.shape))
    if 0 in tuple(x.shape):
        return _of_nothing(reduction, q, dtype)
    rows = _rows(ops.cast(x, wide), reduction.axes)
    share = backend.numpy.reshape(q, (-1,)) / whole
    share = backend.numpy.clip(share, 0, 1)
    values = _at_share(rows, share, call.argument("method", "linear"))
    values = backend.cast(backend.numpy.moveaxis(values, -1, 0), dtype)
    if reduction.keepdims:
        added = tuple(a + 1 for a in reduction.axes)
        values = backend.numpy.expand_dims(values, added)
    if not len(q.shape):
        return reduction.finish(backend.numpy.squeeze(values, 0))
    valid = backend.numpy.expand_dims(reduction.any_valid, 0)
    values = masks.fill(values, valid, 0)
    shape = (*backend.shape(q), *backend.shape(values)[1:])
    return reduction.wrap(backend.numpy.reshape(values, shape), len(q.shape))


def _of_nothing(reduction, q, dtype):
    """The result for no entries, or no rows at all."""
    named = {"axis": reduction.axes, "keepdims": reduction.keepdims}
    values = values_of(ops.cast(ops.mean(reduction.x, **named), dtype))
    shape = (*backend.shape(q), *backend.shape(values))
    values = backend.numpy.broadcast_to(values, shape)
    return reduction.wrap(values, len(q.shape))


def _at_share(rows, share, method):
    """What is at some shares of the valid entries of each row, in order."""
    wide = backend.standardize_dtype(rows.dtype)
    count = backend.numpy.sum(
        backend.cast(full_rank(rows), wide), axis=-1, keepdims=True
    )
    last = backend.numpy.maximum(count - 1, 0)
    values = _between(ops.sort(rows).values, last * share, method)
    # NaN sorts last, and would be found in the upper places only.
    nan = values_of(ops.any(ops.isnan(rows), axis=-1, keepdims=True))
    return backend.numpy.where(nan, float("nan"), values)


def _check_share(q, whole):
    """Raises for shares that are known and that no sample has.

    On all engines, as it is upstream on some. What is traced is clipped.
    """
    # A share is looked at as the values of a masked tensor are.
    if not backend.MaskedTensor.is_concrete(masks.wrap(q, q)):
        return
    known = backend.convert_to_numpy(q)
    if ((known < 0) | (known > whole)).any():
        raise ValueError(
            f"`q` must be in the range [0, {whole}]. Received: q={known}."
        )


def _rows(x, axes):
    """The tensor with these axes last, and made one."""
    kept = [a for a in range(len(x.shape)) if a not in axes]
    x = ops.transpose(x, (*kept, *axes))
    if len(axes) == 1:
        return x
    shape = backend.shape(x.values)
    size = 1
    for n in shape[len(kept) :]:
        size = size * n
    return ops.reshape(x, (*shape[: len(kept)], size))


def _between(ordered, place, method):
    """Entries at fractional places along the last axis."""
    low, high = (
        ops.take_along_axis(
            ordered, backend.cast(getattr(ops, f)(place), "int32"), axis=-1
        )
        for f in _ROUNDINGS[method]
    )
    if method not in ("linear", "midpoint"):
        return low
    share = place - backend.numpy.floor(place)
    inside = share > 0
    # What is exactly met is taken as it is: a valid infinity may be beside it.
    share = backend.numpy.where(inside, share, 0.5)
    if method == "midpoint":
        share = 0.5
    # The distance of the two may be infinite, and its sign another.
    mixed = low * (1 - share) + high * share
    return backend.numpy.where(inside, mixed, low)
