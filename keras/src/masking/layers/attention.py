"""What the attention layers do with masks, once for all of them."""

import typing

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Layer
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking import packing
from keras.src.masking.calls import values_of
from keras.src.masking.layers import steps
from keras.src.masking.layers.origins import defined_in_keras


def attend(
    layer: Layer,
    query: AnyTensor,
    value: AnyTensor,
    key: AnyTensor,
    own_masks: typing.Sequence,
    attention_mask: Mask | None,
    **kwargs: typing.Any,
) -> Nest:
    """Runs a layer's attention with the masks of its inputs.

    All masks become one attention mask.

    Args:
        layer: The attention layer, whose `_plain_call` knows no masks.
        query: Plain tensor of shape `(batch, T, features)`.
        value: Plain tensor of shape `(batch, S, features)`.
        key: Like `value`, or None for `value` itself.
        own_masks: Masks of the three, each of shape `(batch, T or S)` or None.
            One that masks entries inside of steps leaves those out, too.
        attention_mask: Explicit mask of shape `(batch, T, S)`, of
            `(batch, heads, T, S)` or one that broadcasts with these, or None.
        **kwargs: Further arguments of `_plain_call`.

    Returns:
        What `_plain_call` returns, the first output with the query's mask.
    """
    if all(m is None for m in own_masks):
        return layer._plain_call(
            query, value, key, attention_mask=attention_mask, **kwargs
        )
    (query, query_mask), (value, value_mask), (key, key_mask) = (
        steps.by_steps(x, m)
        for x, m in zip((query, value, key), own_masks, strict=True)
    )
    sees_itself = (
        query_mask is value_mask and attention_mask is key_mask is None
    )
    seen = layer._compute_attention_mask(
        query,
        value,
        query_mask=query_mask,
        value_mask=value_mask,
        key_mask=key_mask,
        use_causal_mask=kwargs.pop("use_causal_mask", False),
    )
    if attention_mask is not None:
        attention_mask = masks.as_bool(attention_mask)
        if len(attention_mask.shape) > 3:
            seen = backend.numpy.expand_dims(seen, 1)
        seen = backend.numpy.logical_and(seen, attention_mask)
    outputs = layer._plain_call(
        query, value, key, attention_mask=seen, **kwargs
    )
    if not sees_itself:
        any_seen = backend.numpy.any(seen, axis=-1)
        if len(any_seen.shape) > 2:
            any_seen = backend.numpy.any(any_seen, axis=1)
        outputs = without_unseen(outputs, any_seen, layer._output_dense.bias)
    return steps.with_mask(outputs, query_mask)


def seen_by_call(layer: Layer, x: Nest) -> Nest:
    """A packed tensor as it is: what projects features takes steps alone.

    A class from outside, whose attention may be its own, gets the values.
    """
    if packing.is_packed(x) and defined_in_keras(
        type(layer), "_compute_attention"
    ):
        return x
    return values_of(x)


def on_padded(
    layer: Layer,
    inputs: typing.Sequence[AnyTensor],
    attention_mask: Mask | None,
    may_narrow: bool,
    **kwargs: typing.Any,
) -> Nest:
    """Runs attention on padded tensors, and packs its output as the query.

    A class from outside whose `call` is its own knows of no mask what `attend`
    makes of it: there tensors are masked, and the ops see to that.

    Args:
        layer: The attention layer. Its `_attend_padded` takes the inputs and
            an attention mask, and gives the output and the scores.
        inputs: Query, key and value, of shape `(batch, T or S, heads,
            features)`.
        attention_mask: As `_attend_padded` takes it.
        may_narrow: Whether nothing else depends on the lengths, so that times
            at which no row has anything can be left out.
        **kwargs: Further arguments of `_attend_padded`.
    """
    query, key, value = inputs
    attend = layer._attend_padded
    if not any(isinstance(x, MaskedTensorBase) for x in inputs):
        return attend(*inputs, attention_mask, **kwargs)
    if not defined_in_keras(type(layer), "call"):
        inputs = [x.padded() if packing.is_packed(x) else x for x in inputs]
        return attend(*inputs, attention_mask, **kwargs)
    layout = query
    if may_narrow and all(isinstance(x, MaskedTensorBase) for x in inputs):
        if query.index is key.index is value.index:
            groups = packing.by_length(query)
            if groups is not None:
                return _in_groups(
                    attend, inputs, attention_mask, groups, **kwargs
                )
        layout, key, value = map(packing.narrowed, inputs)
        times = [slice(x.mask.shape[1]) for x in (layout, key)]
        attention_mask = _cut(attention_mask, inputs, times)
    output, scores = attend(
        *map(values_of, (layout, key, value)), attention_mask, **kwargs
    )
    if isinstance(query, MaskedTensorBase):
        output = query.with_flat(packing.packed(output, layout))
    return output, scores


def _in_groups(attend, inputs, attention_mask, groups, **kwargs):
    """Runs attention on rows of about one length at a time.

    Its scores take the square of a length, which is that of the longest row
    for all of them otherwise. The three inputs have one layout.
    """
    query = inputs[0]
    inputs = [packing.padded_groups(x, groups) for x in inputs]
    outputs = []
    for rows, times, *parts in zip(groups.rows, groups.times, *inputs):
        mask = attention_mask
        # One of two axes is for all rows, however many there are.
        by_row = mask is not None and len(mask.shape) > 2
        if by_row and mask.shape[0] == query.mask.shape[0]:
            mask = backend.numpy.take(mask, rows, axis=0)
        mask = _cut(mask, (query, query), (times, times))
        outputs.append(attend(*parts, mask, **kwargs)[0])
    return packing.of_groups(outputs, groups, query), None


def _cut(mask, inputs, times):
    """An attention mask at some times of query and key alone."""
    if mask is None:
        return None
    key = (...,)
    for axis, x, own in zip((-2, -1), inputs, times):
        # One that broadcasts has no times.
        key += (own if mask.shape[axis] == x.mask.shape[1] else slice(None),)
    return mask[key]


def without_unseen(
    outputs: Nest, any_seen: Mask, bias: Tensor | None = None
) -> Nest:
    """The outputs, with an attention of 0 where a query sees no key at all.

    Else it would be the average over all keys, those to come and the masked
    ones among them.

    Args:
        outputs: Outputs of a layer, or a tuple of them and the scores.
        any_seen: Boolean tensor over leading axes of the outputs.
        bias: What the layer makes of an attention of 0.
    """
    if isinstance(outputs, tuple):
        first, *scores = outputs
        return (without_unseen(first, any_seen, bias), *scores)
    any_seen = masks.expand(any_seen, len(outputs.shape))
    nothing = 0 if bias is None else ops.convert_to_tensor(bias)
    return ops.where(any_seen, outputs, nothing)
