"""In the manner of the guides and examples on keras.io."""

import numpy as np

import keras
from in_the_wild.wild import ROWS
from in_the_wild.wild import STEPS
from in_the_wild.wild import array
from in_the_wild.wild import cross_entropy
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


@program()
def masks_are_made():
    """The start of the masking guide: who makes a mask, and how to see it."""
    embedding = layers.Embedding(10, 4, mask_zero=True)
    x = embedding(ids())
    yield "of the embedding", x._keras_mask, ids() != 0
    yield "computed", embedding.compute_mask(ids()), ids() != 0
    x = layers.Masking(mask_value=-1.0)(series(value=-1.0))
    yield "of masking", x._keras_mask, valid()
    steps = ops.tile(ops.expand_dims(ids(), -1), [1, 1, 4])
    x = layers.Masking()(ops.cast(steps, "float32"))
    yield "of tiled ids", mask_of(x), ids() != 0


class Encoder(keras.Model):
    """Hands the mask on by hand."""

    def __init__(self):
        super().__init__()
        self.embedding = layers.Embedding(10, 4, mask_zero=True)
        self.lstm = layers.LSTM(5)

    def call(self, inputs):
        x = self.embedding(inputs)
        mask = self.embedding.compute_mask(inputs)
        return self.lstm(x, mask=mask)


@program()
def masks_reach_a_recurrence():
    """The same encoder: sequential, functional, and with its mask by hand."""
    sequential = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(10, 4, mask_zero=True),
            layers.LSTM(5),
        ]
    )
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(tokens)
    functional = keras.Model(tokens, layers.LSTM(5)(x))
    subclassed = Encoder()
    subclassed(ids())
    expected = each_alone(give_weights(sequential), ROWS)
    yield "sequential", predict(sequential, ids()), expected
    yield "functional", predict(give_weights(functional), ids()), expected
    yield "subclassed", predict(give_weights(subclassed), ids()), expected


class TemporalSplit(layers.Layer):
    """Two halves of a series, and of its mask."""

    def call(self, inputs):
        return ops.split(inputs, 2, axis=1)

    def compute_mask(self, inputs, mask=None):
        if mask is None:
            return None
        return ops.split(mask, 2, axis=1)


@program()
def mask_is_split():
    """A layer that changes the mask, on tensors and in a graph."""
    first, second = TemporalSplit()(layers.Masking()(series(steps=8)))
    yield "first", mask_of(first), valid(steps=8)[:, :4]
    yield "second", mask_of(second), valid(steps=8)[:, 4:]
    inputs = keras.Input((8, 3))
    halves = TemporalSplit()(layers.Masking()(inputs))
    x = layers.Concatenate()([layers.GRU(2)(half) for half in halves])
    model = give_weights(keras.Model(inputs, x))
    yield "predicted", predict(model, series(steps=8))


class CustomEmbedding(layers.Layer):
    """An embedding that makes its mask itself."""

    def __init__(self, size, width, mask_zero=False, **kwargs):
        super().__init__(**kwargs)
        self.size, self.width, self.mask_zero = size, width, mask_zero

    def build(self, input_shape):
        self.table = self.add_weight(
            shape=(self.size, self.width), name="embeddings"
        )

    def call(self, inputs):
        return ops.take(self.table, ops.cast(inputs, "int32"), axis=0)

    def compute_mask(self, inputs, mask=None):
        return ops.not_equal(inputs, 0) if self.mask_zero else None


class PassesOn(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        return ops.relu(inputs)


@program()
def mask_passes_a_layer():
    """A mask of one's own, handed on by a flag, looked at in the graph."""
    inputs = keras.Input((None,), dtype="int32")
    x = CustomEmbedding(10, 4, mask_zero=True)(inputs)
    x = PassesOn()(x)
    yield "shape of the mask", tuple(x._keras_mask.shape)
    model = give_weights(keras.Model(inputs, layers.LSTM(3)(x)))
    yield "encoded", predict(model, ids()), each_alone(model, ROWS)
    x = PassesOn()(CustomEmbedding(10, 4, mask_zero=True)(ids()))
    yield "mask", x._keras_mask, ids() != 0


class TemporalSoftmax(layers.Layer):
    """A softmax over the steps that are there; it insists on its mask."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        assert mask is not None
        there = ops.expand_dims(ops.cast(mask, "float32"), -1)
        e = ops.exp(inputs) * there
        return e / ops.sum(e * there, axis=1, keepdims=True)


@program()
def layer_insists_on_its_mask():
    """The end of the masking guide, in a graph of unknown length."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    x = layers.Dense(1)(x)
    model = give_weights(keras.Model(inputs, TemporalSoftmax()(x)))
    expected = each_alone(model, ROWS, STEPS)
    yield "weights", predict(model, ids()), expected
    yield "called", model(ids()), expected


@program(
    differs={"logits": "An initial state makes upstream's LSTM lose its mask."}
)
def states_of_an_encoder():
    """The guide to RNNs: the states of one LSTM start another."""
    source = keras.Input((None,), dtype="int32")
    target = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(source)
    output, h, c = layers.LSTM(5, return_state=True, name="encoder")(x)
    y = layers.Embedding(12, 4, mask_zero=True)(target)
    y = layers.LSTM(5, name="decoder")(y, initial_state=[h, c])
    model = keras.Model([source, target], [layers.Dense(2)(y), output])
    give_weights(model)
    logits, encoded = predict(model, [ids(), ids(9)])
    expected = [
        [array(x)[0] for x in model([np.array([row])] * 2)] for row in ROWS
    ]
    yield "encoded", encoded, np.stack([x[1] for x in expected])
    yield "logits", logits, np.stack([x[0] for x in expected])


@keras.saving.register_keras_serializable("in_the_wild")
class Minimal(layers.Layer):
    """A cell of one's own."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        shape = (input_shape[-1], self.units)
        self.kernel = self.add_weight(shape=shape, name="kernel")
        shape = (self.units, self.units)
        self.recurrent = self.add_weight(shape=shape, name="recurrent")

    def call(self, inputs, states):
        h = ops.matmul(inputs, self.kernel)
        h = ops.tanh(h + ops.matmul(states[0], self.recurrent))
        return h, [h]


@program()
def cells_of_ones_own():
    """Cells in `RNN`, stacked and bidirectional, over padded series."""
    inputs = keras.Input((None, 3))
    x = layers.Masking()(inputs)
    x = layers.RNN([Minimal(4), Minimal(3)], return_sequences=True)(x)
    x = layers.Bidirectional(layers.RNN(Minimal(2)))(x)
    model = give_weights(keras.Model(inputs, x))
    expected = each_alone(model, unpadded(series()))
    yield "encoded", predict(model, series()), expected


class TokenAndPosition(layers.Layer):
    def __init__(self, length, size, width, **kwargs):
        super().__init__(**kwargs)
        self.tokens = layers.Embedding(size, width, mask_zero=True)
        self.positions = layers.Embedding(length, width)

    def call(self, x):
        positions = ops.arange(0, ops.shape(x)[-1], 1)
        return self.tokens(x) + self.positions(positions)


class Block(layers.Layer):
    """A Transformer's block that knows nothing of masks."""

    def __init__(self, width, heads, hidden, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(heads, width)
        self.mlp = keras.Sequential(
            [layers.Dense(hidden, activation="relu"), layers.Dense(width)]
        )
        self.norm1 = layers.LayerNormalization(epsilon=1e-6)
        self.norm2 = layers.LayerNormalization(epsilon=1e-6)
        self.dropout = layers.Dropout(0.1)

    def call(self, inputs, training=None):
        x = self.attention(inputs, inputs)
        x = self.norm1(inputs + self.dropout(x, training=training))
        return self.norm2(x + self.mlp(x))


@program(
    differs={
        "classes": "Upstream loses the mask at `tokens + positions`, so that "
        "padding is attended to and averaged."
    }
)
def text_classification_with_a_transformer():
    """Token and position embeddings, a block, an average."""
    inputs = keras.Input((None,), dtype="int32")
    x = TokenAndPosition(20, 10, 4)(inputs)
    x = Block(4, 2, 6)(x)
    x = layers.GlobalAveragePooling1D()(x)
    x = layers.Dense(3, activation="softmax")(x)
    model = give_weights(keras.Model(inputs, x))
    yield "classes", predict(model, ids()), each_alone(model, ROWS)


class PositionalEmbedding(layers.Layer):
    def __init__(self, length, size, width, **kwargs):
        super().__init__(**kwargs)
        self.tokens = layers.Embedding(size, width)
        self.positions = layers.Embedding(length, width)

    def call(self, inputs):
        length = ops.shape(inputs)[-1]
        positions = ops.arange(0, length, 1)
        return self.tokens(inputs) + self.positions(positions)

    def compute_mask(self, inputs, mask=None):
        return ops.not_equal(inputs, 0)


class EncoderBlock(layers.Layer):
    def __init__(self, width, heads, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(heads, width)
        self.dense = layers.Dense(width, activation="relu")
        self.norm1 = layers.LayerNormalization()
        self.norm2 = layers.LayerNormalization()
        self.supports_masking = True

    def call(self, inputs, mask=None):
        padding = None
        if mask is not None:
            padding = ops.cast(mask[:, None, :], "int32")
        x = self.attention(
            query=inputs, value=inputs, key=inputs, attention_mask=padding
        )
        x = self.norm1(inputs + x)
        return self.norm2(x + self.dense(x))


class DecoderBlock(layers.Layer):
    def __init__(self, width, heads, **kwargs):
        super().__init__(**kwargs)
        self.attention1 = layers.MultiHeadAttention(heads, width)
        self.attention2 = layers.MultiHeadAttention(heads, width)
        self.dense = layers.Dense(width, activation="relu")
        self.norm1 = layers.LayerNormalization()
        self.norm2 = layers.LayerNormalization()
        self.norm3 = layers.LayerNormalization()
        self.supports_masking = True

    def call(self, inputs, mask=None):
        inputs, encoded = inputs
        causal = self.causal_mask(inputs)
        own, others = (None, None) if mask is None else mask
        x = self.attention1(
            query=inputs,
            value=inputs,
            key=inputs,
            attention_mask=causal,
            query_mask=own,
        )
        out1 = self.norm1(inputs + x)
        x = self.attention2(
            query=out1,
            value=encoded,
            key=encoded,
            query_mask=own,
            key_mask=others,
        )
        out2 = self.norm2(out1 + x)
        return self.norm3(out2 + self.dense(out2))

    def causal_mask(self, inputs):
        shape = ops.shape(inputs)
        i = ops.arange(shape[1])[:, None]
        mask = ops.cast(i >= ops.arange(shape[1]), "int32")
        mask = ops.reshape(mask, (1, shape[1], shape[1]))
        repeats = ops.concatenate(
            [ops.expand_dims(shape[0], -1), ops.convert_to_tensor([1, 1])]
        )
        return ops.tile(mask, repeats)


@program()
def translation_with_a_transformer():
    """An encoder and a decoder, models of their own, with masks by hand."""
    source = keras.Input((None,), dtype="int64", name="source")
    x = PositionalEmbedding(20, 10, 4)(source)
    encoder = keras.Model(source, EncoderBlock(4, 2)(x))
    target = keras.Input((None,), dtype="int64", name="target")
    state = keras.Input((None, 4), name="state")
    x = PositionalEmbedding(20, 12, 4)(target)
    x = DecoderBlock(4, 2)([x, encoder(source)])
    x = layers.Dropout(0.5)(x)
    x = layers.Dense(12, activation="softmax")(x)
    model = give_weights(keras.Model({"source": source, "target": target}, x))
    del state
    data = {"source": ids(), "target": ids(6)}
    expected = each_alone(
        lambda row: model({"source": row, "target": row}), ROWS, 6
    )
    found = np.ma.getdata(predict(model, data))
    yield "tokens", masked(found, ids(6) != 0), expected


class NonPaddingLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        loss = keras.losses.SparseCategoricalCrossentropy(reduction=None)
        loss = loss(y_true, y_pred)
        mask = ops.cast(y_true > 0, "float32")
        loss = loss * mask
        return ops.sum(loss) / ops.sum(mask)


@program(warns="sample_weight_from_mask")
def named_entities():
    """Tags of tokens, with a loss of one's own that leaves out tag 0."""
    inputs = keras.Input((None,), dtype="int32")
    x = TokenAndPosition(20, 10, 4)(inputs)
    x = Block(4, 2, 6)(x)
    x = layers.Dense(5, activation="softmax")(x)
    model = give_weights(keras.Model(inputs, x))
    model.compile(keras.optimizers.SGD(0.0), NonPaddingLoss())
    tags = ids() % 5
    first = model.evaluate(ids()[:1, :5], tags[:1, :5], verbose=0)
    yield "loss without padding", first
    # A batch with padding follows in `tagging_without_weights`.


@program(
    differs={
        "loss": "A loss does not read the mask of what the model says here, so "
        "padding counts; and a warning says so. Upstream reads it."
    },
    warns="sample_weight_from_mask",
)
def tagging_without_weights():
    """A tagger that is trained without weights."""
    model = tagger()
    model.compile(keras.optimizers.SGD(0.0), crossentropy())
    tags = ids() % 5
    loss = model.evaluate(ids(), tags, verbose=0)
    logits = np.ma.getdata(predict(model, ids()))
    # At padding, each of five tags is as likely.
    each = np.where(ids() != 0, cross_entropy(logits, tags), np.log(5))
    yield "loss", loss, np.float32(each.mean())


@program()
def tagging_with_weights():
    """The same with `sample_weight`: true, here and upstream."""
    model = tagger()
    model.compile(
        keras.optimizers.SGD(0.5),
        crossentropy(reduction="mean_with_sample_weight"),
        weighted_metrics=["accuracy"],
    )
    tags, there = ids() % 5, ids() != 0
    weights = there.astype("float32")
    loss, accuracy = model.evaluate(
        ids(), tags, sample_weight=weights, verbose=0
    )
    logits = np.ma.getdata(predict(model, ids()))
    expected = cross_entropy(logits, tags)[there].mean()
    yield "loss", np.float32(loss), np.float32(expected)
    hits = (logits.argmax(-1) == tags)[there].mean()
    yield "accuracy", np.float32(accuracy), np.float32(hits)
    model.fit(ids(), tags, sample_weight=weights, verbose=0)
    for variable in model.trainable_variables:
        if "embeddings" not in variable.path:
            yield variable.path, variable


def tagger():
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True, name="embedding")(inputs)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(x)
    x = layers.TimeDistributed(layers.Dense(5, name="tags"))(x)
    return give_weights(keras.Model(inputs, x))


def crossentropy(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, **kwargs
    )


class Antirectifier(layers.Layer):
    """The guide to layers: weights, `training`, `get_config`, a loss."""

    def __init__(self, rate=1e-2, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate

    def build(self, input_shape):
        width = input_shape[-1] * 2
        shape = (width, input_shape[-1])
        self.kernel = self.add_weight(shape=shape, name="kernel")

    def call(self, inputs, training=False):
        inputs = inputs - ops.mean(inputs, axis=-1, keepdims=True)
        pos, neg = ops.relu(inputs), ops.relu(-inputs)
        x = ops.concatenate([pos, neg], axis=-1)
        return ops.matmul(x, self.kernel)

    def get_config(self):
        return {**super().get_config(), "rate": self.rate}


@program(
    differs={"pooled": "The layer loses the mask upstream, and says so."},
)
def layer_that_knows_no_masks():
    """A layer of ops between an embedding and a pooling."""
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(10, 4, mask_zero=True),
            Antirectifier(),
            layers.GlobalAveragePooling1D(),
        ]
    )
    give_weights(model)
    yield "pooled", predict(model, ids()), each_alone(model, ROWS)


class CharacterDecoder(keras.Model):
    """A GPT in small, subclassed: causal attention with a residual."""

    def __init__(self):
        super().__init__()
        self.embed = TokenAndPosition(20, 10, 4)
        self.attention = layers.MultiHeadAttention(2, 3)
        self.norm = layers.LayerNormalization()
        self.head = layers.Dense(10)

    def call(self, x):
        x = self.embed(x)
        x = self.norm(x + self.attention(x, x, use_causal_mask=True))
        return self.head(x)


@program()
def language_model():
    """The next token, by causal attention; padding comes last."""
    model = CharacterDecoder()
    model(ids())
    give_weights(model)
    expected = each_alone(model, ROWS, STEPS)
    found = np.ma.getdata(predict(model, ids()))
    yield "logits", masked(found, ids() != 0), expected


@program(
    differs={
        "logits": "Upstream's embedding loses the mask at the `+`, and what "
        "comes before a text is attended to."
    }
)
def language_model_padded_before():
    """The same with the padding first, as for generating in batches."""
    embed = give_weights(built(layers.Embedding(10, 4, mask_zero=True), ids()))
    attention = layers.MultiHeadAttention(2, 3)
    norm = layers.LayerNormalization()
    x = embed(ids())
    attention(x, x)
    give_weights(attention)

    def call(x):
        x = embed(x) * 1.0
        return norm(x + attention(x, x, use_causal_mask=True))[:, -1]

    yield "logits", call(ids(padding="pre")), each_alone(call, ROWS)


def built(layer, x):
    layer(x)
    return layer
