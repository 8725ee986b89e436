"""Random draws: valid where what they are drawn from is."""

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import Rule
from keras.src.masking.calls import as_operand
from keras.src.masking.coverage import covers
from keras.src.masking.packing import packs
from keras.src.masking.rules import packed
from keras.src.masking.rules.layout import full_rank
from keras.src.masking.rules.merge import each_entry
from keras.src.masking.rules.merge import kept
from keras.src.masking.rules.merge import only_operand
from keras.src.masking.rules.reduce import canonical_axes


@packs(packed.dropped)
@covers(kept)
def dropout(call: Call) -> AnyTensor:
    """Each entry by itself: the mask stays."""
    return each_entry(call)


def with_parameters(**in_domain: float) -> Rule:
    """A draw for each entry of its parameters, valid where they are.

    Args:
        **in_domain: For each parameter the number that takes its place
            wherever the result is masked.
    """

    def rule(call):
        """A draw for each entry of the parameters, valid where they are."""
        shape = call.argument("shape")
        parameters = {
            name: as_operand(call.argument(name)) for name in in_domain
        }
        if isinstance(shape, MaskedTensorBase):
            raise call.refuse("A shape is made of plain numbers.")
        result = backend.numpy.ones(shape, dtype="bool")
        mask = masks.merge(
            [result]
            + [x for x in parameters.values() if not masks.is_scalar(x)]
        )
        kwargs = {
            name: masks.guarded(x, mask, in_domain[name], len(shape))
            for name, x in parameters.items()
        }
        others = ("dtype", "seed")
        kwargs |= {name: call.argument(name) for name in others}
        return masks.wrap(call.row.fn(shape, **kwargs), mask)

    rule.__name__ = f"with_parameters({in_domain})"
    return rule


def categorical(call: Call) -> AnyTensor:
    """A masked class is never drawn; a row without a class gives 0."""
    x = only_operand(call)
    values = masks.filled(x)
    if len(x.mask.shape) == 1:
        return masks.wrap(call.compute(values), x.mask)
    valid = backend.numpy.any(x.mask, axis=1)
    # Some class has to be possible in a row without any.
    possible = backend.numpy.logical_or(
        x.mask, backend.numpy.logical_not(masks.expand(valid, 2))
    )
    logits = masks.fill(values, possible, float("-inf"))
    return masks.wrap(masks.fill(call.compute(logits), valid, 0), valid)


def shuffle(call: Call) -> AnyTensor:
    """Values and mask in the same new order.

    A backend may shuffle each column by itself, so the places of all entries
    are shuffled, and both are looked up there.
    """
    x = only_operand(call)
    (axis,) = canonical_axes(call.argument("axis", 0), len(x.shape))
    if axis >= len(x.mask.shape):
        return masks.wrap(call.compute(), x.mask)
    shape = backend.shape(x.values)
    places = backend.numpy.arange(shape[axis], dtype="int32")
    places = masks.expand(places, len(shape) - axis)
    places = call.compute(backend.numpy.broadcast_to(places, shape))
    return masks.wrap(
        ops.take_along_axis(x.values, places, axis),
        ops.take_along_axis(full_rank(x), places, axis),
    )
