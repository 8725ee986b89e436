"""Masked tensors as nodes of a nest, beside what stands for composite ones."""

import collections
import typing

from keras.src import tree
from keras.src.backend.common.kinds import Nest
from keras.src.masking.masks import is_masked

# A node of `keras.tree`, unlike the masked tensor that it stands for.
Parts = collections.namedtuple("Parts", ["values", "mask"])


def to_parts(outputs: Nest) -> Nest:
    """The structure with a `Parts` for each masked tensor."""

    def part(x):
        return Parts(x.values, x.mask) if is_masked(x) else x

    return tree.map_structure(part, outputs)


def from_parts(outputs: Nest, make: typing.Callable) -> Nest:
    """The structure with `make(values, mask)` for each `Parts`."""

    def whole(x):
        return make(*x) if isinstance(x, Parts) else None

    return tree.traverse(whole, outputs)
