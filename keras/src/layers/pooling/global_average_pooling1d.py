"""The mean over valid steps, 0 where there is none, by type or explicitly."""

from keras.src import ops
from keras.src.masking.calls import values_of
from keras.src.masking.layers import explicit
from keras.src.masking.layers import passing
from patchset.markers import keeps


class GlobalAveragePooling1D:
    @keeps("_plain_call")
    def call(self, inputs, mask=None):
        if mask is None or mask is ops.get_mask(inputs):
            return self._plain_call(inputs)
        if self.data_format == "channels_first":
            batch, _, steps = inputs.shape
            if explicit.fits(mask.shape, (batch, steps)):
                mask = ops.expand_dims(mask, 1)
        return values_of(self._plain_call(passing.masked_inputs(inputs, mask)))
