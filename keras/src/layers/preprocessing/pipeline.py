"""A pipeline hands masked tensors from layer to layer, by type."""

from keras.src.masking.layers import passing
from keras.src.masking.layers import protocols
from patchset.markers import new


class Pipeline:
    @new
    def _choose_protocol(self):
        if type(self).call is Pipeline.call:
            return protocols.by_type
        return protocols.choose(self)

    def call(self, inputs, training=True, mask=None):
        outputs = passing.masked_inputs(inputs, mask)
        for layer in self._pipeline_layers:
            takes_training = layer._call_has_training_arg
            kwargs = {"training": training} if takes_training else {}
            outputs = layer(outputs, **kwargs)
        return outputs
