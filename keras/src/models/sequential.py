"""Sequential models carry masked tensors from layer to layer, by type."""

from keras.src import backend
from keras.src import tree
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

    @new
    def _plain_maybe_build(self, call_spec):
        """No graph of plain tensors is made of composite ones.

        A layer may want to know what it is given, and what is exported does.
        """
        nest = call_spec.first_arg
        if any_composite((nest,)) and type(self).build is Sequential.build:
            self.build(tree.map_structure(_shape_of, nest))
        else:
            super()._plain_maybe_build(call_spec)

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
def _shape_of(x):
    return backend.standardize_shape(x.shape)


@new
def _arguments_for(layer, training, context):
    """The arguments among these that a layer's `call` takes."""
    known = getattr(layer, "_call_has_context_arg", {})
    arguments = {k: v for k, v in context.items() if k in known}
    if layer._call_has_training_arg and training is not None:
        arguments["training"] = training
    return arguments
