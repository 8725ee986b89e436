"""Where the last step of a sequence is taken by its place."""

import typing

import libcst as cst

from keras.src.migration.finding import Finding
from keras.src.migration.finding import find
from keras.src.migration.layers import KERAS
from keras.src.migration.layers import reads
from keras.src.migration.layers import tensors_in
from keras.src.migration.sources import LAST_STEP_HINT
from keras.src.migration.sources import MASK_HINT
from keras.src.migration.sources import Source
from keras.src.migration.sources import has_all
from keras.src.migration.sources import walk


def last_step_findings(
    source: Source, layers: dict
) -> typing.Iterator[Finding]:
    """Yields each `x[:, -1]` of what may be a padded sequence.

    That is a tensor in the `call` of a layer or model; and what a layer gave,
    in a file that makes masks.
    """
    if not has_all(source.data, (LAST_STEP_HINT,)):
        return
    found = []
    for layer in layers.values():
        if layer.call is not None:
            tensors = tensors_in(layer.call)
            found += [
                node
                for node in walk(layer.call.body)
                if _is_last_step(node) and reads(node.value, tensors)
            ]
    if has_all(source.data, (MASK_HINT,)):
        nodes = list(walk(source.tree))
        given = {
            target.target.value
            for node in nodes
            if isinstance(node, cst.Assign) and _is_layers(source, node.value)
            for target in node.targets
            if isinstance(target.target, cst.Name)
        }
        found += [
            node
            for node in nodes
            if _is_last_step(node)
            and node not in found
            and (
                _is_layers(source, node.value)
                or getattr(node.value, "value", None) in given
            )
        ]
    for node in found:
        tensor = source.code_of(node.value)
        code = source.code_of(node)
        yield find(source, node, "last_step", code=code, tensor=tensor)


def _is_last_step(node):
    """Whether an expression is `x[:, -1]`, with any slices after it."""
    if not isinstance(node, cst.Subscript) or len(node.slice) < 2:
        return False
    first, second, *others = (element.slice for element in node.slice)
    match second:
        case cst.Index(
            value=cst.UnaryOperation(
                operator=cst.Minus(), expression=cst.Integer(value="1")
            )
        ):
            return all(map(_is_whole, (first, *others)))
    return False


def _is_whole(element):
    """Whether an index is `:` or `...`."""
    match element:
        case cst.Slice(lower=None, upper=None, step=None):
            return True
        case cst.Index(value=cst.Ellipsis()):
            return True
    return False


def _is_layers(source, node):
    """Whether an expression is what a layer of Keras, made there, gives."""
    match node:
        case cst.Call(func=cst.Call(func=made)):
            name = source.name_of(made)
            return bool(KERAS.match(name)) and ".layers." in name
    return False
