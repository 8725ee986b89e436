"""A function with a `mask` argument is given it; others get masked tensors.

A `Lambda` that says what becomes of the mask is an old layer by design.
"""

from keras.src.masking.layers import passing
from keras.src.masking.layers import protocols
from keras.src.saving import serialization_lib
from patchset.markers import keeps
from patchset.markers import new


class Lambda:
    @new
    def _choose_protocol(self):
        if self.mask is not None:
            return protocols.legacy
        return (
            protocols.named if self._fn_expects_mask_arg else protocols.by_type
        )

    @keeps("_plain_call")
    def call(self, inputs, mask=None, training=None):
        if self._mask_protocol is protocols.by_type:
            # The function does not ask for it.
            inputs = passing.masked_inputs(inputs, mask)
        return self._plain_call(inputs, mask=mask, training=training)

    @keeps("_plain_from_config")
    @classmethod
    def from_config(cls, config, custom_objects=None, safe_mode=None):
        """Rebuilds the layer; its `mask` too, which upstream leaves as data."""
        layer = cls._plain_from_config(config, custom_objects, safe_mode)
        mask = layer.mask
        if not isinstance(mask, dict):
            return layer
        if mask["class_name"] == "__lambda__":
            # As upstream treats a function, with its check of what is safe.
            layer.mask = cls._plain_from_config(
                {"function": mask}, custom_objects, safe_mode
            ).function
        else:
            layer.mask = serialization_lib.deserialize_keras_object(
                mask, custom_objects=custom_objects
            )
        return layer
