"""Windows that slide over axes: masked entries are padding.

An entry of the result is valid where its window's anchor is: the entry in the
middle of the window, the earlier one of two. With `padding="valid"` the window
must also lie within its row, which reaches from the first valid entry to the
last: so a row that is padded has the windows that it has alone, and holes in a
row cost none.
"""

import typing

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Tensor
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.coverage import covers
from keras.src.masking.refusals import users_frame
from keras.src.masking.refusals import warn_once
from keras.src.masking.rules.reduce import bound


class Window:
    """A window over the spatial axes of the first operand.

    Attributes:
        x: The masked operand, a batch of signals.
        size: Size of the window along each spatial axis.
        spatial: The spatial axes.
    """

    def __init__(self, call: Call, size: typing.Any):
        self.call = call
        self.x = call.args[0]
        if not has_mask(self.x) or any(map(has_mask, call.operands()[1:])):
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
        if len(self.size) != rank:
            raise call.refuse(
                f"The window goes over {len(self.size)} of the {rank} axes "
                "between its batch and its channels. `keras.ops.reshape` makes "
                "one axis of several batches."
            )
        dilation = _per_axis(call.argument("dilation_rate", 1), rank)
        self.extent = [(k - 1) * d + 1 for k, d in zip(self.size, dilation)]
        strides = call.argument("strides")
        self.strides = _per_axis(size if strides is None else strides, rank)
        self.padding = call.argument("padding", "valid").lower()

    def out_mask(self, values: Tensor) -> Mask:
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

    def anchors(self, mask: Mask, values: Tensor) -> Mask:
        """The mask at the anchor of each window."""
        found = mask
        for axis, extent, stride in zip(
            self.spatial, self.extent, self.strides
        ):
            if axis < len(mask.shape):
                row = row_ends(mask, axis, self.spatial)
                found = self._anchors(found, row, values, axis, extent, stride)
        return found

    def _anchors(self, mask, row, values, axis, extent, stride):
        """The mask at the anchor of each window along one axis.

        Args:
            mask: The mask, of the anchors along the axes before.
            row: The ends of each row.
            values: The result.
            axis: The axis.
            extent: How many entries a window reaches over.
            stride: How far apart windows are.
        """
        if self.padding == "same" and stride == 1:
            return mask
        start = self._places(values, axis) * stride
        if self.padding == "same":
            self._warn_of_grid(extent, stride)
            length = backend.shape(self.x.values)[axis]
            count = backend.shape(values)[axis]
            spare = (count - 1) * stride + extent - length
            before = backend.numpy.maximum(spare, 0) // 2
            start = start - backend.cast(before, "int32")
        anchor = start + (extent - 1) // 2
        mask = backend.numpy.take(mask, anchor, axis=axis)
        if self.padding == "same":
            return mask
        return mask & within(row, start, extent, axis, len(mask.shape))

    def _warn_of_grid(self, extent, stride):
        """Says it once, if where windows start depends on the length."""
        if (extent - 1) // 2 == max(extent - stride, 0) // 2:
            return
        name = self.call.row.name
        warn_once(
            (name, extent, stride),
            users_frame(past_rules=True),
            f'`{name}` with `padding="same"` and strides of {stride} puts its '
            f"windows of {extent} entries where the length of the tensor "
            "says, which counts masked entries: what becomes of a row depends "
            'on how far it is padded. Write `padding="valid"`, or pad all '
            f"batches to multiples of {stride}.",
            UserWarning,
        )

    def _places(self, values, axis):
        """The places of the result along an axis."""
        count = backend.shape(values)[axis]
        return backend.numpy.arange(0, count, dtype="int32")


def row_ends(
    mask: Mask, axis: int, spatial: typing.Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The first and the last valid entry of each row, along an axis.

    A mask of several spatial axes is that of a box.

    Args:
        mask: The mask.
        axis: The axis.
        spatial: All spatial axes, those too that the mask does not cover.

    Returns:
        Integers with axes of size 1 for the spatial ones: the length and -1
        where nothing is valid.
    """
    others = [a for a in spatial if a != axis and a < len(mask.shape)]
    if others:
        mask = backend.numpy.any(mask, axis=tuple(others), keepdims=True)

    def masked_before(mask):
        seen = backend.numpy.cumsum(backend.cast(mask, "int32"), axis=axis)
        unseen = backend.cast(backend.numpy.equal(seen, 0), "int32")
        return backend.numpy.sum(unseen, axis=axis, keepdims=True)

    after = masked_before(backend.numpy.flip(mask, axis=axis))
    return masked_before(mask), backend.shape(mask)[axis] - 1 - after


def within(
    row: tuple[Tensor, Tensor],
    start: Tensor,
    extent: typing.Any,
    axis: int,
    ndim: int,
) -> Mask:
    """Whether each window lies within its row.

    Args:
        row: What `row_ends` gives.
        start: The first entry of each window along the axis.
        extent: How many entries a window reaches over.
        axis: The axis.
        ndim: Rank of the mask.
    """
    first, last = row
    others = tuple(a for a in range(ndim) if a != axis)
    start = backend.numpy.expand_dims(start, others)
    return backend.numpy.logical_and(
        backend.numpy.greater_equal(start, first),
        backend.numpy.less_equal(start + extent - 1, last),
    )


def _per_axis(value, rank):
    if value is None or isinstance(value, int):
        return [value] * rank
    return list(value)


def _mixed(call, spec):
    """The mask ends before the channels, or goes over all that come first."""
    window = Window(call, 1)
    covered = masks.covered(window.x)
    return min(covered, window.channel) if window.channels_last else covered


@covers(_mixed)
def conv(call: Call) -> AnyTensor:
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
    """Windows of about the same size, as many in each row as are asked for.

    They go over the row, however far it is padded.
    """

    def __init__(self, call: Call):
        super().__init__(call, 1)
        self.count = _per_axis(call.argument("output_size"), len(self.spatial))

    def reduced(self, function: typing.Callable) -> AnyTensor:
        """A reduction of each window; valid where its anchor is."""
        values, mask = self.x.values, self.x.mask
        ndim = max(len(mask.shape), self.spatial[-1] + 1)
        mask = anchors = masks.to_rank(mask, values, ndim)
        shape = list(backend.shape(values))
        for axis, count in zip(self.spatial, self.count):
            size = -(-shape[axis] // count) + 1
            place, inside, middle = self._windows(axis, count, size)
            values = _taken(values, place, axis)
            mask = _taken(mask, place, axis)
            mask = backend.numpy.logical_and(mask, masks.expand(inside, ndim))
            anchors = _taken(anchors, middle, axis)
            shape[axis] = (count, size)
        shape = [m for n in shape for m in (n if type(n) is tuple else (n,))]
        first, count = self.spatial[0], len(self.spatial)
        after = first + 2 * count

        def with_entries_last(x, ndim):
            """The axes of windows, then those within: few axes to broadcast."""
            order = [*range(first), *range(first, after, 2)]
            order += [*range(first + 1, after, 2), *range(after, ndim)]
            x = backend.numpy.reshape(x, shape[:ndim])
            return backend.numpy.transpose(x, order)

        windows = masks.wrap(
            with_entries_last(values, len(shape)),
            with_entries_last(mask, ndim + count),
        )
        over = tuple(range(first + count, after))
        values = function(windows, axis=over).values
        return masks.wrap(masks.fill(values, anchors, 0), anchors)

    def _windows(self, axis, count, size):
        """The entries that each window of each row sees along an axis.

        Args:
            axis: The axis.
            count: Number of windows.
            size: How many entries the largest one could have.

        Returns:
            The places of the entries, window after window; whether each is in
            the window; and the place in the middle of each.
        """
        mask, length = self.x.mask, backend.shape(self.x.values)[axis]
        first, own = 0, length
        if axis < len(mask.shape):
            first, last = row_ends(mask, axis, self.spatial)
            own = backend.numpy.maximum(last - first + 1, 0)
        ndim = max(len(mask.shape), axis + 1)

        def along(index):
            others = tuple(a for a in range(ndim) if a != axis)
            return backend.numpy.expand_dims(index, others)

        def ends(index):
            stop = ((index + 1) * own + count - 1) // count
            return first + index * own // count, first + stop

        def in_signal(place):
            return backend.numpy.minimum(place, length - 1)

        index = along(backend.numpy.arange(count * size, dtype="int32"))
        start, stop = ends(index // size)
        place = start + index % size
        inside = backend.numpy.less(place, stop)
        start, stop = ends(along(backend.numpy.arange(count, dtype="int32")))
        # Where nothing is valid a window has no entry, and lies at the end.
        return in_signal(place), inside, in_signal((start + stop - 1) // 2)


def _taken(x, index, axis):
    """Entries along an axis, by an index that may lack axes at its end."""
    index = masks.expand(index, len(x.shape))
    return backend.numpy.take_along_axis(x, index, axis=axis)


class TransposedWindow(Window):
    """Windows of a transposed convolution: each step is spread over one.

    Its anchor is a block of as many entries as the stride, in the middle. What
    lies in no block belongs to the nearest of the row. A row reaches as far as
    if it was alone.
    """

    def __init__(self, call: Call, size: typing.Any):
        super().__init__(call, size)
        shift = call.argument("output_padding")
        self.output_padding = _per_axis(shift, len(self.spatial))

    def _anchors(self, mask, row, values, axis, extent, stride):
        offset = max(extent - stride, 0) // 2
        if self.padding == "same":
            extra = self.output_padding[axis - self.spatial[0]]
            extra = stride - extent % 2 if extra is None else extra
            offset -= max(extent - extent % 2 - extra, 0) // 2
        first, last = row
        others = tuple(a for a in range(len(mask.shape)) if a != axis)
        place = self._places(values, axis)
        place = backend.numpy.expand_dims(place, others)
        block = backend.numpy.maximum((place - offset) // stride, first)
        # Where nothing is valid the last one is -1.
        block = backend.numpy.maximum(backend.numpy.minimum(block, last), 0)
        mask = _taken(mask, block, axis)
        length = backend.shape(self.x.values)[axis]
        own_end = backend.shape(values)[axis] - (length - 1 - last) * stride
        return (
            mask
            & backend.numpy.greater_equal(place, first * stride)
            & backend.numpy.less(place, own_end)
        )


@covers(_mixed)
def conv_transpose(call: Call) -> AnyTensor:
    """Masked entries count as 0; a row reaches as far as if it was alone."""
    kernel = call.argument("kernel")
    window = TransposedWindow(call, [int(n) for n in kernel.shape[:-2]])
    if call.argument("strides") is None:
        window.strides = [1] * len(window.size)
    values = call.compute(masks.fill(window.x.values, window.x.mask, 0))
    return masks.wrap(values, window.out_mask(values))


def _pooled(call, spec):
    return masks.covered(Window(call, 1).x)


@covers(_pooled)
def max_pool(call: Call) -> AnyTensor:
    """The largest valid entry of a window; valid where its anchor is."""
    return _max(call, Window(call, call.argument("pool_size")))


@covers(_pooled)
def average_pool(call: Call) -> AnyTensor:
    """The mean of valid entries of a window; valid where its anchor is."""
    return _average(call, Window(call, call.argument("pool_size")))


@covers(_pooled)
def adaptive_max_pool(call: Call) -> AnyTensor:
    """The largest valid entry of each window, as many to a row."""
    return _adaptive(call, "max")


@covers(_pooled)
def adaptive_average_pool(call: Call) -> AnyTensor:
    """The mean of the valid entries of each window, as many to a row."""
    return _adaptive(call, "mean")


def _adaptive(call, name):
    window = AdaptiveWindow(call)
    if len(window.x.mask.shape) <= window.spatial[0]:
        return masks.wrap(call.compute(), window.x.mask)
    return window.reduced(getattr(ops, name))


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
    values = backend.numpy.divide(call.compute(masks.filled(x)), share)
    mask = window.anchors(x.mask, values)
    return masks.wrap(masks.fill(values, mask, 0), mask)
