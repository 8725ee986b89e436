"""Composite tensors in the configs of models and layers.

Upstream writes them as it writes any object, and reads nests of lists and
dictionaries alone: where a functional model begins and ends, and of what shapes
a layer was built.
"""

from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.composite import put_together
from keras.src.backend.common.kinds import Nest
from keras.src.saving import serialization_lib


def written(config: Nest) -> Nest:
    """A config as it is in a file, of one that was not written to any."""
    if not any_composite((config,)):
        return config
    return serialization_lib.serialize_keras_object(config)


def _is_composite(config):
    return isinstance(config, dict) and "registered_name" in config


def as_nest(config: Nest) -> Nest:
    """The places of the tensors, with a dictionary for a composite one.

    Args:
        config: What a model says of its inputs or its outputs: a nest with a
            list of the name of a layer and two numbers for each tensor.
    """
    if _is_composite(config):
        fields = config["config"].items()
        return {k: as_nest(v) for k, v in fields if _has_places(v)}
    if isinstance(config, dict):
        return {k: as_nest(v) for k, v in config.items()}
    if isinstance(config, (list, tuple)) and not _is_place(config):
        return type(config)(map(as_nest, config))
    return config


def _is_place(config):
    return (
        isinstance(config, (list, tuple))
        and len(config) == 3
        and isinstance(config[0], str)
    )


def _has_places(field):
    """Whether a field is a part; statics are no lists."""
    return _is_place(field) or _is_composite(field)


def restored(config: Nest, tensors: Nest) -> Nest:
    """The nest of tensors, with composite ones where they were.

    Args:
        config: As `as_nest` is given it.
        tensors: The nest that it gave, with a tensor for each place.
    """
    if _is_composite(config):
        fields = {
            k: restored(v, tensors[k]) if k in tensors else v
            for k, v in config["config"].items()
        }
        return serialization_lib.deserialize_keras_object(
            config | {"config": fields}
        )
    if isinstance(config, dict):
        return {k: restored(v, tensors[k]) for k, v in config.items()}
    if isinstance(config, (list, tuple)) and not _is_place(config):
        return type(config)(map(restored, config, tensors))
    return tensors


def with_shapes(config: Nest) -> Nest:
    """A build config, with composite ones where shapes were in such a nest."""
    if _is_composite(config):
        type_ = serialization_lib._retrieve_class_or_fn(
            config["class_name"],
            config["registered_name"],
            config["module"],
            obj_type="class",
            full_config=config,
            custom_objects={},
        )
        if not issubclass(type_, CompositeBase):
            return config
        fields = {k: with_shapes(v) for k, v in config["config"].items()}
        names = [n for n in type_._parts if fields[n] is not None]
        statics = tuple(fields[n] for n in type_._statics)
        parts = [fields[n] for n in names]
        return put_together(type_, (tuple(names), statics), parts)
    if isinstance(config, dict):
        return {k: with_shapes(v) for k, v in config.items()}
    # JSON knows no tuples.
    return tuple(config) if isinstance(config, list) else config
