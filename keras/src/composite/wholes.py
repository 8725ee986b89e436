"""Composite tensors as leaves, for what walks a nest and counts its tensors."""

from keras.src import tree
from keras.src.backend.common.composite import is_array_like
from keras.src.backend.common.composite import take_apart
from keras.src.backend.common.keras_tensor import dispatches


@dispatches
class Whole:
    """A composite tensor as one leaf of a nest, which is not walked."""

    def __init__(self, value):
        self.value = value

    @property
    def shape(self):
        """That of the first part, where there is no other."""
        if self.value._is_array_like:
            return self.value.shape
        return take_apart(self.value)[0][0].shape


def opened(x):
    """What is in a `Whole`, anything else as it is."""
    return x.value if isinstance(x, Whole) else x


def as_wholes(nest):
    """The nest with a `Whole` for each array-like composite tensor."""

    def whole(x):
        return Whole(x) if is_array_like(x) else None

    return tree.traverse(whole, nest)
