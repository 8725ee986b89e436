"""Operations that write entries to places."""

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.kinds import AnyTensor
from keras.src.masking import coverage
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import Rule
from keras.src.masking.calls import values_of
from keras.src.masking.coverage import covers
from keras.src.masking.rules.layout import mask_or_ones
from keras.src.masking.rules.reduce import bound

# What leaves a result as it is, by the name of the reduction.
IDENTITIES = {
    "add": 0,
    "max": "lowest",
    "min": "highest",
    "mul": 1,
    "prod": 1,
    "sum": 0,
}


def _mask_rank(x):
    return len(x.mask.shape) if masks.is_masked(x) else 0


def _tensor(x):
    return x if masks.is_masked(x) else backend.convert_to_tensor(x)


def _neutral(x, reduction):
    """The values, with the identity of the reduction under the mask."""
    if not masks.is_masked(x):
        return x
    return masks.fill(x.values, x.mask, bound(x.dtype, IDENTITIES[reduction]))


@covers(coverage.plain)
def scatter(call: Call) -> AnyTensor:
    """Adds values to zeros: one that is masked, or has no place, adds 0.

    All entries of the result are there, so it is plain.
    """
    indices, values = map(_tensor, call.args)
    if masks.is_masked(indices):
        places = indices.mask
        if len(places.shape) == len(indices.shape):
            # Without one of its coordinates a place is none.
            places = backend.numpy.all(places, axis=-1)
        added = masks.fill(values_of(values), places, 0)
        values = masks.wrap(added, getattr(values, "mask", None))
        indices = masks.fill(indices.values, places, 0)
    return call.compute(indices, _neutral(values, "add"))


def scatter_update(call: Call) -> AnyTensor:
    """Assignment: an entry is valid if what is written there is.

    A reduction is over the entry and its updates, those of them that are
    valid, and the result is valid where there was one.
    """
    inputs, indices, updates = map(_tensor, call.args)
    if masks.is_masked(indices):
        raise call.refuse("An update without a place cannot be made.")
    reduction = call.argument("reduction")
    if reduction is None:
        return masks.wrap(call.compute(), _updated_mask(call, None))
    values = call.compute(
        _neutral(inputs, reduction), indices, _neutral(updates, reduction)
    )
    if not masks.is_masked(inputs):
        return values
    mask = _updated_mask(call, "max")
    return masks.wrap(masks.fill(values, mask, 0), mask)


def _updated_mask(call, reduction):
    """The mask of the inputs, updated with that of the updates."""
    inputs, indices, updates = map(_tensor, call.args)
    depth = indices.shape[-1]
    covered = max(depth, _mask_rank(inputs), depth - 1 + _mask_rank(updates))
    before = mask_or_ones(inputs, covered)
    written = mask_or_ones(updates, 1 + covered - depth)
    if reduction is None:
        return call.row.fn(before, indices, written)
    before, written = (backend.cast(m, "int32") for m in (before, written))
    counts = call.row.fn(before, indices, written, reduction=reduction)
    return backend.cast(counts, "bool")


def slice_update(call: Call) -> AnyTensor:
    """Assignment: an entry is valid if what is written there is."""
    inputs, starts, updates = (call.args[0], call.args[1], call.args[2])
    if masks.is_masked(starts):
        raise call.refuse("A window without a place cannot be written.")
    inputs, updates = _tensor(inputs), _tensor(updates)
    # Along the axes beyond, the window takes in all there is.
    sizes = list(zip(tuple(inputs.shape), tuple(updates.shape)))
    partial = [a for a, (n, m) in enumerate(sizes) if n is None or n != m]
    covered = 1 + max([-1, *partial])
    covered = max(covered, _mask_rank(inputs), _mask_rank(updates))
    mask = call.row.fn(
        mask_or_ones(inputs, covered),
        starts[:covered],
        mask_or_ones(updates, covered),
    )
    return masks.wrap(call.compute(), mask)


def segment(reduction: str) -> Rule:
    """A reduction of the rows of each segment, over those that are there.

    A row is not there if it, or the number of its segment, is masked. A
    segment is valid if a row fell into it, else 0 under the mask.

    Args:
        reduction: Its name in `IDENTITIES`.
    """

    @covers(lambda call, spec: max(masks.covered(call.args[0]), 1))
    def rule(call):
        """Over rows that are there; a segment without any is masked."""
        data, ids = map(_tensor, call.args)
        mask = getattr(data, "mask", None)
        if masks.is_masked(ids):
            there = masks.expand(ids.mask, max(_mask_rank(data), 1))
            mask = there if mask is None else ops.logical_and(mask, there)
            # Put into the first segment, as the identity, and out of order.
            ids = masks.zero(ids)
            call.kwargs["sorted"] = False
        rows = masks.wrap(values_of(data), mask)
        values = call.compute(_neutral(rows, reduction), ids)
        counts = ops.segment_sum(
            backend.cast(mask, "int32"),
            ids,
            num_segments=backend.shape(values)[0],
        )
        valid = ops.greater(counts, 0)
        # Some backends reduce integers as floating point numbers.
        values = backend.cast(masks.fill(values, valid, 0), data.dtype)
        return masks.wrap(values, valid)

    rule.__name__ = f"segment({reduction!r})"
    return rule
