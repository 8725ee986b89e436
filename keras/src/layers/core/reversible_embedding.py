"""Both directions take masked tensors by type, as `Embedding` does."""

from keras.src.masking.layers import scopes
from keras.src.ops import specs
from patchset.markers import keeps


class ReversibleEmbedding:
    @keeps("_plain_call")
    def call(self, inputs, reverse=False):
        if not reverse:
            return super().call(inputs)
        return self._plain_call(inputs, reverse=True)

    @keeps("_plain_compute_output_spec")
    def compute_output_spec(self, inputs, reverse=False):
        spec = self._plain_compute_output_spec(inputs, reverse)
        if reverse or not self.mask_zero or scopes.current_scope():
            return spec
        return specs.masked_spec(spec, inputs)
