"""Recurrent layers over sequences, states and outputs of one's own types.

Each part of a composite sequence has the shape `(batch, time, ...)`. The loops
of the backends are given the parts; the cell is given what they make.
"""

import functools

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.kinds import Layer
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking.calls import values_of
from keras.src.masking.layers import steps
from keras.src.utils.traceback_utils import format_argument_value

# Backends whose loops are Python's, and take no nests of outputs.
_IN_PYTHON = ("numpy", "torch")


def listed(cell: Layer | None, states: list) -> list:
    """The states of a cell as a list, where a tensor of any type is one."""
    is_one = isinstance(states, CompositeBase) or not tree.is_nested(states)
    states = [states] if is_one else list(states)
    cells = getattr(cell, "cells", None)
    if cells is None:
        return states
    return [listed(*pair) for pair in zip(cells, states)]


def first_states(cell: Layer, states: Nest) -> list:
    """What a cell's `get_initial_state` gave, as upstream's layer has it."""
    if not any_composite((states,)):
        return listed(None, states)
    # Parts may be one tensor, which variables made of them would share.
    return _map(ops.copy, listed(cell, states))


def step_shapes(shapes: Nest) -> Nest:
    """The shapes of the parts at one step, from those in time."""
    return tree.map_shape_structure(lambda x: (x[0], *x[2:]), shapes)


def run(
    layer: Layer,
    sequences: Nest,
    states: Nest,
    mask: Mask | None,
    training: bool | None,
) -> Nest:
    """What `RNN.call` returns for sequences or states of one's own types.

    Args:
        layer: The recurrent layer.
        sequences: Tensor or composite tensor, in time.
        states: The states that it starts from.
        mask: Mask of shape `(batch, time)`, or None.
        training: As layers take it.
    """
    sequences, mask, rows = _by_steps(sequences, mask)
    states = listed(layer.cell, states)
    states = _cast(states, layer.cell.compute_dtype)
    if layer.stateful:
        # The variables change before gradients are computed.
        states = _map(ops.copy, states)
    if layer.go_backwards:
        sequences, mask = _map(lambda x: ops.flip(x, axis=1), (sequences, mask))
    first = _map(lambda x: x[:, 0], sequences)
    layer._maybe_config_dropout_masks(layer.cell, first, states)
    step = _listing(layer.cell, layer._cell_step(training))
    output, after = step(first, states)
    _check_states(layer, states, after)
    carry = (_map(ops.zeros_like, output), states)
    # What is shown last is no step of a sequence.
    zero_output = layer.zero_output_for_mask and layer.return_sequences
    inputs = (sequences, mask) if mask is not None else (sequences,)
    outputs, (last, states) = _loop(
        layer, _carried(step, zero_output), inputs, carry
    )
    layer._maybe_reset_dropout_masks(layer.cell)
    if layer.stateful:
        pairs = zip(tree.flatten(layer.states), tree.flatten(states))
        for variable, state in pairs:
            variable.assign(state)
    shown = outputs if layer.return_sequences else last
    shown = _cast(shown, layer.compute_dtype)
    shown = _masked(shown, mask if layer.return_sequences else rows)
    if layer.return_state:
        return shown, *_masked(_cast(states, layer.compute_dtype), rows)
    return shown


def _masked(nest, mask):
    return _map(lambda x: steps.with_mask(x, mask), nest)


def _listing(cell, step):
    """The step, with its new states as `listed` gives them."""

    def listing(inputs, states):
        output, states = step(inputs, states)
        if len(getattr(cell, "cells", ())) == 1:
            # A stack of one cell gives the states of this cell.
            states = [states]
        return output, listed(cell, states)

    return listing


def _map(function, nest):
    """The nest with the function of each part; of None, None."""
    return tree.map_structure(
        lambda x: None if x is None else function(x), nest
    )


def _cast(nest, dtype):
    """The nest, variables as tensors and floats of this type."""

    def cast(x):
        x = backend.convert_to_tensor(x)
        is_float = backend.is_float_dtype(backend.standardize_dtype(x.dtype))
        return ops.cast(x, dtype) if is_float else x

    return _map(cast, nest)


def _by_steps(sequences, mask):
    """Plain parts, the mask of the steps that count in all of them, and rows.

    The last is the mask of the batch alone, if the masks are no more.
    """
    masked = [
        x for x in tree.flatten(sequences) if isinstance(x, MaskedTensorBase)
    ]
    found = [] if mask is None else [steps.step_mask(mask)]
    found += [steps.step_mask(x.mask) for x in masked]
    if not found:
        return sequences, None, None
    ndim = max(len(m.shape) for m in found)
    mask = functools.reduce(
        ops.logical_and, [masks.expand(m, ndim) for m in found]
    )
    rows = steps.over_rows(mask)
    sequences = _map(lambda x: masks.fill(values_of(x), mask, 0), sequences)
    mask = masks.over_axes(mask, tree.flatten(sequences)[0], 2)
    return sequences, mask, rows


def _check_states(layer, before, after):
    """Raises if a step gives states of other types than those it was given."""
    try:
        tree.assert_same_structure(before, after)
    except ValueError:
        raise TypeError(
            f"The cell of layer '{layer.name}' "
            f"({type(layer.cell).__name__}) was given the states "
            f"{_map(format_argument_value, before)} and gave back "
            f"{_map(format_argument_value, after)}. States keep their types. "
            "Give the layer `initial_state=[...]` of the types that the cell "
            "gives back, or let `get_initial_state` of the cell make them."
        ) from None


def _carried(step, zero_output):
    """A step on `((sequences, mask), (output so far, states))`.

    Where the mask is False, the states and the output stay.
    """

    def carried(inputs, carry):
        before, states = carry
        output, after = step(inputs[0], states)
        if len(inputs) == 1:
            return output, (output, after)

        def kept(new, old):
            return backend.numpy.where(
                masks.expand(inputs[1], len(new.shape)), new, old
            )

        new = (output, after)
        carry = tree.map_structure(kept, new, carry)
        if not zero_output:
            return carry[0], carry
        return _map(lambda x: masks.fill(x, inputs[1], 0), output), carry

    return carried


def _loop(layer, step, inputs, carry):
    """Outputs in time, as one nest, and what is carried at the end."""
    shown = carry[0]
    rows = tree.flatten(inputs)
    # TensorFlow's loop wants inputs of rank 3.
    ranks = [len(x.shape) for x in rows]
    rows = [ops.expand_dims(x, 2) if len(x.shape) == 2 else x for x in rows]

    def flat_step(parts, flat):
        parts = [x[:, 0] if rank == 2 else x for x, rank in zip(parts, ranks)]
        parts = tree.pack_sequence_as(inputs, parts)
        output, new = step(parts, tree.pack_sequence_as(carry, list(flat)))
        return tree.flatten(output), tree.flatten(new)

    flat = tree.flatten(carry)
    if layer.unroll or backend.backend() in _IN_PYTHON:
        outputs, flat = _one_by_one(layer, flat_step, rows, flat)
    else:
        _, outputs, flat = backend.rnn(
            flat_step,
            rows,
            flat,
            input_length=rows[0].shape[1] or [ops.shape(rows[0])[1]],
            return_all_outputs=layer.return_sequences,
        )
    outputs = tree.pack_sequence_as(shown, list(outputs))
    return outputs, tree.pack_sequence_as(carry, list(flat))


def _one_by_one(layer, step, rows, flat):
    time = rows[0].shape[1]
    if not isinstance(time, int):
        raise ValueError(
            f"Layer '{layer.name}' cannot unroll a sequence of unknown length: "
            f"its parts have the shapes {[tuple(x.shape) for x in rows]}. Give "
            "`keras.Input()` the number of steps, or set `unroll=False`."
        )
    outputs = []
    for t in range(time):
        output, flat = step([x[:, t] for x in rows], flat)
        outputs.append(output)
    if not layer.return_sequences:
        outputs = outputs[-1:]
    return [ops.stack(parts, axis=1) for parts in zip(*outputs)], flat
