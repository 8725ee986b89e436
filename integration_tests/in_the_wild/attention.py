"""Attention by hand: poolings, additive masks, causal masks, positions."""

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
from in_the_wild.wild import softmax
from in_the_wild.wild import unpadded
from in_the_wild.wild import valid
from keras import layers
from keras import ops

LENGTHS = 5, 3, 1


@program(
    differs={
        "pooled": "Upstream's softmax over the steps gives padding a share."
    }
)
def pooling_by_layers():
    """`Dense(1)`, a softmax over time, `Dot`: attention out of layers."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    a = layers.Dense(1, activation="tanh")(x)
    a = layers.Lambda(lambda t: ops.softmax(t, axis=1))(a)
    y = layers.Dot(axes=1)([a, x])
    y = layers.Flatten()(y)
    model = give_weights(keras.Model(inputs, layers.Dense(2)(y)))
    yield (
        "pooled",
        np.ma.getdata(predict(model, ids())),
        each_alone(model, ROWS),
    )


@program(
    differs={
        "pooled": "As in `pooling_by_layers`, of `Permute` and `Multiply`."
    }
)
def pooling_by_permuting():
    """Attention with `Flatten`, `RepeatVector` and `Permute`."""
    inputs = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    a = layers.Dense(1)(x)
    a = layers.Flatten()(a)
    a = layers.Activation("softmax")(a)
    a = layers.RepeatVector(4)(a)
    a = layers.Permute([2, 1])(a)
    y = layers.Multiply()([x, a])
    y = layers.Lambda(lambda t: ops.sum(t, axis=1), output_shape=(4,))(y)
    model = give_weights(keras.Model(inputs, y))
    table, kernel, bias = map(array, model.weights)
    expected = []
    for row in ROWS:
        w = softmax(table[row] @ kernel + bias, 0)
        expected.append((w * table[row]).sum(0))
    yield "pooled", np.ma.getdata(predict(model, ids())), np.stack(expected)


class AddsMinusInfinity(layers.Layer):
    """Scores of padding are made -1e9 by a mask that the layer asks for."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(1)

    def call(self, x, mask=None):
        scores = ops.squeeze(self.dense(x), -1)
        if mask is not None:
            scores += (1.0 - ops.cast(mask, scores.dtype)) * -1e9
        weights = ops.expand_dims(ops.softmax(scores), -1)
        return ops.sum(weights * x, axis=1)


@program()
def pooling_with_minus_infinity():
    """The additive mask, in a sequential model with a head."""
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(10, 4, mask_zero=True),
            AddsMinusInfinity(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    give_weights(model)
    yield "classes", predict(model, ids()), each_alone(model, ROWS)


@program(
    differs={
        "causal": "`ops.softmax` and `@` know no mask upstream: steps after "
        "the padding that comes first attend to it."
    }
)
def causal_attention_of_ops():
    """`where(causal, scores, -inf)`, the three lines of attention."""

    def attend(x):
        x = ops.convert_to_tensor(x)
        scores = x @ ops.transpose(x, (0, 2, 1)) / 2.0
        steps = ops.arange(ops.shape(x)[1])
        causal = steps[:, None] >= steps
        scores = ops.where(causal, scores, -float("inf"))
        return ops.softmax(scores) @ x

    rows = unpadded(series(LENGTHS))
    x = np.stack([np.pad(r, ((STEPS - len(r), 0), (0, 0))) for r in rows])
    expected = each_alone(attend, rows, STEPS)
    # The padding of the oracle is after.
    expected = np.stack(
        [np.roll(r, STEPS - n, 0) for r, n in zip(expected.data, LENGTHS)]
    )
    there = valid(LENGTHS)[:, ::-1]
    found = array(attend(layers.Masking()(x)))
    yield "causal", masked(found, there), masked(expected, there)


@program()
def attention_masks_by_hand():
    """`MultiHeadAttention` with a padding mask of one's own, causal and not."""
    x = series(LENGTHS, value=0.0)
    attention = layers.MultiHeadAttention(2, 3)
    attention(x, x)
    give_weights(attention)
    padding = valid(LENGTHS)[:, np.newaxis, :]
    causal = np.tril(np.ones((1, STEPS, STEPS), bool))
    for name, mask in (("full", padding), ("causal", padding & causal)):
        found = attention(x, x, attention_mask=ops.convert_to_tensor(mask))
        expected = each_alone(
            lambda row, c=name == "causal": attention(
                row, row, use_causal_mask=c
            ),
            unpadded(x),
            STEPS,
        )
        yield name, masked(array(found), valid(LENGTHS)), expected
    found, scores = attention(
        layers.Masking()(x), x, return_attention_scores=True
    )
    yield "scores", tuple(scores.shape)
    yield "mask", mask_of(found), valid(LENGTHS)


@program()
def dot_product_attention_layers():
    """`Attention` and `AdditiveAttention` of a query text to a value text."""
    queries = keras.Input((None,), dtype="int32")
    values = keras.Input((None,), dtype="int32")
    embed = layers.Embedding(10, 4, mask_zero=True)
    q, v = embed(queries), embed(values)
    cnn = layers.Conv1D(4, 1, padding="same")
    x = layers.Attention(use_scale=True)([cnn(q), cnn(v)])
    y = layers.AdditiveAttention()([q, v])
    model = give_weights(keras.Model([queries, values], [x, y]))
    found, additive = map(np.ma.getdata, predict(model, [ids(), ids(8)]))
    expected = each_alone(lambda row: model([row, row])[1], ROWS, STEPS)
    yield "additive", masked(additive, ids() != 0), expected
    full = np.ma.getdata(predict(model, [ids()[:1, :5]] * 2)[0])
    yield "dot product", full


@program(
    differs={
        "skewed": "Upstream's `Masking` reaches neither `@` nor the softmax; "
        "the padded keys take part."
    }
)
def relative_attention():
    """Relative positions by padding, reshaping and cutting: the skew."""
    table = np.random.default_rng(3).normal(size=(2 * STEPS, 3))
    table = table.astype("float32")

    def attend(x):
        steps = ops.shape(x)[1]
        relative = table[STEPS - x.shape[1] : STEPS]
        logits = ops.matmul(x, ops.transpose(ops.convert_to_tensor(relative)))
        logits = ops.pad(logits, ((0, 0), (0, 0), (1, 0)))
        logits = ops.reshape(logits, (-1, steps + 1, steps))[:, 1:]
        scores = ops.matmul(x, ops.transpose(x, (0, 2, 1)))
        i = ops.arange(steps)
        logits = ops.where(i[:, None] >= i, logits, 0.0)
        return ops.matmul(ops.softmax(scores + logits), x)

    found = array(attend(layers.Masking()(series(LENGTHS))))
    expected = each_alone(attend, unpadded(series(LENGTHS)), STEPS)
    yield "skewed", masked(found, valid(LENGTHS)), expected


@program(
    differs={
        "linear": "The sums over keys count padding upstream.",
        "biased": "The softmax counts padding upstream.",
    }
)
def attention_by_einsum():
    """Linear attention, and distances as a bias, by `einsum`."""

    def linear(x):
        q, k = ops.elu(x) + 1.0, ops.elu(x * 0.5) + 1.0
        kv = ops.einsum("btd,bte->bde", k, x)
        z = 1.0 / (ops.einsum("btd,bd->bt", q, ops.sum(k, axis=1)) + 1e-6)
        return ops.einsum("btd,bde,bt->bte", q, kv, z)

    def biased(x):
        heads = ops.reshape(x, (ops.shape(x)[0], ops.shape(x)[1], 3, 1))
        scores = ops.einsum("bqhd,bkhd->bhqk", heads, heads)
        i = ops.cast(ops.arange(ops.shape(x)[1]), "float32")
        slopes = ops.reshape(2.0 ** -ops.arange(3.0), (3, 1, 1))
        scores = scores - slopes * ops.abs(i[:, None] - i)
        y = ops.einsum("bhqk,bkhd->bqhd", ops.softmax(scores), heads)
        return ops.reshape(y, ops.shape(x))

    x = layers.Masking()(series(LENGTHS))
    for name, f in (("linear", linear), ("biased", biased)):
        expected = each_alone(f, unpadded(series(LENGTHS)), STEPS)
        yield name, masked(array(f(x)), valid(LENGTHS)), expected


@program(
    differs={"mean": "A `Lambda` without `mask` averages padding upstream."}
)
def lambdas():
    """`Lambda` layers with and without an argument for the mask."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)

    def masked_mean(x, mask=None):
        there = ops.cast(ops.expand_dims(mask, -1), "float32")
        return ops.sum(x * there, axis=1) / ops.sum(there, axis=1)

    by_mask = layers.Lambda(masked_mean, output_shape=(4,))(x)
    mean = layers.Lambda(lambda t: ops.mean(t, axis=1), output_shape=(4,))(x)
    model = give_weights(keras.Model(inputs, [by_mask, mean]))
    found = [np.ma.getdata(y) for y in predict(model, ids())]
    table = array(model.layers[1].embeddings)
    expected = np.stack([table[row].mean(0) for row in ROWS])
    yield "with its mask", found[0], expected
    yield "mean", found[1], expected


def masked_softmax(scores, mask, axis=-1):
    """The helper of many a repository."""
    mask = ops.cast(mask, scores.dtype)
    e = ops.exp(scores - ops.max(scores, axis=axis, keepdims=True)) * mask
    return e / (ops.sum(e, axis=axis, keepdims=True) + 1e-9)


class BiAttention(layers.Layer):
    """Question and passage attend to each other, as reading models do."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        p, q = inputs
        pm, qm = mask
        s = ops.matmul(p, ops.transpose(q, (0, 2, 1)))
        a = masked_softmax(s, ops.expand_dims(qm, 1))
        c2q = ops.matmul(a, q)
        b = masked_softmax(ops.max(s, axis=-1), pm)
        q2c = ops.matmul(ops.expand_dims(b, 1), p)
        q2c = ops.tile(q2c, [1, ops.shape(p)[1], 1])
        return ops.concatenate([p, c2q, p * c2q, p * q2c], axis=-1)

    def compute_mask(self, inputs, mask=None):
        return mask[0]

    def compute_output_shape(self, input_shape):
        return (*input_shape[0][:-1], 4 * input_shape[0][-1])


@program()
def reading_comprehension():
    """Two texts, a similarity matrix, start and end of an answer."""

    def model(steps, others):
        passage = keras.Input((steps,), dtype="int32")
        question = keras.Input((others,), dtype="int32")
        embed = layers.Embedding(10, 4, mask_zero=True)
        x = BiAttention()([embed(passage), embed(question)])
        x = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(x)
        return give_weights(keras.Model([passage, question], x))

    # In the padded batch the maximum over the question stays over real words.
    question = np.array([[3, 1, 4]] * 3)
    found = np.ma.getdata(predict(model(STEPS, 3), [ids(), question]))
    expected = each_alone(
        lambda row: model(row.shape[1], 3)([row, question[:1]]), ROWS, STEPS
    )
    yield "modelled", masked(found, ids() != 0), expected


@program()
def gates_and_highways():
    """A highway layer by `Multiply`, `Add` and `Lambda` over a masked text."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    t = layers.Dense(4, activation="sigmoid")(x)
    h = layers.Dense(4, activation="relu")(x)
    carry = layers.Lambda(lambda g: 1.0 - g, output_shape=(None, 4))(t)
    x = layers.Add()([layers.Multiply()([t, h]), layers.Multiply()([carry, x])])
    x = layers.Dropout(0.2)(x)
    model = give_weights(keras.Model(inputs, x))
    found = np.ma.getdata(predict(model, ids()))
    expected = each_alone(model, ROWS, STEPS)
    yield "steps", masked(found, ids() != 0), expected


@program(
    differs={
        "pooled": "Upstream drops the mask where a plain table of positions, "
        "or of marks, is added."
    }
)
def texts_of_unknown_length():
    """Tokens of any length, and marks of a fixed length, added."""
    tokens = keras.Input((None,), dtype="int32")
    marks = keras.Input((STEPS, 4))
    x = layers.Embedding(10, 4, mask_zero=True)(tokens)
    x = layers.Add()([x, marks])
    x = layers.GlobalAveragePooling1D()(x)
    model = give_weights(keras.Model([tokens, marks], x))
    m = np.random.default_rng(0).normal(size=(3, STEPS, 4)).astype("float32")
    table = array(model.layers[1].embeddings)
    if table.ndim != 2:
        table = array(model.weights[0])
    expected = np.stack(
        [(table[r] + m[i, : len(r)]).mean(0) for i, r in enumerate(ROWS)]
    )
    yield "pooled", predict(model, [ids(), m]), expected


@program()
def maxima_by_infinity():
    """What is 0 is made minus infinity, before a maximum and a softmax."""
    x = layers.Masking()(series(LENGTHS))
    filled = ops.where(ops.equal(x, 0.0), -float("inf"), x)
    rows = unpadded(series(LENGTHS))
    yield "max", ops.max(filled, axis=1), np.stack([r.max(0) for r in rows])
    expected = np.zeros((3, STEPS, 3), "float32")
    for out, row in zip(expected, rows):
        out[: len(row)] = softmax(row, 0)
    found = array(ops.softmax(filled, axis=1))
    there = valid(LENGTHS)
    yield "softmax", masked(found, there), masked(expected, there)
    logs = ops.logsumexp(filled, axis=1)
    yield (
        "logsumexp",
        logs,
        np.stack([np.log(np.exp(row).sum(0)) for row in rows]),
    )


class Heads(layers.Layer):
    """Splits the features, keeps the parts, and joins them again."""

    def call(self, x):
        self.parts = ops.split(x, 3, axis=-1)
        self.parts = [ops.tanh(part) for part in self.parts]
        joined = ops.concatenate(self.parts, axis=-1)
        mean = ops.mean(ops.convert_to_tensor(self.parts), axis=0)
        return joined, ops.mean(self.parts, axis=0), mean


@program()
def lists_as_operands():
    """Parts that a layer keeps, joined, and averaged as a list."""
    x = layers.Masking()(series(LENGTHS))
    joined, mean, stacked = map(array, Heads()(x))
    there, expected = valid(LENGTHS), np.tanh(series(LENGTHS))
    yield "joined", masked(joined, there), masked(expected, there)
    expected = expected.mean(-1, keepdims=True)
    yield "mean", masked(mean, there), masked(expected, there)
    yield "of a stack", masked(stacked, there), masked(expected, there)


class Cached(layers.MultiHeadAttention):
    """Attention with a `call` of its own, out of the parts of Keras's."""

    def call(self, query, value, key=None, attention_mask=None, cache=None):
        key = value if key is None else key
        query = self._query_dense(query)
        key, value = self._key_dense(key), self._value_dense(value)
        if cache is not None:
            key = ops.concatenate([cache, key], axis=1)
        outputs, _ = self._compute_attention(
            query, key, value, attention_mask=attention_mask
        )
        return self._output_dense(outputs)


class Decoder(layers.Layer):
    """A block that sees what came before, as packages of models have it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = Cached(2, 4)
        self.norm, self.out = layers.LayerNormalization(), layers.Dense(8)

    def build(self, shape):
        self.attention.build(shape, shape, shape)
        self.norm.build(shape)
        self.out.build(shape)

    def call(self, x):
        steps = ops.arange(ops.shape(x)[1])
        causal = (steps[:, None] >= steps[None, :])[None]
        x = self.norm(x + self.attention(x, x, attention_mask=causal))
        return x + self.out(x)


@program()
def a_decoder_of_parts():
    """An embedding that masks, and decoders, whose attention is a subclass."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 8, mask_zero=True)(inputs)
    x = Decoder()(Decoder()(x))
    model = give_weights(keras.Model(inputs, layers.Dense(3)(x)))
    yield "called", model(ids()), each_alone(model, ROWS, STEPS)
