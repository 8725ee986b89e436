"""Operations that move pixels: the mask makes the same motion."""

import typing

from keras.src import backend
from keras.src.backend.common.kinds import AnyTensor
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import Rule
from keras.src.masking.coverage import covers
from keras.src.masking.rules.layout import full_rank
from keras.src.masking.rules.merge import only_operand
from keras.src.masking.rules.window import row_ends
from keras.src.masking.rules.window import within


def motion(core: int | typing.Callable) -> Rule:
    """Ops that move the entries of each example of a batch.

    A mask over the batch axes stays. Any other is moved by the op itself, over
    all axes. Entries that the op adds are masked then.

    Args:
        core: Number of the axes of an example, or function of the call that
            gives it.
    """

    def keeps_mask(call):
        x = only_operand(call)
        axes = core(call) if callable(core) else core
        return masks.covered(x) <= len(x.shape) - axes

    def coverage(call, spec):
        is_kept = keeps_mask(call)
        return masks.covered(call.args[0]) if is_kept else len(spec.shape)

    @covers(coverage)
    def rule(call):
        x = only_operand(call)
        if keeps_mask(call):
            return masks.wrap(call.compute(), x.mask)
        # A backend may move them by a convolution, which sums.
        values = call.compute(masks.filled(x))
        return masks.wrap(values, _moved(call, full_rank(x)))

    rule.__name__ = "motion"
    rule.__doc__ = "The mask moves as the entries do; one of batch axes stays."
    return rule


def _moved(call, mask):
    # Not all engines pad booleans, or convolve integers.
    moved = call.compute(backend.cast(mask, "float32"))
    return backend.numpy.greater(moved, 0)


def reframed(call: Call) -> AnyTensor:
    """The mask is cropped or padded too; pixels that are added are masked.

    It stays one that is the same for all channels.
    """
    x = only_operand(call)
    ndim, covered = len(x.shape), len(x.mask.shape)
    data_format = backend.standardize_data_format(call.argument("data_format"))
    if data_format == "channels_first" or not ndim - 3 < covered < ndim:
        return motion(3)(call)
    mask = masks.to_rank(x.mask, x.values, ndim - 1)
    mask = _moved(call, masks.expand(mask, ndim))
    return masks.wrap(call.compute(), backend.numpy.squeeze(mask, axis=-1))


@covers(motion(3).coverage)
def unfold(call: Call) -> AnyTensor:
    """The mask moves as the entries do; a patch must lie within the image.

    An image reaches from its first valid pixel to its last, with the padding.
    """
    x = only_operand(call)
    result = motion(3)(call)
    if len(x.mask.shape) == 1:
        return result
    size, dilation, padding, stride = (
        _pair(call.argument(name))
        for name in ("kernel_size", "dilation", "padding", "stride")
    )
    # The padding on either side is part of the image.
    extents = [
        (k - 1) * d + 1 - 2 * p for k, d, p in zip(size, dilation, padding)
    ]
    counts = [
        (n - extent) // s + 1
        for n, extent, s in zip(backend.shape(x.values)[2:], extents, stride)
    ]
    whole = _whole(full_rank(x), 1, (2, 3), counts, stride, extents)
    shape = (backend.shape(whole)[0], 1, counts[0] * counts[1])
    whole = backend.numpy.reshape(whole, shape)
    return masks.settled(result.values, result.mask & whole)


@covers(lambda call, spec: motion(patch_axes).coverage(call, spec))
def patches(call: Call) -> AnyTensor:
    """The mask moves as the entries do; a patch must lie within the image.

    The latter with `padding="valid"`: an image reaches from its first valid
    pixel to its last.
    """
    x, axes = only_operand(call), patch_axes(call)
    result = motion(axes)(call)
    ndim = len(x.shape)
    is_batch = len(x.mask.shape) <= ndim - axes
    if is_batch or call.argument("padding").lower() != "valid":
        return result
    data_format = backend.standardize_data_format(call.argument("data_format"))
    last = data_format == "channels_last"
    channel = ndim - 1 if last else ndim - axes
    spatial = range(ndim - axes + (not last), ndim - last)
    size, dilation, strides = (
        [n] * (axes - 1) if isinstance(n, int) else list(n)
        for n in (
            call.argument("size"),
            call.argument("dilation_rate"),
            call.argument("strides") or call.argument("size"),
        )
    )
    extents = [(k - 1) * d + 1 for k, d in zip(size, dilation)]
    counts = [backend.shape(result.values)[axis] for axis in spatial]
    whole = _whole(full_rank(x), channel, spatial, counts, strides, extents)
    return masks.settled(result.values, result.mask & whole)


def _pair(n):
    return (n, n) if isinstance(n, int) else tuple(n)


def _whole(mask, channel, spatial, counts, strides, extents):
    """Whether each patch lies within its image, whatever the channel.

    Args:
        mask: The mask over all axes.
        channel: The axis of the channels.
        spatial: The spatial axes, and for each of them
        counts: the number of patches,
        strides: how far apart they are,
        extents: and how many pixels they reach over.
    """
    mask = backend.numpy.any(mask, axis=channel, keepdims=True)
    found = True
    for axis, count, stride, extent in zip(spatial, counts, strides, extents):
        start = backend.numpy.arange(0, count, dtype="int32") * stride
        row = row_ends(mask, axis, spatial)
        found = found & within(row, start, extent, axis, len(mask.shape))
    return found


def patch_axes(call: Call) -> int:
    """An image or a volume, as the patches are."""
    size = call.argument("size")
    return 3 if isinstance(size, int) else len(size) + 1


def _folded(call, spec):
    covered = masks.covered(only_operand(call))
    return covered if covered == 1 else len(spec.shape)


@covers(_folded)
def fold(call: Call) -> AnyTensor:
    """Masked entries add 0; valid where a valid entry was added."""
    x = only_operand(call)
    values = call.compute(masks.filled(x))
    if len(x.mask.shape) == 1:
        return masks.wrap(values, x.mask)
    return masks.wrap(values, _moved(call, full_rank(x)))
