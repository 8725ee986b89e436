"""LSTM and GRU of packed tensors, by what PyTorch has for packed sequences."""

import functools
import typing

import torch
from keras.src import backend
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.torch.rnn import prepare_gru_params
from keras.src.backend.torch.rnn import prepare_lstm_params


def recurrent(
    prepare: typing.Callable,
    function: typing.Callable,
    x: MaskedTensorBase,
    states: list[torch.Tensor],
    weights: list,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Runs a recurrent layer over the steps of each row that are there.

    Args:
        prepare: How its weights are to be given.
        function: PyTorch's function of packed sequences.
        x: Packed tensor of shape `(batch, time, features)`.
        states: Tensors of shape `(batch, units)`, as the layer orders them.
        weights: Kernel, recurrent kernel and bias of the layer's cell, the
            last one None if there is none.

    Returns:
        The outputs for the flat steps, of shape `(capacity, units)`, and the
        last states. Those of a row without a step are the first ones.
    """
    order, sources, sizes = _by_time(x)
    outputs = states[0].new_zeros((x.flat.shape[0], states[0].shape[1]))
    if not len(sizes):
        return outputs, states
    weights = [
        None if w is None else backend.convert_to_tensor(w) for w in weights
    ]
    first = [s.index_select(0, order).unsqueeze(0) for s in states]
    steps, *last = function(
        x.flat.to(states[0].dtype).index_select(0, sources),
        sizes,
        tuple(first) if len(first) > 1 else first[0],
        prepare(*weights, x.flat.device),
        True,  # has_biases
        1,  # num_layers
        0.0,  # dropout
        torch.is_grad_enabled(),  # training
        False,  # bidirectional
    )
    last = [
        state.index_copy(0, order, one.squeeze(0))
        for state, one in zip(states, last)
    ]
    return outputs.index_copy(0, sources, steps), last


# By the name of a layer.
RUN = {
    "LSTM": functools.partial(recurrent, prepare_lstm_params, torch._VF.lstm),
    "GRU": functools.partial(recurrent, prepare_gru_params, torch._VF.gru),
}


def _by_time(x):
    """The order in which PyTorch wants the steps of a packed tensor.

    Returns:
        The rows that have a step, the longest first; the flat row of each
        step, the first steps of these rows first; and how many there are at
        each time, on the host.
    """
    counts = x.mask.sum(1)
    starts = counts.cumsum(0) - counts
    counts, order = counts.sort(descending=True, stable=True)
    order = order[: int((counts > 0).sum())]
    counts = counts[: len(order)]
    times = torch.arange(
        int(counts[0]) if len(order) else 0, device=counts.device
    ).unsqueeze(1)
    is_step = times < counts
    sources = (starts[order] + times)[is_step]
    if x.there is not None:
        # Those that make up a capacity may be anywhere.
        sources = x.there.nonzero().squeeze(1)[sources]
    return order, sources, is_step.sum(1).cpu()
