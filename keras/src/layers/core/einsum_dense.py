"""A quantized kernel takes masked tensors as one that is not does."""

from keras.src.masking.rules import contract
from patchset.markers import new


class EinsumDense:
    @new
    def quantized_call(self, inputs, **kwargs):
        return contract.quantized(
            super().quantized_call, self.equation, inputs, **kwargs
        )
