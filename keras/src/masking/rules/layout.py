"""Operations that move entries: the mask makes the same motion."""

import math
import typing

import numpy as np

from keras.src import backend
from keras.src import tree
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Shape
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import coverage
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import Rule
from keras.src.masking.calls import as_operand
from keras.src.masking.calls import values_of
from keras.src.masking.coverage import covers
from keras.src.masking.packing import packs
from keras.src.masking.rules import packed
from keras.src.masking.rules.merge import kept
from keras.src.masking.rules.merge import merge
from keras.src.masking.rules.merge import only_operand
from keras.src.masking.rules.reduce import canonical_axes


def full_rank(x: MaskedTensorBase) -> Mask:
    """The mask of a masked tensor over all of its axes."""
    return masks.to_rank(x.mask, x.values, len(x.shape))


def _as_tuple(x):
    return tuple(x) if isinstance(x, list) else x


def axes_motion(numpy_function: typing.Callable) -> Rule:
    """Ops that permute, add or remove whole axes.

    Args:
        numpy_function: NumPy's function of the same arguments. It moves a
            shape whose sizes name the axes, which tells where each one went.
    """

    def origins_and_gone(call, x):
        gone = _squeezed_axes(call, x) if numpy_function is np.squeeze else ()
        names = [1 if a in gone else a + 2 for a in range(len(x.shape))]
        named = np.broadcast_to(np.int8(0), names)
        # NumPy's `squeeze` takes no list of axes.
        args = map(_as_tuple, call.args[1:])
        kwargs = {k: _as_tuple(v) for k, v in call.kwargs.items()}
        moved = numpy_function(named, *args, **kwargs).shape
        return [n - 2 if n > 1 else None for n in moved], gone

    def coverage(call, spec):
        x = only_operand(call)
        origins, _ = origins_and_gone(call, x)
        return _last_kept(origins, masks.covered(x)) + 1 if origins else 0

    @packs(packed.MOTIONS.get(numpy_function))
    @covers(coverage)
    def rule(call):
        x = only_operand(call)
        values = call.compute()
        covered = len(x.mask.shape)
        origins, gone = origins_and_gone(call, x)
        mask = x.mask
        if any(a < covered for a in gone):
            gone = tuple(a for a in gone if a < covered)
            mask = backend.numpy.squeeze(mask, axis=gone)
        return _place(mask, values, origins, covered)

    rule.__name__ = f"axes_motion({numpy_function.__name__})"
    rule.__doc__ = "The axes of the mask go where those of the values go."
    return rule


def _place(mask, values, origins, covered):
    """Puts the axes of a mask where those of its values went.

    Args:
        mask: Mask, its axes in their old order.
        values: The moved values.
        origins: For each axis of the moved values the axis that it was before,
            or None if it is new.
        covered: Number of old axes that the mask covered.
    """
    kept = [a for a in origins if a is not None and a < covered]
    if not kept and not origins:
        return entry(values, mask)
    order = [sorted(kept).index(a) for a in kept]
    if order != sorted(order):
        mask = backend.numpy.transpose(mask, order)
    last = _last_kept(origins, covered)
    added = tuple(i for i in range(last + 1) if origins[i] not in kept)
    if added:
        mask = backend.numpy.expand_dims(mask, added)
        shape = backend.shape(values)[: last + 1]
        mask = backend.numpy.broadcast_to(mask, shape)
    return masks.wrap(values, mask)


def _last_kept(origins, covered):
    """The last axis that was one of the covered, the first if none was."""
    kept = [i for i, a in enumerate(origins) if a is not None and a < covered]
    # `default` would end the graph of PyTorch's compiler.
    return max([0, *kept])


def entry(values: Tensor, mask: Mask) -> Tensor:
    """What is left when no axis of the mask is: plain, 0 if it was masked."""
    return masks.fill(values, masks.expand(mask, len(values.shape)), 0)


def _squeezed_axes(call, x):
    axis = call.argument("axis")
    if axis is None:
        return tuple(a for a, n in enumerate(x.shape) if n == 1)
    return canonical_axes(axis, len(x.shape))


def _along_axis(call, spec):
    x, axis = only_operand(call), call.argument("axis")
    if axis is None:
        return len(spec.shape)
    axes, covered = canonical_axes(axis, len(x.shape)), masks.covered(x)
    if all(a >= covered for a in axes):
        return covered
    return max(covered, axes[-1] + 1) + len(spec.shape) - len(x.shape)


@packs(packed.along("axis"))
@covers(_along_axis)
def along_axis(call: Call) -> Nest:
    """The mask is moved like the entries, if it covers the axis.

    For ops that move, pick or repeat entries along one axis.
    """
    x = only_operand(call)
    axis = call.argument("axis")
    if axis is None:
        return paired(call.compute(), call.compute(full_rank(x)))
    axes = canonical_axes(axis, len(x.shape))
    if all(a >= len(x.mask.shape) for a in axes):
        values = call.compute()
        return tree.map_structure(lambda v: masks.wrap(v, x.mask), values)
    mask = masks.to_rank(x.mask, x.values, max(len(x.mask.shape), axes[-1] + 1))
    positive = axes if isinstance(axis, (list, tuple)) else axes[0]
    moved = call.row.fn(
        mask, *call.args[1:], **call.kwargs | {"axis": positive}
    )
    return paired(call.compute(), moved)


@packs(packed.turned)
@covers(_along_axis)
def turned(call: Call) -> Nest:
    """As `along_axis`, for what turns the order of entries round."""
    return along_axis(call)


def paired(values: Nest, moved_masks: Nest) -> Nest:
    """Values and masks that moved alike, or nests of them, put together."""

    def one(values, mask):
        return (masks.wrap if len(mask.shape) else entry)(values, mask)

    return tree.map_structure(one, values, moved_masks)


def _reshape(call, spec):
    split = _split_point_of(call, only_operand(call), spec.shape)
    return len(spec.shape) if split is None else split


@packs(packed.reshaped)
@covers(_reshape)
def reshape(call: Call) -> AnyTensor:
    """The mask is reshaped with the axes it covers, where they stay together.

    That is so if the axes it does not cover end up as trailing axes of the
    result; else it is raised to full rank first.
    """
    x = only_operand(call)
    values = call.compute()
    split = _split_point_of(call, x, values.shape)
    if split is None:
        mask, split = full_rank(x), len(values.shape)
    else:
        mask = x.mask
    shape = backend.shape(values)[:split]
    return masks.wrap(values, backend.numpy.reshape(mask, shape))


def _split_point_of(call, x, new_shape):
    shape, new_shape = tuple(x.shape), tuple(new_shape)
    if None in shape:
        target = call.argument("newshape", -1)
        target = target if isinstance(target, (tuple, list)) else (target,)
        # A size that is a tensor tells no more than the result does.
        if all(isinstance(n, (int, np.integer)) for n in target):
            new_shape = target
    return split_point(shape, masks.covered(x), new_shape)


def split_point(shape: Shape, covered: int, new_shape: Shape) -> int | None:
    """How many leading axes of the new shape hold what a mask covers.

    Args:
        shape: The old shape, None for a size that is not known.
        covered: Number of its leading axes that the mask covers.
        new_shape: The new shape, in which -1 stands for what is left.

    Returns:
        None if there are no such axes, or what is known does not tell.
    """
    if None in shape or None in new_shape:
        shape, new_shape = _with_names(shape, new_shape)
    for old, among in (
        # The axes beyond the mask are last in both shapes, or those that it
        # covers first: one follows from the other where there are entries.
        (shape[covered:], lambda split: new_shape[split:]),
        (shape[:covered], lambda split: new_shape[:split]),
    ):
        size = math.prod(old)
        if not size:
            continue
        splits = [
            split
            for split in range(len(new_shape), 0, -1)
            if math.prod(among(split)) == size
        ]
        if splits:
            # An axis of size 1 behind steps is one within them; behind rows
            # it may be time, of one step.
            return covered if 1 < covered in splits else splits[0]
    return None


# What no ordinary size is a multiple of.
_PRIMES = (
    *(1000003, 1000033, 1000037, 1000039, 1000081, 1000099, 1000117, 1000121),
    *(1000133, 1000151, 1000159, 1000171, 1000183, 1000187, 1000193, 1000199),
)


def _with_names(shape, new_shape):
    """The shapes, with a number of its own in place of each unknown size.

    Two unknown sizes need not be equal. But what is equal for these numbers,
    which have nothing in common, is equal for all.
    """
    names = iter(_PRIMES)
    # So that what is left can be divided by the others.
    known = math.prod(n for n in new_shape if n not in (None, -1, 0))
    shape = [next(names) * known if n is None else n for n in shape]
    new_shape = [next(names) if n is None else n for n in new_shape]
    if -1 in new_shape:
        others = math.prod(n for n in new_shape if n != -1)
        left = math.prod(shape) // others if others else 0
        new_shape = [left if n == -1 else n for n in new_shape]
    return shape, new_shape


@covers(
    lambda call, spec: (
        len(spec.shape)
        - len(only_operand(call).shape)
        + masks.covered(call.args[0])
    )
)
def broadcast_to(call: Call) -> AnyTensor:
    """The mask is stretched as its values are."""
    x = only_operand(call)
    values = call.compute()
    lead = len(values.shape) - len(x.shape)
    covered = lead + len(x.mask.shape)
    mask = masks.align(x.mask, len(x.shape), len(values.shape), covered)
    shape = backend.shape(values)[:covered]
    return masks.wrap(values, backend.numpy.broadcast_to(mask, shape))


@covers(kept)
def pad(call: Call) -> AnyTensor:
    """Entries that a constant adds along an axis of the mask are masked."""
    x = only_operand(call)
    widths = _pairs(call.argument("pad_width"), len(x.shape))
    covered = len(x.mask.shape)
    mode = call.argument("mode", "constant")
    if mode == "constant":
        mask = backend.numpy.pad(x.mask, widths[:covered], mode, False)
    else:
        mask = backend.numpy.pad(
            backend.cast(x.mask, "int32"), widths[:covered], mode
        )
        mask = backend.cast(mask, "bool")
    values = call.compute()
    if not masks.is_ordinary(call.argument("constant_values")):
        values = masks.fill(values, mask, 0)
    return masks.wrap(values, mask)


def _pairs(pad_width, ndim):
    if isinstance(pad_width, int):
        pad_width = (pad_width,)
    pairs = [(w, w) if isinstance(w, int) else tuple(w) for w in pad_width]
    if len(pairs) == 1:
        pairs = [(p * 2 if len(p) == 1 else p) for p in pairs] * ndim
    return [p * 2 if len(p) == 1 else p for p in pairs]


@covers(broadcast_to.coverage)
def tile(call: Call) -> AnyTensor:
    """The mask is repeated along the axes that it covers."""
    x = only_operand(call)
    values = call.compute()
    repeats = call.argument("repeats")
    repeats = [repeats] if isinstance(repeats, int) else list(repeats)
    lead = max(len(repeats) - len(x.shape), 0)
    repeats = [1] * (len(values.shape) - len(repeats)) + repeats
    mask = x.mask
    if lead:
        mask = backend.numpy.expand_dims(mask, tuple(range(lead)))
    covered = len(mask.shape)
    return masks.wrap(values, backend.numpy.tile(mask, repeats[:covered]))


def join(new_axis: bool) -> Rule:
    """Joining tensors: the masks are joined along an axis that they cover.

    Plain tensors are all valid. Along any other axis the masks are merged.

    Args:
        new_axis: Whether the op makes the axis along which it joins.
    """

    def axis_and_covered(call):
        xs, axis = list(map(as_operand, call.args[0])), call.argument("axis", 0)
        return xs, *joined_axis(xs, axis, new_axis)

    def coverage(call, spec):
        return axis_and_covered(call)[-1]

    @packs(packed.joined(new_axis))
    @covers(coverage)
    def rule(call):
        xs, axis, covered = axis_and_covered(call)
        if axis >= covered:
            mask, values = masks.merge(xs), call.compute(xs)
            if all(masks.is_masked(x) and x.mask is mask for x in xs):
                return masks.wrap(values, mask)
            return masks.settled(values, mask)
        values = call.compute(xs)
        parts = [mask_or_ones(x, covered - new_axis) for x in xs]
        return masks.wrap(values, call.row.fn(parts, axis=axis))

    rule.__name__ = "join"
    rule.__doc__ = (
        "The masks are joined along an axis that they cover, or that follows "
        "one of rows, and merged along another; plain tensors are valid."
    )
    return rule


def joined_axis(
    xs: typing.Sequence[AnyTensor], axis: int, new_axis: bool
) -> tuple[int, int]:
    """The axis along which tensors are joined, and what masks cover then.

    Of masks of rows alone the axis after the batch is one that they cover,
    unless what is joined are features: steps that were computed one by one are
    put together along it.

    Args:
        xs: The tensors.
        axis: The axis as it was given.
        new_axis: Whether it is made.

    Returns:
        The axis from the first one on, and a number of leading axes.
    """
    ndim = len(xs[0].shape) + new_axis
    (axis,) = canonical_axes(axis, ndim)
    covered = max(map(masks.covered, xs))
    are_features = not new_axis and ndim == 2
    if covered == axis == 1 and not are_features:
        return axis, 2
    return axis, covered + (new_axis and axis < covered)


def mask_or_ones(x: AnyTensor, ndim: int) -> Mask:
    """The mask over the first `ndim` axes, all True for a plain tensor."""
    if isinstance(x, MaskedTensorBase):
        return masks.to_rank(x.mask, x.values, ndim)
    return backend.numpy.ones(backend.shape(x)[:ndim], dtype="bool")


def _take(call, spec):
    x, indices, axis = _taken(call)
    if has_mask(x) and has_mask(indices):
        return None
    ndim, lead = len(x.shape), 0
    if axis is not None:
        lead = canonical_axes(axis, ndim)[0]
    covered = masks.covered(x)
    if not covered:
        return lead + masks.covered(indices)
    if axis is None:
        return len(spec.shape)
    if lead >= covered:
        return covered
    return covered + len(spec.shape) - ndim


def _taken(call):
    return call.args[0], call.argument("indices"), call.argument("axis")


@packs(packed.looked_up)
@covers(_take)
def take(call: Call) -> AnyTensor:
    """Entries picked by index; a masked index looks up 0 and is masked."""
    x, indices, axis = _taken(call)
    if axis is not None:
        canonical_axes(axis, len(x.shape))
    if not isinstance(indices, MaskedTensorBase):
        return _take_from_masked(call, x, indices, axis)
    if isinstance(x, MaskedTensorBase):
        return _take_twice(call, x, indices)
    values = call.compute(x, masks.zero(indices))
    lead = 0 if axis is None else canonical_axes(axis, len(x.shape))[0]
    mask = indices.mask
    if lead:
        covered = lead + len(mask.shape)
        mask = masks.align(
            mask, len(values.shape) - lead, len(values.shape), covered
        )
        mask = backend.numpy.broadcast_to(mask, backend.shape(values)[:covered])
    return masks.wrap(values, mask)


def _take_from_masked(call, x, indices, axis):
    values = call.compute()
    if axis is None:
        mask = full_rank(x)
    else:
        mask, axis = x.mask, canonical_axes(axis, len(x.shape))[0]
        if axis >= len(mask.shape):
            return masks.wrap(values, mask)
    return paired(values, call.row.fn(mask, indices, axis=axis))


def _take_twice(call, x, indices):
    """Valid where the index is, and the entry that it picks."""
    plain = masks.zero(indices)
    picked = call.row.fn(x, plain, **call.kwargs)
    return _under_both(picked, call.row.fn(x.values, indices, **call.kwargs))


def _under_both(one, other):
    """The first tensor, valid where a second one of its shape is, too."""
    if not isinstance(one, MaskedTensorBase):
        one = masks.wrap(masks.fill(one, other.mask, 0), other.mask)
    mask = masks.merge([one, other])
    return masks.settled(one.values, mask)


@covers(coverage.whole)
def take_along_axis(call: Call) -> AnyTensor:
    """Entries picked by index; a masked index looks up 0 and is masked."""
    x, indices = call.args[0], call.argument("indices")
    valid = mask_or_ones(x, len(x.shape))
    if call.argument("axis") is None:
        # PyTorch would view it as one, which a mask that is stretched is not.
        valid = backend.numpy.reshape(valid, (-1,))
    else:
        canonical_axes(call.argument("axis"), len(x.shape))
    if not isinstance(indices, MaskedTensorBase):
        return paired(call.compute(), call.compute(valid))
    plain = masks.zero(indices)
    values = call.compute(values_of(x), plain)
    mask = call.compute(valid, plain) & full_rank(indices)
    return masks.settled(values, mask)


@covers(kept)
def slice_(call: Call) -> AnyTensor:
    """A window of the tensor; the mask is sliced along the axes it covers."""
    x = only_operand(call)
    starts, shape = call.argument("start_indices"), call.argument("shape")
    covered = len(x.mask.shape)
    mask = call.row.fn(x.mask, starts[:covered], shape[:covered])
    return masks.wrap(call.compute(), mask)


def _where(call, spec):
    return None if call.argument("x1") is None else coverage.merged(call, spec)


@packs(packed.chosen)
@covers(_where)
def where(call: Call) -> AnyTensor:
    """Valid where the branch that is taken is; a fill is neutral.

    A branch that has an entry for each entry of the other's mask is data, and
    its validity is selected as its values are, as in `numpy.ma.where`. One that
    is broadcast along that mask, a scalar above all, is a fill: its entries
    are as valid as the other branch is there. Where the condition is masked
    the result is. Without branches it is refused.

    Static shapes tell: an axis that is missing, or of size 1 where the mask's
    is not, is broadcast. One of unknown size counts as data. Where the
    condition says different things of the entries of one step, and the masks
    do not, the step is valid if it is in both branches.
    """
    if call.argument("x1") is None:
        raise call.refuse("How many entries are True depends on the data.")
    condition, *branches = call.args = [
        backend.convert_to_tensor(x) if isinstance(x, (list, tuple)) else x
        for x in call.args
    ]
    if _is_filled(branches) or _reaches_further(condition, call.args):
        return merge(call)
    values = call.compute()
    is_data = _are_data(branches)
    mask = _selected_mask(condition, branches, is_data, len(values.shape))
    shape = backend.shape(values)[: len(mask.shape)]
    mask = backend.numpy.broadcast_to(mask, shape)
    return masks.settled(values, mask)


def _is_filled(branches):
    """Whether an entry is as valid, whichever of the branches it is from."""
    is_data, masked = _are_data(branches), [*map(has_mask, branches)]
    is_fill = [not own and not m for own, m in zip(is_data, masked)]
    return any(is_fill) or not any(is_data) or not any(masked)


def _reaches_further(condition, operands):
    """Whether the condition varies along axes that no mask covers."""
    ndim = max(len(getattr(x, "shape", ())) for x in operands)
    own = tuple(getattr(condition, "shape", ()))
    lead = ndim - len(own)
    ends = [lead + i + 1 for i, n in enumerate(own) if n != 1]
    return max([0, *ends]) > masks.reach(operands, ndim)


def _are_data(branches):
    return [_fits_mask_of(*pair) for pair in (branches, branches[::-1])]


def _fits_mask_of(x, other):
    """Whether `x` has an entry for each entry of the mask of another branch."""
    if not has_mask(other):
        return True
    shape = tuple(getattr(x, "shape", ()))
    missing = len(other.shape) - len(shape)
    if missing > 0:
        return False
    covered = tuple(other.shape)[: masks.covered(other)]
    return not any(n == 1 != m for n, m in zip(shape[-missing:], covered))


def _selected_mask(condition, branches, is_data, ndim):
    """The mask of what is taken from one of two branches.

    Args:
        condition: Masked or plain.
        branches: Two of them, at least one of them masked.
        is_data: Whether each has an entry for each of the other's mask.
        ndim: Rank of the result.

    Returns:
        A mask that broadcasts with the leading axes of the result.
    """
    operands = [
        x for x in (condition, *branches) if isinstance(x, MaskedTensorBase)
    ]
    taken = values_of(condition)
    taken = backend.cast(backend.convert_to_tensor(taken), "bool")
    lead = ndim - len(taken.shape)
    covered = masks.reach(operands, ndim)
    # Along the axes that are left the condition says the same for all.
    rest = tuple(range(max(covered - lead, 0), len(taken.shape)))
    taken = backend.numpy.squeeze(taken, axis=rest) if rest else taken

    def mask_of(x):
        if isinstance(x, MaskedTensorBase):
            return masks.align(x.mask, len(x.shape), ndim, covered)
        return backend.convert_to_tensor(True, "bool")

    own = [mask_of(x) for x in branches]
    both = own[0] & own[1]
    own = [m if data else both for m, data in zip(own, is_data)]
    return backend.numpy.where(taken, *own) & mask_of(condition)
