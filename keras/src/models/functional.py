"""Functional models carry masked tensors from input to output, by type."""

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common import foreign
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.composite import in_files
from keras.src.composite.wholes import Whole
from keras.src.composite.wholes import as_wholes
from keras.src.masking import symbolic
from keras.src.masking.layers import passing
from keras.src.masking.layers import protocols
from keras.src.masking.training import data
from keras.src.ops import specs
from patchset.markers import keeps
from patchset.markers import new


class Functional:
    @new
    def __call__(self, *args, **kwargs):
        if args and foreign.is_known(type(args[0])):
            inputs = data.inputs_by_name(data.names_of(self), args[0])
            inputs = data.of_foreign(inputs)
            # A layer takes no nest of arrays and tensors.
            inputs = tree.map_structure(ops.convert_to_tensor, inputs)
            args = (inputs, *args[1:])
        return super().__call__(*args, **kwargs)

    @new
    def _choose_protocol(self):
        if type(self).call is Functional.call:
            return protocols.by_type
        return protocols.choose(self)

    @new
    def _call_spec(self, *args, **kwargs):
        if any_composite(args) and not self._takes_composites():
            return backend.compute_output_spec(self.call, *args, **kwargs)
        return self.compute_output_spec(*args, **kwargs)

    @new
    def _takes_composites(self):
        return any_composite((self._inputs_struct,))

    @new
    def _as_specified(self, x):
        # There is a spec for each part of a composite input.
        return x if self._takes_composites() else super()._as_specified(x)

    @keeps("_assert_specified")
    def _assert_input_compatibility(self, inputs):
        # Specs are of parts: of another type, they would miss some.
        self._assert_specified(self._as_declared(inputs))

    @keeps("_standardize_nests")
    def _standardize_inputs(self, inputs):
        return self._standardize_nests(self._as_declared(inputs))

    @new
    def _as_declared(self, inputs):
        """Inputs in the structure of the model's, if types are in that."""
        if not self._takes_composites():
            return inputs
        declared, names = self._inputs_struct, [x.name for x in self._inputs]
        by_name = isinstance(inputs, dict) and inputs.keys() >= set(names)
        if by_name and not isinstance(declared, dict):
            flat = [inputs[name] for name in names]
            inputs = tree.pack_sequence_as(declared, flat)
        # Upstream takes what has the same names for the same.
        self._maybe_warn_inputs_struct_mismatch(inputs)
        return inputs

    @keeps("_warn_or_raise_for_nests")
    def _maybe_warn_inputs_struct_mismatch(self, inputs, raise_exception=False):
        # Types and their static fields say what the parts mean.
        raise_exception = raise_exception or any_leaf(
            CompositeBase, (inputs, self._inputs_struct)
        )
        self._warn_or_raise_for_nests(inputs, raise_exception)

    @keeps("_plain_call")
    def call(self, inputs, training=None, mask=None, **kwargs):
        if any_composite((inputs,)) and not self._takes_composites():
            # Its layers ask for the rules of the type.
            inputs = as_wholes(inputs)
        inputs = passing.masked_inputs(inputs, mask)
        return self._plain_call(inputs, training=training, **kwargs)

    @keeps("_plain_convert_inputs")
    def _convert_inputs_to_tensors(self, flat_inputs):
        if any(isinstance(x, Whole) for x in flat_inputs):
            return flat_inputs
        converted = self._plain_convert_inputs(flat_inputs)
        return [
            specs.like_input(x, ref) for x, ref in zip(converted, self._inputs)
        ]

    @keeps("_adjust_plain_rank")
    def _adjust_input_rank(self, flat_inputs):
        if any(isinstance(x, Whole) for x in flat_inputs):
            return flat_inputs
        values = [
            x.values
            if isinstance(x, MaskedTensorBase)
            # A packed one of the right rank is not to be padded for that.
            and not (x.is_packed and len(x.shape) == len(one.shape))
            else x
            for x, one in zip(flat_inputs, self._inputs)
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
def functional_from_config(cls, config, *args, **kwargs):
    keys = "input_layers", "output_layers"
    structures = [in_files.written(config[key]) for key in keys]
    config |= zip(keys, map(in_files.as_nest, structures))

    def make(inputs, outputs, **kwargs):
        inputs, outputs = map(in_files.restored, structures, (inputs, outputs))
        return cls(inputs=inputs, outputs=outputs, **kwargs)

    return _functional_of_nests(make, config, *args, **kwargs)


@keeps("_clone_plain_keras_tensor")
def clone_single_keras_tensor(x):
    return symbolic.with_mask_of(_clone_plain_keras_tensor(x), x)
