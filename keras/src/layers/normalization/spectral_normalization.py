"""A step without a valid entry normalizes nothing: no weight was used."""

from keras.src import ops
from keras.src.masking.layers import states
from patchset.markers import keeps


class SpectralNormalization:
    @keeps("_plain_call")
    def call(self, inputs, training=False):
        if not ops.is_masked(inputs):
            return self._plain_call(inputs, training=training)
        normalized = [self.vector_u, self.kernel] if training else ()
        with states.kept_without(inputs.mask, normalized):
            return self._plain_call(inputs, training=training)
