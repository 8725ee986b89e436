"""Functional models carry masked tensors from input to output, by type."""

from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.composite import in_files
from keras.src.masking import symbolic
from keras.src.masking.layers import passing
from keras.src.masking.layers import protocols
from patchset.markers import keeps
from patchset.markers import new


class Functional:
    @new
    def _choose_protocol(self):
        if type(self).call is Functional.call:
            return protocols.by_type
        return protocols.choose(self)

    @new
    def _call_spec(self, *args, **kwargs):
        return self.compute_output_spec(*args, **kwargs)

    @new
    def _as_specified(self, x):
        # There is a spec for each part of a composite input.
        return x

    @keeps("_plain_call")
    def call(self, inputs, training=None, mask=None, **kwargs):
        inputs = passing.join(inputs, mask)
        return self._plain_call(inputs, training=training, **kwargs)

    @keeps("_plain_convert_inputs")
    def _convert_inputs_to_tensors(self, flat_inputs):
        converted = self._plain_convert_inputs(flat_inputs)
        return [
            symbolic.like_input(x, ref)
            for x, ref in zip(converted, self._inputs)
        ]

    @keeps("_adjust_plain_rank")
    def _adjust_input_rank(self, flat_inputs):
        values = [
            x.values if isinstance(x, MaskedTensorBase) else x
            for x in flat_inputs
        ]
        adjusted = self._adjust_plain_rank(values)
        return [
            _with_rank_of(x, y) if isinstance(x, MaskedTensorBase) else y
            for x, y in zip(flat_inputs, adjusted)
        ]


@new
def _with_rank_of(x, adjusted):
    """A masked tensor with a last axis of size 1 added or dropped."""
    if len(x.shape) == len(adjusted.shape):
        return x
    return ops.reshape(x, ops.shape(adjusted))


@keeps("_functional_of_nests")
def functional_from_config(cls, config, custom_objects=None):
    keys = "input_layers", "output_layers"
    structures = [in_files.written(config[key]) for key in keys]
    config |= zip(keys, map(in_files.as_nest, structures))

    def make(inputs, outputs, **kwargs):
        inputs, outputs = map(in_files.restored, structures, (inputs, outputs))
        return cls(inputs=inputs, outputs=outputs, **kwargs)

    return _functional_of_nests(make, config, custom_objects)


@keeps("_clone_plain_keras_tensor")
def clone_single_keras_tensor(x):
    return symbolic.with_mask_of(_clone_plain_keras_tensor(x), x)
