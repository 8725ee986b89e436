"""The backend for layers of upstream's that call it in `call`, past the door.

They import this one instead. It knows what they draw of a composite tensor;
and since Keras 3.16 some of them write `backend.ops.numpy.add`, which knows no
masks, where they wrote `ops.add`.
"""

import typing

from keras.src import backend as _backend
from keras.src import ops as _ops
from keras.src import random as _random
from keras.src.backend.common.composite import CompositeBase

MODULES = ("core", "image", "linalg", "math", "nn", "numpy")


class _PublicOps:
    """`backend.ops.numpy.add` is `ops.add`."""

    def __getattr__(self, name):
        return self if name in MODULES else getattr(_ops, name)


class _RandomOfTypes:
    """`backend.random`, with a dropout that asks for rules."""

    def __getattr__(self, name):
        return getattr(_backend.random, name)

    @staticmethod
    def dropout(inputs: typing.Any, *args, **kwargs) -> typing.Any:
        """What is masked gets here as its values: layers put masks back."""
        is_composite = isinstance(inputs, CompositeBase)
        module = _random if is_composite else _backend.random
        return module.dropout(inputs, *args, **kwargs)


class _Backend:
    ops = _PublicOps()
    random = _RandomOfTypes()

    def __getattr__(self, name):
        return getattr(_backend, name)


backend = _Backend()
