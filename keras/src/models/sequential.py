"""Sequential models carry masked tensors from layer to layer, by type."""

from keras.src import backend
from keras.src.backend.common.composite import any_composite
from keras.src.masking.layers import passing
from keras.src.masking.layers import protocols
from patchset.markers import new


class Sequential:
    @new
    def _choose_protocol(self):
        if type(self).call is Sequential.call:
            return protocols.by_type
        return protocols.choose(self)

    @new
    def _call_spec(self, *args, **kwargs):
        if any_composite(args):
            # Tracing builds the layers.
            return backend.compute_output_spec(self.call, *args, **kwargs)
        return self.compute_output_spec(*args, **kwargs)

    def call(self, inputs, training=None, mask=None, **kwargs):
        inputs = passing.masked_inputs(inputs, mask)
        if self._functional:
            return self._functional.call(inputs, training=training, **kwargs)
        # No graph: typically since the input is a nest of tensors.
        for layer in self.layers:
            inputs = layer(inputs, **_arguments_for(layer, training, kwargs))
        return inputs

    def compute_output_spec(self, inputs, training=None, mask=None, **kwargs):
        if self._functional:
            return self._functional.compute_output_spec(
                inputs, training=training, **kwargs
            )
        for layer in self.layers:
            inputs = layer._call_spec(
                inputs, **_arguments_for(layer, training, kwargs)
            )
        return inputs


@new
def _arguments_for(layer, training, context):
    """The arguments among these that a layer's `call` takes."""
    known = getattr(layer, "_call_has_context_arg", {})
    arguments = {k: v for k, v in context.items() if k in known}
    if layer._call_has_training_arg and training is not None:
        arguments["training"] = training
    return arguments
