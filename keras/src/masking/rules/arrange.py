"""Layouts in terms of others, and those that make entries of their own."""

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import coverage
from keras.src.masking import masks
from keras.src.masking.coverage import covers
from keras.src.masking.rules.layout import full_rank
from keras.src.masking.rules.layout import paired
from keras.src.masking.rules.merge import kept
from keras.src.masking.rules.merge import only_operand
from keras.src.masking.rules.reduce import canonical_axes


def stacked(axis, ndim):
    """Joining along one axis, after axes of size 1 are added.

    Args:
        axis: The axis, the last one where there are not so many.
        ndim: How many axes the tensors have at least.
    """

    def rule(call):
        """The masks are joined as by `concatenate`."""
        xs = [_at_least(x, ndim) for x in call.args[0]]
        return ops.concatenate(xs, axis=min(axis, len(xs[0].shape) - 1))

    rule.__name__ = f"stacked({axis})"
    return rule


def columns(call):
    """The masks are joined as by `concatenate`; a vector becomes a column."""
    xs = map(ops.convert_to_tensor, call.args[0])
    xs = [ops.expand_dims(x, 1) if len(x.shape) == 1 else x for x in xs]
    return ops.concatenate(xs, axis=1)


def _at_least(x, ndim):
    """As NumPy does it: a vector becomes a row, a matrix gets a depth of 1."""
    x = ops.convert_to_tensor(x)
    own = len(x.shape)
    lead = min(ndim - 1, 1) if own == 1 else 0
    added = (*range(lead), *range(lead + own, ndim))
    return ops.expand_dims(x, added) if added else x


def split_along(axis):
    """Splitting along one axis, the first where there is no other."""

    def rule(call):
        """The mask is split as by `split`."""
        x = only_operand(call)
        return ops.split(
            x,
            call.argument("indices_or_sections"),
            axis=min(axis, len(x.shape) - 1),
        )

    rule.__name__ = f"split_along({axis})"
    return rule


def flip_along(axis):
    """Flipping along one axis."""

    @covers(kept)
    def rule(call):
        """The mask is flipped as by `flip`."""
        return ops.flip(call.args[0], axis=axis)

    rule.__name__ = f"flip_along({axis})"
    return rule


def append(call):
    """As `concatenate`, of flat tensors if no axis is named."""
    xs, axis = call.args, call.argument("axis")
    if axis is None:
        return ops.concatenate([ops.ravel(x) for x in xs], axis=0)
    return ops.concatenate(list(xs), axis=axis)


def rot90(call):
    """The mask is turned too, if it covers one of the two axes."""
    x = only_operand(call)
    axes = call.argument("axes", (0, 1))
    axes = [canonical_axes(a, len(x.shape))[0] for a in axes]
    if min(axes) >= len(x.mask.shape):
        return masks.wrap(call.compute(), x.mask)
    covered = max(len(x.mask.shape), *(a + 1 for a in axes))
    mask = masks.to_rank(x.mask, x.values, covered)
    k = call.argument("k", 1)
    return paired(call.compute(), call.row.fn(mask, k=k, axes=tuple(axes)))


@covers(coverage.whole)
def moved(call):
    """Any motion of entries: the op does the same to the whole mask."""
    return paired(call.compute(), call.compute(full_rank(only_operand(call))))


@covers(coverage.whole)
def among_zeros(call):
    """Entries between zeros that the op makes, which are valid."""
    hidden = backend.numpy.logical_not(full_rank(only_operand(call)))
    hidden = call.compute(backend.cast(hidden, "int32"))
    return masks.wrap(call.compute(), backend.numpy.equal(hidden, 0))


def meshgrid(call):
    """Each grid has the mask of the vector that it repeats."""
    own = [
        full_rank(x)
        if isinstance(x, MaskedTensorBase)
        else backend.numpy.ones(backend.shape(x), "bool")
        for x in call.args
    ]
    pairs = zip(call.args, call.compute(), call.compute(*own))
    return [
        masks.wrap(grid, mask) if isinstance(x, MaskedTensorBase) else grid
        for x, grid, mask in pairs
    ]


def select(call):
    """As `where` upon `where`: valid where every masked operand is."""
    conditions, choices = call.args[:2]
    result = call.argument("default")
    for condition, choice in zip(conditions[::-1], choices[::-1]):
        result = ops.where(condition, choice, result)
    return result


def full(call):
    """The filling value is repeated, with its mask."""
    dtype = call.argument("dtype") or backend.floatx()
    return ops.broadcast_to(
        ops.cast(call.args[0], dtype), call.argument("shape")
    )


def spaced(constant):
    """Steps between two ends, along a new axis: valid where both ends are.

    Args:
        constant: Value in the op's domain, for ends that are masked.
    """

    def rule(call):
        """Steps along a new axis, valid where both ends are."""
        start, stop = call.args
        mask = masks.merge((start, stop))
        ndim = max(len(getattr(x, "shape", ())) for x in (start, stop))
        values = call.compute(
            masks.guarded(start, mask, constant, ndim),
            masks.guarded(stop, mask, constant, ndim),
        )
        axis = canonical_axes(call.argument("axis", 0), ndim + 1)[0]
        if not call.argument("retstep", False):
            return masks.wrap(values, _along(mask, values, axis))
        steps, step = values
        return (
            masks.wrap(steps, _along(mask, steps, axis)),
            masks.wrap(step, mask),
        )

    rule.__name__ = f"spaced({constant})"
    return rule


def _along(mask, values, axis):
    """The mask repeated along a new axis, if that comes before its last."""
    if axis >= len(mask.shape):
        return mask
    shape = backend.shape(values)[: len(mask.shape) + 1]
    return backend.numpy.broadcast_to(
        backend.numpy.expand_dims(mask, axis), shape
    )


@covers(kept)
def unravel_index(call):
    """Each of the indices has the mask; masked ones are those of entry 0."""
    x = only_operand(call)
    return tuple(masks.wrap(y, x.mask) for y in call.compute(masks.zero(x)))


@covers(kept)
def powers(call):
    """A row of powers for each entry, masked where that is."""
    x = only_operand(call)
    return masks.wrap(call.compute(masks.fill(x.values, x.mask, 1)), x.mask)


def view(call):
    """The same bytes in another dtype: the mask stays.

    That may not cut entries up. Bytes of an integer can be those of NaN, so 0
    goes under the mask again.
    """
    x = only_operand(call)
    values = call.compute()
    if len(x.mask.shape) == len(x.shape) and values.shape != x.shape:
        raise call.refuse(
            "The dtypes differ in size, and the last axis has a mask."
        )
    return masks.wrap(masks.fill(values, x.mask, 0), x.mask)
