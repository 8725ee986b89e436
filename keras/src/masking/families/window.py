"""Windows that slide over axes: masked entries are padding.

An entry of the result is valid where its window's anchor is: the entry in the
middle of the window, the earlier one of two.
"""

from keras.src import backend
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking.families.reduce import bound


class Window:
    """A window over the spatial axes of the first operand.

    Attributes:
        x: The masked operand, a batch of signals.
        size: Size of the window along each spatial axis.
        spatial: The spatial axes.
    """

    def __init__(self, call, size):
        self.call = call
        self.x = call.args[0]
        if not isinstance(self.x, MaskedTensorBase) or any(
            isinstance(y, MaskedTensorBase) for y in call.operands()[1:]
        ):
            raise call.refuse("Only the signal may be masked, not the kernel.")
        rank = len(self.x.shape) - 2
        data_format = backend.standardize_data_format(
            call.argument("data_format")
        )
        self.channels_last = data_format == "channels_last"
        self.channel = rank + 1 if self.channels_last else 1
        start = 1 if self.channels_last else 2
        self.spatial = range(start, start + rank)
        self.size = _per_axis(size, rank)
        dilation = _per_axis(call.argument("dilation_rate", 1), rank)
        self.extent = [(k - 1) * d + 1 for k, d in zip(self.size, dilation)]
        strides = call.argument("strides")
        self.strides = _per_axis(size if strides is None else strides, rank)
        self.padding = call.argument("padding", "valid").lower()

    def out_mask(self, values):
        """The mask over the leading axes of a result that mixes channels."""
        mask = self.x.mask
        covered = len(mask.shape)
        if covered > self.channel:
            mask = backend.numpy.any(mask, axis=self.channel, keepdims=True)
        mask = self.anchors(mask, values)
        if not self.channels_last and covered > self.channel:
            return backend.numpy.broadcast_to(
                mask, backend.shape(values)[: len(mask.shape)]
            )
        if covered > self.channel:
            return backend.numpy.squeeze(mask, axis=self.channel)
        return mask

    def anchors(self, mask, values):
        """The mask at the anchor of each window."""
        for axis, extent, stride in zip(
            self.spatial, self.extent, self.strides
        ):
            if axis < len(mask.shape):
                mask = self._anchors(mask, values, axis, extent, stride)
        return mask

    def _anchors(self, mask, values, axis, extent, stride):
        """The mask at the anchor of each window along one axis."""
        if self.padding == "same" and stride == 1:
            return mask
        length = backend.shape(self.x.values)[axis]
        count = backend.shape(values)[axis]
        offset = (extent - 1) // 2
        if self.padding == "same":
            spare = (count - 1) * stride + extent - length
            offset -= backend.numpy.maximum(spare, 0) // 2
        index = backend.numpy.arange(0, count, dtype="int32") * stride
        index = index + backend.cast(offset, "int32")
        return backend.numpy.take(mask, index, axis=axis)


def _per_axis(value, rank):
    if value is None or isinstance(value, int):
        return [value] * rank
    return list(value)


def conv(call):
    """Masked entries count as 0; valid where the window's anchor is."""
    kernel = call.argument("kernel")
    if kernel is None:
        kernel = call.argument("depthwise_kernel")
    window = Window(call, [int(n) for n in kernel.shape[:-2]])
    if call.argument("strides") is None:
        window.strides = [1] * len(window.size)
    values = call.compute(masks.fill(window.x.values, window.x.mask, 0))
    return masks.wrap(values, window.out_mask(values))


class AdaptiveWindow(Window):
    """Windows of about the same size, as many as are asked for."""

    def __init__(self, call):
        super().__init__(call, 1)
        self.count = _per_axis(call.argument("output_size"), len(self.spatial))

    def anchors(self, mask, values):
        for axis, count in zip(self.spatial, self.count):
            if axis < len(mask.shape):
                length = backend.shape(self.x.values)[axis]
                index = backend.numpy.arange(count, dtype="int32")
                start = index * length // count
                stop = ((index + 1) * length + count - 1) // count
                middle = (start + stop - 1) // 2
                mask = backend.numpy.take(mask, middle, axis=axis)
        return mask


class TransposedWindow(Window):
    """Windows of a transposed convolution: each step is spread over one.

    Its anchor is a block of as many entries as the stride, in the middle. What
    lies in no block belongs to the nearest.
    """

    def __init__(self, call, size):
        super().__init__(call, size)
        shift = call.argument("output_padding")
        self.output_padding = _per_axis(shift, len(self.spatial))

    def _anchors(self, mask, values, axis, extent, stride):
        offset = max(extent - stride, 0) // 2
        if self.padding == "same":
            extra = self.output_padding[axis - self.spatial[0]]
            extra = stride - extent % 2 if extra is None else extra
            offset -= max(extent - extent % 2 - extra, 0) // 2
        length = backend.shape(self.x.values)[axis]
        index = backend.numpy.arange(
            0, backend.shape(values)[axis], dtype="int32"
        )
        index = backend.numpy.clip((index - offset) // stride, 0, length - 1)
        return backend.numpy.take(mask, index, axis=axis)


def conv_transpose(call):
    """Masked entries count as 0; valid where the window's anchor is."""
    kernel = call.argument("kernel")
    window = TransposedWindow(call, [int(n) for n in kernel.shape[:-2]])
    if call.argument("strides") is None:
        window.strides = [1] * len(window.size)
    values = call.compute(masks.fill(window.x.values, window.x.mask, 0))
    return masks.wrap(values, window.out_mask(values))


def max_pool(call):
    """The largest valid entry of a window; valid where its anchor is."""
    return _max(call, Window(call, call.argument("pool_size")))


def average_pool(call):
    """The mean of valid entries of a window; valid where its anchor is."""
    return _average(call, Window(call, call.argument("pool_size")))


def adaptive_max_pool(call):
    """The largest valid entry of a window; valid where its anchor is."""
    return _max(call, AdaptiveWindow(call))


def adaptive_average_pool(call):
    """The mean of valid entries of a window; valid where its anchor is."""
    return _average(call, AdaptiveWindow(call))


def _max(call, window):
    x = window.x
    lowest = bound(x.dtype, "lowest")
    values = call.compute(masks.fill(x.values, x.mask, lowest))
    mask = window.anchors(x.mask, values)
    return masks.wrap(masks.fill(values, mask, 0), mask)


def _average(call, window):
    x = window.x
    share = backend.cast(masks.to_rank(x.mask, x.values, len(x.shape)), x.dtype)
    share = call.compute(share)
    share = masks.fill(share, backend.numpy.greater(share, 0), 1)
    values = backend.numpy.divide(
        call.compute(masks.fill(x.values, x.mask, 0)), share
    )
    mask = window.anchors(x.mask, values)
    return masks.wrap(masks.fill(values, mask, 0), mask)
