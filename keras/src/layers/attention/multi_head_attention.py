"""Attention asks for its masks by name, and clears none of its caller's.

Upstream reads the query's mask off the tensor, and takes the masks off the
caller's tensors. Here all masks become the attention mask, beforehand.
"""

from keras.src.masking.layers import attention
from keras.src.masking.layers.attention import attend
from patchset.markers import keeps
from patchset.markers import new
from patchset.markers import when

if when(">=3.16"):
    from keras.src.masking.door import backend  # noqa: F401


class MultiHeadAttention:
    @new
    def _seen_by_call(self, x):
        return attention.seen_by_call(self, x)

    @keeps("_attend_padded")
    def _compute_attention(
        self,
        query,
        key,
        value,
        attention_mask=None,
        training=None,
        return_attention_scores=False,
        **kwargs,
    ):
        return attention.on_padded(
            self,
            (query, key, value),
            attention_mask,
            # Scores have all times, and what is dropped depends on them.
            not (return_attention_scores or self._dropout),
            training=training,
            return_attention_scores=return_attention_scores,
            **kwargs,
        )

    @keeps("_plain_call")
    def call(
        self,
        query,
        value,
        key=None,
        query_mask=None,
        value_mask=None,
        key_mask=None,
        attention_mask=None,
        return_attention_scores=False,
        training=None,
        use_causal_mask=False,
    ):
        return attend(
            self,
            query,
            value,
            key,
            (query_mask, value_mask, key_mask),
            attention_mask=attention_mask,
            return_attention_scores=return_attention_scores,
            training=training,
            use_causal_mask=use_causal_mask,
        )
