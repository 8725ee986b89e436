"""In the manner of packages of layers: recommendation, attention, text, TCN."""

import numpy as np

import keras
from in_the_wild.wild import ROWS
from in_the_wild.wild import STEPS
from in_the_wild.wild import array
from in_the_wild.wild import each_alone
from in_the_wild.wild import give_weights
from in_the_wild.wild import ids
from in_the_wild.wild import mask_of
from in_the_wild.wild import masked
from in_the_wild.wild import predict
from in_the_wild.wild import program
from in_the_wild.wild import series
from in_the_wild.wild import unpadded
from in_the_wild.wild import valid
from keras import layers
from keras import ops


class SequencePooling(layers.Layer):
    """Sum, mean or maximum of a user's history, as recommenders pool it."""

    def __init__(self, mode="mean", **kwargs):
        super().__init__(**kwargs)
        self.mode = mode
        self.supports_masking = True

    def call(self, inputs, mask=None):
        if mask is None:
            raise ValueError("The history must have a mask.")
        mask = ops.expand_dims(ops.cast(mask, "float32"), -1)
        length = ops.sum(mask, axis=1, keepdims=True)
        mask = ops.tile(mask, [1, 1, inputs.shape[-1]])
        if self.mode == "max":
            return ops.max(inputs - (1 - mask) * 1e9, axis=1, keepdims=True)
        total = ops.sum(inputs * mask, axis=1, keepdims=True)
        return total if self.mode == "sum" else total / (length + 1e-8)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1, input_shape[-1])

    def compute_mask(self, inputs, mask=None):
        return None


class NoMask(layers.Layer):
    """Ends a mask."""

    def call(self, x, mask=None):
        return x

    def compute_mask(self, inputs, mask=None):
        return None


def histories(mode):
    user = keras.Input((1,), dtype="int32", name="user")
    history = keras.Input((STEPS,), dtype="int32", name="history")
    items = layers.Embedding(10, 4, mask_zero=True)
    pooled = SequencePooling(mode)(items(history))
    u = NoMask()(layers.Embedding(4, 4)(user))
    x = layers.Concatenate()([layers.Flatten()(u), layers.Flatten()(pooled)])
    return give_weights(keras.Model([user, history], layers.Dense(1)(x)))


@program()
def history_pooled():
    """A click model: embedding, pooled history, dense."""
    data = [np.array([[1], [2], [3]]), ids()]
    for mode in ("sum", "mean", "max"):
        model = histories(mode)
        yield mode, predict(model, data)
        table, user, kernel, bias = map(array, model.weights)
        if table.shape[0] < user.shape[0]:
            table, user = user, table
        pool = getattr(np, mode)
        rows = np.stack([pool(table[row], axis=0) for row in ROWS])
        rows = np.concatenate([user[[1, 2, 3]], rows], -1)
        yield f"{mode}, by hand", predict(model, data), rows @ kernel + bias


class InterestPooling(layers.Layer):
    """Attention of a candidate over a history, a mask for each of both."""

    def __init__(self, normalize=True, **kwargs):
        super().__init__(**kwargs)
        self.normalize = normalize
        self.scores = keras.Sequential(
            [layers.Dense(6, activation="sigmoid"), layers.Dense(1)]
        )
        self.supports_masking = True

    def build(self, input_shape):
        self.scores.build((None, None, 4 * input_shape[0][-1]))

    def call(self, inputs, mask=None, training=None):
        query, keys = inputs
        key_masks = ops.expand_dims(mask[-1], axis=1)
        queries = ops.repeat(query, keys.shape[1], axis=1)
        x = ops.concatenate(
            [queries, keys, queries - keys, queries * keys], axis=-1
        )
        scores = ops.transpose(self.scores(x), (0, 2, 1))
        if self.normalize:
            padding = ops.ones_like(scores) * (-(2**32) + 1)
        else:
            padding = ops.zeros_like(scores)
        scores = ops.where(key_masks, scores, padding)
        if self.normalize:
            scores = ops.softmax(scores)
        return ops.matmul(scores, keys)

    def compute_output_shape(self, input_shape):
        return (input_shape[0][0], 1, input_shape[1][-1])

    def compute_mask(self, inputs, mask=None):
        return None


@program()
def interest_in_a_candidate():
    """Attention of a candidate item over a user's history."""
    for normalize in (True, False):

        def model(steps, normalize=normalize):
            item = keras.Input((1,), dtype="int32")
            history = keras.Input((steps,), dtype="int32")
            table = layers.Embedding(10, 4, mask_zero=True)
            pooled = InterestPooling(normalize)([table(item), table(history)])
            x = layers.Dense(1)(layers.Flatten()(pooled))
            return give_weights(keras.Model([item, history], x))

        items = np.array([[3], [2], [1]])
        expected = [
            array(model(len(row))([item[None], np.array([row])]))[0]
            for item, row in zip(items, ROWS)
        ]
        found = predict(model(STEPS), [items, ids()])
        yield f"normalize={normalize}", found, np.stack(expected)


class SelfAttention(layers.Layer):
    """Additive attention of a series to itself, with a window, and weights."""

    def __init__(self, units, window=None, return_attention=False, **kwargs):
        super().__init__(**kwargs)
        self.units, self.window = units, window
        self.return_attention = return_attention
        self.supports_masking = True

    def build(self, input_shape):
        width = input_shape[-1]
        shapes = {"wt": width, "wx": width}
        for name, size in shapes.items():
            weight = self.add_weight(shape=(size, self.units), name=name)
            setattr(self, name, weight)
        self.bh = self.add_weight(shape=(self.units,), name="bh")
        self.wa = self.add_weight(shape=(self.units, 1), name="wa")

    def call(self, inputs, mask=None):
        q = ops.expand_dims(ops.matmul(inputs, self.wt), 2)
        k = ops.expand_dims(ops.matmul(inputs, self.wx), 1)
        e = ops.squeeze(ops.matmul(ops.tanh(q + k + self.bh), self.wa), -1)
        e = ops.exp(e - ops.max(e, axis=-1, keepdims=True))
        if self.window is not None:
            steps = ops.arange(ops.shape(inputs)[1])
            near = ops.abs(steps[:, None] - steps) <= self.window
            e = e * ops.cast(near, e.dtype)
        if mask is not None:
            there = ops.cast(mask, e.dtype)
            e = ops.expand_dims(there, 1) * e
        a = e / (ops.sum(e, axis=-1, keepdims=True) + 1e-7)
        v = ops.matmul(a, inputs)
        return [v, a] if self.return_attention else v

    def compute_mask(self, inputs, mask=None):
        return [mask, None] if self.return_attention else mask


@program()
def additive_self_attention():
    """Self-attention between two LSTMs, alone and with its weights."""
    for window in (None, 1):
        inputs = keras.Input((None,), dtype="int32")
        x = layers.Embedding(10, 4, mask_zero=True)(inputs)
        x = layers.LSTM(3, return_sequences=True)(x)
        x, a = SelfAttention(4, window, return_attention=True)(x)
        x = layers.LSTM(2)(x)
        model = give_weights(keras.Model(inputs, [x, a]))
        found, weights = predict(model, ids())
        expected = each_alone(lambda row, m=model: m(row)[0], ROWS)
        yield f"encoded, window {window}", found, expected
        yield f"shape, window {window}", weights.shape


class WeightedAverage(layers.Layer):
    """Attention pooling that returns its weights when it is asked to."""

    def __init__(self, return_attention=False, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.return_attention = return_attention

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], 1), name="w")

    def call(self, x, mask=None):
        logits = ops.matmul(x, self.w)
        logits = ops.reshape(logits, (-1, ops.shape(x)[1]))
        ai = ops.exp(logits - ops.max(logits, axis=-1, keepdims=True))
        if mask is not None:
            ai = ai * ops.cast(mask, "float32")
        weights = ai / (ops.sum(ai, axis=1, keepdims=True) + 1e-7)
        result = ops.sum(x * ops.expand_dims(weights, -1), axis=1)
        return [result, weights] if self.return_attention else result

    def compute_mask(self, inputs, mask=None):
        return [None, None] if isinstance(inputs, list) else None


@program()
def attention_pooling_layer():
    """The average by attention, functional, over GRU states."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(x)
    x = WeightedAverage()(x)
    model = give_weights(keras.Model(inputs, layers.Dense(2)(x)))
    yield "pooled", predict(model, ids()), each_alone(model, ROWS)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    loss = model.fit(ids(), np.ones((3, 2)), verbose=0).history["loss"][0]
    yield "loss", np.float32(loss)
    yield "kernel", model.layers[-1].kernel


class NonMasking(layers.Layer):
    """The usual trick before `Flatten` or a convolution."""

    def __init__(self, **kwargs):
        self.supports_masking = True
        super().__init__(**kwargs)

    def call(self, x, mask=None):
        return x

    def compute_mask(self, inputs, mask=None):
        return None


class ZeroMaskedEntries(layers.Layer):
    """Puts 0 under the mask, and swallows it."""

    def __init__(self, **kwargs):
        self.supports_masking = True
        super().__init__(**kwargs)

    def call(self, x, mask=None):
        mask = ops.repeat(
            ops.expand_dims(ops.cast(mask, "float32"), 1), x.shape[-1], axis=1
        )
        return x * ops.transpose(mask, (0, 2, 1))

    def compute_mask(self, inputs, mask=None):
        return None


@program()
def mask_swallowed():
    """A mask that ends on purpose before a convolution and `Flatten`."""
    model = keras.Sequential(
        [
            keras.Input((STEPS,), dtype="int32"),
            layers.Embedding(10, 4, mask_zero=True),
            ZeroMaskedEntries(),
            layers.Conv1D(3, 2),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )
    give_weights(model)
    table, kernel, bias, dense, dense_bias = map(array, model.weights)
    x = table[ids()] * (ids() != 0)[..., None]
    x = x[:, :-1] @ kernel[0] + x[:, 1:] @ kernel[1] + bias
    expected = x.reshape(3, -1) @ dense + dense_bias
    yield "zeros count", predict(model, ids()), expected


@program(
    differs={
        "all steps": "The layer ends the mask. Upstream the tensor that it "
        "returns is the one that it got, and has its mask still."
    }
)
def mask_ended_by_an_identity():
    """The layer that only ends a mask, before an average."""
    model = keras.Sequential(
        [
            keras.Input((STEPS, 3)),
            layers.Masking(),
            NonMasking(),
            layers.GlobalAveragePooling1D(),
        ]
    )
    yield "all steps", predict(model, series()), series().mean(1)


class ResidualBlock(layers.Layer):
    """A block of a temporal convolutional network."""

    def __init__(self, filters, kernel_size, dilation, **kwargs):
        super().__init__(**kwargs)
        self.convs = [
            layers.Conv1D(
                filters, kernel_size, dilation_rate=dilation, padding="causal"
            )
            for _ in range(2)
        ]
        self.match = layers.Conv1D(filters, 1, padding="same")
        self.supports_masking = True

    def build(self, input_shape):
        for conv in self.convs:
            conv.build(input_shape)
            input_shape = conv.compute_output_shape(input_shape)
        self.match.build((None, None, 3))
        super().build(input_shape)

    def call(self, inputs, training=None):
        x = inputs
        for conv in self.convs:
            x = ops.relu(conv(x))
        return ops.relu(x + self.match(inputs)), x

    def compute_output_shape(self, input_shape):
        shape = (*input_shape[:-1], self.match.filters)
        return [shape, shape]


class TCN(layers.Layer):
    """Blocks of causal convolutions, their skips summed; the last step."""

    def __init__(self, dilations=(1, 2), return_sequences=False, **kwargs):
        super().__init__(**kwargs)
        self.return_sequences = return_sequences
        self.blocks = [ResidualBlock(3, 2, d) for d in dilations]
        self.slicer = layers.Lambda(lambda tt: tt[:, -1, :])
        self.supports_masking = True

    def call(self, inputs, training=None):
        x, skips = inputs, []
        for block in self.blocks:
            x, skip = block(x, training=training)
            skips.append(skip)
        x = layers.add(skips)
        return x if self.return_sequences else self.slicer(x)

    def compute_output_shape(self, input_shape):
        if self.return_sequences:
            return (*input_shape[:-1], 3)
        return (input_shape[0], 3)


@program()
def temporal_convolutions():
    """A TCN over series that are padded after, all steps and the last one."""
    sequences = keras.Sequential(
        [keras.Input((None, 3)), layers.Masking(), TCN(return_sequences=True)]
    )
    give_weights(sequences)
    expected = each_alone(sequences, unpadded(series()), STEPS)
    found = np.ma.getdata(predict(sequences, series()))
    yield "steps", masked(found, valid()), expected


@program(
    differs={
        "last": "Zeros before a row are no zeros after a bias: they reach the "
        "first steps of the row through the second convolution upstream."
    }
)
def temporal_convolutions_padded_before():
    """Causal layers with a skip, the padding first, as for a last step."""
    inputs = keras.Input((None, 3))
    x = layers.Masking()(inputs)
    y = layers.Conv1D(3, 2, padding="causal", activation="relu")(x)
    y = layers.Conv1D(3, 2, dilation_rate=2, padding="causal")(y)
    x = layers.Activation("relu")(layers.add([x, y]))
    x = layers.Lambda(lambda tt: tt[:, -1, :])(x)
    model = give_weights(keras.Model(inputs, x))
    rows = unpadded(series())
    x = np.stack([np.pad(r, ((STEPS - len(r), 0), (0, 0))) for r in rows])
    yield "last", np.ma.getdata(predict(model, x)), each_alone(model, rows)


class TrigPosition(layers.Layer):
    """Sines of the position, added or put beside."""

    def __init__(self, width, mode="add", **kwargs):
        super().__init__(**kwargs)
        self.width, self.mode = width, mode
        self.supports_masking = True

    def call(self, inputs, mask=None):
        shape = ops.shape(inputs)
        position = ops.cast(ops.arange(shape[1]), "float32")[None, :, None]
        rates = ops.arange(self.width // 2, dtype="float32")
        angles = position / ops.power(100.0, 2.0 * rates / self.width)
        x = ops.concatenate([ops.sin(angles), ops.cos(angles)], -1)
        x = ops.broadcast_to(x, (shape[0], shape[1], self.width))
        if self.mode == "add":
            return inputs + x
        return ops.concatenate([inputs, x], -1)

    def compute_mask(self, inputs, mask=None):
        return mask

    def compute_output_shape(self, input_shape):
        width = input_shape[-1]
        if self.mode != "add":
            width += self.width
        return (*input_shape[:-1], width)


@program()
def positions_as_sines():
    """Positions added and concatenated, in a Transformer's encoder."""
    for mode in ("add", "concat"):
        inputs = keras.Input((None,), dtype="int32")
        x = layers.Embedding(10, 4, mask_zero=True)(inputs)
        x = TrigPosition(4, mode)(x)
        x = layers.MultiHeadAttention(2, 3)(x, x)
        x = layers.GlobalAveragePooling1D()(x)
        model = give_weights(keras.Model(inputs, x))
        yield mode, predict(model, ids()), each_alone(model, ROWS)


def padding_mask_of(inputs, padding_mask, attention_mask):
    """Joins the masks that a block is given with the one that `inputs` has."""
    own = getattr(inputs, "_keras_mask", None)
    if padding_mask is None and own is not None:
        padding_mask = own
    if padding_mask is None:
        return attention_mask
    mask = ops.cast(ops.expand_dims(padding_mask, axis=1), "int32")
    if attention_mask is None:
        return mask
    return ops.minimum(mask, ops.cast(attention_mask, "int32"))


class HubEncoder(layers.Layer):
    """A block of a hub of models: it reads `_keras_mask`, or is told."""

    def __init__(self, hidden, heads, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.heads = hidden, heads
        self.supports_masking = True

    def build(self, inputs_shape):
        width = inputs_shape[-1]
        self.attention = layers.MultiHeadAttention(
            self.heads, width // self.heads
        )
        self.attention.build(query_shape=inputs_shape, value_shape=inputs_shape)
        self.norm = layers.LayerNormalization()
        self.norm.build(inputs_shape)
        self.inner = layers.Dense(self.hidden, activation="gelu")
        self.inner.build(inputs_shape)
        self.outer = layers.Dense(width)
        self.outer.build((*inputs_shape[:-1], self.hidden))

    def call(self, inputs, padding_mask=None, attention_mask=None):
        mask = padding_mask_of(inputs, padding_mask, attention_mask)
        x = self.attention(query=inputs, value=inputs, attention_mask=mask)
        x = self.norm(x + inputs)
        return x + self.outer(self.inner(x))

    def compute_output_shape(self, inputs_shape):
        return inputs_shape


class HubEmbedding(layers.Layer):
    """Tokens and positions, with the mask of the tokens."""

    def __init__(self, size, length, width, **kwargs):
        super().__init__(**kwargs)
        self.tokens = layers.Embedding(size, width, mask_zero=True)
        self.positions = layers.Embedding(length, width)
        self.supports_masking = True

    def build(self, input_shape):
        self.tokens.build(input_shape)
        self.positions.build(input_shape)

    def call(self, inputs):
        tokens = self.tokens(inputs)
        steps = ops.arange(ops.shape(inputs)[1])
        return tokens + self.positions(steps)

    def compute_mask(self, inputs, mask=None):
        return self.tokens.compute_mask(inputs, mask=mask)

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.tokens.output_dim)


@program()
def hub_of_models():
    """A backbone with an implicit mask, and one with an explicit input."""
    tokens = keras.Input((None,), dtype="int32", name="token_ids")
    x = HubEmbedding(10, 20, 4)(tokens)
    x = HubEncoder(6, 2)(x)
    x = HubEncoder(6, 2)(x)
    implicit = give_weights(keras.Model(tokens, x))
    expected = each_alone(implicit, ROWS, STEPS)
    found = np.ma.getdata(predict(implicit, ids()))
    yield "implicit", masked(found, ids() != 0), expected

    padding = keras.Input((None,), dtype="int32", name="padding_mask")
    x = HubEmbedding(10, 20, 4)(tokens)
    x = HubEncoder(6, 2)(x, padding_mask=padding)
    x = HubEncoder(6, 2)(x, padding_mask=padding)
    data = {"token_ids": tokens, "padding_mask": padding}
    pooled = layers.Dense(2)(x[:, 0, :])
    explicit = give_weights(keras.Model(data, [x, pooled]))
    given = {"token_ids": ids(), "padding_mask": (ids() != 0).astype("int32")}
    found, pooled = map(np.ma.getdata, predict(explicit, given))
    yield "explicit", masked(found, ids() != 0), expected
    yield "pooled", pooled
    yield "called", array(explicit(given)[1]), pooled


class Extract(layers.Layer):
    """The first token, as classifiers take it."""

    def __init__(self, index, **kwargs):
        super().__init__(**kwargs)
        self.index = index
        self.supports_masking = True

    def call(self, x, mask=None):
        return x[:, self.index]

    def compute_mask(self, inputs, mask=None):
        return None


class MaskedOutput(layers.Layer):
    """Keeps what was to be guessed; its own mask becomes the tokens' one."""

    def __init__(self, return_masked=False, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.return_masked = return_masked

    def call(self, inputs, mask=None):
        token_mask = ops.cast(inputs[1], "float32")
        return inputs[0] * ops.expand_dims(token_mask, axis=-1)

    def compute_mask(self, inputs, mask=None):
        token_mask = ops.not_equal(inputs[1], 0)
        if mask is None or mask[0] is None:
            return token_mask
        return ops.logical_and(token_mask, mask[0])

    def compute_output_shape(self, input_shape):
        return input_shape[0]


@program()
def masked_language_model():
    """BERT's two heads: the guessed tokens, and the first one."""
    tokens = keras.Input((None,), dtype="int32")
    guessed = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(tokens)
    x = HubEncoder(6, 2)(x)
    first = layers.Dense(2)(Extract(0)(x))
    words = MaskedOutput()([layers.Dense(10)(x), guessed])
    model = give_weights(keras.Model([tokens, guessed], [words, first]))
    which = (np.arange(STEPS) % 2 == 0) & (ids() != 0)
    found, first = predict(model, [ids(), which.astype("int32")])
    ones = np.ones((1, 1), "int32")
    yield "words", masked(np.ma.getdata(found), which)
    expected = each_alone(lambda x: model([x, ones * (x > 0)])[1], ROWS)
    yield "first", first, expected


class MaskedConv(layers.Layer):
    """A convolution that hands the mask on, as many wrote it."""

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.conv = layers.Conv1D(*args, **kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        if mask is not None:
            inputs = inputs * ops.expand_dims(ops.cast(mask, "float32"), -1)
        return self.conv(inputs)

    def compute_output_shape(self, input_shape):
        return self.conv.compute_output_shape(input_shape)


@program()
def convolution_with_a_mask():
    """Two of them and a pooling, with a wrapped layer of Keras inside."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    x = MaskedConv(3, 3, padding="same")(x)
    x = MaskedConv(3, 3, padding="same")(x)
    x = layers.GlobalMaxPooling1D()(x)
    model = give_weights(keras.Model(inputs, x))
    # Not `each_alone`: upstream's maximum is over the padding as well.
    found = model(ids()[:1, :5])
    yield "of a full row", found, predict(model, ids()[:1, :5])


class Viterbi(layers.Layer):
    """The best path through tags, by `scan`, as CRF layers decode."""

    def __init__(self, tags, **kwargs):
        super().__init__(**kwargs)
        self.tags = tags
        self.supports_masking = True

    def build(self, input_shape):
        shape = (self.tags, self.tags)
        self.transitions = self.add_weight(shape=shape, name="transitions")

    def call(self, inputs, mask=None):
        if mask is None:
            mask = ops.ones(ops.shape(inputs)[:2], "bool")
        steps = ops.transpose(inputs, (1, 0, 2))
        there = ops.transpose(ops.cast(mask, "float32"), (1, 0))[..., None]

        def step(score, xs):
            x, m = xs
            best = ops.max(score[:, :, None] + self.transitions, axis=1) + x
            score = m * best + (1.0 - m) * score
            return score, score

        last, _ = ops.scan(step, steps[0], (steps[1:], there[1:]))
        return ops.max(last, axis=-1)

    def compute_mask(self, inputs, mask=None):
        return None

    def compute_output_shape(self, input_shape):
        return (input_shape[0],)


@program()
def best_path():
    """A CRF's score of the best path, over a Bidirectional LSTM."""
    table = np.random.default_rng(1).normal(size=(10, 3)).astype("float32")
    embed = layers.Embedding(10, 3, mask_zero=True, weights=[table])
    crf = Viterbi(3)
    crf.build((None, None, 3))
    give_weights(crf)
    t = array(crf.transitions)
    expected = []
    for row in ROWS:
        score = table[row[0]]
        for i in row[1:]:
            score = (score[:, None] + t).max(0) + table[i]
        expected.append(score.max())
    yield "score", crf(embed(ids())), np.array(expected)
    yield "mask", mask_of(crf(embed(ids())))
