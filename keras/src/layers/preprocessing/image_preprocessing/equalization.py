"""The histogram is over the valid pixels, of which there may be none."""

from keras.src import ops
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from patchset.markers import keeps


class Equalization:
    @keeps("_histogram_of_any")
    def _custom_histogram_fixed_width(self, values, *args, **kwargs):
        counts = self._histogram_of_any(values, *args, **kwargs)
        if not isinstance(values, MaskedTensorBase):
            return counts
        # A first bin that is not empty is looked for.
        nothing = ops.equal(ops.sum(counts), 0)
        return counts + ops.cast(nothing, counts.dtype)
