"""Counts of entries by their value: masked entries are not counted."""

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.kinds import AnyTensor
from keras.src.masking import coverage
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import values_of
from keras.src.masking.coverage import covers
from keras.src.masking.rules.layout import full_rank
from keras.src.masking.rules.merge import only_operand


def bincount(call: Call) -> AnyTensor:
    """Masked entries are not counted.

    They are zeros without weight, so there is a place for 0 even if nothing is
    valid. One axis of `x` is used up; the rows of two are masked if they have
    nothing valid.
    """
    x, weights = only_operand(call), call.argument("weights")
    if call.argument("sparse"):
        raise call.refuse("Counts of a masked tensor are dense.")
    mask = full_rank(x)
    if weights is None:
        weights, dtype = backend.cast(mask, "int32"), "int32"
    else:
        weights = backend.convert_to_tensor(weights)
        dtype = backend.result_type(x.dtype, weights.dtype)
        weights = masks.fill(weights, mask, 0)
    call.kwargs["weights"] = weights
    counts = backend.cast(call.compute(masks.zero(x)), dtype)
    if len(x.shape) == 1:
        return counts
    return masks.wrap(counts, backend.numpy.any(mask, axis=-1))


@covers(coverage.plain)
def histogram(call: Call) -> tuple[AnyTensor, AnyTensor]:
    """Counts of the valid entries, between the bounds of these.

    As in NumPy the bounds are one apart if there is but one value; if there is
    none, they are those of a 0.
    """
    x, bins = only_operand(call), call.argument("bins", 10)
    dtype = backend.standardize_dtype(x.dtype)
    x = ops.cast(x, backend.result_type(dtype, float))
    low, high = (
        backend.convert_to_tensor(bound, x.dtype)
        for bound in call.argument("range") or (ops.min(x), ops.max(x))
    )
    apart = ops.cast(low >= high, x.dtype) / 2
    low, high = low - apart, high + apart
    edges = ops.linspace(low, high, bins + 1)
    places = ops.searchsorted(edges[1:-1], x.values, side="right")
    counted = ops.logical_and(x.values >= low, x.values <= high)
    counted = ops.cast(ops.logical_and(counted, x.mask), "int32")
    counts = ops.segment_sum(counted, places, bins)
    return ops.cast(counts, dtype), edges


@covers(lambda call, spec: masks.covered(call.args[0]))
def isin(call: Call) -> AnyTensor:
    """Whether an entry is among valid ones of the second: its mask stays."""
    entries, elements = call.args
    if not ops.is_masked(elements):
        return masks.wrap(call.compute(), entries.mask)
    elements = ops.ravel(elements)
    values = ops.expand_dims(values_of(entries), -1)
    equal = ops.equal(values, elements.values)
    found = ops.any(ops.logical_and(equal, elements.mask), axis=-1)
    if call.argument("invert"):
        found = ops.logical_not(found)
    return masks.wrap(found, ops.get_mask(entries))
