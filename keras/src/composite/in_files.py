"""Composite tensors in the configs of models and layers.

Upstream writes them as it writes any object, and reads nests of lists and
dictionaries alone: where a functional model begins and ends, and of what shapes
a layer was built.
"""

from keras.src import tree
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.composite import mask_or_spec
from keras.src.backend.common.composite import put_together
from keras.src.backend.common.composite import static_from_config
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.kinds import Nest
from keras.src.saving import serialization_lib


def written(config: Nest) -> Nest:
    """A config as it is in a file, of one that was not written to any."""
    if not any_composite((config,)):
        return config
    return serialization_lib.serialize_keras_object(config)


def _is_object(config):
    return isinstance(config, dict) and "registered_name" in config


def _type_of(config):
    """The type of the composite tensor that a config is of, or None."""
    # The config of a function is its name.
    if not _is_object(config) or not isinstance(config["config"], dict):
        return None
    type_ = serialization_lib._retrieve_class_or_fn(
        config["class_name"],
        config["registered_name"],
        config["module"],
        obj_type="class",
        full_config=config,
        custom_objects={},
    )
    return type_ if issubclass(type_, CompositeBase) else None


def _parts_of(type_, config):
    """The configs of the parts that are there, by name."""
    fields = config["config"]
    return {n: fields[n] for n in type_._parts if fields[n] is not None}


def as_nest(config: Nest) -> Nest:
    """The places of the tensors, with a dictionary for a composite one.

    Of its fields, that has the parts alone: a static may look like a place.

    Args:
        config: What a model says of its inputs or its outputs: a nest with a
            list of the name of a layer and two numbers for each tensor.
    """
    type_ = _type_of(config)
    if type_ is not None:
        config = _parts_of(type_, config)
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


def restored(config: Nest, tensors: Nest) -> Nest:
    """The nest of tensors, with composite ones where they were.

    Args:
        config: As `as_nest` is given it.
        tensors: The nest that it gave, with a tensor for each place.
    """
    type_ = _type_of(config)
    if type_ is not None:
        parts = _parts_of(type_, config)
        parts = {k: restored(v, tensors[k]) for k, v in parts.items()}
        fields = config["config"] | parts
        return serialization_lib.deserialize_keras_object(
            config | {"config": fields}
        )
    if isinstance(config, dict):
        return {k: restored(v, tensors[k]) for k, v in config.items()}
    if isinstance(config, (list, tuple)) and not _is_place(config):
        return type(config)(map(restored, config, tensors))
    return tensors


# What a layer was built with.

_SPEC = "__spec__"


def names_type(config: Nest) -> bool:
    """Whether there is a composite tensor, or another object, in a config."""
    if isinstance(config, (list, tuple)):
        return any(map(names_type, config))
    return _is_object(config) or (
        isinstance(config, dict) and any(map(names_type, config.values()))
    )


def with_shapes(config: Nest) -> Nest:
    """A build config, with composite ones where shapes were in such a nest."""
    return _read(config, _is_shape, tuple)


def described(specs: Nest) -> Nest:
    """Symbolic tensors as files have them, in the nest that they are in."""

    def describe(x):
        if x is None:
            return None
        mask = list(mask_or_spec(x).shape) if has_mask(x) else None
        return {"class_name": _SPEC, "config": [list(x.shape), x.dtype, mask]}

    return tree.map_structure(describe, specs)


def with_specs(config: Nest) -> Nest:
    """The nest of symbolic tensors that `described` was given."""
    return _read(config, _is_spec, _spec)


def _is_shape(config):
    return isinstance(config, (list, tuple)) and all(
        size is None or isinstance(size, int) for size in config
    )


def _is_spec(config):
    return isinstance(config, dict) and config.get("class_name") == _SPEC


def _spec(config):
    shape, dtype, mask = config["config"]
    if mask is not None:
        mask = KerasTensor(mask, "bool", record_history=False)
    return KerasTensor(shape, dtype, mask=mask)


def _read(config, is_leaf, leaf):
    """The nest that a config is of, with what `leaf` makes of its leaves."""
    if is_leaf(config):
        return leaf(config)
    type_ = _type_of(config)
    if type_ is not None:
        parts = _parts_of(type_, config)
        fields = config["config"]
        statics = tuple(static_from_config(fields[n]) for n in type_._statics)
        read = [_read(part, is_leaf, leaf) for part in parts.values()]
        return put_together(type_, (tuple(parts), statics), read)
    if isinstance(config, dict) and not _is_object(config):
        return {k: _read(v, is_leaf, leaf) for k, v in config.items()}
    if isinstance(config, (list, tuple)):
        return [_read(x, is_leaf, leaf) for x in config]
    return config
