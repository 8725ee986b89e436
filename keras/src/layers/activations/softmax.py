"""A masked input takes part by its type, and an explicit mask with it."""

from keras.src import ops
from keras.src.backend.common.composite import CompositeBase
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
        if isinstance(inputs, CompositeBase):
            return self._by_rules(inputs, mask)
        told = mask is not None and mask is not ops.get_mask(inputs)
        if ops.is_masked(inputs):
            if told:
                inputs = explicit.narrowed(inputs, mask)
            return ops.softmax(inputs, axis=self.axis)
        if mask is not None:
            mask = explicit.aligned(mask, inputs.shape)
        return self._plain_call(inputs, mask=mask)

    @new
    def _by_rules(self, inputs, mask):
        """Of a composite tensor, by the rules of the functions on the way."""
        axis = self.axis
        if isinstance(axis, (list, tuple)):
            axis = tuple(axis) if len(axis) > 1 else axis[0]
        if mask is None:
            return ops.softmax(inputs, axis=axis)
        mask = ops.cast(mask, "bool")
        inputs = ops.where(mask, inputs, _large_negative_number(inputs.dtype))
        return ops.where(mask, ops.softmax(inputs, axis=axis), 0.0)
