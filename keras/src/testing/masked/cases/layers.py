"""Every public layer, what it is called on, and what becomes of the mask."""

import typing

import numpy as np

from keras.src import layers
from keras.src.testing.masked.cases.window import Window
from keras.src.testing.masked.cases.window import is_valid
from keras.src.testing.masked.testing_utils import T
from patchset.markers import when

BOTH = ("right", "left")
RIGHT = ("right",)


class Case(typing.NamedTuple):
    """A layer and what it is called on.

    Attributes:
        make: Gives the layer.
        args: The arguments of its call, `T` and nests of them.
        mask: Function of the masks over all axes, one for each masked
            operand. It gives the mask of the result, or of the first of
            several, over its leading axes; None if the result is plain.
        pads: The sides on which more masked steps leave the valid entries of
            the result as they are.
        padded: The places of the operands that get more steps.
    """

    make: typing.Callable
    args: tuple
    mask: typing.Callable
    pads: tuple = ()
    padded: tuple = (0, 1)


# --------------------------------------------------------------------- masks


def same(*masks):
    """Valid where all operands are."""
    return np.logical_and.reduce(masks)


def plain(*masks):
    return None


def any_feature(*masks):
    """Valid where any of the features is, of all operands."""
    return same(*(mask.any(-1) for mask in masks))


def steps(mask, *others):
    """A step is valid where any of its entries is."""
    return mask.reshape(*mask.shape[:2], -1).any(-1)


def anchors(size, stride=1, padding="valid"):
    """As `middles`, in any of the channels."""

    def oracle(mask):
        return middles(size, stride, padding)(mask.any(-1, keepdims=True))

    return oracle


def middles(size, stride=1, padding="valid"):
    """Valid where the middle of the window is, which stays in its row."""

    def oracle(mask):
        lengths = mask.shape[1:-1]
        found = [Window(n, size, stride, padding) for n in lengths]
        counts = [len(window.places) for window in found]
        out = np.zeros((len(mask), *counts, mask.shape[-1]), "bool")
        for b, *position, c in np.ndindex(out.shape):
            anchor = tuple(w.anchors[i] for w, i in zip(found, position))
            out[(b, *position, c)] = is_valid(
                found, position, anchor, mask[b, ..., c]
            )
        return out

    return oracle


def in_rows(function):
    """A function of each row along each spatial axis, one after the other.

    Args:
        function: Gives for a row, and the places of its first and last valid
            entry, the mask of the result.
    """

    def oracle(whole):
        mask, spatial = whole, range(1, whole.ndim - 1)
        for axis in spatial:
            # The row is that of a box.
            boxes = whole.any(tuple(a for a in spatial if a != axis))
            mask, out = np.moveaxis(mask, axis, -1), []
            for b, *place, c in np.ndindex(mask.shape[:-1]):
                box = np.flatnonzero(boxes[b, :, c])
                ends = (box[0], box[-1]) if len(box) else (0, -1)
                out.append(function(mask[(b, *place, c)], *ends))
            out = np.reshape(out, (*mask.shape[:-1], -1))
            mask = np.moveaxis(out, -1, axis)
        return mask

    return oracle


def blocks(size, stride):
    """Each step is the middle of a block, what is in none is of the next."""

    def one(row, first, last):
        out = np.zeros((len(row) - 1) * stride + size, "bool")
        places = np.arange((last - first) * stride + size)
        own = (places - (size - stride) // 2) // stride
        if last >= first:
            own = np.clip(first + own, first, last)
            out[first * stride + places] = row[own]
        return out

    return lambda mask: in_rows(one)(mask.any(-1, keepdims=True))


def halves(row, first, last):
    """Valid where the middles of two windows are, which may overlap by one."""
    count = last - first + 1
    if count < 1:
        return [False] * 2
    windows = range(-(-count // 2)), range(count // 2, count)
    centres = [window[(len(window) - 1) // 2] for window in windows]
    return row[first:][centres]


def spatial(function):
    """A function of a mask along each axis between the first and the last."""

    def oracle(mask):
        for axis in range(1, mask.ndim - 1):
            mask = function(mask, axis)
        return mask

    return oracle


def doubled(mask, axis):
    return np.repeat(mask, 2, axis)


def bordered(mask, axis):
    width = [(int(a == axis),) * 2 for a in range(mask.ndim)]
    return np.pad(mask, width)


def cropped(mask, axis):
    return np.take(mask, range(1, mask.shape[axis] - 1), axis)


# --------------------------------------------------------------------- cases

STEPS = T((2, 6, 4), 2)
FULL = T((2, 6, 4), 3)
BATCH = T((3, 4), 1)
PLAIN = T((2, 6, 4))
IDS = T((2, 6), 2, "int32", 0, 8)
NO_PADDING = [T((2, 3, 3), mask, "int32", 1, 8) for mask in (1, 2, 3)]
SEGMENTS = T((2, 3, 4, 2), 3)


def images(rank, masks):
    """Signals with `rank` spatial axes, whose sizes differ."""
    return [T((2, *(6, 5, 4)[:rank], 2), mask) for mask in masks]


def of_entries(make, mask=same):
    """Cases of a layer to which each entry, or each step, is by itself."""
    return [
        Case(make, (STEPS,), mask, BOTH),
        Case(make, (FULL,), mask, BOTH),
        Case(make, (BATCH,), mask),
    ]


def for_each_rank(name, mask, pads, *args, least=0, **kwargs):
    """Cases of layers for 1, 2 and 3 spatial axes, by the layers' names.

    Args:
        name: Name of the layers, with `%d` for the number of axes.
        mask: As in `Case`.
        pads: As in `Case`, for one spatial axis.
        *args: Arguments of the layers.
        least: Number of spatial axes that a mask covers at least.
        **kwargs: Arguments of the layers by name.
    """
    found = {}
    for rank in (1, 2, 3):
        layer = getattr(layers, name % rank, None)
        if layer is None:
            continue
        # What a mask covers: axes of the signal, or all, or the channels too.
        masks = {min(rank, max(least, 1)) + 1, rank + 1, rank + 2}
        found[name % rank] = [
            Case(
                lambda layer=layer: layer(*args, **kwargs),
                (x,),
                mask,
                pads if rank == 1 else (),
            )
            for x in images(rank, sorted(masks))
        ]
    return found


def of_two(make, mask=same):
    """Cases of a layer that is called on a list of two tensors."""
    return [
        Case(make, ([x, y],), mask, BOTH)
        for x, y in ((STEPS, STEPS), (STEPS, PLAIN), (PLAIN, FULL))
    ]


def recurrent(make):
    """Cases of a layer that takes steps in turn, made with other options."""

    def case(mask, x=STEPS, **kwargs):
        return Case(lambda: make(**kwargs), (x,), mask, BOTH)

    def turned(mask):
        return steps(mask)[:, ::-1]

    return [
        case(plain),
        case(plain, FULL, unroll=True),
        case(plain, return_state=True),
        case(steps, return_sequences=True),
        case(steps, FULL, return_sequences=True, unroll=True),
        case(steps, return_sequences=True, return_state=True),
        case(steps, return_sequences=True, zero_output_for_mask=True),
        case(turned, return_sequences=True, go_backwards=True),
    ]


def attending(make):
    """Cases of a layer that is called on queries and values."""
    return [
        Case(make, (STEPS, STEPS), steps, BOTH),
        Case(make, (STEPS, T((2, 5, 4))), steps, BOTH, padded=(0,)),
        Case(make, (T((2, 5, 4)), STEPS), plain, BOTH, padded=(1,)),
        Case(make, (STEPS, FULL), steps, BOTH),
    ]


def images_in_turn(rank):
    """Cases of a layer that takes a picture in each step."""
    layer = getattr(layers, f"ConvLSTM{rank}D")
    x = T((2, 3, *(4, 3, 2)[:rank], 2), 2)
    inner = x._replace(mask=rank + 2)
    return [
        Case(lambda: layer(2, 2, padding="same"), (x,), plain, BOTH),
        Case(
            lambda: layer(2, 2, padding="same", return_sequences=True),
            (x,),
            steps,
            BOTH,
        ),
        Case(
            lambda: layer(2, 2, padding="same", return_sequences=True),
            (inner,),
            steps,
        ),
    ]


def on_list(cases):
    return [case._replace(args=([*case.args],)) for case in cases]


def cells(make, count):
    """A cell, called on one step and on its states."""
    states = [T((3, 3))] * count
    states = states if count > 1 else states[0]
    return [Case(make, (BATCH, states), any_feature)]


CASES = {
    "Activation": of_entries(lambda: layers.Activation("gelu")),
    "ActivityRegularization": of_entries(
        lambda: layers.ActivityRegularization(l2=0.1)
    ),
    "Add": of_two(layers.Add),
    "AdditiveAttention": on_list(attending(layers.AdditiveAttention)),
    "AlphaDropout": of_entries(lambda: layers.AlphaDropout(0.5)),
    "Attention": [
        *on_list(attending(layers.Attention)),
        *on_list(attending(lambda: layers.Attention(score_mode="concat"))),
    ],
    "Average": of_two(layers.Average),
    "BatchNormalization": [
        *of_entries(layers.BatchNormalization),
        *(
            Case(layers.BatchNormalization, (x,), same)
            for x in images(2, (1, 2, 3, 4))
        ),
        Case(
            lambda: layers.BatchNormalization(axis=1), (T((2, 4, 6), 3),), same
        ),
    ],
    "Bidirectional": [
        Case(
            lambda: layers.Bidirectional(layers.LSTM(3)), (STEPS,), plain, BOTH
        ),
        *(
            Case(
                lambda mode=mode: layers.Bidirectional(
                    layers.GRU(3, return_sequences=True), merge_mode=mode
                ),
                (x,),
                steps,
                BOTH,
            )
            for x, mode in ((STEPS, "concat"), (FULL, "sum"), (STEPS, None))
        ),
    ],
    "Concatenate": [
        *of_two(layers.Concatenate, any_feature)[:2],
        Case(
            lambda: layers.Concatenate(axis=1),
            ([T((2, 3, 4), 1), T((2, 2, 4), 1)],),
            lambda x, y: np.concatenate([x, y], axis=1),
        ),
    ],
    "ConvLSTM1D": images_in_turn(1),
    "ConvLSTM2D": images_in_turn(2),
    "ConvLSTM3D": images_in_turn(3),
    "Dense": of_entries(lambda: layers.Dense(3, "softmax"), any_feature),
    "Dot": [
        Case(
            lambda: layers.Dot(axes=1),
            ([STEPS, STEPS],),
            lambda x, y: (x & y).any((1, 2)),
            BOTH,
        ),
        Case(
            lambda: layers.Dot(axes=2),
            ([STEPS, STEPS],),
            lambda x, y: x.any(-1)[:, :, None] & y.any(-1)[:, None],
            BOTH,
        ),
    ],
    "Dropout": of_entries(lambda: layers.Dropout(0.5)),
    "EinsumDense": [
        Case(
            lambda: layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"),
            (x,),
            any_feature,
            BOTH,
        )
        for x in (STEPS, FULL)
    ],
    "ELU": of_entries(layers.ELU),
    "Embedding": [
        Case(lambda: layers.Embedding(9, 3), (IDS,), same, BOTH),
        *(
            Case(lambda: layers.Embedding(9, 3, mask_zero=True), (ids,), same)
            for ids in NO_PADDING
        ),
    ],
    "Fill": [
        Case(lambda: layers.Fill("learned", indicator=True), (STEPS,), plain),
        Case(lambda: layers.Fill(1.5), (FULL,), plain),
    ],
    "Flatten": [
        Case(layers.Flatten, (x,), lambda mask: mask.reshape(2, -1))
        for x in (STEPS, FULL)
    ],
    "GaussianDropout": of_entries(lambda: layers.GaussianDropout(0.5)),
    "GaussianNoise": of_entries(lambda: layers.GaussianNoise(0.5)),
    "GroupNormalization": [
        Case(lambda: layers.GroupNormalization(2), (x,), same, BOTH)
        for x in (STEPS, FULL)
    ],
    "GroupQueryAttention": attending(
        lambda: layers.GroupedQueryAttention(3, 4, 2)
    ),
    "GRU": recurrent(lambda **kwargs: layers.GRU(3, **kwargs)),
    "GRUCell": cells(lambda: layers.GRUCell(3), 1),
    "Identity": of_entries(layers.Identity),
    "Lambda": of_entries(lambda: layers.Lambda(lambda x: x * 2)),
    "LayerNormalization": [
        *of_entries(layers.LayerNormalization),
        Case(lambda: layers.LayerNormalization(axis=(1, 2)), (STEPS,), same),
    ],
    "LeakyReLU": of_entries(layers.LeakyReLU),
    "LSTM": recurrent(lambda **kwargs: layers.LSTM(3, **kwargs)),
    "LSTMCell": cells(lambda: layers.LSTMCell(3), 2),
    "Masking": [Case(layers.Masking, (STEPS,), steps, BOTH)],
    "Maximum": of_two(layers.Maximum),
    "Minimum": of_two(layers.Minimum),
    "MultiHeadAttention": [
        *attending(lambda: layers.MultiHeadAttention(2, 3)),
        *attending(lambda: layers.MultiHeadAttention(2, 3, dropout=0.5))[:1],
    ],
    "Multiply": of_two(layers.Multiply),
    "Permute": [
        Case(
            lambda: layers.Permute((2, 1)),
            (x,),
            lambda mask: mask.swapaxes(1, 2),
        )
        for x in (STEPS, FULL)
    ],
    "PReLU": [
        Case(lambda: layers.PReLU(shared_axes=[1]), (x,), same, BOTH)
        for x in (STEPS, FULL)
    ],
    "ReLU": of_entries(layers.ReLU),
    "RepeatVector": [
        Case(
            lambda: layers.RepeatVector(3),
            (T((3, 4), rank),),
            lambda mask: np.repeat(mask[:, None], 3, 1),
        )
        for rank in (1, 2)
    ],
    "Reshape": [
        Case(
            lambda: layers.Reshape((3, 2, 4)),
            (x,),
            lambda mask: mask.reshape(2, 3, 2, 4),
        )
        for x in (STEPS, FULL)
    ]
    + [
        Case(
            lambda shape=shape: layers.Reshape(shape),
            (x,),
            lambda mask, shape=shape: mask.reshape(-1, *shape),
        )
        for x, shape in ((STEPS, (6, 1, 4)), (BATCH, (1, 4)))
    ],
    "ReversibleEmbedding": [
        Case(lambda: layers.ReversibleEmbedding(9, 3), (IDS,), same, BOTH)
    ],
    "RMSNormalization": of_entries(layers.RMSNormalization),
    "RNN": recurrent(
        lambda **kwargs: layers.RNN(layers.SimpleRNNCell(3), **kwargs)
    )[:4],
    "SimpleRNN": recurrent(lambda **kwargs: layers.SimpleRNN(3, **kwargs)),
    "SimpleRNNCell": cells(lambda: layers.SimpleRNNCell(3), 1),
    "Softmax": [
        *of_entries(layers.Softmax),
        *of_entries(lambda: layers.Softmax(axis=1))[:2],
        Case(lambda: layers.Softmax(axis=(1, 2)), (FULL,), same, BOTH),
    ],
    "SpatialDropout1D": [
        Case(lambda: layers.SpatialDropout1D(0.5), (x,), same, BOTH)
        for x in (STEPS, FULL)
    ],
    "SpatialDropout2D": [
        Case(lambda: layers.SpatialDropout2D(0.5), (x,), same)
        for x in images(2, (2, 3, 4))
    ],
    "SpatialDropout3D": [
        Case(lambda: layers.SpatialDropout3D(0.5), (x,), same)
        for x in images(3, (2, 4, 5))
    ],
    "SpectralNormalization": [
        Case(
            lambda: layers.SpectralNormalization(layers.Dense(3)),
            (STEPS,),
            any_feature,
            BOTH,
        )
    ],
    "StackedRNNCells": recurrent(
        lambda **kwargs: layers.RNN(
            layers.StackedRNNCells([layers.GRUCell(2), layers.LSTMCell(3)]),
            **kwargs,
        )
    )[:4],
    "Subtract": of_two(layers.Subtract),
    "TimeDistributed": [
        Case(
            lambda: layers.TimeDistributed(layers.Dense(3)),
            (STEPS,),
            steps,
            BOTH,
        ),
        Case(
            lambda: layers.TimeDistributed(layers.LSTM(3)),
            (SEGMENTS,),
            steps,
            BOTH,
        ),
    ],
    "UnitNormalization": of_entries(layers.UnitNormalization),
    **for_each_rank("AdaptiveAveragePooling%dD", in_rows(halves), BOTH, 2),
    **for_each_rank("AdaptiveMaxPooling%dD", in_rows(halves), BOTH, 2),
    **for_each_rank("AveragePooling%dD", middles(2, 2), RIGHT, 2),
    **for_each_rank("Conv%dD", anchors(3, 2), RIGHT, 3, 3, strides=2),
    **for_each_rank("Conv%dDTranspose", blocks(3, 2), BOTH, 3, 3, strides=2),
    **for_each_rank("Cropping%dD", spatial(cropped), (), 1),
    **for_each_rank(
        "DepthwiseConv%dD", anchors(2, 1, "same"), BOTH, 2, padding="same"
    ),
    **for_each_rank("GlobalAveragePooling%dD", plain, BOTH),
    **for_each_rank("GlobalMaxPooling%dD", plain, BOTH),
    **for_each_rank("MaxPooling%dD", middles(2, 2), RIGHT, 2),
    **for_each_rank(
        "SeparableConv%dD", anchors(2, 1, "same"), BOTH, 3, 2, padding="same"
    ),
    **for_each_rank("UpSampling%dD", spatial(doubled), BOTH),
    # Zeros along an axis without a mask are as valid as its row is.
    **for_each_rank("ZeroPadding%dD", spatial(bordered), BOTH, least=3),
}
CASES["Conv1D"] += [
    Case(
        lambda: layers.Conv1D(3, 3, padding="causal", dilation_rate=2),
        (x,),
        any_feature,
        BOTH,
    )
    for x in (STEPS, FULL)
]
if when(">=3.16"):
    CASES["TernaryDense"] = of_entries(
        lambda: layers.TernaryDense(3, activation="tanh"), any_feature
    )
# In single steps a row has the same windows wherever it begins.
for _name, _make, _mask in (
    ("Conv1D", lambda: layers.Conv1D(3, 3), anchors(3)),
    ("DepthwiseConv1D", lambda: layers.DepthwiseConv1D(3), anchors(3)),
    ("SeparableConv1D", lambda: layers.SeparableConv1D(3, 2), anchors(2)),
    ("AveragePooling1D", lambda: layers.AveragePooling1D(3, 1), middles(3)),
    ("MaxPooling1D", lambda: layers.MaxPooling1D(2, 1), middles(2)),
):
    CASES[_name] += [Case(_make, (x,), _mask, BOTH) for x in (STEPS, FULL)]

# Layers without a case, with the reason.
ELSEWHERE = {
    "FlaxLayer": "Its module sees a masked tensor; pass both parts.",
    "InputLayer": "It makes symbolic tensors, see `mask_shape`.",
    "InputSpec": "It is no layer.",
    "JaxLayer": "Its function sees a masked tensor; pass both parts.",
    "Layer": "It is the base of all others.",
    "TFSMLayer": "What was exported, with masked inputs and outputs.",
    "TorchModuleWrapper": "Its module sees a masked tensor; pass both parts.",
    "Wrapper": "It is the base of layers that hold another.",
}
