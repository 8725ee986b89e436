"""Recurrent layers ask for their mask by name and return masked sequences."""

from keras.src.masking import protocols
from pip_build import keeps


class RNN:
    @keeps("_plain_call")
    def call(
        self,
        sequences,
        initial_state=None,
        mask=None,
        training=False,
    ):
        if all(m is None for m in tree.flatten(mask)):
            return self._plain_call(
                sequences, initial_state=initial_state, training=training
            )
        sequences, mask = protocols.by_steps(sequences, mask)
        outputs = self._plain_call(
            sequences,
            initial_state=initial_state,
            mask=mask,
            training=training,
        )
        if not self.return_sequences:
            return outputs
        # Steps come out in the order in which they were read.
        if self.go_backwards:
            mask = ops.flip(mask, axis=1)
        return protocols.with_mask(outputs, mask)
