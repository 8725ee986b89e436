"""The moments come from valid entries: by type, or by an explicit mask.

A batch in which a feature has none leaves what was learned of it.
"""

from keras.src import ops
from keras.src.masking.layers import passing
from keras.src.masking.layers import protocols
from keras.src.masking.layers import states
from keras.src.masking.layers import steps
from patchset.markers import keeps
from patchset.markers import new


class BatchNormalization:
    @new
    def _choose_protocol(self):
        return protocols.by_type

    @keeps("_plain_call")
    def call(self, inputs, training=None, mask=None):
        if mask is not None and mask is not ops.get_mask(inputs):
            inputs = passing.masked_inputs(inputs, mask)
        if not ops.is_masked(inputs):
            return self._plain_call(inputs, training=training)
        learned = self._learned() if training and self.trainable else ()
        axes = self._reduction_axes
        with states.kept_without(inputs.mask, learned, axes):
            outputs = self._plain_call(inputs, training=training)
        return steps.again(outputs)

    @new
    def _learned(self):
        """The variables that a batch changes as it is normalized."""
        learned = [self.moving_mean, self.moving_variance]
        if self.renorm:
            learned.append(self.moving_stddev)
            learned += [self.renorm_mean, self.renorm_stddev]
        return learned

    @keeps("_plain_moments")
    def _moments(self, inputs, mask):
        if not ops.is_masked(inputs):
            return self._plain_moments(inputs, mask)
        mean, variance = ops.moments(
            inputs, axes=self._reduction_axes, synchronized=self.synchronized
        )
        return ops.filled(mean), ops.filled(variance)
