"""Both halves give plain sequences, and what they are merged to has the mask.

A half from outside Keras need not know that its mask runs backwards, too.
"""

from keras.src import ops
from keras.src import tree
from keras.src.backend.common.composite import any_composite
from keras.src.masking import masks
from keras.src.masking import packing
from keras.src.masking.layers import recurrence
from keras.src.masking.layers import scopes
from keras.src.masking.layers import steps
from patchset.markers import keeps
from patchset.markers import new
from patchset.markers import when


class Bidirectional:
    @new
    def _seen_by_call(self, x):
        return recurrence.seen_by_call(
            x, self.forward_layer, self.backward_layer
        )

    @keeps("_plain_call")
    def call(
        self,
        sequences,
        initial_state=None,
        mask=None,
        training=None,
    ):
        kwargs = {"initial_state": initial_state, "training": training}
        if all(m is None for m in tree.flatten(mask)):
            return self._plain_call(sequences, **kwargs)
        if packing.is_packed(sequences):
            if mask is sequences.mask:
                return self._plain_call(sequences, mask=mask, **kwargs)
            sequences = sequences.values
        rows = steps.over_rows(mask)
        sequences, mask = steps.by_steps(sequences, mask)
        with scopes.all_plain():
            outputs = self._plain_call(sequences, mask=mask, **kwargs)
        if not self.return_sequences:
            mask = rows
        elif self.forward_layer.go_backwards:
            mask = ops.flip(mask, axis=1)

        def masked(x, mask):
            if mask is None:
                return x
            # An old half may have left anything there.
            return steps.with_mask(masks.fill(x, mask, 0), mask)

        if not tree.is_nested(outputs):
            return masked(outputs, mask)
        count = 1 if self.merge_mode else 2
        halves, states = outputs[:count], outputs[count:]
        states = tree.map_structure(lambda x: masked(x, rows), states)
        return (*(masked(x, mask) for x in halves), *states)

    @when(">=3.15")
    @keeps("_fused_lstm_of_tensors")
    def _call_fused_lstm(self, sequences, initial_state):
        _refuse_composites(sequences, initial_state)
        return self._fused_lstm_of_tensors(sequences, initial_state)

    @when(">=3.15")
    @keeps("_fused_gru_of_tensors")
    def _call_fused_gru(self, sequences, initial_state):
        _refuse_composites(sequences, initial_state)
        return self._fused_gru_of_tensors(sequences, initial_state)


@new
def _refuse_composites(*operands):
    """Says that there is no kernel for these, as a backend says it."""
    if any_composite(operands):
        raise NotImplementedError
