"""Steps of a recurrent layer that skip what is masked, on every backend alike.

The backends' own loops differ: two of them take the first state for the last
output, and want states of rank 2.
"""

import functools
import typing

from keras.src import activations
from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Layer
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Tensor
from keras.src.masking import masks
from keras.src.masking.calls import values_of
from keras.src.masking.layers.origins import defined_in_keras
from keras.src.masking.packing import is_packed


def seen_by_call(x: AnyTensor, *layers: Layer) -> AnyTensor:
    """A packed tensor as it is, if the engine runs these layers over steps."""
    # Of no step at all, operations go by padded tensors.
    if is_packed(x) and x.flat.shape[0] != 0:
        if all(_runs_over_steps(layer, x) for layer in layers):
            return x
    return values_of(x)


def _runs_over_steps(layer, x):
    """Whether this is an LSTM or GRU of the form that the engine knows."""
    if not defined_in_keras(type(layer), "inner_loop"):
        return False
    cell = getattr(layer, "cell", None)
    return (
        getattr(cell, "activation", None) is activations.tanh
        and getattr(cell, "recurrent_activation", None) is activations.sigmoid
        and getattr(cell, "reset_after", True)
        # Others drop at several places of a step.
        and getattr(cell, "dropout_mask_count", None) is None
        and layer.dtype_policy.quantization_mode is None
        # Else an error says so.
        and layer._expected_batch_size in (None, x.shape[0])
        and x._recurrent(type(layer).__name__) is not None
    )


def over_packed(
    layer: Layer, x: AnyTensor, initial_state: Nest, training: bool | None
) -> Nest:
    """What a recurrent layer gives for a packed tensor, without padding it.

    Args:
        layer: The layer, of a form that the engine knows.
        x: Packed tensor of shape `(batch, time, features)`.
        initial_state: Tensor of shape `(batch, units)`, a list of them, or
            None.
        training: Whether it drops inputs, if it does.

    Returns:
        The outputs as the layer's `call` returns them.
    """
    cell = layer.cell
    states = _first_states(layer, x, initial_state)
    step = ops.ones((x.shape[0], x.shape[2]), x.dtype)
    layer._maybe_config_dropout_masks(cell, step, states)
    if training and cell.dropout:
        x = x * ops.expand_dims(cell.get_dropout_mask(step), 1)
    if layer.go_backwards:
        x = ops.flip(x, axis=1)
    run = x._recurrent(type(layer).__name__)
    weights = [cell.kernel, cell.recurrent_kernel, cell.bias]
    outputs, states = run(x, states, weights)
    layer._maybe_reset_dropout_masks(cell)
    if layer.stateful:
        for variable, state in zip(layer.states, states):
            variable.assign(state)
    outputs = x.with_flat(outputs) if layer.return_sequences else states[0]
    return (outputs, *states) if layer.return_state else outputs


def _first_states(layer, x, initial_state):
    if initial_state is None:
        initial_state = (
            layer.states
            if layer.stateful
            else layer.get_initial_state(ops.shape(x)[0])
        )
    return [
        backend.convert_to_tensor(state, layer.cell.compute_dtype)
        for state in tree.flatten(initial_state)
    ]


def mask_rows(arguments: Named) -> None:
    """Masks sequences instead of first states, where these are masked by rows.

    A row that has no state to begin with has no steps.

    Args:
        arguments: Arguments of the `call` of a recurrent layer, by their
            names, changed in place.
    """
    states = arguments.get("initial_state")
    found = [x.mask for x in tree.flatten(states) if masks.is_masked(x)]
    name = next(iter(arguments))
    if not found or any(len(m.shape) != 1 for m in found):
        return
    if not hasattr(arguments[name], "shape"):
        return
    rows = functools.reduce(ops.logical_and, found)
    arguments["initial_state"] = tree.map_structure(masks.filled, states)
    if arguments.get("mask") is not None:
        mask = tree.flatten(arguments["mask"])[0]
        mask = masks.as_bool(masks.filled(mask))
        arguments["mask"] = mask & masks.expand(rows, len(mask.shape))
        return
    x = arguments[name]
    mask = x.mask if masks.is_masked(x) else rows
    mask = mask & masks.expand(rows, len(mask.shape))
    arguments[name] = backend.MaskedTensor(values_of(x), mask)


def inputs_of_skipping(sequences: Tensor, mask: Mask) -> tuple[Tensor, Mask]:
    """What the steps of `skip_masked` have for inputs, in time.

    Args:
        sequences: Tensor of shape `(batch, time, ...)`.
        mask: Mask of shape `(batch, time)`.
    """
    # TensorFlow's loop wants inputs of rank 3.
    return sequences, ops.expand_dims(mask, -1)


def skip_masked(
    step: typing.Callable,
    shown: typing.Callable | None = None,
    zero_output: bool = False,
) -> typing.Callable:
    """A step that keeps the states, and repeats the output, where masked.

    Args:
        step: Function of the inputs and the list of states of a step, which
            returns its output and the list of new states; of any ranks.
        shown: Function of the states that gives the output that they come
            with, for a cell that has it among its states. For any other, the
            states have one more than those of `step`, the output so far.
        zero_output: Whether masked steps give 0 instead.
    """

    def masked_step(inputs, states):
        x, valid = inputs
        states = list(states)
        before = states.pop() if shown is None else None
        output, new_states = step(x, states)
        kept = _keep(valid, new_states, states)
        if shown is None:
            after = _where(valid, output, before)
            states = [*kept, after]
        else:
            after, states = shown(kept), kept
        output = _where(valid, output, 0) if zero_output else after
        return output, states

    return masked_step


def _keep(valid, new_states, states):
    # Most states are tensors. Their structure takes longer than their sums.
    if not any(isinstance(x, (list, tuple, dict)) for x in states):
        return [_where(valid, *pair) for pair in zip(new_states, states)]
    pairs = zip(tree.flatten(new_states), tree.flatten(states))
    kept = [_where(valid, *pair) for pair in pairs]
    return tree.pack_sequence_as(states, kept)


def _where(valid, x, other):
    ndim = len(x.shape)
    valid = masks.expand(valid, ndim) if ndim > 1 else valid[:, 0]
    return backend.numpy.where(valid, x, other)
