"""A function of a graph is not dispatched: it runs its graph, masks and all."""

from keras.src import tree
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.composite.wholes import Whole
from keras.src.composite.wholes import as_wholes
from keras.src.composite.wholes import opened
from keras.src.ops import graph_order
from keras.src.ops import specs
from keras.src.ops.operation import Operation
from patchset.markers import keeps
from patchset.markers import new


class Function:
    @new
    @classmethod
    def _create(cls, args, kwargs):
        return Operation._configured_new(cls, *args, **kwargs)

    @new
    def _dispatch(self, args, kwargs):
        return self._undispatched_call(*args, **kwargs)

    @new
    def _call_spec(self, *args, **kwargs):
        return self.compute_output_spec(*args, **kwargs)

    @keeps("_run_plain_graph")
    def _run_through_graph(
        self, inputs, operation_fn=lambda op: op, call_fn=None
    ):
        inputs = tree.flatten(inputs)
        if call_fn is not None and all(x is None for x in inputs):
            # A look at how the graph hangs together. Upstream counts what the
            # first call of an operation gave; that of another type has more.
            call_fn = _none_for_each_output
        if not any(isinstance(x, Whole) for x in inputs):
            return self._run_plain_graph(inputs, operation_fn, call_fn)
        outputs = self._run_plain_graph(
            inputs, lambda op: _on_wholes(operation_fn(op)), call_fn
        )
        return tree.map_structure(opened, outputs)

    def compute_output_spec(self, inputs):
        flat = tree.flatten(inputs)
        self._assert_input_compatibility(inputs)
        flat = [specs.like_input(x, ref) for x, ref in zip(flat, self._inputs)]
        if all(specs.same_spec(x, y) for x, y in zip(flat, self._inputs)):
            return tree.map_structure(specs.copy_spec, self._outputs_struct)
        return self._run_through_graph(
            flat, operation_fn=lambda op: op._call_spec
        )

    def call(self, inputs):
        """Computes output tensors for new inputs."""
        self._assert_input_compatibility(inputs)
        if any(map(has_mask, self._inputs)):
            pairs = zip(tree.flatten(inputs), self._inputs)
            inputs = [_as_declared(x, ref) for x, ref in pairs]
        return self._run_through_graph(inputs)


@keeps("_map_plain_graph")
def map_graph(inputs, outputs):
    nodes, nodes_by_depth, operations, by_depth = _map_plain_graph(
        inputs, outputs
    )
    if any(map(graph_order.has_masks, nodes_by_depth.values())):
        ordered, places = _build_map(inputs, outputs)
        depths = graph_order.depths(ordered)
        operations.sort(key=lambda op: (-depths.get(op, 0), places.get(op, -1)))
    return nodes, nodes_by_depth, operations, by_depth


@new
def _none_for_each_output(op, *args, **kwargs):
    return [None] * max(len(node.outputs) for node in op._inbound_nodes)


@new
def _on_wholes(run):
    """What runs an operation of a graph of tensors on composite tensors.

    One that takes a `Whole` gives some, as the graph takes it for a tensor.
    """

    def run_on_wholes(*args, **kwargs):
        is_on_wholes = any_leaf(Whole, args, kwargs)
        args, kwargs = tree.map_structure(opened, (args, kwargs))
        outputs = run(*args, **kwargs)
        return as_wholes(outputs) if is_on_wholes else outputs

    return run_on_wholes


@new
def _as_declared(x, declared):
    # Imported late: the operations are built on this module.
    from keras.src import ops

    if has_mask(declared) and x is not None:
        x = ops.convert_to_tensor(x)
    return specs.like_input(x, declared)
