"""Operations that move pixels: the mask makes the same motion."""

from keras.src import backend
from keras.src.masking import masks
from keras.src.masking.families.layout import full_rank
from keras.src.masking.families.merge import only_operand


def moved(core):
    """Ops that move the entries of each example of a batch.

    A mask over the batch axes stays. Any other is moved by the op itself, over
    all axes. Entries that the op adds are masked then.

    Args:
        core: Number of the axes of an example, or function of the call that
            gives it.
    """

    def rule(call):
        x = only_operand(call)
        axes = core(call) if callable(core) else core
        if len(x.mask.shape) <= len(x.shape) - axes:
            return masks.wrap(call.compute(), x.mask)
        # A backend may move them by a convolution, which sums.
        values = call.compute(masks.fill(x.values, x.mask, 0))
        return masks.wrap(values, _moved(call, full_rank(x)))

    rule.__name__ = "moved"
    rule.__doc__ = "The mask moves as the entries do; one of batch axes stays."
    return rule


def _moved(call, mask):
    # Not all engines pad booleans, or convolve integers.
    moved = call.compute(backend.cast(mask, "float32"))
    return backend.numpy.greater(moved, 0)


def reframed(call):
    """The mask is cropped or padded too; pixels that are added are masked.

    It stays one that is the same for all channels.
    """
    x = only_operand(call)
    ndim, covered = len(x.shape), len(x.mask.shape)
    data_format = backend.standardize_data_format(call.argument("data_format"))
    if data_format == "channels_first" or not ndim - 3 < covered < ndim:
        return moved(3)(call)
    mask = masks.to_rank(x.mask, x.values, ndim - 1)
    mask = _moved(call, masks.expand(mask, ndim))
    return masks.wrap(call.compute(), backend.numpy.squeeze(mask, axis=-1))


def patch_axes(call):
    """An image or a volume, as the patches are."""
    size = call.argument("size")
    return 3 if isinstance(size, int) else len(size) + 1


def fold(call):
    """Masked entries add 0; valid where a valid entry was added."""
    x = only_operand(call)
    values = call.compute(masks.fill(x.values, x.mask, 0))
    if len(x.mask.shape) == 1:
        return masks.wrap(values, x.mask)
    return masks.wrap(values, _moved(call, full_rank(x)))
