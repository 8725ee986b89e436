"""Masked tensors can be constants of a saved graph."""

from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from patchset.markers import keeps


@keeps("_record_object_after_serialization")
def record_object_after_serialization(obj, config):
    """Notes what is written, so that an object is read once.

    A composite tensor is a value, of which two copies are as good as one. It
    may be made to be written, and the next one has its identity.
    """
    if not isinstance(obj, CompositeBase):
        _record_object_after_serialization(obj, config)
    elif config["module"] == "__main__":
        config["module"] = None


@keeps("_serialize_plain_object")
@keras_export(
    [
        "keras.saving.serialize_keras_object",
        "keras.utils.serialize_keras_object",
    ]
)
def serialize_keras_object(obj):
    """Makes a Python dictionary of a Keras object, to rebuild it from.

    Args:
        obj: Layer, model, function, tensor, masked tensor or nest of these.

    Returns:
        A dictionary that `deserialize_keras_object()` takes.
    """
    if not isinstance(obj, MaskedTensorBase):
        return _serialize_plain_object(obj)
    return {
        "class_name": "__masked_tensor__",
        "config": {
            "values": _serialize_plain_object(obj.values),
            "mask": _serialize_plain_object(obj.mask),
        },
    }


@keeps("_deserialize_plain_object")
@keras_export(
    [
        "keras.saving.deserialize_keras_object",
        "keras.utils.deserialize_keras_object",
    ]
)
def deserialize_keras_object(config, *args, **kwargs):
    """Rebuilds the object that a dictionary describes.

    Args:
        config: Dictionary, as `serialize_keras_object()` gives it.
        custom_objects: Classes and functions by name that Keras does not know.
        safe_mode: Whether to refuse what could run arbitrary code.
        **kwargs: As upstream takes them.
    """
    if (
        isinstance(config, dict)
        and config.get("class_name") == "__masked_tensor__"
    ):
        parts = config["config"]
        return backend.MaskedTensor._wrap(
            _deserialize_plain_object(parts["values"]),
            _deserialize_plain_object(parts["mask"]),
        )
    return _deserialize_plain_object(config, *args, **kwargs)
