"""The moments come from valid entries: by type, or by an explicit mask."""

from keras.src.masking import protocols
from pip_build import keeps
from pip_build import new


class BatchNormalization:
    @new
    def _choose_protocol(self):
        return protocols.by_type

    @keeps("_plain_call")
    def call(self, inputs, training=None, mask=None):
        if not ops.is_masked(inputs):
            return self._plain_call(inputs, training=training, mask=mask)
        if mask is None or mask is inputs.mask:
            return self._plain_call(inputs, training=training)
        outputs = self._plain_call(inputs.values, training=training, mask=mask)
        return protocols.masked_as_told(outputs, mask)

    @keeps("_plain_moments")
    def _moments(self, inputs, mask):
        if not ops.is_masked(inputs):
            return self._plain_moments(inputs, mask)
        mean, variance = ops.moments(
            inputs, axes=self._reduction_axes, synchronized=self.synchronized
        )
        return ops.filled(mean), ops.filled(variance)
