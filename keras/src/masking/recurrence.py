"""Steps of a recurrent layer that skip what is masked, on every backend alike.

The backends' own loops differ: two of them take the first state for the last
output, and want states of rank 2.
"""

from keras.src import ops
from keras.src import tree
from keras.src.masking import masks


def skip_masked(step, mask, zero_output=False):
    """A step that keeps the states, and repeats the output, where masked.

    It has two states more than `step`, the last ones: the number of steps
    done, and the output so far. `initial_states` gives them.

    Args:
        step: Function of the inputs and the states of a step, which returns
            its output and the list of new states; of any ranks.
        mask: Mask of shape `(batch, time)`, in the order of the steps.
        zero_output: Whether masked steps give 0 instead.
    """

    def masked_step(inputs, states):
        *states, time, shown = states
        valid = ops.take(mask, time, axis=1)
        output, new_states = step(inputs, states)
        pairs = zip(tree.flatten(new_states), tree.flatten(states))
        kept = [_where(valid, new, old) for new, old in pairs]
        kept = tree.pack_sequence_as(states, kept)
        shown = _where(valid, output, shown)
        output = _where(valid, output, 0) if zero_output else shown
        return output, [*kept, time + 1, shown]

    return masked_step


def initial_states(states, output):
    """The states to begin with, for `skip_masked`.

    Args:
        states: List of the states of `step`.
        output: What is shown before the first valid step.
    """
    return [*states, ops.zeros((), "int32"), output]


def _where(valid, x, other):
    return ops.where(masks.expand(valid, len(x.shape)), x, other)
