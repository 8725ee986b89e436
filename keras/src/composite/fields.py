"""Composite tensors as named tuples of their parts.

The pipelines and loops of engines walk nests of their own. TensorFlow's take a
composite tensor for a leaf, which they do not slice.
"""

import collections
import functools
import typing

from keras.src import tree
from keras.src.backend.common import composite
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.kinds import Nest


@functools.cache
def _fields_type(type_, description):
    """The type of the named tuples that stand for such a composite tensor."""
    fields = collections.namedtuple("Fields", description[0])
    fields._whole = type_, description
    return fields


def are_fields(x: typing.Any) -> bool:
    """Whether `x` stands for a composite tensor."""
    return hasattr(type(x), "_whole")


def apart(nest: Nest) -> Nest:
    """The nest with a named tuple of its parts for each composite tensor."""

    def fields(x):
        if not isinstance(x, CompositeBase):
            return None
        parts, description = composite.take_apart(x)
        return _fields_type(type(x), description)(*map(apart, parts))

    return tree.traverse(fields, nest)


def together(nest: Nest) -> Nest:
    """The nest with the composite tensors that `apart` took apart."""

    def whole(x):
        if not are_fields(x):
            return None
        return composite.put_together(*type(x)._whole, map(together, x))

    return tree.traverse(whole, nest)
