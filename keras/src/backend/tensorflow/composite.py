"""The composite tensor of the TensorFlow backend.

A composite tensor of TensorFlow as well: compiled functions, branches, loops
and data pipelines take it apart by its spec.
"""

import functools
import json
import typing

import numpy as np
import optree

import tensorflow as tf
from keras.src.backend.common import composite
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.kinds import Description
from keras.src.backend.common.operators import COMPARISON
from keras.src.backend.tensorflow.masked_tensor import MaskedTensor
from keras.src.backend.tensorflow.masked_tensor import refuse_component
from keras.src.composite.errors import unsupported
from tensorflow.python.framework import composite_tensor
from tensorflow.python.framework import composite_tensor_gradient
from tensorflow.python.framework import type_spec
from tensorflow.python.framework import type_spec_registry
from tensorflow.python.saved_model import nested_structure_coder

# By their names in files.
_TYPES = {}


class _Gradient(composite_tensor_gradient.CompositeTensorGradient):
    """The gradient of a composite tensor: one of this type.

    Its float parts are gradients, 0 where there is none. Others, and masks,
    are as they were.
    """

    def get_gradient_components(self, value):
        return [
            part.values if isinstance(part, MaskedTensor) else part
            for part in filter(_has_gradient, composite.take_apart(value)[0])
        ]

    def replace_gradient_components(self, value, component_grads):
        if all(gradient is None for gradient in component_grads):
            return None
        parts, description = composite.take_apart(value)
        gradients = iter(component_grads)
        parts = [
            _as_gradient(next(gradients), part) if _has_gradient(part) else part
            for part in parts
        ]
        return composite.put_together(type(value), description, parts)


def _has_gradient(part):
    if isinstance(part, CompositeTensor):
        return any(map(_has_gradient, composite.take_apart(part)[0]))
    dtype = tf.as_dtype(part.dtype)
    return dtype.is_floating or dtype.is_complex


def _as_gradient(gradient, part):
    if isinstance(part, MaskedTensor):
        return MaskedTensor._wrap(
            _as_gradient(gradient, part.values), part.mask
        )
    if gradient is None:
        return tf.nest.map_structure(
            tf.zeros_like, part, expand_composites=True
        )
    return gradient


class CompositeTensor(
    composite.CompositeBase, composite_tensor.CompositeTensor
):
    __doc__ = composite.CompositeBase.__doc__
    __composite_gradient__ = _Gradient()

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        composite.define(cls)
        _TYPES[composite.name_of(cls)] = cls
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
    """The spec of a part, which engines may have put anything into."""
    if isinstance(part, MaskedTensor):
        return MaskedTensor.Spec(_spec_of(part.values), _spec_of(part.mask))
    if isinstance(part, composite_tensor.CompositeTensor):
        return part._type_spec
    if isinstance(part, KerasTensor) or hasattr(part, "__array__"):
        # Symbolic ones, and NumPy arrays, as `predict()` returns them.
        return tf.TensorSpec(part.shape, part.dtype)
    return tf.type_spec_from_value(part)


def _as_component(part):
    """A part as TensorFlow takes it: no arrays."""
    if isinstance(part, MaskedTensor):
        values, mask = map(_as_component, (part.values, part.mask))
        return part if values is part.values else part._wrap(values, mask)
    if isinstance(part, (np.ndarray, np.generic)):
        return tf.convert_to_tensor(part)
    return part


@type_spec_registry.register("keras.CompositeTensor.Spec")
class CompositeSpec(type_spec.BatchableTypeSpec):
    """The type, the static fields and the specs of the parts.

    It has the specs of the parts by their names, the static fields, and, of an
    array-like type, `shape` and `dtype`.

    Args:
        type_: Class of the composite tensors.
        description: As `take_apart` gives it.
        specs: Specs of the parts that are there.
    """

    __slots__ = ["_type", "_description", "_specs"]

    def __init__(
        self, type_: type, description: Description, specs: typing.Iterable
    ):
        self._type = type_
        self._description = description
        self._specs = specs

    @property
    def value_type(self) -> type:
        return self._type

    def _serialize(self):
        return _Whole(self._type, self._description), self._specs

    @classmethod
    def _deserialize(cls, serialization):
        whole, specs = serialization
        if isinstance(whole, str):
            whole = _Whole.from_text(whole)
        return cls(*whole.fields, specs)

    def __reduce__(self):
        return type(self), (self._type, self._description, self._specs)

    def __eq__(self, other):
        return type(other) is type(self) and (
            self._serialize() == other._serialize()
        )

    def __hash__(self):
        return hash(self._serialize())

    def __repr__(self):
        names, statics = self._description
        fields = (
            *zip(names, self._specs),
            *zip(self._type._statics, statics),
        )
        fields = ", ".join(f"{name}={value!r}" for name, value in fields)
        return f"{type(self).__name__}({self._type.__name__}, {fields})"

    def __getattr__(self, name):
        if name.startswith("_") or name not in (
            *self._type._field_names(),
            *(("shape", "dtype") if self._type._is_array_like else ()),
        ):
            raise AttributeError(
                f"`{type(self).__name__}` has no attribute `{name}`."
            )
        return getattr(self._from_components(self._specs), name)

    @property
    def _component_specs(self):
        return self._specs

    def _to_components(self, value):
        return tuple(map(_as_component, composite.take_apart(value)[0]))

    def _from_components(self, components):
        return composite.put_together(self._type, self._description, components)

    def cast(
        self, value: typing.Any, casting_context: typing.Any
    ) -> typing.Any:
        # The function of an `input_signature` is traced for this type alone,
        # and TensorFlow would look at the parts only.
        if not isinstance(value, tf.TypeSpec) and (
            type(value) is not self._type
            or composite.take_apart(value)[1] != self._description
        ):
            raise TypeError(f"{value!r} is none of {self!r}.")
        return super().cast(value, casting_context)

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

    def _to_legacy_output_shapes(self):
        # Strategies cut batches along the axis that all parts share.
        return functools.reduce(
            tf.TensorShape.most_specific_compatible_shape,
            (spec.shape[:1] for spec in self._flat_tensor_specs),
        )

    def _to_legacy_output_types(self):
        refuse_component(self, self._description[0])


class _Whole:
    """What TensorFlow shall compare as a whole: it would walk a tuple."""

    def __init__(self, *fields):
        self.fields = fields

    def __eq__(self, other):
        return type(other) is _Whole and self.fields == other.fields

    def __hash__(self):
        return hash(self.fields)

    def to_text(self):
        type_, description = self.fields
        return json.dumps(
            [composite.name_of(type_), composite.to_text(type_, description)]
        )

    @classmethod
    def from_text(cls, text):
        name, text = json.loads(text)
        if name not in _TYPES:
            raise ValueError(
                f"There is no composite tensor type `{name}`, which a saved "
                "model has. Import the module that defines it before loading."
            )
        return cls(_TYPES[name], composite.from_text(text))


class _Codec:
    """Writes what specs are compared by into saved models, as a text.

    TensorFlow's codec of texts reads it, and `_deserialize` is given it.
    """

    do_decode = None

    def can_encode(self, x):
        return isinstance(x, _Whole)

    def do_encode(self, x, encode):
        return encode(x.to_text())

    def can_decode(self, proto):
        return False


nested_structure_coder.register_codec(_Codec())


def _refuse_to_convert(value, dtype=None, name=None, as_ref=False):
    raise unsupported("tf.convert_to_tensor", [value])


# TensorFlow's own functions end there as well.
tf.register_tensor_conversion_function(CompositeTensor, _refuse_to_convert)


# A plain tensor on the left of a comparison does not try the right operand: it
# calls TensorFlow's function. As Python does, that asks for the opposite one.
def _register_comparison(function, method):
    opposite = method.translate(str.maketrans("lg", "gl"))

    def compare(*args, **kwargs):
        # The name of the node comes third.
        kwargs.pop("name", None)
        x, y = [*args, *kwargs.values()][:2]
        if isinstance(x, CompositeTensor):
            return getattr(x, f"__{method}__")(y)
        return getattr(y, f"__{opposite}__")(x)

    sides = ({side: CompositeTensor} for side in (0, 1))
    tf.experimental.dispatch_for_api(function, *sides)(compare)


for _method, _name in COMPARISON.items():
    _register_comparison(getattr(tf.math, _name), _method)
_register_comparison(tf.__operators__.eq, "eq")
_register_comparison(tf.__operators__.ne, "ne")
