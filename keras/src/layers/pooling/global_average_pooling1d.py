"""The mean over valid steps, 0 where there is none, by type or explicitly."""

from keras.src import backend
from keras.src.masking.dispatch import values_of
from pip_build import keeps


class GlobalAveragePooling1D:
    @keeps("_plain_call")
    def call(self, inputs, mask=None):
        if mask is None or mask is ops.get_mask(inputs):
            return self._plain_call(inputs)
        channels = 2 if self.data_format == "channels_last" else 1
        mask = ops.expand_dims(ops.cast(mask, "bool"), channels)
        mask = ops.broadcast_to(mask, ops.shape(inputs))
        masked = backend.MaskedTensor(values_of(inputs), mask)
        return values_of(self._plain_call(masked))
