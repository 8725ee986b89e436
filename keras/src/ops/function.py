"""A function of a graph is not dispatched: it runs its graph, masks and all."""

from keras.src.masking import symbolic
from keras.src.masking.errors import has_mask
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

    def compute_output_spec(self, inputs):
        flat = tree.flatten(inputs)
        self._assert_input_compatibility(inputs)
        flat = [
            symbolic.like_input(x, ref) for x, ref in zip(flat, self._inputs)
        ]
        if all(symbolic.same_spec(x, y) for x, y in zip(flat, self._inputs)):
            return tree.map_structure(symbolic.copy_spec, self._outputs_struct)
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


@new
def _as_declared(x, declared):
    # Imported late: the operations are built on this module.
    from keras.src import ops

    if has_mask(declared) and x is not None:
        x = ops.convert_to_tensor(x)
    return symbolic.like_input(x, declared)
