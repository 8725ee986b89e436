"""`Embedding` makes masked tensors, and passes on the mask of its ids."""

from keras.src import ops
from keras.src.masking import masks
from keras.src.masking import packing
from keras.src.masking.layers import scopes
from keras.src.ops import specs
from patchset.markers import keeps
from patchset.markers import new
from patchset.markers import when


class Embedding:
    @keeps("_look_up")
    def call(self, inputs):
        return self._masked_by_ids(self._look_up(inputs), inputs)

    @when("<3.16")
    @keeps("_look_up_int8")
    def _int8_call(self, inputs, *args, **kwargs):
        outputs = self._look_up_int8(inputs, *args, **kwargs)
        return self._masked_by_ids(outputs, inputs)

    @when("<3.16")
    @keeps("_look_up_int4")
    def _int4_call(self, inputs, *args, **kwargs):
        outputs = self._look_up_int4(inputs, *args, **kwargs)
        return self._masked_by_ids(outputs, inputs)

    @new
    def _masked_by_ids(self, outputs, ids):
        """The embeddings, masked where an id is 0 if that is padding.

        Of a subclass of the old kind `compute_mask` is asked.
        """
        if not self.mask_zero or scopes.current_scope():
            return outputs
        valid = ops.not_equal(ids, 0)
        if not ops.is_masked(valid):
            return masks.wrap(outputs, valid)
        are_packed = packing.is_packed(outputs) and packing.is_packed(valid)
        # What says of single entries which are there is no mask of steps.
        if are_packed and len(valid.shape) == 2:
            return packing.with_steps(outputs, valid.flat)
        own = masks.expand(valid.mask, len(valid.shape))
        valid = ops.logical_and(valid.values, own)
        return masks.wrap(outputs.values, valid)

    @keeps("_plain_compute_output_spec")
    def compute_output_spec(self, inputs):
        spec = self._plain_compute_output_spec(inputs)
        if not self.mask_zero or scopes.current_scope():
            return spec
        return specs.masked_spec(spec, inputs)
