"""A masked input takes part by its type; an explicit mask stays what it is."""

from keras.src import ops
from keras.src.masking import protocols
from pip_build import keeps
from pip_build import new


class Softmax:
    @new
    def _choose_protocol(self):
        return protocols.by_type

    @keeps("_plain_call")
    def call(self, inputs, mask=None):
        if not ops.is_masked(inputs):
            return self._plain_call(inputs, mask=mask)
        if mask is not None and mask is not inputs.mask:
            # An explicit mask beats the tensor's own. It is broadcast, and if
            # it is not one over leading axes the result is plain.
            outputs = self._plain_call(inputs.values, mask=mask)
            return protocols.masked_as_told(outputs, mask)
        return ops.softmax(inputs, axis=self.axis)
