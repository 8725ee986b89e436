"""What layers do with steps and entries under a mask."""

import typing

from keras.src import backend
from keras.src import tree
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking.calls import values_of
from keras.src.masking.layers.scopes import current_scope
from keras.src.masking.packing import is_packed
from keras.src.masking.rules import packed


def step_mask(mask: Mask, ndim: int = 2) -> Mask:
    """The mask over batch and time: a step counts if any entry of it does.

    Args:
        mask: Mask of a sequence, or a list of which the first is taken; of any
            dtype.
        ndim: Number of leading axes that make up a step.
    """
    mask = masks.as_bool(tree.flatten(mask)[0])
    inner = tuple(range(ndim, len(mask.shape)))
    return backend.numpy.any(mask, axis=inner) if inner else mask


def by_steps(
    sequences: AnyTensor, mask: Mask | None, ndim: int = 2
) -> tuple[AnyTensor, Mask | None]:
    """A sequence, with 0 where it is masked, and its step mask.

    Args:
        sequences: Plain tensor of shape `(batch, time, ...)`, a packed one,
            which stays packed, or None.
        mask: As `step_mask` takes it, or None. One that covers fewer axes, or
            has axes of size 1, is broadcast.
        ndim: Number of leading axes that make up a step.
    """
    if sequences is None or mask is None:
        return sequences, None
    if isinstance(sequences, MaskedTensorBase):
        if mask is sequences.mask and ndim == 2:
            return sequences.clearable(), mask
        sequences = sequences.values
    steps = step_mask(mask, ndim)
    whole = masks.as_bool(tree.flatten(mask)[0])
    sequences = masks.fill(sequences, whole, 0)
    return sequences, masks.over_axes(steps, sequences, ndim)


def over_rows(mask: Mask) -> Mask | None:
    """The mask if it is one over the batch alone, which no layer uses up.

    Args:
        mask: As `step_mask` takes it.
    """
    mask = tree.flatten(mask)[0]
    return masks.as_bool(mask) if len(mask.shape) == 1 else None


def on_values(
    function: typing.Callable,
    x: AnyTensor,
    *args: typing.Any,
    **kwargs: typing.Any,
) -> AnyTensor:
    """A function that treats each entry by itself, run under the mask."""
    if not isinstance(x, MaskedTensorBase):
        return function(x, *args, **kwargs)
    if x.is_packed:
        return x.with_flat(function(x.flat, *args, **kwargs))
    return masks.wrap(function(x.values, *args, **kwargs), x.mask)


def scaled(function: typing.Callable, x: AnyTensor) -> AnyTensor:
    """As `on_values`, for a function that multiplies by what it draws."""
    if not is_packed(x):
        return on_values(function, x)
    return packed.scaled(function, x)


def again(outputs: Nest) -> Nest:
    """Masked outputs as `with_mask` gives them."""
    return outputs if current_scope() is None else outputs.values


def with_masks(outputs: Nest, mask: Mask | None, rows: Mask | None) -> Nest:
    """What a recurrent layer returns, masked.

    Args:
        outputs: The output, or a tuple of it and of the states.
        mask: Mask of the output, or None.
        rows: Mask of the states over the batch, or None.
    """
    if not isinstance(outputs, (tuple, list)):
        return with_mask(outputs, mask)
    first, *states = outputs
    states = tree.map_structure(lambda x: with_mask(x, rows), states)
    return type(outputs)([with_mask(first, mask), *states])


def with_mask(outputs: Nest, mask: Mask | None) -> Nest:
    """The first of the outputs with this mask; the others as they are.

    Inside the `call` of an old layer, which may call that of its base, all are
    plain: its `compute_mask` is asked.
    """
    if mask is None or current_scope() is not None:
        return values_of(outputs)
    if isinstance(outputs, MaskedTensorBase):
        return outputs
    if isinstance(outputs, (tuple, list)):
        first, *rest = outputs
        return type(outputs)([with_mask(first, mask), *rest])
    return masks.wrap(outputs, mask)
