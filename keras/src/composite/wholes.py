"""Composite tensors as leaves, for what walks a nest and counts its tensors."""

import typing

from keras.src import tree
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import is_array_like
from keras.src.backend.common.composite import take_apart
from keras.src.backend.common.keras_tensor import dispatches
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Shape


@dispatches
class Whole:
    """A composite tensor as one leaf of a nest, which is not walked."""

    def __init__(self, value: CompositeBase):
        self.value = value

    @property
    def shape(self) -> Shape:
        """That of the first part, where there is no other."""
        if self.value._is_array_like:
            return self.value.shape
        return take_apart(self.value)[0][0].shape


def opened(x: typing.Any) -> typing.Any:
    """What is in a `Whole`, anything else as it is."""
    return x.value if isinstance(x, Whole) else x


def as_wholes(nest: Nest) -> Nest:
    """The nest with a `Whole` for each array-like composite tensor."""

    def whole(x):
        return Whole(x) if is_array_like(x) else None

    return tree.traverse(whole, nest)
