"""A layer with a backend of its own runs on `keras.ops` under masks."""

import threading

from keras.src.backend.common.masked_tensor import MaskedTensorBase
from patchset.markers import keeps
from patchset.markers import new

__added__ = ("_instead",)


@new
class _Instead(threading.local):
    """Whether public functions take the place of a backend's own."""

    public = False


_instead = _Instead()


@new
class PublicFunctions:
    """In the scope of this, `DynamicBackend` gives the public functions.

    Those of a backend know no masks. The public ones have the same names and
    arguments, and each says what becomes of a mask.

    Args:
        public: False to be back with the backend's own in this scope.
    """

    def __init__(self, public=True):
        self._public = public

    def __enter__(self):
        self._before, _instead.public = _instead.public, self._public

    def __exit__(self, *_):
        _instead.public = self._before


@new
class _Module:
    """A module of a backend, with the public functions where there are."""

    def __init__(self, own, public):
        self._own = own
        self._public = importlib.import_module(public)

    def __getattr__(self, name):
        return getattr(self._public, name, None) or getattr(self._own, name)


class DynamicBackend:
    @keeps("_own_attribute")
    def __getattr__(self, name):
        own = self._own_attribute(name)
        if not _instead.public:
            return own
        if name == "random":
            return _Module(own, "keras.src.random.random")
        if name == "ops":  # Since Keras 3.16 all operations are in there.
            return self
        if inspect.ismodule(own):
            return _Module(own, f"keras.src.ops.{name}")
        return getattr(_Module(None, "keras.src.ops.core"), name, own)


@keeps("_convert_plain_tensor")
def convert_tf_tensor(outputs, *args, **kwargs):
    if isinstance(outputs, MaskedTensorBase):
        return outputs
    return _convert_plain_tensor(outputs, *args, **kwargs)
