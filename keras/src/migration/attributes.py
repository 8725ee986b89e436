"""Where a mask is read off a tensor's attribute, or hung on it."""

import typing

import libcst as cst

from keras.src.migration.finding import Finding
from keras.src.migration.finding import find
from keras.src.migration.sources import ATTRIBUTE_HINT
from keras.src.migration.sources import Project
from keras.src.migration.sources import Source
from keras.src.migration.sources import has_all
from keras.src.migration.sources import walk

ATTRIBUTE = "_keras_mask"
FUNCTIONS = {
    "get_keras_mask": "keras_mask",
    "set_keras_mask": "keras_mask_set",
}
BUILT_IN = {
    "getattr": "keras_mask",
    "hasattr": "keras_mask",
    "setattr": "keras_mask_set",
    "delattr": "keras_mask_set",
}


def attribute_findings(
    source: Source, project: Project, layers: dict
) -> typing.Iterator[Finding]:
    """Yields the uses of `_keras_mask` in a file with these layers."""
    if not has_all(source.data, (ATTRIBUTE_HINT,)):
        return
    all_by_type = all(layer.goes_by_type for layer in layers.values())
    for node in walk(source.tree):
        name = _pattern_of(source, node)
        if name is None:
            continue
        code = source.code_of(node)
        owner = _scores(source, project, node)
        if owner is not None and name == "keras_mask":
            yield find(source, node, "metric_mask", code=code, owner=owner)
            continue
        cls = source.class_around(node)
        layer = layers.get(cls.node) if cls else None
        by_type = layer.goes_by_type if layer else all_by_type
        change = None
        if name == "keras_mask" and by_type:
            if layer or not _is_given(source, node):
                change = _reading_mask(node)
        yield find(source, node, name, change, code=code)


def _pattern_of(source, node):
    match node:
        case cst.Attribute(attr=cst.Name(value=attribute)):
            if attribute == ATTRIBUTE:
                return _pattern_of_access(source, node)
        case cst.Call(func=cst.Name(value=function), args=[_, name, *_]):
            if function in BUILT_IN and _text(name.value) == ATTRIBUTE:
                return BUILT_IN[function]
    if isinstance(node, cst.Call):
        return FUNCTIONS.get(source.name_of(node.func).rpartition(".")[2])
    return None


def _pattern_of_access(source, node):
    for parent in source.around(node, cst.CSTNode):
        if isinstance(parent, (cst.AssignTarget, cst.AnnAssign, cst.Del)):
            target = getattr(parent, "target", node)
            return "keras_mask_set" if target is node else "keras_mask"
        return "keras_mask"


def _text(node):
    return node.raw_value if isinstance(node, cst.SimpleString) else None


def _scores(source, project, node):
    """Name of the loss or metric that a node is in, or None."""
    cls = source.class_around(node)
    if cls and project.is_a("score", cls.name):
        return cls.short_name
    for function in source.around(node, cst.FunctionDef):
        if any(p.name.value == "y_pred" for p in function.params.params):
            return function.name.value
    return None


def _is_given(source, node):
    """Whether a function reads the mask of what it was called with.

    Its caller may be a layer of the old kind, which has plain tensors.
    """
    tensor = node.value if isinstance(node, cst.Attribute) else node.args[0]
    names = {n.value for n in walk(tensor) if isinstance(n, cst.Name)}
    return any(
        parameter.name.value in names
        for function in source.around(node, cst.FunctionDef, cst.Lambda)
        for parameter in walk(function.params)
        if isinstance(parameter, cst.Param)
    )


def _reading_mask(node):
    """The change of a node that makes it read `mask`; None if it cannot."""
    if isinstance(node, cst.Attribute):
        return _get_mask
    return _rename if node.func.value == "getattr" else None


def _get_mask(node):
    tensor = cst.Module([]).code_for_node(
        node.value.with_changes(lpar=[], rpar=[])
    )
    call = cst.parse_expression(f'getattr({tensor}, "mask", None)')
    return call.with_changes(lpar=node.lpar, rpar=node.rpar)


def _rename(node):
    tensor, name, *rest = node.args
    text = name.value.value.replace(ATTRIBUTE, "mask")
    name = name.with_changes(value=name.value.with_changes(value=text))
    return node.with_changes(args=[tensor, name, *rest])
