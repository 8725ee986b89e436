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


def check_rows(nest: Nest) -> None:
    """Raises unless all parts of each composite tensor have the same rows.

    Args:
        nest: Structure of data, of which rows are taken along the first axis.

    Raises:
        ValueError: With the parts by name.
    """

    def check(x):
        if not isinstance(x, CompositeBase):
            return None
        shapes = dict(_shapes(x))
        without = [name for name, shape in shapes.items() if not shape]
        if without:
            raise ValueError(
                "Rows are taken along the first axis of each part, and there "
                f"is none in `{'`, `'.join(without)}` of "
                f"`{type(x).__name__}`: {x!r}. Give such a part an entry for "
                "each row; or annotate it with a type that is no tensor's, as "
                "`float`, which makes it static."
            )
        if len({shape[0] for shape in shapes.values()}) > 1:
            rows = ", ".join(f"`{n}` has {s[0]}" for n, s in shapes.items())
            raise ValueError(
                f"The parts of `{type(x).__name__}` differ in their number of "
                f"rows, which are taken along the first axis: {rows}. Give "
                "each part one entry for each row."
            )
        return x

    if composite.DEFINED:
        tree.traverse(check, nest)


def _shapes(x, prefix=""):
    """The path and the shape of each part, of parts within parts too."""
    parts, (names, _) = composite.take_apart(x)
    for name, part in zip(names, parts):
        if isinstance(part, CompositeBase):
            yield from _shapes(part, f"{prefix}{name}.")
        else:
            yield prefix + name, tuple(part.shape)


class OneKind:
    """Looks whether nests, one after another, have composite tensors alike.

    Args:
        why: Why they must, and what to write else, for the message.
    """

    def __init__(self, why: str):
        self._why = why
        self._first = None

    def __call__(self, nest: Nest) -> Nest:
        """The nest itself, taken apart or not.

        Raises:
            ValueError: If types, static fields or the parts that are there are
                not those of the first one.
        """
        kinds = _kinds(nest)
        if self._first is None:
            self._first = kinds
        elif kinds != self._first:
            raise ValueError(f"{_difference(self._first, kinds)} {self._why}")
        return nest


def difference(first: Nest, second: Nest) -> str | None:
    """In what the composite tensors of two nests differ, in words, or None."""
    kinds, others = _kinds(first), _kinds(second)
    return None if kinds == others else _difference(kinds, others)


def _kinds(nest):
    """The type and the description of each composite tensor, in order."""
    found = []

    def look(x):
        if isinstance(x, CompositeBase):
            found.append((type(x), composite.take_apart(x)[1]))
        elif are_fields(x):
            found.append(type(x)._whole)

    if composite.DEFINED:
        tree.traverse(look, nest)
    return found


def _difference(first, others):
    """The first thing in which two lists of kinds differ, in words."""
    pairs = zip(first, others)
    pair = next((pair for pair in pairs if pair[0] != pair[1]), None)
    if pair is None or pair[0][0] is not pair[1][0]:
        names = (", ".join(t.__name__ for t, _ in x) for x in (first, others))
        return "Composite tensors of {} came first, then of {}.".format(*names)
    type_, (there, statics) = pair[0]
    _, (there_now, statics_now) = pair[1]
    for name, before, now in zip(type_._statics, statics, statics_now):
        if before != now:
            return (
                f"The static field `{name}` of `{type_.__name__}` was "
                f"{before!r} first, then {now!r}."
            )
    (name, *_) = set(there) ^ set(there_now)
    words = ("there", "None") if name in there else ("None", "there")
    return (
        f"The part `{name}` of `{type_.__name__}` was {words[0]} first, then "
        f"{words[1]}."
    )


def weights_spread(y: Nest, sample_weight: Nest) -> Nest:
    """Weights with those of a composite target for each of its parts.

    Args:
        y: Structure of targets, as `apart` gives it.
        sample_weight: Structure of weights, taken apart as well. For a
            composite target it may have one for all parts; a dictionary by
            their names; a list in their order; or a composite tensor.

    Raises:
        ValueError: If there are composite targets, and the weights do not fit.
    """
    if sample_weight is None or not _any_fields(y):
        return sample_weight
    if not are_fields(y) and not _is_nest(sample_weight):
        # One for the rows of all outputs.
        return sample_weight
    try:
        return _spread(y, sample_weight)
    except ValueError as error:
        raise ValueError(
            "The `sample_weight` does not fit the targets. Give each output a "
            "weight, or None; and a composite one a weight for all of its "
            "parts, or one for each of them, in a dictionary by their names. "
            f"Targets: {_outline(y)}. Received: {_outline(sample_weight)}."
        ) from error


def _is_nest(x):
    return isinstance(x, (list, tuple, dict))


def _any_fields(x):
    if not _is_nest(x):
        return False
    inside = x.values() if isinstance(x, dict) else x
    return are_fields(x) or any(map(_any_fields, inside))


def _spread(y, weights):
    if are_fields(y) and not _is_nest(weights):
        return tree.map_structure(lambda _: weights, y)
    if _is_nest(y) != _is_nest(weights):
        raise ValueError("One is a nest, the other is none.")
    if not _is_nest(y):
        return weights
    if isinstance(y, dict):
        if not isinstance(weights, dict):
            raise ValueError("Targets go by name, weights do not.")
        return dict(zip(y, map(_spread, y.values(), _of_each(y, weights))))
    names = getattr(y, "_fields", range(len(y)))
    spread = map(_spread, y, _of_each(names, weights))
    return type(y)(*spread) if hasattr(y, "_fields") else type(y)(spread)


def _of_each(names, weights):
    """The weights of these names, or places, in their order."""
    if are_fields(weights):
        weights = weights._asdict()
    if not isinstance(weights, dict):
        weights = dict(zip(names, weights, strict=True))
    if set(weights) != set(names):
        raise ValueError("The names are others.")
    return [weights[name] for name in names]


def _outline(x):
    """Types, names and shapes, without what is in the arrays."""
    if are_fields(x) or isinstance(x, dict):
        pairs = x._asdict() if are_fields(x) else x
        name = type(x)._whole[0].__name__ if are_fields(x) else ""
        inside = ", ".join(f"{k}={_outline(v)}" for k, v in pairs.items())
        return f"{name}({inside})" if name else "{" + inside + "}"
    if _is_nest(x):
        return "[" + ", ".join(map(_outline, x)) + "]"
    if x is None:
        return "None"
    return f"<shape={tuple(getattr(x, 'shape', ()))}>"
