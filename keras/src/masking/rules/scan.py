"""What follows the entries along an axis: running results, steps, frames."""

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Nest
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import Rule
from keras.src.masking.coverage import covers
from keras.src.masking.rules.layout import entry
from keras.src.masking.rules.layout import full_rank
from keras.src.masking.rules.merge import kept
from keras.src.masking.rules.merge import only_operand
from keras.src.masking.rules.reduce import bound
from keras.src.masking.rules.reduce import canonical_axes


def running(call: Call, spec: Nest) -> int:
    """The mask stays; without an axis all entries are in one row."""
    if call.argument("axis") is None:
        return len(spec.shape)
    return masks.covered(only_operand(call))


def cumulate(identity: float | str) -> Rule:
    """A running reduction: masked entries are its identity, the mask stays.

    Args:
        identity: Value that leaves the reduction as it is.
    """

    @covers(running)
    def rule(call):
        x, axis = call.args[0], call.argument("axis")
        (along,) = (None,) if axis is None else canonical_axes(axis, x.ndim)
        values = call.compute(
            masks.fill(x.values, x.mask, bound(x.dtype, identity))
        )
        if axis is None:
            mask = backend.numpy.reshape(full_rank(x), (-1,))
            return masks.wrap(values, mask)
        return masks.wrap(values, x.mask)

    rule.__name__ = f"cumulate({identity!r})"
    rule.__doc__ = f"Masked entries count as {identity}, and the mask stays."
    return rule


@covers(kept)
def diff(call: Call) -> AnyTensor:
    """Differences of neighbours, valid where all that go into one are."""
    x, n = only_operand(call), call.argument("n", 1)
    axis = canonical_axes(call.argument("axis", -1), len(x.shape))[0]
    mask = x.mask
    if axis < len(mask.shape):
        before = (slice(None),) * axis
        for _ in range(n):
            mask = backend.numpy.logical_and(
                mask[(*before, slice(1, None))], mask[(*before, slice(-1))]
            )
    return masks.settled(call.compute(), mask)


def _frames(call, spec):
    x = only_operand(call)
    covered = masks.covered(x)
    return covered if covered < len(x.shape) else len(spec.shape)


@covers(_frames)
def extract_sequences(call: Call) -> AnyTensor:
    """The mask has the frames that the entries have."""
    x = only_operand(call)
    if len(x.mask.shape) < len(x.shape):
        return masks.wrap(call.compute(), x.mask)
    # As numbers: JAX's backend frames with a convolution.
    frames = call.compute(backend.cast(x.mask, "float32"))
    values = call.compute(masks.filled(x))
    return masks.wrap(values, backend.cast(frames, "bool"))


def _last(call, spec):
    x = only_operand(call)
    axis = canonical_axes(call.argument("axis"), len(x.shape))[0]
    return masks.covered(x) - (axis < masks.covered(x))


@covers(_last)
def last(call: Call) -> AnyTensor:
    """The last valid entry along an axis; of none 0, masked as in `max`."""
    x = only_operand(call)
    axis = canonical_axes(call.argument("axis"), len(x.shape))[0]
    mask = x.mask
    if axis >= len(mask.shape):
        return masks.wrap(call.compute(), mask)
    places = backend.numpy.arange(backend.shape(mask)[axis], dtype="int32")
    others = tuple(a for a in range(len(mask.shape)) if a != axis)
    places = backend.numpy.expand_dims(places, others)
    places = masks.wrap(backend.numpy.where(mask, places, 0), mask)
    place = ops.filled(ops.max(places, axis=axis, keepdims=True), 0)
    values = backend.numpy.take_along_axis(
        x.values, masks.expand(place, len(x.shape)), axis=axis
    )
    values = backend.numpy.squeeze(values, axis=axis)
    mask = backend.numpy.any(mask, axis=axis)
    if not len(mask.shape):
        return entry(values, mask)
    return masks.wrap(masks.fill(values, mask, 0), mask)
