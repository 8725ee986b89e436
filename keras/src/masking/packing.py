"""Packed masked tensors: how they are packed, and which calls know of it.

A rule that knows packing computes with the flat steps alone, by the public
function itself. For it, the flat steps are a tensor whose first axis stands for
batch and time; where they make up a capacity, that is a masked tensor. So all
that is true of masks holds there as well.
"""

import math
import operator
import typing

import numpy as np

from keras.src import backend
from keras.src import tree
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.packed_tensor import SEVERAL_DEVICES
from keras.src.masking import masks


def capacity_for(count: int) -> int:
    """The number of steps, made larger by at most an eighth.

    Of such numbers there are six between one and its double.
    """
    capacity = min(count, 8)
    while capacity < count:
        capacity += capacity // 8
    return capacity


def pack(x: AnyTensor, capacity: int | None = None) -> AnyTensor:
    """A packed masked tensor of a padded one; see `MaskedTensor.packed`."""
    capacity = checked_capacity(capacity)
    if len(x.mask.shape) != 2:
        raise ValueError(
            "A masked tensor is packed by its steps: its mask must cover "
            "`(batch, time)`. Received values of shape "
            f"{tuple(x.shape)} and a mask of shape {tuple(x.mask.shape)}. "
            + _OTHER_RANKS.get(len(x.mask.shape), _INNER)
        )
    size = math.prod(backend.shape(x.mask))
    flat_mask = backend.numpy.reshape(x.mask, (size,))
    index, there, limit = _index(flat_mask, x.mask.shape, size, capacity)
    layout = backend.PackedTensor._of_parts(None, x.mask, index, there, limit)
    return layout.with_flat(packed(x.values, layout))


def checked_capacity(capacity: typing.Any) -> int | None:
    """A capacity as a number of Python, None for that of the engine.

    Raises:
        TypeError: If it is no integer.
        ValueError: If it is negative.
    """
    if capacity is None:
        return None
    text = (
        "The capacity of a packed masked tensor is a number of steps, or None "
        f"for as many as are valid. Received: capacity={capacity!r}."
    )
    try:
        if isinstance(capacity, (bool, np.bool_)):
            raise TypeError
        capacity = operator.index(capacity)
    except TypeError:
        raise TypeError(text) from None
    if capacity < 0:
        raise ValueError(text)
    return capacity


_OTHER_RANKS = {
    0: "This one says of the whole tensor whether it is there.",
    1: "This one leaves out rows as a whole: take the others with "
    "`keras.ops.take(x, rows, axis=0)`.",
}
_INNER = (
    "This one masks entries inside of steps, which have no place of their own "
    "in memory: reshape, so that what is masked is a step."
)


def _index(mask, shape, size, capacity):
    """The places of valid steps, which of them there are, and their limit."""
    kind = backend.PackedTensor
    found = kind._places(mask)
    if found is None:
        return (*_index_of_all(mask, size, capacity), shape[1])
    limit = _limit(found, shape[1])
    count = found.shape[0]
    if capacity is None:
        if kind._is_exact:
            return found, None, limit
        capacity = _default_capacity(count, size)
    if capacity < count:
        raise ValueError(
            f"A masked tensor with {count} valid steps does not fit the "
            f"capacity {capacity}. Leave the capacity out, or make it larger."
        )
    places = backend.numpy.arange(capacity, dtype="int32")
    index = backend.numpy.pad(
        backend.convert_to_tensor(found, kind._index_dtype),
        [(0, capacity - count)],
        constant_values=size,
    )
    return index, places < count, limit


def _default_capacity(count, size):
    if backend.PackedTensor._is_exact:
        return count
    return min(capacity_for(count), size)


def _limit(places, length):
    """The time after which nothing is valid; for compilers one of a few."""
    needed = 1 + int((places % length).max()) if len(places) else 0
    if backend.PackedTensor._is_exact:
        return needed
    limit = length
    while limit > 1 and -(-limit // 2) >= needed:
        limit = -(-limit // 2)
    return limit


def _index_of_all(mask, size, capacity):
    """The places where a compiler does not know which steps are valid."""
    fits = capacity is not None and isinstance(size, int) and capacity >= size
    if not fits and not (capacity is None and backend.PackedTensor._is_dynamic):
        raise ValueError(
            "Within a compiled function it is not known how many of "
            f"{size} steps are valid, so that `packed(capacity={capacity})` "
            f"may not suffice. Write `x.packed(capacity={size})`, or pack "
            "before the function is called."
        )
    index = backend.PackedTensor._all_places(mask)
    return index, index < size


def starts(x: AnyTensor) -> Tensor:
    """The flat row at which each row of the batch begins, on the host."""
    counts = backend.convert_to_numpy(x.mask).sum(1)
    return np.cumsum(counts) - counts


def rows(x: AnyTensor, key: typing.Any) -> AnyTensor:
    """Some rows of the batch, packed anew without a padded copy.

    Args:
        x: Packed tensor whose mask is known.
        key: Slice, or array of integers or booleans, of its first axis.
    """
    if isinstance(key, slice) and (key.step or 1) < 0:
        x.mask[key]  # Not every engine turns rows round, as NumPy does.
    mask = backend.convert_to_numpy(x.mask)[key]
    sources, index = _steps_of_rows(mask, starts(x)[key])
    sources = backend.convert_to_tensor(sources, x.index.dtype)
    return _of_places(x._gather(x.flat, sources), mask, index)


def of_rows(flat: Tensor, mask: Mask, starts: Tensor) -> AnyTensor:
    """A packed tensor of rows, each of which is a part of flat steps.

    Args:
        flat: NumPy array of flat steps.
        mask: Mask of shape `(batch, time)`, an array or a tensor; in a graph
            of TensorFlow's data pipelines, too.
        starts: The flat row at which each row begins, of shape `(batch,)`.
    """

    def on_host(mask, starts):
        sources, index = _steps_of_rows(mask, starts)
        return flat[sources], index

    steps, index = backend.PackedTensor._on_host(on_host, flat, mask, starts)
    return _of_places(steps, mask, index)


def _steps_of_rows(mask, starts):
    """Which flat steps there are in rows, and their places.

    The places are as many as an engine packs. Those beyond what is valid are
    too large, and their steps any.
    """
    valid = np.flatnonzero(mask)
    capacity = _default_capacity(len(valid), mask.size)
    sources = (np.asarray(starts)[:, None] + mask.cumsum(1) - 1)[mask]
    missing = (0, capacity - len(valid))
    index = np.pad(valid, missing, constant_values=mask.size)
    return np.pad(sources, missing), index


def _of_places(flat, mask, index):
    """A packed tensor of flat steps, as many as an engine packs by itself."""
    there = None
    if not backend.PackedTensor._is_exact:
        size = math.prod(backend.shape(mask))
        there = backend.convert_to_tensor(index < size)
        flat = masks.fill(backend.convert_to_tensor(flat), there, 0)
    return of_parts(flat, mask, index, there)


def of_parts(
    flat: Tensor,
    mask: Mask,
    index: Tensor,
    there: Mask | None,
    times: Tensor | None = None,
) -> AnyTensor:
    """The packed tensor of arrays, as a batch holds it; see `training.data`.

    Args:
        flat: As `PackedBase` has it, and so are the next three.
        mask: Mask of shape `(batch, time)`.
        index: Integers of shape `(capacity,)`.
        there: Booleans of shape `(capacity,)`, or None.
        times: Anything of shape `(limit,)`; None if the limit is not known.
    """
    kind = backend.PackedTensor
    mask = backend.convert_to_tensor(mask, "bool")
    limit = mask.shape[1]
    if isinstance(index, np.ndarray):
        limit = _limit(index[index < mask.shape[0] * limit], limit)
    elif times is not None and times.shape[0] is not None:
        limit = times.shape[0]
    index = backend.convert_to_tensor(index, kind._index_dtype)
    if there is not None:
        there = backend.convert_to_tensor(there, "bool")
    flat = backend.convert_to_tensor(flat)
    return kind._of_parts(flat, mask, index, there, limit)


def packed(values: Tensor, layout: AnyTensor) -> Tensor:
    """The flat steps of padded values, in the layout of a packed tensor."""
    batch, time, *rest = backend.shape(values)
    rows = backend.numpy.reshape(values, (batch * time, *rest))
    return taken(rows, layout, places(layout))


def places(layout: AnyTensor) -> Tensor:
    """The place of each flat step among all; some place, if it is none."""
    if layout.there is None:
        return layout.index
    last = math.prod(backend.shape(layout.mask)) - 1
    return backend.numpy.minimum(layout.index, last)


def taken(rows: Tensor, layout: AnyTensor, index: Tensor) -> Tensor:
    """The row at these places for each flat step, 0 for those that are none."""
    flat = layout._gather(rows, index)
    return flat if layout.there is None else masks.fill(flat, layout.there, 0)


def steps_of(y: AnyTensor, layout: AnyTensor) -> AnyTensor:
    """What a tensor over batch and time has for each flat step of a layout.

    Args:
        y: Plain tensor of shape `(batch, time, ...)`, or a packed one of any
            layout, which has 0 where it has no step.
        layout: Packed tensor of the same batch and time.
    """
    if not is_packed(y):
        return packed(backend.convert_to_tensor(y), layout)
    if y.index is layout.index:
        return masks.filled(inner(y))
    if y.flat.shape[0] == 0:
        return packed(y.values, layout)
    # Where each step is stored, counted from 1: no padded copy is made.
    count = backend.numpy.arange(1, backend.shape(y.flat)[0] + 1, dtype="int32")
    size = math.prod(backend.shape(y.mask))
    stored = y._gather(y._scatter(count, y.index, size), places(layout))
    there = stored > 0
    if layout.there is not None:
        there = backend.numpy.logical_and(there, layout.there)
    row = backend.numpy.maximum(stored - 1, 0)
    return masks.fill(y._gather(y.flat, row), there, 0)


def unpacked(flat: Tensor, layout: AnyTensor) -> Tensor:
    """Flat steps where they belong, with 0 where there are none."""
    shape = backend.shape(layout.mask)
    values = layout._scatter(flat, layout.index, math.prod(shape))
    return backend.numpy.reshape(values, (*shape, *backend.shape(flat)[1:]))


def narrowed(x: AnyTensor) -> AnyTensor:
    """The same flat steps in a layout without the times that nothing has."""
    length = x.mask.shape[1]
    if length is None or not 0 < x.limit < length:
        return x
    places = x.index // length * x.limit + x.index % length
    if x.there is not None:
        last = math.prod(backend.shape(x.mask)[:1]) * x.limit
        places = backend.numpy.where(x.there, places, last)
    mask = x.mask[:, : x.limit]
    return x._of_parts(x.flat, mask, places, x.there, x.limit)


class Groups(typing.NamedTuple):
    """Rows of a packed tensor, those of about the same length together.

    Attributes:
        index: For each flat step its place in one array of all groups, each
            padded to its times; `size` for those that are none.
        size: The number of steps in this array.
        rows: The rows of each group.
        times: The times of each group, a slice.
    """

    index: Tensor
    size: int
    rows: list
    times: list[slice]


# Rows are grouped by how often the longest is twice as long, up to this.
_HALVINGS = 3
# What groups have to save to pay: a share of the squares of lengths, and as
# much for each as its calls cost.
_WORTH, _WORTH_A_CALL = 0.25, 2**15


def by_length(x: AnyTensor) -> Groups | None:
    """Groups of rows that are longer than a half, a quarter, of the longest.

    For what costs the square of a length. None where this saves too little,
    and where the mask is not known.

    Args:
        x: Packed tensor.
    """
    if not x._may_group(x) or not x.flat.shape[0]:
        return None
    mask = backend.convert_to_numpy(x.mask)
    rows, times = _rows_and_times(mask)
    lengths = [t.stop - t.start for t in times]
    whole = len(mask) * x.limit**2
    saved = whole - sum(len(r) * n**2 for r, n in zip(rows, lengths))
    if saved < max(_WORTH * whole, _WORTH_A_CALL * len(rows)):
        return None
    begin, size = np.zeros(len(mask), int), 0
    for r, t, n in zip(rows, times, lengths):
        begin[r] = size + n * np.arange(len(r)) - t.start
        size += n * len(r)
    places = backend.convert_to_numpy(x.index)
    row, time = np.divmod(np.minimum(places, mask.size - 1), mask.shape[1])
    index = np.where(places < mask.size, begin[row] + time, size)
    index = backend.convert_to_tensor(index, x._index_dtype)
    return Groups(index, size, rows, times)


def _rows_and_times(mask):
    """The rows of a mask by how long they are, and the times of each group."""
    there = mask.any(1)
    first, last = mask.argmax(1), mask.shape[1] - 1 - mask[:, ::-1].argmax(1)
    span = last - first + 1
    # A row without a step is where any other short one is.
    shortest = np.where(there, span, mask.shape[1]).argmin()
    for of_rows in (first, last, span):
        of_rows[~there] = of_rows[shortest]
    halvings = np.log2(span.max() / span).astype(int).clip(0, _HALVINGS)
    rows = [np.flatnonzero(halvings == n) for n in np.unique(halvings)]
    return rows, [slice(first[r].min(), last[r].max() + 1) for r in rows]


def padded_groups(x: AnyTensor, groups: Groups) -> list[Tensor]:
    """The rows of each group, padded to its times.

    Args:
        x: Packed tensor.
        groups: Groups of its layout.
    """
    lengths = [t.stop - t.start for t in groups.times]
    shapes = [(len(r), n) for r, n in zip(groups.rows, lengths)]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1].tolist()
    steps = x._scatter(x.flat, groups.index, groups.size)
    return [
        backend.numpy.reshape(part, (*shape, *x.flat.shape[1:]))
        for part, shape in zip(backend.numpy.split(steps, ends), shapes)
    ]


def of_groups(
    parts: typing.Sequence[Tensor], groups: Groups, layout: AnyTensor
) -> AnyTensor:
    """The packed tensor of padded rows, as `padded_groups` gives them.

    Args:
        parts: The rows of each group.
        groups: Groups of the layout.
        layout: Packed tensor.
    """
    steps = [backend.numpy.reshape(x, (-1, *x.shape[2:])) for x in parts]
    steps = backend.numpy.concatenate(steps, axis=0)
    last = backend.cast(groups.size - 1, groups.index.dtype)
    index = backend.numpy.minimum(groups.index, last)
    return layout.with_flat(taken(steps, layout, index))


def flipped(x: AnyTensor) -> AnyTensor:
    """A packed tensor with its times the other way round.

    What comes of that has, flipped again, the layout that it came from.
    """
    if x._way_back is not None:
        layout, order = x._way_back
        return layout.with_flat(x._gather(x.flat, order))
    batch, length = backend.shape(x.mask)
    place = x.index // length * length + (length - 1 - x.index % length)
    if x.there is not None:
        place = backend.numpy.where(x.there, place, batch * length)
    place = backend.cast(place, x.index.dtype)
    order = backend.numpy.argsort(place)
    layout = x._of_parts(
        None,
        backend.numpy.flip(x.mask, axis=1),
        x._gather(place, order),
        None if x.there is None else x._gather(x.there, order),
        x.mask.shape[1],
    )
    way_back = x.with_flat(None), backend.numpy.argsort(order)
    layout.__dict__["_way_back"] = way_back
    return layout.with_flat(x._gather(x.flat, order))


def with_steps(x: AnyTensor, valid: Mask) -> AnyTensor:
    """A packed tensor in which only some of the flat steps are there.

    The others stay where they are and make up a capacity, so that nothing
    moves. Where it is known that all are there, the layout is the same.

    Args:
        x: Packed tensor.
        valid: Boolean tensor of shape `(capacity,)`.
    """
    missing = backend.numpy.logical_not(valid)
    if x.there is not None:
        missing = backend.numpy.logical_and(missing, x.there)
        valid = backend.numpy.logical_and(valid, x.there)
    if x.is_concrete(x) and not backend.numpy.any(missing):
        return x
    size = backend.cast(math.prod(backend.shape(x.mask)), x.index.dtype)
    index = backend.numpy.where(valid, x.index, size)
    mask = unpacked(valid, x)
    flat = masks.fill(x.flat, valid, 0)
    return x._of_parts(flat, mask, index, valid, x.limit)


def inner(x: AnyTensor) -> AnyTensor:
    """The flat steps as rules see them: masked, if they make up a capacity."""
    return masks.wrap(x.flat, x.there)


def around(x: AnyTensor, result: Nest) -> Nest:
    """What a function made of flat steps, a packed tensor in their layout."""
    flat = result.values if isinstance(result, MaskedTensorBase) else result
    return x.with_flat(flat)


class Unknown(Exception):
    """The call cannot be computed with the flat steps alone."""


def is_packed(x: AnyTensor) -> bool:
    """Whether this is a masked tensor that stores its valid steps alone."""
    return isinstance(x, MaskedTensorBase) and x.is_packed


def first_packed(operands: Nest) -> AnyTensor:
    """The first packed tensor among operands, or None."""
    return next(filter(is_packed, operands), None)


def refuse_several_devices(data: Nest) -> None:
    """Raises if there is a packed tensor in what several devices get.

    Args:
        data: Structure of tensors.
    """
    x = first_packed(tree.flatten(data))
    if x is not None:
        raise ValueError(SEVERAL_DEVICES.format(shape=tuple(x.shape)))


def apply(call: typing.Any, x: AnyTensor) -> Nest:
    """The result of a call with a packed operand.

    By the rule's own way with flat steps if it has one; else by the rule, on
    padded operands. What that gives has the mask of the packed operand most
    often, and is packed again.

    An error of the way is about flat steps, which users do not know. So the
    rule raises its own, on padded operands; where it has none to raise, the
    way is at fault, and is not covered up.

    Args:
        call: The `Call`.
        x: Its first packed operand.
    """
    way, fault = getattr(call.row.rule, "packed", None), None
    # Of no steps at all some engines have no maximum, say.
    if way is not None and x.flat.shape[0] != 0:
        try:
            return way(call, x)
        except Unknown:
            pass
        except Exception as error:
            if _is_signal(error):
                raise
            fault = error
    call.args, call.kwargs = padded((call.args, call.kwargs))
    result = call.apply_rule()
    if fault is not None:
        raise fault
    return tree.map_structure(lambda y: like(x, y), result)


def _is_signal(error):
    """Whether an engine stops what runs by this, which is no fault.

    PyTorch does where it computes anew for a gradient, and has what it needs.
    The classes of such errors are its own.
    """
    return type(error).__name__.startswith("_")


def padded(nest: Nest) -> Nest:
    """A nest with padded tensors for packed ones."""
    # Late: calls import this.
    from keras.src.masking.calls import map_nest

    return map_nest(
        lambda x: x.padded() if isinstance(x, MaskedTensorBase) else x, nest
    )


def like(x: AnyTensor, y: AnyTensor) -> AnyTensor:
    """A padded tensor packed as another one, if it has the same mask."""
    if isinstance(y, MaskedTensorBase) and y.mask is x.mask:
        return y if y.is_packed else x.with_flat(packed(y.values, x))
    return y


def like_first(x: AnyTensor, outputs: Nest) -> Nest:
    """The outputs of a layer, packed as its first argument if that is."""
    if not is_packed(x):
        return outputs
    return tree.map_structure(lambda y: like(x, y), outputs)


def packs(way: typing.Callable) -> typing.Callable:
    """Decorator: tells how a rule computes with flat steps alone.

    Args:
        way: Function of the `Call` and of its first packed operand, which
            gives the result. It raises `Unknown` where it cannot tell.
    """

    def mark(rule):
        rule.packed = way
        return rule

    return mark
