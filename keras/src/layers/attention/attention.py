"""Attention asks for its masks by name and returns a masked tensor."""

from keras.src.masking import protocols
from pip_build import keeps


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
        pairs = zip(inputs, [*mask, None], strict=False)
        pairs = [protocols.by_steps(x, m, len(x.shape) - 1) for x, m in pairs]
        inputs, mask = map(list, zip(*pairs, strict=True))
        outputs = self._plain_call(inputs, mask=mask, **kwargs)
        return protocols.with_mask(outputs, mask[0])
