"""No mask is cleared in place: it is dropped by taking the values."""

import numpy as np
from absl.testing import parameterized

from keras.src import layers


class GroupedQueryAttentionTest:
    @parameterized.named_parameters(("causal", True), ("not_causal", 0))
    def test_masking(self, use_causal_mask):
        """Masks cannot be cleared in place any more, so the call by hand takes
        `.values`. It is compared where the query is valid: nothing is promised
        about what lies under the result's mask.
        """
        query = np.array([[1, 2, 3, 0, 0], [3, 3, 1, 1, 2], [1, 0, 0, 0, 0]])
        value = np.array([[5, 4, 0], [3, 0, 0], [2, 1, 1]])
        masked_query = layers.Embedding(4, 8, mask_zero=True)(query)
        masked_value = layers.Embedding(6, 8, mask_zero=True)(value)
        mask = (query != 0)[:, :, None] & (value != 0)[:, None, :]
        if use_causal_mask:
            mask = mask & np.tri(5, 3, dtype="bool")
        for kwargs in ({}, {"use_gate": True}):
            layer = layers.GroupedQueryAttention(2, 2, 2, **kwargs)
            output = layer(
                query=masked_query,
                value=masked_value,
                use_causal_mask=use_causal_mask,
            )
            by_hand = layer(
                query=masked_query.values,
                value=masked_value.values,
                attention_mask=mask,
            )
            self.assertMaskedClose(
                output, self.convert_to_numpy(by_hand), query != 0
            )
