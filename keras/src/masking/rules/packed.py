"""How families compute with the steps of a packed tensor alone.

A way is a function of a call and of its first packed operand. The first axis
of the flat steps stands for batch and time, so an axis `a` behind these is the
axis `a - 1` there.
"""

import math
import typing

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking.packing import Unknown
from keras.src.masking.packing import around
from keras.src.masking.packing import flipped
from keras.src.masking.packing import inner
from keras.src.masking.packing import packed
from keras.src.masking.packing import places
from keras.src.masking.packing import rows as rows_of
from keras.src.masking.packing import taken
from keras.src.ops.arguments import as_keys


def beside(x: AnyTensor, other: AnyTensor) -> Tensor:
    """Another operand of a packed one, for each of the flat steps.

    Args:
        x: The packed operand.
        other: A scalar; a tensor that broadcasts with `x`; or anything that is
            no tensor.

    Raises:
        Unknown: If it does not go with the steps of `x`.
    """
    if isinstance(other, (list, tuple, dict, CompositeBase)):
        raise Unknown
    if not hasattr(other, "shape"):
        return other
    if isinstance(other, MaskedTensorBase):
        if len(other.shape) != len(x.shape):
            raise Unknown
        return _in_layout(x, other)
    lead = len(x.shape) - len(other.shape)
    if lead >= 2:
        return other
    if lead < 0:
        raise Unknown
    other = backend.convert_to_tensor(other)
    if not lead:
        return _along_both(x, other)
    (time,) = _known(x.shape[1:2])
    if other.shape[0] == 1:
        return backend.numpy.squeeze(other, 0)
    return _at(other, x, places(x) % time, time)


def _in_layout(x, other):
    """The flat steps of another masked tensor, if its layout is that of `x`."""
    if other.is_packed and other.index is x.index:
        return inner(other)
    if other.mask is x.mask:
        return masks.wrap(packed(other.values, x), x.there)
    raise Unknown


def _along_both(x, other):
    """A plain tensor of as many axes, of which the first two broadcast."""
    batch, time = _known(x.shape[:2])
    sizes = tuple(other.shape[:2])
    if sizes == (1, 1):
        return backend.numpy.squeeze(other, (0, 1))
    if sizes == (batch, time):
        return packed(other, x)
    if sizes == (batch, 1):
        rows = backend.numpy.squeeze(other, 1)
        return _at(rows, x, places(x) // time, batch)
    if sizes == (1, time):
        steps = backend.numpy.squeeze(other, 0)
        return _at(steps, x, places(x) % time, time)
    raise Unknown


def _known(sizes):
    """Sizes that are numbers: of others it is not known what they equal."""
    if None in tuple(sizes):
        raise Unknown
    return tuple(sizes)


def _at(rows, x, index, size):
    """The entries of rows for each flat step."""
    if rows.shape[0] != size or not size:
        raise Unknown
    return taken(rows, x, index)


def each_step(call: typing.Any, x: AnyTensor) -> Nest:
    """An operation that treats each entry, or each step, by itself."""
    args = [beside(x, y) for y in call.args]
    kwargs = {k: beside(x, v) for k, v in call.kwargs.items()}
    return _run(call, x, args, kwargs)


def first_alone(call: typing.Any, x: AnyTensor) -> Nest:
    """An operation that treats each entry by itself, beside other arguments."""
    first, *rest = call.args
    others = [*rest, *call.kwargs.values()]
    if first is not x or any(isinstance(y, MaskedTensorBase) for y in others):
        raise Unknown
    return _run(call, x, [inner(x), *rest], call.kwargs)


def chosen(call: typing.Any, x: AnyTensor) -> Nest:
    """A choice between steps of one layout and fills.

    A plain branch that has an entry for each step is data: it makes another
    mask.
    """
    for branch in call.args[1:]:
        is_plain = not isinstance(branch, MaskedTensorBase)
        if is_plain and len(getattr(branch, "shape", ())) > len(x.shape) - 2:
            raise Unknown
    return each_step(call, x)


def _run(call, x, args, kwargs):
    """What the public function makes of flat steps."""
    result = call.call_function(args, kwargs)
    return tree.map_structure(lambda y: around(x, y), result)


def along(*names: str, grows: int = 0) -> typing.Callable:
    """An operation along axes that it names, which are behind the steps.

    Args:
        *names: The arguments that name axes.
        grows: How many axes more the result has, among which they are counted.
    """

    def way(call, x):
        if call.args[0] is not x:
            raise Unknown
        return _moved(call, x, names, grows)

    return way


def _moved(call, x, names, grows=0):
    moved = {name: _behind(call, x, name, grows) for name in names}
    args = call.args[: _first_named(call, names)]
    rest = {k: v for k, v in call.kwargs.items() if k not in moved}
    args = [beside(x, y) for y in args]
    rest = {k: beside(x, v) for k, v in rest.items()}
    return _run(call, x, args, rest | moved)


def _first_named(call, names):
    """The place of the first operand that names axes."""
    known = call.row.call_names or call.row.fn_names
    places = [known.index(n) for n in names if n in known]
    # `default` would end the graph of PyTorch's compiler.
    return min([len(call.args), *places])


def _behind(call, x, name, grows=0):
    """An argument that names axes behind the steps, as of the flat ones."""
    axis = call.argument(name)
    if axis is None:
        raise Unknown
    axes = axis if isinstance(axis, (list, tuple)) else [axis]
    ndim = len(x.shape) + grows
    axes = [a + ndim if a < 0 else a for a in axes]
    if any(not 2 <= a < ndim for a in axes):
        raise Unknown
    axes = [a - 1 for a in axes]
    return type(axis)(axes) if isinstance(axis, (list, tuple)) else axes[0]


def reduced(name: str = "axis") -> typing.Callable:
    """A reduction: over features by steps, over batch and time over all."""

    def way(call, x):
        axes = call.argument(name)
        ndim = len(x.shape)
        axes = axes if isinstance(axes, (list, tuple)) else [axes]
        axes = range(ndim) if axes == [None] else axes
        axes = sorted(a + ndim if a < 0 else a for a in axes)
        if axes[:1] and axes[0] >= 2:
            return _moved(call, x, (name,))
        if axes[:2] != [0, 1] or call.argument("keepdims", False):
            raise Unknown
        if any(isinstance(y, MaskedTensorBase) for y in call.args[1:]):
            raise Unknown
        kwargs = call.kwargs | {name: (0, *(a - 1 for a in axes[2:]))}
        return call.call_function([_counted(x)], kwargs)

    return way


def _counted(x):
    """The flat steps as a masked tensor, also where all of them are steps.

    Of no step at all a reduction is what it is of a masked tensor.
    """
    there = x.there
    if there is None:
        there = backend.numpy.ones(backend.shape(x.flat)[:1], "bool")
    return masks.wrap(x.flat, there)


def over_time(segments: typing.Callable) -> typing.Callable:
    """As `reduced`; over time alone by the segments that rows are.

    Args:
        segments: Function of the flat steps, 0 where they are none, of the
            row of each, of the number of rows, and of the packed tensor.
    """
    otherwise = reduced()

    def way(call, x):
        axis = call.argument("axis")
        axes = axis if isinstance(axis, (list, tuple)) else [axis]
        is_time = list(axes) in ([1], [1 - len(x.shape)])
        if not is_time or call.argument("keepdims", False):
            return otherwise(call, x)
        if not backend.is_float_dtype(x.dtype):
            raise Unknown
        if call.argument("initial") is not None:
            raise Unknown
        (time,) = _known(x.shape[1:2])
        batch = backend.shape(x.mask)[0]
        if not time or x.shape[0] == 0:
            raise Unknown
        wide = backend.cast(masks.filled(inner(x)), _wide(x.dtype))
        sums = segments(wide, places(x) // time, batch, x)
        valid = backend.numpy.any(x.mask, axis=1)
        return masks.wrap(backend.cast(sums, x.dtype), valid)

    return way


def _wide(dtype):
    dtype = backend.standardize_dtype(dtype)
    return dtype if dtype == "float64" else "float32"


def sums(flat: Tensor, rows: Tensor, batch: int, x: AnyTensor) -> Tensor:
    """The sum of each row."""
    return x._sums(flat, rows, batch)


def means(flat: Tensor, rows: Tensor, batch: int, x: AnyTensor) -> Tensor:
    """The sum of each row over the number of its steps, at least 1."""
    total = sums(flat, rows, batch, x)
    count = backend.numpy.sum(backend.cast(x.mask, total.dtype), axis=1)
    count = backend.numpy.maximum(count, backend.cast(1, total.dtype))
    return total / masks.expand(count, len(total.shape))


def extremes(name: str) -> typing.Callable:
    """The largest or smallest entry of each row.

    Those that share it share its gradient, as engines have it of a padded
    tensor.

    Args:
        name: "max" or "min".
    """

    def extreme(flat, rows, batch, x):
        if x._pads_for_extremes:
            raise Unknown
        bounded = flat
        if x.there is not None:
            bound = ops.cast(-np.inf if name == "max" else np.inf, flat.dtype)
            inside = masks.expand(x.there, len(flat.shape))
            bounded = ops.where(inside, flat, bound)
        own = x._extremes(name, bounded, rows, batch)
        if own is None:
            own = _shared(name, flat, bounded, rows, batch, x)
        # Of a row that has no step it is infinite.
        valid = backend.numpy.any(x.mask, axis=1)
        return ops.where(masks.expand(valid, len(own.shape)), own, 0)

    return extreme


def _shared(name, flat, bounded, rows, batch, x):
    """Extremes by a function of segments that has no gradient."""
    function = getattr(ops, f"segment_{name}", None)
    if function is None:  # Keras 3.14 has no `segment_min`.
        raise Unknown
    still = ops.stop_gradient(bounded)
    there = masks.expand(_counted(x).mask, len(flat.shape))
    own = function(still, rows, num_segments=batch)
    # NaN is not equal to itself.
    hits = ops.equal(still, ops.take(own, rows, axis=0))
    hits = ops.logical_or(hits, ops.isnan(still))
    hits = ops.logical_and(hits, there)
    count = sums(ops.cast(hits, flat.dtype), rows, batch, x)
    own = ops.where(count > 0, own, 0)
    count = ops.maximum(count, ops.cast(1, flat.dtype))
    shared = sums(ops.where(hits, flat, 0), rows, batch, x) / count
    # A mean of the same number may be rounded.
    is_finite = ops.isfinite(shared)
    slope = ops.where(is_finite, shared, 0)
    slope = slope - ops.stop_gradient(slope)
    return ops.where(is_finite, own + slope, shared)


def contracted(labels_of: typing.Callable) -> typing.Callable:
    """A contraction that neither sums over steps nor brings any in.

    Args:
        labels_of: As the family `contract` takes it.
    """

    def way(call, x):
        operands, labels, out = labels_of(call)
        batch, time = labels[[y is x for y in operands].index(True)][:2]
        if out[:2] != [batch, time]:
            raise Unknown
        flat = []
        for y, names in zip(operands, labels):
            if isinstance(y, MaskedTensorBase):
                if names[:2] != [batch, time]:
                    raise Unknown
                y = _in_layout(x, y)
            elif {batch, time} & {*names}:
                raise Unknown
            flat.append(y)
        kwargs = _without_time(call, time)
        rest = iter(flat)
        args = [next(rest) if hasattr(y, "shape") else y for y in call.args]
        return _run(call, x, args, kwargs)

    return way


def _without_time(call, time):
    """The static arguments, without the label of the time axis."""
    if call.row.name == "tensordot" and not isinstance(
        call.argument("axes", 2), int
    ):
        raise Unknown
    if call.row.name != "einsum" or time.isdigit():
        return call.kwargs
    subscripts = call.argument("subscripts").replace(time, "")
    return call.kwargs | {"subscripts": subscripts}


def reshaped(call: typing.Any, x: AnyTensor) -> Nest:
    """A new shape for the axes behind the steps."""
    shape = call.argument("newshape")
    if not isinstance(shape, (list, tuple)) or len(shape) < 2:
        raise Unknown
    if call.args[0] is not x or not all(isinstance(n, int) for n in shape):
        raise Unknown
    rest = _known(x.shape[2:])
    new = list(shape)
    if -1 in new:
        place = new.index(-1)
        whole = math.prod(rest) * math.prod(
            n for n in x.shape[:2] if n is not None
        )
        if place and None in tuple(x.shape[:2]):
            raise Unknown
        others = math.prod(n for n in new if n != -1)
        if not place and x.shape[0] is None:
            new[0] = None
        elif not others:
            raise Unknown
        else:
            new[place] = whole // others
    if new[:2] != list(x.shape[:2]) or math.prod(new[2:]) != math.prod(rest):
        raise Unknown
    steps = x.flat.shape[0]
    steps = -1 if steps is None else steps
    return x.with_flat(backend.numpy.reshape(x.flat, (steps, *new[2:])))


def transposed(call: typing.Any, x: AnyTensor) -> Nest:
    """Another order of the axes behind the steps."""
    axes = call.argument("axes")
    if axes is None or call.args[0] is not x:
        raise Unknown
    axes = [a + len(x.shape) if a < 0 else a for a in axes]
    if axes[:2] != [0, 1]:
        raise Unknown
    axes = (0, *(a - 1 for a in axes[2:]))
    return x.with_flat(backend.numpy.transpose(x.flat, axes))


def turned(call: typing.Any, x: AnyTensor) -> Nest:
    """The order of times turned round, or that of an axis behind the steps."""
    if call.args[0] is x and call.argument("axis") in (1, 1 - len(x.shape)):
        return flipped(x)
    return _moved(call, x, ("axis",))


def joined(new_axis: bool) -> typing.Callable:
    """Tensors of one layout, joined along an axis behind the steps."""

    def way(call, x):
        xs = list(call.args[0])
        if not all(isinstance(y, MaskedTensorBase) for y in xs):
            raise Unknown
        axis = _behind(call, x, "axis", int(new_axis))
        flat = [beside(x, y) for y in xs]
        return _run(call, x, [flat], call.kwargs | {"axis": axis})

    return way


def indexed(call: typing.Any, x: AnyTensor) -> Nest:
    """A key of basic indices, which takes all steps."""
    keys = as_keys(call.args[1])
    if call.args[0] is not x or any(
        not (k is None or k is Ellipsis or isinstance(k, (int, slice)))
        or isinstance(k, bool)
        for k in keys
    ):
        raise Unknown
    named = sum(k is not None and k is not Ellipsis for k in keys)
    if Ellipsis not in keys:
        keys = [*keys, Ellipsis]
    i = keys.index(Ellipsis)
    whole = [slice(None)] * (len(x.shape) - named)
    keys = [*keys[:i], *whole, *keys[i + 1 :]]
    if Ellipsis in keys:
        raise Unknown
    if keys[:1] != [slice(None)] and _is_all(keys[1:]):
        return _rows(x, keys[0])
    if keys[:2] != [slice(None)] * 2:
        raise Unknown
    return x.with_flat(x.flat[tuple(keys[1:])])


def _is_all(keys):
    return all(k == slice(None) for k in keys)


def _rows(x, key):
    """Some rows of the batch, where it is known what these hold."""
    if not isinstance(key, slice) or not x.is_concrete(x):
        raise Unknown
    return rows_of(x, key)


def looked_up(call: typing.Any, x: AnyTensor) -> Nest:
    """Rows of a plain table for packed indices, or entries inside of steps."""
    source, indices = call.args[0], call.argument("indices")
    if isinstance(source, MaskedTensorBase) is isinstance(
        indices, MaskedTensorBase
    ):
        raise Unknown
    if source is x:
        axis = _behind(call, x, "axis")
        return around(x, call.row.fn(inner(x), indices, axis=axis))
    if call.argument("axis") != 0:
        raise Unknown
    return around(x, call.row.fn(source, inner(x), axis=0))


def one_hot(call: typing.Any, x: AnyTensor) -> Nest:
    """A row of zeros and ones behind the steps."""
    if call.argument("axis", -1) not in (-1, len(x.shape)):
        raise Unknown
    return _run(call, x, [inner(x)], call.kwargs | {"axis": -1})


def dropped(call: typing.Any, x: AnyTensor) -> Nest:
    """The draws are those of the padded tensor: storage changes nothing."""
    (first, *rest) = call.args
    if first is not x:
        raise Unknown
    return scaled(
        lambda ones: call.call_function([ones, *rest], call.kwargs), x
    )


def scaled(function: typing.Callable, x: AnyTensor) -> AnyTensor:
    """A function that multiplies by what it draws, of a packed tensor.

    What it draws depends on the shape, which is that of the padded one. The
    steps are 0 where a factor is 0.
    """
    ones = backend.numpy.ones(ops.shape(x), dtype=x.dtype)
    factors = function(ones)
    if factors is ones:
        return x
    factors = packed(factors, x)
    flat = backend.numpy.where(factors == 0, 0, x.flat * factors)
    return x.with_flat(backend.cast(flat, x.dtype))


# The ways of operations that move axes, by NumPy's function.
MOTIONS = {
    np.expand_dims: along("axis", grows=1),
    np.moveaxis: along("source", "destination"),
    np.squeeze: along("axis"),
    np.swapaxes: along("axis1", "axis2"),
    np.transpose: transposed,
}
