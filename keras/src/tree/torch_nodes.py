"""`torch.utils._pytree`, in which some of its nodes are leaves: `keras.tree`'s.

A masked tensor is a node for PyTorch, which exports, maps and hands on its
parts, and one tensor for Keras.
"""

import typing

from torch.utils import _pytree

GetAttrKey = _pytree.GetAttrKey
MappingKey = _pytree.MappingKey
SequenceKey = _pytree.SequenceKey
SUPPORTED_NODES = _pytree.SUPPORTED_NODES
register_pytree_node = _pytree.register_pytree_node
tree_unflatten = _pytree.tree_unflatten

# Types, each entered where it is defined.
LEAVES: set[type] = set()


def _or_leaf(is_leaf):
    if is_leaf is None:
        return _is_leaf
    return lambda x: type(x) in LEAVES or is_leaf(x)


def _is_leaf(x):
    return type(x) in LEAVES


def _get_node_type(x):
    return None if type(x) in LEAVES else _pytree._get_node_type(x)


def tree_flatten(
    x: typing.Any, is_leaf: typing.Callable[[typing.Any], bool] | None = None
) -> tuple[list, typing.Any]:
    return _pytree.tree_flatten(x, _or_leaf(is_leaf))


def tree_flatten_with_path(x: typing.Any) -> tuple[list, typing.Any]:
    return _pytree.tree_flatten_with_path(x, _is_leaf)


def tree_map(
    function: typing.Callable,
    *trees: typing.Any,
    is_leaf: typing.Callable[[typing.Any], bool] | None = None,
) -> typing.Any:
    return _pytree.tree_map(function, *trees, is_leaf=_or_leaf(is_leaf))
