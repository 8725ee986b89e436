"""`Masking` makes a masked tensor."""

from keras.src.masking import symbolic
from pip_build import new


class Masking:
    def call(self, inputs):
        valid = ops.any(ops.not_equal(inputs, self.mask_value), axis=-1)
        if not ops.is_masked(inputs):
            return backend.MaskedTensor(inputs, valid)
        # A step that was masked before stays so.
        return ops.where(
            ops.expand_dims(ops.filled(valid, False), -1), inputs, 0
        )

    @new
    def compute_output_spec(self, inputs):
        spec = backend.KerasTensor(inputs.shape, self.compute_dtype)
        mask = backend.KerasTensor(inputs.shape[:-1], "bool")
        return symbolic.masked_spec(spec, mask)
