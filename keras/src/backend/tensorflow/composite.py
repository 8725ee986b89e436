"""The composite tensor of the TensorFlow backend.

A composite tensor of TensorFlow as well: compiled functions, branches, loops
and data pipelines take it apart by its spec.
"""

import functools

import optree

import tensorflow as tf
from keras.src.backend.common import composite
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from tensorflow.python.framework import composite_tensor
from tensorflow.python.framework import type_spec


class CompositeTensor(
    composite.CompositeBase, composite_tensor.CompositeTensor
):
    __doc__ = composite.CompositeBase.__doc__

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        composite.define(cls)
        optree.register_pytree_node(
            cls,
            composite.take_apart,
            functools.partial(composite.put_together, cls),
            namespace="keras",
        )

    @property
    def _type_spec(self):
        parts, description = composite.take_apart(self)
        return CompositeSpec(
            type(self), description, tuple(map(_spec_of, parts))
        )


def _spec_of(part):
    if isinstance(part, (MaskedTensorBase, CompositeTensor)):
        return part._type_spec
    return tf.type_spec_from_value(
        part if tf.is_tensor(part) else tf.convert_to_tensor(part)
    )


class CompositeSpec(type_spec.BatchableTypeSpec):
    """The type, the static fields and the specs of the parts.

    Args:
        type_: Class of the composite tensors.
        description: As `take_apart` gives it.
        specs: Specs of the parts that are there.
    """

    __slots__ = ["_type", "_description", "_specs"]

    def __init__(self, type_, description, specs):
        self._type = type_
        self._description = description
        self._specs = specs

    @property
    def value_type(self):
        return self._type

    def _serialize(self):
        return _Whole(self._type, self._description), self._specs

    @classmethod
    def _deserialize(cls, serialization):
        whole, specs = serialization
        return cls(*whole.fields, specs)

    def __reduce__(self):
        return type(self), (self._type, self._description, self._specs)

    def __eq__(self, other):
        return type(other) is type(self) and (
            self._serialize() == other._serialize()
        )

    def __hash__(self):
        return hash(self._serialize())

    @property
    def _component_specs(self):
        return self._specs

    def _to_components(self, value):
        return composite.take_apart(value)[0]

    def _from_components(self, components):
        return composite.put_together(self._type, self._description, components)

    def _of(self, specs):
        return type(self)(self._type, self._description, tuple(specs))

    def _batch(self, batch_size):
        return self._of(
            spec.__batch_encoder__.batch(spec, batch_size)
            for spec in self._specs
        )

    def _unbatch(self):
        return self._of(
            spec.__batch_encoder__.unbatch(spec) for spec in self._specs
        )

    def __getattr__(self, name):
        # The spec of a part, and a static field, by its name.
        names, statics = self._description
        if name in names:
            return self._specs[names.index(name)]
        if name in self._type._statics:
            return statics[self._type._statics.index(name)]
        raise AttributeError(name)


class _Whole:
    """What TensorFlow shall compare as a whole: it would walk a tuple."""

    def __init__(self, *fields):
        self.fields = fields

    def __eq__(self, other):
        return type(other) is _Whole and self.fields == other.fields

    def __hash__(self):
        return hash(self.fields)
