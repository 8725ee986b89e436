"""Layers as authors wrote them for masks that hang on tensors.

Nothing here knows of masked tensors: the file is loaded as a module from
outside Keras, and upstream runs it as a script, to record what it makes of the
same layers.
"""

import dataclasses
import pathlib
import sys

try:
    import torch
except ImportError:
    torch = None
import numpy as np

import keras
from keras import layers
from keras import ops
from keras.src.backend.common.masking import get_keras_mask
from keras.src.backend.common.masking import set_keras_mask

BACKEND = keras.backend.backend()
if BACKEND == "torch":
    raw = torch
elif BACKEND == "tensorflow":
    import tensorflow as raw
elif BACKEND == "jax":
    import jax.numpy as raw
else:
    raw = np

register = keras.saving.register_keras_serializable("old")


def to_float(mask):
    """A mask as factors of the steps, by raw functions of the backend."""
    if BACKEND == "torch":
        return mask.float()[..., None]
    if BACKEND == "tensorflow":
        return raw.cast(mask, "float32")[..., None]
    return mask.astype("float32")[..., None]


# With the flag.


@register
class Tanh(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        return raw.tanh(x)

    def compute_output_shape(self, shape):
        return shape


class TanhOfAClass(layers.Layer):
    supports_masking = True

    def call(self, x):
        return raw.tanh(x)


class FlagFromOutside(layers.Layer):
    """Its flag is set by whoever makes it."""

    def call(self, x):
        return raw.tanh(x)


def flagged_from_outside():
    layer = FlagFromOutside()
    layer.supports_masking = True
    return layer


@register
class Scale(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), name="scale")

    def call(self, x):
        return raw.multiply(x, ops.convert_to_tensor(self.scale))


class AttentionPooling(layers.Layer):
    """Adds steps up by learned weights, with the mask."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], 1), name="w")

    def call(self, x, mask=None):
        a = ops.exp(ops.matmul(raw.tanh(x), self.w))
        if mask is not None:
            a = a * to_float(mask)
        return ops.sum(x * (a / ops.sum(a, axis=1, keepdims=True)), axis=1)

    def compute_mask(self, x, mask=None):
        return None


class Centered(layers.Layer):
    """Takes the mean of the valid steps off, and hands the mask on."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        if mask is None:
            return x - ops.mean(x, axis=1, keepdims=True)
        weights = to_float(mask)
        total = ops.sum(x * weights, axis=1, keepdims=True)
        return x - total / ops.sum(weights, axis=1, keepdims=True)


# That cannot do without their mask.


class Needs(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        assert mask is not None
        return x * to_float(mask)


class NeedsWithShape(Needs):
    """Says what it puts out, and so is not traced."""

    def compute_output_shape(self, shape):
        return shape


class SoftmaxOverTime(Needs):
    """As in Keras's guide."""

    def call(self, x, mask=None):
        weights = ops.exp(x) * to_float(mask)
        return weights / ops.sum(weights, axis=1, keepdims=True)


class NeedsTwo(Needs):
    def call(self, inputs, mask=None):
        (q, v), (q_mask, v_mask) = inputs, mask
        seen = ops.sum(v * to_float(v_mask), axis=1, keepdims=True)
        return q * to_float(q_mask) + seen

    def compute_mask(self, inputs, mask=None):
        q_mask, v_mask = mask
        return q_mask


class TakesNoneApart(layers.Layer):
    """Upstream gives a mask of None for each tensor of a list, always."""

    def call(self, inputs, mask=None):
        first, second = mask
        assert first is None and second is None
        return inputs[0] + inputs[1]


class ByShapeOfMask(Needs):
    def call(self, x, mask=None):
        batch, steps = ops.shape(mask)
        places = ops.reshape(ops.arange(steps, dtype="float32"), (1, -1, 1))
        return x + ops.broadcast_to(places, (batch, steps, 1))


class ReturnsMask(Needs):
    def call(self, x, mask=None):
        return raw.tanh(x), mask


class WidthByMask(Needs):
    """Has one more feature if there is a mask."""

    def call(self, x, mask=None):
        if mask is None:
            return x
        return ops.concatenate([x, to_float(mask)], axis=-1)


class PassesMaskOn(Needs):
    """Has no `build`, and two layers that have to be built."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(2)
        self.inner = Needs()

    def call(self, x, mask=None):
        return self.inner(self.dense(x), mask=mask)


class InnerReadsItself(PassesMaskOn):
    def call(self, x):
        return self.inner(self.dense(x))


# Whose masks are floats, with an axis for the features.


class MaskOfFloats(layers.Layer):
    """The last feature says whether a node is there, as in spektral."""

    def call(self, x):
        return x[..., :-1]

    def compute_mask(self, x, mask=None):
        return x[..., -1:]


class TimesMask(Needs):
    """Multiplies by the mask as it is, which is floats."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 2), name="w")

    def call(self, x, mask=None):
        return raw.multiply(ops.matmul(x, self.w), mask)


class TimesMaskWithShape(TimesMask):
    def compute_output_shape(self, shape):
        return (*shape[:-1], 2)


# Without the flag.


class MeanByMask(layers.Layer):
    """Asks for the mask, and says nothing of the flag."""

    def call(self, x, mask=None):
        if mask is None:
            return ops.mean(x, axis=1)
        weights = to_float(mask)
        return ops.sum(x * weights, axis=1) / ops.sum(weights, axis=1)


class PairWithoutFlag(layers.Layer):
    def call(self, q, v, q_mask=None, v_mask=None):
        for mask in (q_mask, v_mask):
            q = q if mask is None else q * to_float(mask)
        return ops.sum(raw.tanh(q) + v, axis=1)


class Flagless(layers.Layer):
    """Computes a mask, and says that it does not."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = False

    def call(self, x):
        return raw.tanh(x)

    def compute_mask(self, x, mask=None):
        return mask


# With a `compute_mask`.


class DropFirst(layers.Layer):
    def call(self, x):
        return raw.tanh(x[:, 1:])

    def compute_mask(self, x, mask=None):
        return None if mask is None else mask[:, 1:]


class EverySecond(layers.Layer):
    def call(self, x):
        return raw.tanh(x[:, ::2])

    def compute_mask(self, x, mask=None):
        return None if mask is None else mask[:, ::2]


class NonZero(layers.Layer):
    """Makes a mask of plain input."""

    def call(self, x):
        return raw.tanh(x)

    def compute_mask(self, x, mask=None):
        return ops.any(ops.not_equal(x, 0), axis=-1)


class Halves(layers.Layer):
    """Two outputs, each with its part of the mask."""

    def call(self, x):
        return [raw.tanh(x[:, :2]), raw.tanh(x[:, 2:])]

    def compute_mask(self, x, mask=None):
        return None if mask is None else [mask[:, :2], mask[:, 2:]]


class OneOfTwo(layers.Layer):
    """Two outputs, of which the second has no mask."""

    def call(self, x):
        return raw.tanh(x), x[:, 0]

    def compute_mask(self, x, mask=None):
        return mask, None


class Swap(layers.Layer):
    """Two inputs, two outputs, and the masks of the inputs in a list."""

    def call(self, inputs, mask=None):
        x, y = inputs
        if mask is not None and mask[0] is not None:
            x = x * to_float(mask[0])
        return [raw.tanh(y), raw.tanh(x)]

    def compute_mask(self, inputs, mask=None):
        return None if mask is None else [mask[1], mask[0]]


class JoinSteps(layers.Layer):
    """Joins two sequences, and their masks, along time."""

    def call(self, inputs):
        return ops.concatenate(inputs, axis=1)

    def compute_mask(self, inputs, mask=None):
        if mask is None or all(m is None for m in mask):
            return None
        found = [
            ops.ones_like(x[:, :, 0], "bool") if m is None else m
            for x, m in zip(inputs, mask)
        ]
        return ops.concatenate(found, axis=1)


class ByName(layers.Layer):
    """A dictionary in, and out."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        return {
            "doubled": raw.multiply(inputs["long"], 2.0),
            "short": raw.tanh(inputs["short"]),
        }


# Masks under other names.


class Pair(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, q, v, q_mask=None, v_mask=None):
        if v_mask is not None:
            v = v * to_float(v_mask)
        if q_mask is not None:
            q = q * to_float(q_mask)
        return raw.tanh(q) + ops.sum(v, axis=1, keepdims=True)


class PaddingMask(layers.Layer):
    """As the layers of keras-hub: the mask by hand, or off the tensor."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, padding_mask=None):
        if padding_mask is None:
            padding_mask = getattr(inputs, "_keras_mask", None)
        if padding_mask is None:
            padding_mask = get_keras_mask(inputs)
        if padding_mask is None:
            return raw.tanh(inputs)
        weights = to_float(padding_mask)
        return raw.tanh(inputs) + ops.sum(inputs * weights, axis=1)[:, None]


class ReadsAttribute(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        mask = x._keras_mask
        return raw.tanh(x) + ops.sum(x * to_float(mask), axis=1)[:, None]

    def compute_output_shape(self, shape):
        return shape


class ReadsWithoutFlag(layers.Layer):
    def call(self, x):
        mask = getattr(x, "_keras_mask", None)
        if mask is None:
            mask = get_keras_mask(x)
        if mask is None:
            return ops.sum(x, axis=1)
        return ops.sum(x * ops.cast(mask, "float32")[..., None], axis=1)


class HangsMask(layers.Layer):
    """Makes its mask in `call`, as upstream's `Masking` does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        y = raw.tanh(x)
        set_keras_mask(y, ops.any(ops.not_equal(x, 0), axis=-1))
        return y

    def compute_mask(self, x, mask=None):
        return ops.any(ops.not_equal(x, 0), axis=-1)


class ClearsMask(layers.Layer):
    """Takes the mask off its input, in place."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        set_keras_mask(x, None)
        return raw.tanh(x)

    def compute_mask(self, x, mask=None):
        return None


# Layers of layers.


@register
class Residual(layers.Wrapper):
    def __init__(self, layer, **kwargs):
        super().__init__(layer, **kwargs)
        self.supports_masking = True

    def call(self, x):
        return raw.tanh(x + self.layer(x))


class Encoder(layers.Layer):
    """Has no `build`, and makes masks inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.embedding = layers.Embedding(5, 3, mask_zero=True)
        self.lstm = layers.LSTM(3, return_sequences=True)
        self.dense = layers.Dense(2)

    def call(self, ids):
        x = self.embedding(ids)
        return self.dense(raw.tanh(self.lstm(x)))

    def compute_mask(self, ids, mask=None):
        return self.embedding.compute_mask(ids)


class EncoderWithoutFlag(layers.Layer):
    """As that one, down to one vector, with nothing but `keras.ops`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.embedding = layers.Embedding(5, 3, mask_zero=True)
        self.lstm = layers.LSTM(3)

    def call(self, ids):
        return ops.tanh(self.lstm(self.embedding(ids)))


class Stack(layers.Layer):
    """Asks its layers, one after the other, what becomes of the mask."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, x, mask=None):
        for layer in self.inner:
            x = layer(x)
        return raw.tanh(x)

    def compute_mask(self, x, mask=None):
        for layer in self.inner:
            mask = layer.compute_mask(x, mask)
        return mask


class Transformer(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.attention = layers.MultiHeadAttention(1, 2)
        self.norm = layers.LayerNormalization()

    def call(self, x, mask=None):
        attention_mask = None if mask is None else mask[:, None, :]
        y = self.attention(x, x, attention_mask=attention_mask)
        return self.norm(raw.tanh(x + y))


class OldModel(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.masking = layers.Masking()
        self.tanh = Tanh()
        self.pooling = AttentionPooling()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(self.pooling(self.tanh(self.masking(x))))


# Subclasses of Keras's layers.


class TwoPaddings(layers.Embedding):
    """Id 1 is padding as well."""

    def compute_mask(self, ids, mask=None):
        return ops.greater(ids, 1)


class Positions(layers.Embedding):
    """Adds to what is looked up, by raw functions."""

    def call(self, ids):
        return raw.tanh(super().call(ids))

    def compute_mask(self, ids, mask=None):
        return ops.not_equal(ids, 0)


class FlaggedDense(layers.Dense):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.supports_masking = True

    def call(self, x):
        return raw.tanh(super().call(x))


class ScaledLSTM(layers.LSTM):
    def call(self, sequences, initial_state=None, mask=None, training=False):
        return 2.0 * super().call(
            sequences,
            initial_state=initial_state,
            mask=mask,
            training=training,
        )


@register
class FlaggedLSTM(layers.LSTM):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.supports_masking = True

    def call(self, sequences, initial_state=None, mask=None, training=False):
        return raw.tanh(
            super().call(sequences, initial_state=initial_state, mask=mask)
        )


class UnmaskedLSTM(layers.LSTM):
    """Hands no mask on."""

    def compute_mask(self, x, mask=None):
        return None


class MaskingFromSecond(layers.Masking):
    """Takes the first step for valid, whatever is in it."""

    def call(self, x):
        y = super().call(x)
        mask = get_keras_mask(y)
        first = ops.ones_like(mask[:, :1])
        y = raw.multiply(y, 2.0)
        set_keras_mask(y, ops.concatenate([first, mask[:, 1:]], axis=1))
        return y

    def compute_mask(self, x, mask=None):
        mask = super().compute_mask(x, mask)
        first = ops.ones_like(mask[:, :1])
        return ops.concatenate([first, mask[:, 1:]], axis=1)


def asking(base, *args, **kwargs):
    """Makes a layer of a subclass whose `call` asks for the mask."""

    class Asking(base):
        def call(self, x, mask=None):
            return raw.multiply(super().call(x), to_float(mask))

    return lambda: Asking(*args, **kwargs)


def pooling(base):
    """Makes a layer of a subclass which gives the features the mask's mean."""

    class AskingPool(base):
        def call(self, x, mask=None):
            return super().call(x) + ops.mean(to_float(mask), axis=1)

    return AskingPool


class AskingSum(layers.Add):
    def call(self, inputs, mask=None):
        return super().call([x * to_float(m) for x, m in zip(inputs, mask)])


class AskingEmbedding(layers.Embedding):
    def call(self, ids, mask=None):
        assert mask is None
        return raw.tanh(super().call(ids))


# Recurrent ones.


@register
class Cell(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units
        self.supports_masking = True

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), name="w")
        self.u = self.add_weight(shape=(self.units, self.units), name="u")

    def call(self, x, states):
        (h,) = states
        h = raw.tanh(ops.matmul(x, self.w) + ops.matmul(h, self.u))
        return h, [h]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@register
class Totals(layers.Layer):
    """A recurrent layer of its own: the sums of the valid steps so far."""

    stateful = return_state = False

    def __init__(self, return_sequences=True, go_backwards=False, **kwargs):
        super().__init__(**kwargs)
        self.return_sequences = return_sequences
        self.go_backwards = go_backwards
        self.supports_masking = True

    def call(self, x, initial_state=None, mask=None, training=None):
        if mask is not None:
            x = x * to_float(mask)
        x = ops.flip(x, axis=1) if self.go_backwards else x
        x = ops.cumsum(x, axis=1)
        return x if self.return_sequences else x[:, -1]

    def compute_mask(self, x, mask=None):
        return mask if self.return_sequences else None

    def compute_output_shape(self, shape, initial_state_shape=None):
        return shape if self.return_sequences else (shape[0], shape[2])

    def get_config(self):
        return {
            **super().get_config(),
            "return_sequences": self.return_sequences,
            "go_backwards": self.go_backwards,
        }


# What is done with them.

NODES = np.array(
    [[[2, -1, 1], [3, 4, 0], [1, 2, 1]], [[1, 5, 1], [2, 2, 1], [7, 6, 0]]],
    "float32",
)
MASK = np.array([[1, 1, 0, 0], [1, 0, 1, 1]], bool)
OTHER = np.array([[1, 1, 1, 0], [0, 1, 1, 0]], bool)
IDS = np.array([[3, 1, 2, 0], [1, 4, 0, 2]], "int32")


def sequence(seed, mask=MASK):
    """Steps of three numbers, all 0 where masked."""
    x = np.random.default_rng(seed).normal(size=(2, 4, 3))
    return np.where(mask[..., None], x, 0).astype("float32")


X, Y = sequence(0), sequence(1, OTHER)


@dataclasses.dataclass
class Case:
    """An old layer, and how it is called.

    Attributes:
        make: Makes the layer.
        arrays: What the call is given, plain.
        call: Function of the layer and the inputs, by default masked ones.
        masked: Whether the inputs go through `Masking` first.
        to_masks: Gives the masks of the outputs where they are intended to
            differ from upstream's, by the masks of the inputs.
        reads: Whether a bare `x._keras_mask` is read. JAX's and NumPy's arrays
            take no attributes: that worked with neither.
    """

    make: object
    arrays: tuple = (X,)
    call: object = lambda layer, *xs: layer(*xs)
    masked: bool = True
    to_masks: object = None
    reads: bool = False

    def inputs(self, xs):
        return [layers.Masking()(x) for x in xs] if self.masked else xs

    def run(self, layer, xs):
        return self.call(layer, *self.inputs(xs))


def case(make, *arrays, **kwargs):
    return Case(make, arrays or (X,), **kwargs)


def ids(make):
    return case(make, IDS, masked=False)


def with_mask(x, mask=None):
    return raw.tanh(x) if mask is None else raw.tanh(x) * to_float(mask)


def both(layer, x, y):
    return layer([x, y])


def of_floats(layer, x):
    """With layers of Keras between, which hand the mask on."""
    x = layers.Dropout(0.5)(layers.ReLU()(MaskOfFloats()(x)))
    return layer(x)


CASES = {
    "flag": case(Tanh),
    "flag_of_class": case(TanhOfAClass),
    "flag_from_outside": case(flagged_from_outside),
    "weight": case(Scale),
    "pooling": case(AttentionPooling),
    "mask_argument": case(Centered),
    "mask_argument_given": case(
        Centered,
        X,
        OTHER,
        masked=False,
        call=lambda layer, x, mask: layer(x, mask=mask),
    ),
    "mask_argument_no_flag": case(MeanByMask),
    "no_flag_but_compute_mask": case(Flagless),
    "drop_first": case(DropFirst),
    "every_second": case(EverySecond),
    "makes_mask": case(NonZero, masked=False),
    "halves": case(Halves),
    "one_of_two": case(OneOfTwo),
    "swap": case(Swap, X, Y, call=both),
    "swap_one_masked": case(
        Swap,
        X,
        Y,
        masked=False,
        call=lambda layer, x, y: layer([layers.Masking()(x), y]),
    ),
    "join": case(JoinSteps, X, Y, call=both),
    "join_one_masked": case(
        JoinSteps,
        X,
        Y,
        masked=False,
        call=lambda layer, x, y: layer([x, layers.Masking()(y)]),
    ),
    "by_name": case(
        ByName,
        X,
        Y,
        call=lambda layer, x, y: layer({"long": x, "short": y}),
    ),
    "pair": case(Pair, X, Y),
    "pair_by_name": case(Pair, X, Y, call=lambda layer, x, y: layer(q=x, v=y)),
    "pair_given": case(
        Pair,
        X,
        Y,
        OTHER,
        masked=False,
        call=lambda layer, x, y, mask: layer(x, y, v_mask=mask),
    ),
    "pair_without_flag": case(PairWithoutFlag, X, Y),
    "padding_mask": case(PaddingMask),
    "padding_mask_given": case(
        PaddingMask,
        X,
        OTHER,
        masked=False,
        call=lambda layer, x, mask: layer(
            layers.Masking()(x), padding_mask=mask
        ),
    ),
    "reads_attribute": case(ReadsAttribute, reads=True),
    "reads_without_flag": case(
        ReadsWithoutFlag, to_masks=lambda mask: mask.any(1)
    ),
    "hangs_mask": case(HangsMask, masked=False),
    "clears_mask": case(ClearsMask),
    "lambda": case(
        lambda: layers.Lambda(lambda x: 2 * x),
        to_masks=lambda mask: mask,
    ),
    "lambda_mask_argument": case(lambda: layers.Lambda(with_mask)),
    "lambda_mask_tensor": case(
        lambda: layers.Lambda(
            lambda x: raw.tanh(x), mask=ops.convert_to_tensor(OTHER)
        )
    ),
    "lambda_mask_function": case(
        lambda: layers.Lambda(
            lambda x: raw.tanh(x)[:, 1:], mask=lambda x, mask: mask[:, 1:]
        )
    ),
    "needs": case(Needs),
    "needs_with_shape": case(NeedsWithShape),
    "softmax_over_time": case(SoftmaxOverTime),
    "needs_two": case(NeedsTwo, X, Y, call=both),
    "takes_none_apart": case(TakesNoneApart, X, Y, call=both, masked=False),
    "by_shape_of_mask": case(ByShapeOfMask),
    "returns_mask": case(ReturnsMask),
    "width_by_mask": case(WidthByMask),
    "passes_mask_on": case(PassesMaskOn),
    "needs_in_sequential": case(
        lambda: keras.Sequential(
            [layers.Masking(), layers.Dense(2), Needs(), layers.LSTM(2)]
        ),
        masked=False,
    ),
    "mask_of_floats": case(
        MaskOfFloats,
        NODES,
        masked=False,
        to_masks=lambda _: NODES[..., -1] > 0,
    ),
    "times_mask": case(
        TimesMask,
        NODES,
        masked=False,
        call=of_floats,
        to_masks=lambda _: NODES[..., -1] > 0,
    ),
    "times_mask_with_shape": case(
        TimesMaskWithShape,
        NODES,
        masked=False,
        call=of_floats,
        to_masks=lambda _: NODES[..., -1] > 0,
    ),
    "asking_dense": case(asking(layers.Dense, 2)),
    "asking_dropout": case(asking(layers.Dropout, 0.5)),
    "asking_relu": case(asking(layers.ReLU)),
    "asking_layer_norm": case(asking(layers.LayerNormalization)),
    "asking_softmax": case(asking(layers.Softmax)),
    "asking_mean": case(pooling(layers.GlobalAveragePooling1D)),
    "asking_max": case(pooling(layers.GlobalMaxPooling1D)),
    "asking_sum": case(AskingSum, X, Y, call=both),
    "asking_embedding": ids(lambda: AskingEmbedding(5, 3, mask_zero=True)),
    "wrapper": case(lambda: Residual(layers.Dense(3))),
    "wrapper_of_lstm": case(
        lambda: Residual(layers.LSTM(3, return_sequences=True))
    ),
    "wrapper_of_old": case(lambda: Residual(Centered())),
    "encoder": ids(Encoder),
    "encoder_without_flag": ids(EncoderWithoutFlag),
    "stack": case(lambda: Stack([layers.Dense(2), DropFirst(), Tanh()])),
    "transformer": case(Transformer),
    "subclassed_model": case(OldModel, masked=False),
    "sequential": case(
        lambda: keras.Sequential(
            [layers.Masking(), Tanh(), DropFirst(), layers.LSTM(2)]
        ),
        masked=False,
    ),
    "then_built_in": case(
        EverySecond,
        call=lambda layer, x: layers.GlobalAveragePooling1D()(layer(x)),
    ),
    "embedding_compute_mask": ids(lambda: TwoPaddings(5, 3, mask_zero=True)),
    "embedding_call": ids(lambda: Positions(5, 3, mask_zero=True)),
    "dense_flag": case(lambda: FlaggedDense(2)),
    "lstm_call": case(lambda: ScaledLSTM(2, return_sequences=True)),
    "lstm_flag": case(lambda: FlaggedLSTM(2, return_sequences=True)),
    "lstm_compute_mask": case(lambda: UnmaskedLSTM(2, return_sequences=True)),
    "masking_subclass": case(MaskingFromSecond, masked=False),
    "cell": case(lambda: layers.RNN(Cell(2), return_sequences=True)),
    "time_distributed_flag": case(lambda: layers.TimeDistributed(Tanh())),
    "time_distributed_dense": case(
        lambda: layers.TimeDistributed(FlaggedDense(2))
    ),
    "bidirectional_cell": case(
        lambda: layers.Bidirectional(layers.RNN(Cell(2), return_sequences=True))
    ),
    "bidirectional_lstm": case(
        lambda: layers.Bidirectional(FlaggedLSTM(2, return_sequences=True))
    ),
    "bidirectional_own": case(lambda: layers.Bidirectional(Totals())),
    "bidirectional_own_last": case(
        lambda: layers.Bidirectional(Totals(return_sequences=False))
    ),
}


def set_weights(layer, seed=0):
    """Sets numbers that are the same on each backend."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(size=w.shape) for w in layer.get_weights()])


def results(outputs):
    """The values and the masks of outputs, None where there is no mask."""
    flat = keras.tree.flatten(outputs)
    is_composite = getattr(keras, "MaskedTensor", ())
    return [
        (y.values if isinstance(y, is_composite) else y, get_keras_mask(y))
        for y in flat
    ]


def made(case):
    """The layer of a case, built, with its weights set."""
    layer = case.make()
    case.run(layer, tensors(case))
    set_weights(layer)
    return layer


def tensors(case):
    return [ops.convert_to_tensor(x) for x in case.arrays]


def functional(case, layer):
    """A model of the call of a layer."""
    xs = [keras.Input(x.shape[1:], dtype=x.dtype.name) for x in case.arrays]
    return keras.Model(xs, case.run(layer, xs))


TRAINED = (
    "weight",
    "pooling",
    "mask_argument",
    "every_second",
    "pair",
    "wrapper_of_lstm",
    "encoder",
    "transformer",
    "stack",
    "dense_flag",
    "bidirectional_lstm",
)


def trained(name):
    """The weights after some steps, and the losses, of a small model."""
    case = CASES[name]
    xs = [keras.Input(x.shape[1:], dtype=x.dtype.name) for x in case.arrays]
    y = case.run(case.make(), xs)
    if len(y.shape) > 2:
        y = layers.GlobalAveragePooling1D()(y)
    model = keras.Model(xs, layers.Dense(1)(y))
    set_weights(model)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    targets = np.array([[1.0], [-1.0]], "float32")
    history = model.fit(
        list(case.arrays), targets, epochs=3, shuffle=False, verbose=0
    )
    return history.history["loss"], model.get_weights()


# Models that are saved.


def _functional():
    ids = keras.Input((4,), dtype="int32")
    x = layers.Embedding(7, 4, mask_zero=True)(ids)
    x = layers.LSTM(4, return_sequences=True)(x)
    x = Tanh()(x)
    y = layers.Dense(4)(x)
    y = layers.Concatenate()([layers.Add()([x, y]), y])
    y = layers.MultiHeadAttention(2, 3)(y, y)
    y = layers.TimeDistributed(layers.Dense(3))(y)
    y = Residual(layers.Dense(3))(y)
    y = layers.Bidirectional(layers.GRU(3))(y)
    return keras.Model(ids, layers.Dense(2)(y))


def _sequential():
    return keras.Sequential(
        [
            layers.Input((4, 3)),
            layers.Masking(),
            Scale(),
            layers.LayerNormalization(),
            layers.SimpleRNN(3, return_sequences=True),
            layers.GlobalAveragePooling1D(),
        ]
    )


def _operations():
    x = keras.Input((4, 3))
    y = layers.Masking()(x)
    y = y + layers.Attention()([y, y])
    y = ops.concatenate([ops.relu(y), y], axis=-1)
    return keras.Model(x, y)


def _of_lambda():
    x = keras.Input((4, 3))
    y = layers.Masking()(x)
    y = layers.Lambda(lambda x: 2 * x, mask=lambda x, mask: mask)(y)
    return keras.Model(x, layers.GRU(2)(y))


def _of_models():
    inner = keras.Sequential(
        [
            layers.Input((4, 3)),
            layers.Masking(),
            Tanh(),
            layers.LSTM(3, return_sequences=True),
        ]
    )
    x = keras.Input((4, 3))
    return keras.Model(x, layers.GRU(2)(inner(x)))


def _explicit():
    x, mask = keras.Input((4, 3)), keras.Input((4,), dtype="bool")
    y = layers.LSTM(3, return_sequences=True)(x, mask=mask)
    y = layers.MultiHeadAttention(1, 2)(
        y, y, value_mask=mask, use_causal_mask=True
    )
    y = layers.GlobalAveragePooling1D()(y, mask=mask)
    return keras.Model([x, mask], y)


SAVED = {
    "functional": (_functional, (IDS,)),
    "sequential": (_sequential, (X,)),
    "operations": (_operations, (X,)),
    "lambda": (_of_lambda, (X,)),
    "of_models": (_of_models, (X,)),
    "explicit": (_explicit, (X, OTHER)),
}


def saved_model(name):
    make, arrays = SAVED[name]
    model = make()
    set_weights(model)
    return model, list(arrays)


def record(folder):
    """Writes what becomes of all this, to be compared."""
    found = {}

    def keep(key, pairs):
        for i, (y, mask) in enumerate(pairs):
            found[f"{key}/{i}"] = ops.convert_to_numpy(y)
            if mask is not None:
                found[f"{key}/{i}/mask"] = ops.convert_to_numpy(mask)

    for name, case in CASES.items():
        keep(name, results(case.run(made(case), tensors(case))))
    for name in TRAINED:
        losses, weights = trained(name)
        found[f"{name}/losses"] = np.array(losses)
        keep(f"{name}/trained", [(w, None) for w in weights])
    for name in SAVED:
        keras.utils.clear_session()
        model, arrays = saved_model(name)
        keep(f"{name}/saved", results(model(arrays)))
        model.save(folder / f"{name}.keras")
        model.save(folder / f"{name}.h5")
        model.save_weights(folder / f"{name}.weights.h5")
        (folder / f"{name}.json").write_text(model.to_json())
    np.savez(folder / "results.npz", **found)


if __name__ == "__main__":
    record(pathlib.Path(sys.argv[1]))
