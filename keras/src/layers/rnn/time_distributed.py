"""The wrapped layer takes each step as a masked tensor, by its own protocol."""

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.variables import shape_equal
from keras.src.masking import masks
from keras.src.masking import symbolic
from keras.src.masking.calls import values_of
from keras.src.masking.layers import passing
from keras.src.masking.layers import steps
from keras.src.ops import specs
from patchset.markers import keeps
from patchset.markers import new


class TimeDistributed:
    @keeps("_plain_call")
    def call(self, inputs, training=None, mask=None):
        if mask is None:
            return self._plain_call(inputs, training=training)
        _check_step_mask(mask, inputs)
        if len(mask.shape) == 1:
            # One of the batch alone is that of each step.
            mask = masks.to_rank(masks.as_bool(mask), inputs, 2)
        step_mask = steps.step_mask(mask)
        # An explicit mask need not cover leading axes; its steps count then.
        inner = tuple(mask.shape)
        if not shape_equal(inner, tuple(inputs.shape)[: len(inner)]):
            mask = step_mask
        sequences = passing.masked_inputs(inputs, mask)
        # Time first, so that a step is an entry of the first axis.
        sequences = ops.swapaxes(sequences, 0, 1)
        outputs = ops.swapaxes(self._call_on_steps(sequences, training), 0, 1)
        mask = outputs.mask if has_mask(outputs) else step_mask
        return steps.with_mask(values_of(outputs), mask)

    @new
    def _call_spec(self, inputs, training=None, mask=None):
        spec = self.compute_output_spec(symbolic.values_spec(inputs))
        mask = inputs._mask_spec if mask is None else mask
        if mask is None:
            return spec
        _check_step_mask(mask, inputs)
        # One step tells what the wrapped layer makes of a mask inside it.
        batch, time = inputs.shape[:2]
        inner = mask.shape[2:]
        step = specs.masked_spec(
            backend.KerasTensor(self._get_child_input_shape(inputs.shape)),
            backend.KerasTensor((batch, *inner), "bool"),
        )
        child = self.layer._call_spec(step)
        inner = child._mask_spec.shape[1:] if has_mask(child) else ()
        return specs.masked_spec(
            spec, backend.KerasTensor((batch, time, *inner), "bool")
        )

    @new
    def _call_on_steps(self, steps, training):
        """Calls the wrapped layer on each step, and stacks what it returns."""
        kwargs = {}
        if self.layer._call_has_training_arg:
            kwargs["training"] = training
        if isinstance(steps.shape[0], int):
            return ops.stack([self.layer._run_call(x, **kwargs) for x in steps])
        masked = []

        def parts(step):
            output = self.layer._run_call(masks.wrap(*step), **kwargs)
            masked[:] = [has_mask(output)]
            return (output.values, output.mask) if masked[0] else (output,)

        return masks.wrap(
            *backend.vectorized_map(parts, (steps.values, steps.mask)),
            *([] if masked[0] else [None]),
        )


@new
def _check_step_mask(mask, inputs):
    shape, mask_shape = tuple(inputs.shape), tuple(mask.shape)
    lead = mask_shape[:2]
    if not lead or not shape_equal(lead, shape[: len(lead)]):
        raise ValueError(
            "The `mask` passed to the `TimeDistributed` layer has a shape "
            f"{mask_shape} that is incompatible with the input shape {shape}: "
            "their first two dimensions, batch and time, must match, or the "
            "batch alone for a mask of shape `(batch,)`."
        )
