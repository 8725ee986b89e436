"""Loaded by TensorFlow, an endpoint takes masked tensors; served, pairs."""

import tensorflow as tf
from keras.src import backend
from keras.src.backend.common.composite import has_mask
from keras.src.export.in_pairs import InPairs
from patchset.markers import new


class TFExportArchive:
    @new
    def _backend_init(self):
        self._in_pairs = {}

    @new
    def track_and_add_endpoint(self, name, resource, input_signature, **kwargs):
        served = super().track_and_add_endpoint(
            name, resource, input_signature, **kwargs
        )
        # A program that loads the model does not know types of one's own.
        if isinstance(resource, InPairs) and not resource.takes_composites:
            self._in_pairs[name] = served
            setattr(self._tf_trackable, name, _on_masked(resource))
        return served

    @new
    def _get_concrete_fn(self, endpoint):
        if endpoint in self._in_pairs:
            return self._in_pairs[endpoint]
        return super()._get_concrete_fn(endpoint)


@new
def _on_masked(around):
    """The function of the model itself, with masked tensors in its signature.

    A program that does not know the type can load it, and not call it.
    """
    signature = tf.nest.map_structure(_type_spec, around.of_model)
    return tf.function(
        around.model.__call__, input_signature=signature, autograph=False
    )


@new
def _type_spec(x):
    spec = tf.TensorSpec(x.shape, x.dtype, x.name)
    if not has_mask(x):
        return spec
    mask = tf.TensorSpec(x._mask_spec.shape, "bool", f"{x.name}_mask")
    return backend.MaskedTensor.Spec(spec, mask)
