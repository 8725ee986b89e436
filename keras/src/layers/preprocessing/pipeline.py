"""A pipeline hands masked tensors from layer to layer, by type."""

from keras.src.masking.layers import passing
from keras.src.masking.layers import protocols
from patchset.markers import keeps
from patchset.markers import new


class Pipeline:
    @new
    def _choose_protocol(self):
        if type(self).call is Pipeline.call:
            return protocols.by_type
        return protocols.choose(self)

    @keeps("_plain_call")
    def call(self, inputs, training=True, mask=None):
        inputs = passing.masked_inputs(inputs, mask)
        return self._plain_call(inputs, training=training)
