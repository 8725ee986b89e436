"""Where a class, its methods and its flags come from: Keras, or outside."""

import inspect
import sys

from keras.src.backend.common.kinds import Layer
from keras.src.masking.refusals import is_from_keras


def has_call_of_keras(cls: type) -> bool:
    return "call" in vars(cls) and is_from_keras(cls.__module__)


def is_flagged(layer: Layer) -> bool:
    """Whether code outside Keras says that the layer supports masking."""
    is_outside = "_flagged_outside" in vars(layer) or not defined_in_keras(
        type(layer), "supports_masking"
    )
    return is_outside and layer.supports_masking


def defined_in_keras(cls: type, name: str) -> bool:
    return is_from_keras(owner_of(cls, name).__module__)


def owner_of(cls: type, name: str) -> type:
    """The class that an attribute of a class is inherited from."""
    return next(c for c in cls.__mro__ if name in vars(c))


def place_outside() -> tuple | None:
    """File, line and module of the code that sets an attribute of a layer.

    None if that is Keras.
    """
    frame = sys._getframe(2)
    while frame.f_code.co_name == "__setattr__":
        frame = frame.f_back
    module = frame.f_globals.get("__name__", "")
    if is_from_keras(module):
        return None
    return frame.f_code.co_filename, frame.f_lineno, module


def place_of(cls: type, name: str) -> tuple:
    """File, line and module of a method of a class, or of its base."""
    owner = owner_of(cls, name)
    code = getattr(inspect.unwrap(getattr(owner, name)), "__code__", None)
    if code is None:
        return owner.__module__, 1, owner.__module__
    return code.co_filename, code.co_firstlineno, owner.__module__
