"""Composite tensors: nests of tensors that have a type of their own.

To whatever walks nests (`keras.tree`, layers, trainers, compilers) one is what
a dictionary of its parts would be. To `keras.ops` it is a type with rules.
"""

import dataclasses
import inspect
import json
import math
import sys
import types
import typing

import numpy as np

from keras.src import backend
from keras.src import tree
from keras.src.backend.common import foreign
from keras.src.backend.common import hooks
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.backend.common.keras_tensor import dispatches
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Description
from keras.src.backend.common.kinds import Layer
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Shape
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.operators import Operators
from keras.src.backend.common.variables import standardize_dtype
from keras.src.backend.common.variables import standardize_shape


@typing.dataclass_transform(frozen_default=True, eq_default=False)
@dispatches
class CompositeBase(Operators):
    """Base of one's own tensor types, which are made of tensors.

    A subclass names its fields by annotations. Those that are annotated with
    `keras.KerasTensor`, `keras.MaskedTensor` or a composite class, or with one
    of these `| None`, are its *parts*; they are given tensors, arrays or masked
    tensors, symbolic ones among them, and keep the value of a variable: a layer
    makes one of its variables in `call()`, not in `build()`. All
    others are *statics*: anything hashable, which compilers take for a part of
    the type. Fields make the constructor; `typing.ClassVar` marks what is no
    field.

    Layers, functional models, `fit`, `predict`, files and the compilers of the
    backends take a composite tensor for the nest of its parts. One that has a
    `shape` and a `dtype` is *array-like*: `build()` of a layer is given its
    shape, and it has all operators. Any other is a *structure*. What functions
    of `keras.ops` make of either, rules say: see `keras.rule_for`.

    Composite tensors are immutable. `x.replace(low=0)` makes another one.

    A method `__check__(self)` may look at the fields and raise; it runs in the
    constructor, and not where an engine puts place holders into the parts. A
    method `to_dense(self)` may give a tensor, which functions without a rule
    are given then; nothing becomes dense by itself.

    Raises:
        TypeError: Of a class: if a field has no annotation, or the class has a
            constructor of its own. Of the constructor: if a part is no tensor,
            a static is not hashable, or a field is missing.

    Example:

    >>> class Interval(keras.CompositeTensor):
    ...     low: keras.KerasTensor
    ...     high: keras.KerasTensor
    ...     shape = property(lambda self: self.low.shape)
    ...     dtype = property(lambda self: self.low.dtype)
    >>> @keras.rule_for(keras.ops.negative, Interval)
    ... def negative(x):
    ...     return Interval(-x.high, -x.low)
    >>> x = -Interval([1.0, 2.0], [2.0, 4.0])
    >>> keras.ops.convert_to_numpy(x.low).tolist()
    [-2.0, -4.0]
    """

    if typing.TYPE_CHECKING:
        shape: Shape
        _fields: typing.ClassVar[tuple[str, ...]]
        _statics: typing.ClassVar[tuple[str, ...]]
        _optional: typing.ClassVar[frozenset[str]]

    # Of the class: names of the fields, and of those of either kind.
    _fields = ()
    _statics = ()
    _optional = frozenset()
    _is_array_like = False

    def __post_init__(self):
        fields = vars(self)
        for name in self._parts:
            fields[name] = _as_part(self, name, fields[name])
        for name in self._statics:
            _check_static(self, name, fields[name])
            fields[name] = _as_static(fields[name])
        self.__check__()

    def __check__(self):
        """Raises if the fields do not fit together. None by default."""

    def replace(self, **changes: typing.Any) -> typing.Self:
        """A composite tensor of this type with other values of some fields.

        Args:
            **changes: Values by the names of their fields.

        Raises:
            TypeError: If there is no field of such a name, or as the
                constructor does.

        Example:

        >>> class Scaled(keras.CompositeTensor):
        ...     values: keras.KerasTensor
        ...     scale: float = 1.0
        >>> Scaled([1.0, 2.0]).replace(scale=0.5).scale
        0.5
        """
        unknown = [x for x in changes if x not in self._field_names()]
        if unknown:
            raise TypeError(
                f"`{type(self).__name__}` has no field {_quoted(unknown)}. "
                f"Its fields are {_quoted(self._field_names())}."
            )
        fields = {name: getattr(self, name) for name in self._field_names()}
        return type(self)(**fields | changes)

    @classmethod
    def _field_names(cls):
        # Not asked of `dataclasses`, which PyTorch's compiler does not follow.
        return cls._fields

    def get_config(self) -> dict[str, typing.Any]:
        """The fields by name, as `from_config()` takes them."""
        # Late: it imports the backend.
        from keras.src.saving import serialization_lib

        parts = {
            name: serialization_lib.serialize_keras_object(getattr(self, name))
            for name in self._parts
        }
        statics = {
            name: static_to_config(type(self), name, getattr(self, name))
            for name in self._statics
        }
        written = parts | statics
        return {name: written[name] for name in self._field_names()}

    @classmethod
    def from_config(cls, config: dict[str, typing.Any]) -> typing.Self:
        """Makes one of what `get_config()` gave."""
        # Late: it imports the backend.
        from keras.src.saving import serialization_lib

        parts = {
            name: value
            if _is_tensor(value)
            else serialization_lib.deserialize_keras_object(value)
            for name, value in config.items()
            if name not in cls._statics
        }
        statics = {n: static_from_config(config[n]) for n in cls._statics}
        return cls(**parts | statics)

    @property
    def ndim(self) -> int:
        if not self._is_array_like:
            raise AttributeError(
                f"`{type(self).__name__}` has no `ndim`: it is no array-like "
                "type, which has a `shape` and a `dtype`."
            )
        return len(self.shape)

    def __setattr__(self, name, value):
        raise AttributeError(
            f"A composite tensor is immutable: `{name}` of "
            f"`{type(self).__name__}` cannot be set. Write "
            f"`x.replace({name}=...)`, which makes another one."
        )

    def __setstate__(self, state):
        # A NaN that was pickled is another object.
        statics = {n: _as_static(state[n]) for n in self._statics}
        vars(self).update(state | statics)

    def __delattr__(self, name):
        raise AttributeError(
            f"A composite tensor is immutable: `{name}` of "
            f"`{type(self).__name__}` cannot be deleted."
        )

    def __len__(self):
        if not self._is_array_like:
            return len(self._parts)
        shape = tuple(self.shape)
        if not shape or shape[0] is None:
            raise TypeError(
                "`len()` needs a known first dimension. Received "
                f"`{type(self).__name__}` of shape {shape}."
            )
        return int(shape[0])

    def __bool__(self):
        raise TypeError(
            f"The truth value of `{type(self).__name__}` is not defined. "
            "Compare with `is None`, or ask for that of one of its parts "
            f"({_quoted(self._parts)})."
        )

    def __iter__(self):
        if not self._is_array_like:
            raise TypeError(
                f"`{type(self).__name__}` cannot be iterated over: it is a "
                f"structure. Its parts are {_quoted(self._parts)}."
            )
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype=None, copy=None):
        # Late: ops import this type.
        from keras.src.ops.core import convert_to_numpy

        array = convert_to_numpy(self)
        if not isinstance(array, (np.ndarray, np.generic)):
            raise TypeError(
                f"The rule of `keras.ops.convert_to_numpy` for "
                f"`{type(self).__name__}` gives no array of NumPy, as "
                f"`np.asarray()` wants one, but {array!r}."
            )
        return np.array(array, dtype, copy=copy)

    def __array_function__(self, func, types, args, kwargs):
        batch = hooks.data.of_rows(func, args, kwargs)
        if batch is not None:
            return batch
        # As of what has no such method: of an array, which rules make.
        return func._implementation(*args, **kwargs)

    def __eq__(self, other):
        if not self._is_array_like:
            return self is other
        return super().__eq__(other)

    def __ne__(self, other):
        if not self._is_array_like:
            return self is not other
        return super().__ne__(other)

    __hash__ = object.__hash__

    def __repr__(self):
        fields = ", ".join(
            f"{name}={_described(getattr(self, name))}"
            for name in self._field_names()
        )
        return f"{type(self).__name__}({fields})"


def static_to_config(cls: type, name: str, value: typing.Any) -> typing.Any:
    """What a file has of the value of a static field.

    Args:
        cls: The type of the composite tensor.
        name: Name of the field.
        value: Its value.

    Raises:
        TypeError: If it could not be read again.
    """
    try:
        return _written(value)
    except Exception as error:
        raise TypeError(
            f"The static field `{name}` of `{cls.__name__}` cannot be written "
            f"to a file and read again. Received: {value!r} (of type "
            f"{type(value).__name__}). Let it be a text, a number, or a tuple "
            "of such; or an instance of a class with `get_config()` and "
            "`from_config()` that "
            "`keras.saving.register_keras_serializable()` decorates, or a "
            "function that it decorates. Or write a `get_config()` and a "
            f"`from_config()` of `{cls.__name__}`, which in `.keras` files say "
            "what stands for it."
        ) from error


def _written(value):
    # Late: it imports the backend.
    from keras.src.saving import serialization_lib

    if isinstance(value, tuple):
        return tuple(map(_written, value))
    config = serialization_lib.serialize_keras_object(value)
    # What is no type of its own in files stands there by its name. That of a
    # class, or of a function that is not written in Python, nothing reads.
    is_name = isinstance(config, dict) and config["class_name"][:2] != "__"
    if is_name and not _is_read(value, config):
        raise TypeError("Nothing can read what would be written.")
    return config


def _is_read(value, config):
    """Whether a file's reader finds an object by the config that it left."""
    if not isinstance(value, types.FunctionType):
        return hasattr(type(value), "from_config")
    if not str(value.__module__).startswith("keras."):
        # One that is not registered goes into `custom_objects`.
        return True
    try:
        return static_from_config(config) is value
    except Exception:
        return False


def static_from_config(config: typing.Any) -> typing.Any:
    """The value of a static field, of what a file has of it."""
    # Late: it imports the backend.
    from keras.src.saving import serialization_lib

    value = serialization_lib.deserialize_keras_object(config)
    # A number of NumPy is written as an array.
    return _as_static(value[()] if isinstance(value, np.ndarray) else value)


def _as_static(x):
    """A static as it is kept.

    JSON knows no tuples, and statics are no lists. One NaN is another one
    where it is the same object, which is how tuples compare.
    """
    if type(x) in (list, tuple):
        return tuple(map(_as_static, x))
    return math.nan if isinstance(x, float) and x != x else x


def _quoted(names):
    return ", ".join(f"`{name}`" for name in names)


def _described(x):
    """A part by its shape and dtype, anything else as it is."""
    if isinstance(x, CompositeBase) or not hasattr(x, "dtype"):
        return repr(x)
    text = f"<shape={tuple(x.shape)}, dtype={_dtype_of(x)}"
    mask = getattr(x, "_mask_spec", None)
    mask = x.mask if isinstance(x, MaskedTensorBase) else mask
    return f"{text}>" if mask is None else f"{text}, mask={tuple(mask.shape)}>"


def _dtype_of(x):
    try:
        return standardize_dtype(x.dtype)
    except ValueError:
        return x.dtype


def _is_tensor(x):
    tensors = (KerasTensor, MaskedTensorBase, CompositeBase)
    return isinstance(x, tensors) or backend.is_tensor(x)


def _as_part(x, name, value):
    """What is given for a part, as a tensor; None where it may be None."""
    if foreign.is_foreign(value):
        value = hooks.from_foreign(value)
    if _is_tensor(value) or (value is None and name in x._optional):
        return value
    try:
        if value is None:
            raise TypeError("None is no tensor.")
        return backend.convert_to_tensor(value)
    except Exception as error:
        raise TypeError(
            f"The part `{name}` of `{type(x).__name__}` is no tensor and "
            f"cannot be made one. Received: {value!r} (of type "
            f"{type(value).__name__}). Give it a tensor, an array or a masked "
            "tensor"
            + (
                f"; or annotate it `{name}: keras.KerasTensor | None = None` "
                "for a part that may be missing."
                if value is None
                else "; or annotate it with another type for a static field."
            )
        ) from error


def _check_static(x, name, value):
    of_type = f"The field `{name}` of `{type(x).__name__}` is static, by its "
    tensor = _tensor_in(value)
    if tensor is value and tensor is not None:
        raise TypeError(
            f"{of_type}annotation, and was given a tensor: "
            f"{_described(value)}. Annotate it `{name}: keras.KerasTensor`."
        )
    if tensor is not None:
        raise TypeError(
            f"{of_type}annotation, and was given a {type(value).__name__} with "
            f"a tensor in it: {_described(tensor)}. Give each tensor a field "
            "of its own, annotated `keras.KerasTensor`."
        )
    try:
        hash(value)
    except TypeError as error:
        raise TypeError(
            f"The static field `{name}` of `{type(x).__name__}` must be "
            "hashable, since compilers key on it. Received: "
            f"{value!r} (of type {type(value).__name__}). Give it a tuple; or "
            f"annotate it `{name}: keras.KerasTensor` if it is a tensor."
        ) from error


def _tensor_in(value):
    """The value if it is a tensor, or the first one inside it, or None."""
    if isinstance(value, np.generic):
        # NumPy's engine takes it for a tensor, others do not.
        return None
    if _is_tensor(value) or isinstance(value, np.ndarray):
        return value
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (tuple, list, set, frozenset)):
        return None
    inside = (x for x in map(_tensor_in, value) if x is not None)
    return next(inside, None)


# What is asked everywhere.


def has_mask(x: typing.Any) -> bool:
    """Whether `x` is a masked tensor, eager or symbolic."""
    return isinstance(x, MaskedTensorBase) or (
        isinstance(x, KerasTensor) and x._mask_spec is not None
    )


def describe(x: AnyTensor) -> str:
    """Shapes of the values and of the mask of `x`, in words."""
    return f"values of shape {tuple(x.shape)}, mask of shape " + str(
        tuple(mask_or_spec(x).shape)
    )


def mask_or_spec(x: AnyTensor) -> Mask:
    """The mask of a masked tensor; its spec, for a symbolic one."""
    return x.mask if isinstance(x, MaskedTensorBase) else x._mask_spec


# The class, from its fields.

# All types of users: without any, nothing has to be looked for.
DEFINED = []
# Public functions that ask for rules by themselves, without an operation.
ASKING = set()

_TENSORS = (KerasTensor, MaskedTensorBase, CompositeBase)


def define(cls: typing.Any) -> None:
    """Makes a class of its annotations: the fields, and the constructor.

    Args:
        cls: A new subclass of the backend's composite tensor.

    Raises:
        TypeError: If it cannot be one; the message says why.
    """
    _check_namespace(cls)
    hints = _annotations(cls)
    _check_hints(cls, hints)
    _give_keywords(cls, hints)
    # Frozen, so that its constructor goes past `__setattr__`.
    dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    del cls.__setattr__, cls.__delattr__
    names = cls._fields = tuple(x.name for x in dataclasses.fields(cls))
    bases = {name: _origin(cls, name) for name in names if name not in hints}
    parts = {n for n, base in bases.items() if n in base._parts}
    optional = {n for n, base in bases.items() if n in base._optional}
    for name, hint in hints.items():
        kinds = _alternatives(hint)
        if any(map(_is_tensor_type, kinds)):
            parts.add(name)
            if type(None) in kinds:
                optional.add(name)
    DEFINED.append(cls)
    cls._parts = tuple(n for n in names if n in parts)
    cls._statics = tuple(n for n in names if n not in parts)
    cls._optional = frozenset(optional)
    cls._is_array_like = all(
        name in names or hasattr(cls, name) for name in ("shape", "dtype")
    )


def _origin(cls, name):
    """The base that a field is inherited from, as `dataclasses` has it."""
    for base in cls.__mro__[1:]:
        if name in getattr(base, "_fields", ()):
            return base


def _alternatives(hint):
    """The types of a union, or the one type that there is.

    What else an `Annotated` type or a generic class says is left out.
    """
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _alternatives(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        return [x for one in typing.get_args(hint) for x in _alternatives(one)]
    return [origin if inspect.isclass(origin) else hint]


def _is_tensor_type(hint):
    return inspect.isclass(hint) and issubclass(hint, _TENSORS)


# What `abc` and `typing.Protocol` put into a class.
_OF_PYTHON = ("_abc_", "_is_protocol", "_is_runtime_protocol")


def _check_namespace(cls):
    namespace = vars(cls)
    for name in ("__init__", "__post_init__", "__new__"):
        if name in namespace:
            raise TypeError(
                f"`{cls.__name__}` has a `{name}` of its own. The fields of a "
                "composite tensor make its constructor. Write a method "
                "`__check__(self)` to validate them, and a classmethod for "
                "another way to make one."
            )
    annotated = namespace.get("__annotations__", {})
    for name in annotated:
        if hasattr(CompositeBase, name):
            raise TypeError(
                f"`{cls.__name__}` has a field `{name}`, which every composite "
                "tensor has as something else. Give the field another name."
            )
    for name, value in namespace.items():
        is_dunder = name.startswith("__") and name.endswith("__")
        if is_dunder or name in annotated or name.startswith(_OF_PYTHON):
            continue
        is_a_type = _is_tensor_type(value)
        if is_a_type or not (callable(value) or hasattr(value, "__get__")):
            raise TypeError(
                f"`{name}` of `{cls.__name__}` has no annotation. Write "
                f"`{name}: keras.KerasTensor` for a part, another type for a "
                "static field, or `typing.ClassVar` for what is no field."
            )


def _check_hints(cls, hints):
    for name, hint in hints.items():
        if dataclasses.InitVar in (hint, type(hint)):
            raise TypeError(
                f"`{name}` of `{cls.__name__}` is an `InitVar`: a composite "
                "tensor keeps all that its constructor is given. Write a "
                "classmethod that makes the fields of it."
            )


def _annotations(cls):
    """The types of the class's own fields by name.

    One that is written as text is looked up where the class is defined. What
    cannot be found there is no tensor type.
    """
    module = sys.modules.get(cls.__module__)
    names = dict(vars(module)) if module else {}
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == cls.__module__:
            names = {**names, **frame.f_locals}
            break
        frame = frame.f_back
    # A field of the type itself.
    names.setdefault(cls.__name__, cls)
    hints = {}
    for name, hint in vars(cls).get("__annotations__", {}).items():
        if isinstance(hint, str):
            try:
                hint = eval(hint, names)
            except Exception:
                pass
        is_text = isinstance(hint, str) and "ClassVar" in hint
        if is_text or typing.ClassVar in (hint, typing.get_origin(hint)):
            continue
        hints[name] = hint
    return hints


def _give_keywords(cls, hints):
    """Lets a field without a default follow one that has a default.

    It is given by name then, as where a subclass adds a part.
    """
    has_default = any(
        field.default is not dataclasses.MISSING
        or field.default_factory is not dataclasses.MISSING
        for base in cls.__mro__[1:]
        if dataclasses.is_dataclass(base)
        for field in dataclasses.fields(base)
    )
    for name in hints:
        if name in vars(cls):
            has_default = True
        elif has_default:
            setattr(cls, name, dataclasses.field(kw_only=True))


# A node of nests.


def take_apart(x: "CompositeBase") -> tuple[tuple, Description]:
    """The parts of a composite tensor, and what else it is.

    Returns:
        A tuple of the parts that are there, and a hashable description: the
        names of these and the values of the static fields.
    """
    fields = vars(x)
    names = x._parts
    if x._optional:
        names = tuple(n for n in names if fields[n] is not None)
    parts = tuple(fields[n] for n in names)
    return parts, (names, tuple(fields[n] for n in x._statics))


def put_together(
    cls: typing.Any, description: Description, parts: typing.Iterable
) -> typing.Any:
    """A composite tensor of what `take_apart` gave: no check, no conversion.

    Engines, and whatever else walks nests, put into the parts what they like.
    """
    self = object.__new__(cls)
    names, statics = description
    fields = self.__dict__
    for name in cls._optional:
        fields[name] = None
    for name, part in zip(names, parts):
        fields[name] = part
    for name, static in zip(cls._statics, statics):
        fields[name] = static
    return self


def any_composite(args: Nest = None, kwargs: Nest = None) -> bool:
    """Whether an operand, or one inside a nest, is a composite tensor.

    Args:
        args: Operands, or nests of them.
        kwargs: Operands by name.
    """
    return bool(DEFINED) and any_leaf(CompositeBase, args, kwargs)


def is_array_like(x: typing.Any) -> bool:
    """Whether `x` is a composite tensor that has a shape and a dtype."""
    return isinstance(x, CompositeBase) and x._is_array_like


def check_array_like(layer: Layer, x: typing.Any) -> None:
    """Raises if a layer that takes tensors is given a structure for one."""
    if isinstance(x, CompositeBase) and not x._is_array_like:
        # Late: it imports this type.
        from keras.src.composite.errors import UnsupportedTypeError

        raise UnsupportedTypeError(
            f"Layer '{layer.name}' ({type(layer).__name__}) takes tensors. "
            f"Received a structure: {x!r}. Give it a part "
            f"({_quoted(x._parts)}), write a layer whose `call` takes a "
            f"`{type(x).__name__}`, or define `shape` and `dtype` on the class "
            "if it is like an array."
        )


def as_tensors(nest: Nest) -> Nest:
    """The nest with a symbolic tensor for each array-like composite tensor.

    It has the shape and the dtype, for whoever asks for nothing else.
    """

    def stand_in(x):
        if not is_array_like(x):
            return None
        return KerasTensor(
            standardize_shape(x.shape), _dtype_of(x), record_history=False
        )

    return tree.traverse(stand_in, nest) if DEFINED else nest


# What engines write to files of their own.


def name_of(cls: type) -> str:
    """The name of a type in the files of an engine."""
    return f"{cls.__module__}.{cls.__qualname__}"


def to_text(cls: typing.Any, description: Description) -> str:
    """A description of that type, as `take_apart` gives it, as text."""
    names, statics = description
    written = [
        static_to_config(cls, *field) for field in zip(cls._statics, statics)
    ]
    return json.dumps([list(names), written])


def from_text(text: str) -> Description:
    """The description that a text was made of."""
    names, statics = json.loads(text)
    return tuple(names), tuple(map(static_from_config, statics))
