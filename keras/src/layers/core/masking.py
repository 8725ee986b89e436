"""`Masking` makes a masked tensor, and masks what is NaN if asked to."""

from keras.src import backend
from keras.src import ops
from keras.src.masking import masks
from keras.src.masking.layers import scopes
from keras.src.ops import specs
from patchset.markers import keeps
from patchset.markers import new


class Masking:
    @keeps("_upstream_compute_mask")
    def compute_mask(self, inputs, mask=None):
        differs = ops.not_equal(inputs, self.mask_value)
        # NaN differs from itself, and is a mask value like any other.
        are_numbers = ops.logical_or(
            ops.equal(inputs, inputs),
            ops.equal(self.mask_value, self.mask_value),
        )
        return ops.any(ops.logical_and(differs, are_numbers), axis=-1)

    def call(self, inputs):
        valid = Masking.compute_mask(self, inputs)
        if not ops.is_masked(inputs):
            outputs = backend.MaskedTensor(inputs, valid)
            # A subclass of the old kind may look for the mask on the tensor.
            scope = scopes.current_scope()
            return scope.hang(outputs) if scope else outputs
        # What was masked before stays so.
        values, valid = inputs.values, ops.filled(valid, False)
        outputs = backend.MaskedTensor(values, valid)
        if len(inputs.mask.shape) < len(values.shape):
            return outputs
        return backend.MaskedTensor(values, masks.merge([outputs, inputs]))

    @new
    def compute_output_spec(self, inputs):
        spec = backend.KerasTensor(inputs.shape, self.compute_dtype)
        if scopes.current_scope():
            return spec
        mask = backend.KerasTensor(inputs.shape[:-1], "bool")
        return specs.masked_spec(spec, mask)
