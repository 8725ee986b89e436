"""Attention asks for its masks by name and returns a masked tensor."""

import functools

from keras.src import ops
from keras.src import tree
from keras.src.masking import masks
from keras.src.masking.door import backend  # noqa: F401
from keras.src.masking.layers import steps
from keras.src.masking.layers.attention import without_unseen
from patchset.markers import keeps


class Attention:
    @keeps("_plain_call")
    def call(
        self,
        inputs,
        mask=None,
        training=False,
        return_attention_scores=False,
        use_causal_mask=False,
    ):
        kwargs = {
            "training": training,
            "return_attention_scores": return_attention_scores,
            "use_causal_mask": use_causal_mask,
        }
        if not isinstance(mask, list) or all(m is None for m in mask):
            return self._plain_call(inputs, mask=mask, **kwargs)
        self._validate_inputs(inputs=inputs, mask=mask)
        if len(inputs) > len(mask) > 1 and mask[1] is not None:
            # The masks were passed, and the keys have none: they are the
            # values', which may lie over NaN.
            keys = masks.fill(inputs[2], masks.as_bool(mask[1]), 0)
            inputs = [*inputs[:2], keys]
        pairs = zip(inputs, [*mask, None], strict=False)
        inputs, own_masks = map(
            list,
            zip(*(steps.by_steps(x, m, len(x.shape) - 1) for x, m in pairs)),
        )
        query_mask, *others = own_masks
        others = [m for m in others if m is not None]
        value_mask = (
            functools.reduce(ops.logical_and, others) if others else None
        )
        outputs = self._plain_call(
            inputs, mask=[query_mask, value_mask], **kwargs
        )
        if use_causal_mask and value_mask is not None:
            # Among the keys up to its own place.
            any_seen = ops.cumsum(ops.cast(value_mask, "int32"), axis=-1) > 0
            last = ops.shape(value_mask)[-1] - 1
            places = ops.minimum(ops.arange(ops.shape(inputs[0])[-2]), last)
            any_seen = ops.take(any_seen, places, axis=-1)
            outputs = without_unseen(outputs, any_seen)
        # NumPy's bfloat16 is float32 as soon as a score is masked.
        outputs = tree.map_structure(
            lambda x: ops.cast(x, self.compute_dtype), outputs
        )
        return steps.with_mask(outputs, query_mask)
