"""The order of the operations of a graph, by which files know layers.

Upstream's masks are made by operations of the graph, on which a layer that
takes a mask depends: what makes a mask lies deeper than it does by its values.
Here masks are part of the tensors. `model.layers`, and files of weights, have
the same order.
"""

import typing

from keras.src import tree
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.kinds import Operation


def has_masks(nodes: typing.Iterable) -> bool:
    """Whether a tensor that nodes of a graph make is masked.

    Args:
        nodes: The nodes.
    """
    return any(has_mask(x) for node in nodes for x in node.outputs)


def depths(nodes: typing.Sequence) -> dict[Operation, int]:
    """How many operations there are, at most, from each one to an output.

    Args:
        nodes: The nodes of the graph, from inputs to outputs.
    """
    sources = _sources_of_masks(nodes)
    of_nodes = dict.fromkeys(nodes, 0)
    of_operations: dict[Operation, int] = {}
    # Those of what would make the mask of a tensor, by the tensor's identity.
    of_masks: dict[int, int] = {}

    def deepen(makers, depth):
        for node in makers:
            if node in of_nodes:
                of_nodes[node] = max(of_nodes[node], depth)

    def deepen_masks(tensors, depth):
        for x in tensors:
            of_masks[id(x)] = max(of_masks.get(id(x), 0), depth)

    for node in reversed(nodes):
        depth = max(of_nodes[node], of_operations.get(node.operation, 0))
        of_operations[node.operation] = depth
        deepen(node.parent_nodes, depth + 1)
        if _takes_mask(node):
            deepen_masks(node.input_tensors, depth + 1)
        for output in node.outputs:
            if id(output) not in of_masks:
                continue
            for x, of_values, of_mask in sources.get(id(output), ()):
                if of_values is not None:
                    deepen(_makers(x), of_masks[id(output)] + of_values)
                if of_mask is not None:
                    deepen_masks([x], of_masks[id(output)] + of_mask)
    return of_operations


def _makers(x):
    history = getattr(x, "_keras_history", None)
    if history is None:
        return []
    operation, index, _ = history
    return [operation._inbound_nodes[index]] if operation else []


def _takes_mask(node):
    """Whether upstream's node of a call has the mask of its one tensor.

    It has what the user passed, to which the mask is added where nothing is
    converted first.
    """
    layer, arguments = node.operation, node.arguments
    if "mask" not in getattr(layer, "call_signature_parameters", ()):
        return False
    if not layer._convert_input_args:
        return True
    return (
        len(arguments.keras_tensors) == len(arguments.args) == 1
        and arguments.args[0] is arguments.keras_tensors[0]
        and arguments.args[0].dtype == layer.input_dtype
    )


def _sources_of_masks(nodes):
    """What upstream's masks are made of, by the identity of their tensors.

    Returns:
        For each tensor that has one, the tensors of whose values or mask it is
        made, with the numbers of operations from these, None where it is not.
    """
    sources: dict = {}
    for node in nodes:
        layer, args = node.operation, node.arguments.args
        if not args or not getattr(layer, "supports_masking", False):
            continue
        inputs = tree.flatten(args[0])
        are_masked = [id(x) in sources for x in inputs]
        if not any(are_masked) and not any(map(has_mask, node.outputs)):
            continue
        ranks = [len(x.shape) for x in (*inputs, *node.outputs)]
        is_nest = tree.is_nested(args[0])
        key = type(layer), is_nest, *ranks, *are_masked
        if key not in _STEPS:
            _STEPS[key] = _steps(layer, args[0], are_masked, len(node.outputs))
        for output, steps in zip(node.outputs, _STEPS[key]):
            found = [(x, *pair) for x, pair in zip(inputs, steps)]
            found = [x for x in found if x[1:] != (None, None)]
            if found:
                sources[id(output)] = found
    return sources


# By the layer's class, the ranks of its inputs and outputs, and which of the
# inputs are masked.
_STEPS: dict = {}


def _steps(layer, first, are_masked, count):
    """For each output pairs of numbers of operations, one for each input."""
    values = tree.map_structure(_stand_in, first)
    masks = [
        KerasTensor(x.shape[:2], "bool") if masked else None
        for x, masked in zip(tree.flatten(first), are_masked)
    ]
    flat = list(zip(tree.flatten(values), masks))
    masks = tree.pack_sequence_as(first, masks)
    if not str(layer.compute_mask.__module__).startswith("keras."):
        # Its author's code has run once, and may do more than compute.
        return [[(1, 1)] * len(flat)] * count
    upstream = getattr(layer, "_upstream_compute_mask", layer.compute_mask)
    made = tree.flatten(upstream(values, masks))
    made = (made + [None] * count)[:count]
    return [
        [tuple(_length(x, source) for source in pair) for pair in flat]
        for x in made
    ]


def _stand_in(x):
    return KerasTensor(x.shape, x.dtype)


def _length(x, source):
    """Operations between tensors at most, None if there is no way."""
    if x is source or x is None or source is None:
        return 0 if x is source and x is not None else None
    lengths = [
        _length(y, source) for node in _makers(x) for y in node.input_tensors
    ]
    return max((n + 1 for n in lengths if n is not None), default=None)
