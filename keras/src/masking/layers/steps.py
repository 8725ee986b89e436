"""What layers do with steps and entries under a mask."""

from keras.src import backend
from keras.src import tree
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking.layers.scopes import current_scope


def step_mask(mask, ndim=2):
    """The mask over batch and time: a step counts if any entry of it does.

    Args:
        mask: Mask of a sequence, or a list of which the first is taken; of any
            dtype.
        ndim: Number of leading axes that make up a step.
    """
    mask = masks.as_bool(tree.flatten(mask)[0])
    inner = tuple(range(ndim, len(mask.shape)))
    return backend.numpy.any(mask, axis=inner) if inner else mask


def by_steps(sequences, mask, ndim=2):
    """A sequence, with 0 where it is masked, and its step mask.

    Args:
        sequences: Plain tensor of shape `(batch, time, ...)`, or None.
        mask: As `step_mask` takes it, or None. One that covers fewer axes, or
            has axes of size 1, is broadcast.
        ndim: Number of leading axes that make up a step.
    """
    if sequences is None or mask is None:
        return sequences, None
    steps = step_mask(mask, ndim)
    whole = masks.as_bool(tree.flatten(mask)[0])
    sequences = masks.fill(sequences, whole, 0)
    return sequences, masks.over_axes(steps, sequences, ndim)


def on_values(function, x, *args, **kwargs):
    """A function that treats each entry by itself, run under the mask."""
    if not isinstance(x, MaskedTensorBase):
        return function(x, *args, **kwargs)
    return masks.wrap(function(x.values, *args, **kwargs), x.mask)


def with_mask(outputs, mask):
    """The first of the outputs with this mask; the others as they are.

    Inside the `call` of an old layer, which may call that of its base, all are
    plain: its `compute_mask` is asked.
    """
    if mask is None or current_scope() is not None:
        return outputs
    if isinstance(outputs, (tuple, list)):
        first, *rest = outputs
        return type(outputs)([with_mask(first, mask), *rest])
    return masks.wrap(outputs, mask)
