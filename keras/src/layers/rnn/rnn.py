"""Recurrent layers ask for their mask by name and return masked sequences."""

from keras.src.masking import protocols
from keras.src.masking import recurrence
from keras.src.masking.refusals import is_from_keras
from pip_build import keeps
from pip_build import new


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

    @keeps("_plain_inner_loop")
    def inner_loop(self, sequences, initial_state, mask, training=False):
        if mask is None:
            return self._plain_inner_loop(
                sequences, initial_state, mask, training=training
            )
        kwargs = {}
        if isinstance(self.cell, Layer) and self.cell._call_has_training_arg:
            kwargs["training"] = training

        def step(inputs, states):
            return self.cell(inputs, states, **kwargs)

        states = initial_state
        if not tree.is_nested(states):
            states = [states]
        if self.stateful:
            # The variables change before gradients are computed.
            states = tree.map_structure(ops.copy, states)
        last_output, outputs, states = backend.rnn(
            recurrence.skip_masked(
                step,
                ops.flip(mask, axis=1) if self.go_backwards else mask,
                zero_output=self.zero_output_for_mask,
            ),
            sequences,
            recurrence.initial_states(
                states, self._output_before(step, sequences, states)
            ),
            go_backwards=self.go_backwards,
            unroll=self.unroll,
            input_length=sequences.shape[1],
            return_all_outputs=self.return_sequences,
        )
        return last_output, outputs, list(states[:-2])

    @new
    def _output_before(self, step, sequences, states):
        """The output before the first step: the first state if it fits, or 0.

        Keras's own cells have their last output as their first state.
        """
        cell, first = self.cell, states
        if isinstance(cell, StackedRNNCells):
            cell, first = cell.cells[-1], states[-1]
        first = tree.flatten(first)[0]
        if is_from_keras(type(cell).__module__):
            return first
        output, _ = step(sequences[:, 0], states)
        if tuple(first.shape[1:]) == tuple(output.shape[1:]):
            return ops.cast(first, output.dtype)
        return ops.zeros_like(output)
