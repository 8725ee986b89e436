"""A masked input takes part by its type, and an explicit mask with it."""

from keras.src import ops
from keras.src.masking.layers import explicit
from keras.src.masking.layers import protocols
from patchset.markers import keeps
from patchset.markers import new


class Softmax:
    @new
    def _choose_protocol(self):
        return protocols.by_type

    @keeps("_plain_call")
    def call(self, inputs, mask=None):
        told = mask is not None and mask is not ops.get_mask(inputs)
        if ops.is_masked(inputs):
            if told:
                inputs = explicit.narrowed(inputs, mask)
            return ops.softmax(inputs, axis=self.axis)
        if told:
            mask = explicit.aligned(mask, inputs.shape)
        return self._plain_call(inputs, mask=mask)
