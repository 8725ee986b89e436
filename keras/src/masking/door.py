"""The backend for layers of upstream's that call it in `call`, past the door.

Since Keras 3.16 some of them write `backend.ops.numpy.add`, which knows no
masks, where they wrote `ops.add`. They import this one instead.
"""

from keras.src import backend as _backend
from keras.src import ops as _ops

__when__ = ">=3.16"

MODULES = ("core", "image", "linalg", "math", "nn", "numpy")


class _PublicOps:
    """`backend.ops.numpy.add` is `ops.add`."""

    def __getattr__(self, name):
        return self if name in MODULES else getattr(_ops, name)


class _Backend:
    ops = _PublicOps()

    def __getattr__(self, name):
        return getattr(_backend, name)


backend = _Backend()
