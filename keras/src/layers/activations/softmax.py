"""A masked input takes part by its type; an explicit mask stays what it is."""

from keras.src import ops
from keras.src.masking.calls import values_of
from keras.src.masking.layers import explicit
from keras.src.masking.layers import passing
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
        if not told and ops.is_masked(inputs):
            return ops.softmax(inputs, axis=self.axis)
        if mask is not None:
            mask = explicit.aligned(mask, inputs.shape)
        outputs = self._plain_call(values_of(inputs), mask=mask)
        if not ops.is_masked(inputs):
            return outputs
        # An explicit mask beats the tensor's own. It is broadcast, and if it
        # is not one over leading axes the result is plain.
        return passing.masked_as_told(outputs, mask)
