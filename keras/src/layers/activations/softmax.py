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
            # An explicit mask beats the tensor's own, and need not be one over
            # leading axes: it is broadcast, and the result is plain.
            return self._plain_call(inputs.values, mask=mask)
        return ops.softmax(inputs, axis=self.axis)
