"""A causal window is anchored at its last step, so steps keep their masks."""

from keras.src import ops
from keras.src.masking import masks
from patchset.markers import keeps


class Conv1D:
    @keeps("_plain_call")
    def call(self, inputs):
        if self.padding != "causal" or not ops.is_masked(inputs):
            return self._plain_call(inputs)
        mask = inputs.mask
        outputs = self._plain_call(masks.fill(inputs.values, inputs.mask, 0))
        channels_first = self.data_format == "channels_first"
        if len(mask.shape) > 2:
            mask = ops.any(mask, axis=1 if channels_first else 2)
        if len(mask.shape) > 1:
            mask = mask[:, :: self.strides[0]]
        if channels_first and len(mask.shape) > 1:
            mask = ops.broadcast_to(
                ops.expand_dims(mask, 1), ops.shape(outputs)
            )
        return masks.wrap(outputs, mask)
