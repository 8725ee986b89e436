"""Recurrent layers ask for their mask by name and return masked sequences."""

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common import composite
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import any_composite
from keras.src.composite import recurrence as composite_recurrence
from keras.src.layers.layer import Layer
from keras.src.layers.rnn.stacked_rnn_cells import StackedRNNCells
from keras.src.masking import packing
from keras.src.masking.layers import recurrence
from keras.src.masking.layers import steps
from keras.src.masking.refusals import is_from_keras
from patchset.markers import keeps
from patchset.markers import new


class RNN:
    @keeps("_build_on_tensor")
    def build(self, sequences_shape, initial_state_shape=None):
        if isinstance(sequences_shape, CompositeBase):
            shapes = composite_recurrence.step_shapes(sequences_shape)
            if isinstance(self.cell, Layer) and not self.cell.built:
                self.cell.build(shapes)
                self.cell.built = True
            sequences_shape = composite.take_apart(sequences_shape)[0][0]
        self._build_on_tensor(sequences_shape)

    @keeps("_plain_initial_state")
    def get_initial_state(self, batch_size):
        first = getattr(self.cell, "get_initial_state", None)
        if not composite.DEFINED or first is None:
            return self._plain_initial_state(batch_size)
        # Asked once: it may draw random numbers.
        states = first(batch_size=batch_size)
        return composite_recurrence.first_states(self.cell, states)

    def reset_state(self):
        # States may be nests, those of a stack of cells are.
        for variable in tree.flatten(self.states):
            if variable is not None:
                variable.assign(ops.zeros_like(variable.value))

    @new
    def _seen_by_call(self, x):
        return recurrence.seen_by_call(x, self)

    @keeps("_plain_call")
    def call(
        self,
        sequences,
        initial_state=None,
        mask=None,
        training=False,
    ):
        if composite.DEFINED:
            if initial_state is None and not self.stateful:
                batch_size = ops.shape(tree.flatten(sequences)[0])[0]
                initial_state = self.get_initial_state(batch_size=batch_size)
            states = self.states if initial_state is None else initial_state
            if any_composite((sequences, states)):
                return composite_recurrence.run(
                    self, sequences, states, mask, training
                )
        if all(m is None for m in tree.flatten(mask)):
            return self._plain_call(
                sequences, initial_state=initial_state, training=training
            )
        if packing.is_packed(sequences):
            if mask is sequences.mask:
                return recurrence.over_packed(
                    self, sequences, initial_state, training
                )
            sequences = sequences.values
        rows = steps.over_rows(mask)
        sequences, mask = steps.by_steps(sequences, mask)
        outputs = self._plain_call(
            sequences,
            initial_state=initial_state,
            mask=mask,
            training=training,
        )
        if not self.return_sequences:
            mask = rows
        elif self.go_backwards:
            # Steps come out in the order in which they were read.
            mask = ops.flip(mask, axis=1)
        return steps.with_masks(outputs, mask, rows)

    @keeps("_plain_inner_loop")
    def inner_loop(self, sequences, initial_state, mask, training=False):
        if mask is None:
            return self._plain_inner_loop(
                sequences, initial_state, mask, training=training
            )
        step = self._cell_step(training)
        states = initial_state
        if not tree.is_nested(states):
            states = [states]
        if self.stateful:
            # The variables change before gradients are computed.
            states = tree.map_structure(ops.copy, states)
        cell, first = self._last_cell(states)
        shown = None
        if is_from_keras(type(cell).__module__):
            # Whose first state is its output.
            shown = lambda states: self._last_cell(states)[1]
        else:
            before = _output_before(first, step(sequences[:, 0], states)[0])
            states = [*states, before]
        steps = sequences.shape[1]
        if steps is None:
            # TensorFlow's loop has to be told, where there is not one sequence.
            steps = [ops.shape(sequences)[1]]
        # What is shown last is no step of a sequence.
        zero_output = self.zero_output_for_mask and self.return_sequences
        last_output, outputs, states = backend.rnn(
            recurrence.skip_masked(step, shown, zero_output),
            recurrence.inputs_of_skipping(sequences, mask),
            states,
            go_backwards=self.go_backwards,
            # NumPy's other loop takes no more than one sequence.
            unroll=self.unroll or backend.backend() == "numpy",
            input_length=steps,
            return_all_outputs=self.return_sequences,
        )
        states = list(states)
        return last_output, outputs, states if shown else states[:-1]

    @new
    def _meets_composites(self, args, kwargs):
        return super()._meets_composites(args, kwargs) or (
            bool(composite.DEFINED)
            and hasattr(self.cell, "get_initial_state")
            and any_composite((self.cell.get_initial_state(batch_size=1),))
        )

    @new
    def _cell_step(self, training):
        """A step of the cell, a function of its inputs and states."""
        kwargs = {}
        if isinstance(self.cell, Layer) and self.cell._call_has_training_arg:
            kwargs["training"] = training

        def step(inputs, states):
            return self.cell(inputs, states, **kwargs)

        return step

    @new
    def _last_cell(self, states):
        """The cell that gives the output, and its first state."""
        cell = self.cell
        while isinstance(cell, StackedRNNCells):
            cell, states = cell.cells[-1], states[-1]
        return cell, tree.flatten(states)[0]


@new
def _output_before(first_state, output):
    """The output before the first step: the first state if it fits, or 0."""
    if tuple(first_state.shape[1:]) == tuple(output.shape[1:]):
        return ops.cast(first_state, output.dtype)
    return ops.zeros_like(output)
