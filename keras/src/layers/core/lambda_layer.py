"""A function with a `mask` argument is given it; others get masked tensors."""

from keras.src.masking import protocols
from keras.src.masking import symbolic
from keras.src.masking.dispatch import values_of
from pip_build import keeps
from pip_build import new


class Lambda:
    @new
    def _choose_protocol(self):
        if self._fn_expects_mask_arg or self.mask is not None:
            return protocols.named
        return protocols.by_type

    @new
    def _call_spec(self, *args, **kwargs):
        if self.mask is None:
            return super()._call_spec(*args, **kwargs)
        return symbolic.output_spec(self, args, kwargs, fn=self._run_call)

    @keeps("_plain_call")
    def call(self, inputs, mask=None, training=None):
        outputs = self._plain_call(inputs, mask=mask, training=training)
        if self.mask is None:
            return outputs
        mask = self.compute_mask(inputs, mask)
        return protocols.masked_at_the_door(values_of(outputs), mask)
