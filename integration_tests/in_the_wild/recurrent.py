"""Recurrent models: stacked, hierarchical, stateful, decoders, last steps."""

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


@program()
def stacked_and_bidirectional():
    """Bidirectional layers with each way to merge, one on the other."""
    for mode in ("concat", "sum", "mul", "ave"):
        model = keras.Sequential(
            [
                keras.Input((None, 3)),
                layers.Masking(),
                layers.Bidirectional(
                    layers.LSTM(2, return_sequences=True), merge_mode=mode
                ),
                layers.Bidirectional(layers.GRU(2), merge_mode=mode),
            ]
        )
        give_weights(model)
        expected = each_alone(model, unpadded(series()))
        yield mode, predict(model, series()), expected


class Encoder(layers.Layer):
    """Asks for the mask, which the layers inside see, too."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.project, self.lstm = layers.Dense(4), layers.LSTM(3)

    def call(self, x, mask=None):
        return self.lstm(self.project(x))


@program()
def a_mask_that_is_asked_for_and_not_handed_on():
    """The layer inside sees it on what it is given."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    model = give_weights(keras.Model(inputs, Encoder()(x)))
    expected = each_alone(model, ROWS)
    yield "predicted", predict(model, ids()), expected
    yield "called", model(ids()), expected


@program()
def backwards():
    """`go_backwards`, with the padding after and before."""
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(10, 4, mask_zero=True),
            layers.SimpleRNN(3, go_backwards=True),
        ]
    )
    expected = each_alone(give_weights(model), ROWS)
    yield "padded after", predict(model, ids()), expected
    yield "padded before", predict(model, ids(padding="pre")), expected


@program()
def documents():
    """Sentences of words, documents of sentences: `TimeDistributed`."""
    words = np.zeros((2, 3, 4), "int32")
    words[0] = [[1, 2, 0, 0], [3, 4, 5, 0], [6, 0, 0, 0]]
    words[1, 0] = [7, 8, 9, 1]
    sentence = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(sentence)
    encoder = keras.Model(sentence, layers.GRU(3)(x))
    document = keras.Input((None, 4), dtype="int32")
    x = layers.TimeDistributed(encoder)(document)
    # A sentence without words is made 0, so that it can be masked again.
    there = ops.any(ops.not_equal(document, 0), axis=-1, keepdims=True)
    x = layers.Masking()(x * ops.cast(there, "float32"))
    model = give_weights(keras.Model(document, layers.LSTM(2)(x)))
    rnn = model.layers[-1]
    expected = []
    for document in words:
        rows = [row[row > 0] for row in document if row.any()]
        expected.append(array(rnn(each_alone(encoder, rows)[None]))[0])
    yield "encoded", predict(model, words), np.stack(expected)


@program()
def words_of_characters():
    """Characters of words by a `TimeDistributed` embedding and LSTM."""
    chars = np.zeros((2, 3, 4), "int32")
    chars[0] = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 1, 2, 3]]
    chars[1, :2] = [[4, 5, 6, 7], [8, 9, 1, 2]]
    tokens = np.array([[1, 2, 3], [4, 5, 0]])
    char_in = keras.Input((3, 4), dtype="int32")
    x = layers.TimeDistributed(layers.Embedding(10, 3))(char_in)
    x = layers.TimeDistributed(layers.LSTM(2))(x)
    word_in = keras.Input((3,), dtype="int32")
    w = layers.Embedding(10, 4, mask_zero=True)(word_in)
    merged = layers.concatenate([w, x])
    encoder = keras.Model([word_in, char_in], merged)
    both = keras.Model(encoder.inputs, layers.LSTM(3)(layers.Masking()(merged)))
    give_weights(both)
    full = predict(both, [tokens[:1], chars[:1]])
    yield "of a full row", full
    yield "of both", predict(both, [tokens, chars])[:1], full


@program(
    differs={
        "words": "Upstream's `TimeDistributed` loses the masks inside, and the "
        "LSTM reads the padding of each sentence."
    }
)
def hierarchical_masks():
    """The classic issue: a `TimeDistributed` embedding with `mask_zero`."""
    x = np.array([[[1, 2, 0], [3, 0, 0]], [[4, 5, 6], [7, 8, 0]]], "int32")
    model = keras.Sequential(
        [
            keras.Input((2, 3), dtype="int32"),
            layers.TimeDistributed(layers.Embedding(10, 4, mask_zero=True)),
            layers.TimeDistributed(layers.LSTM(3)),
        ]
    )
    give_weights(model)
    table = array(model.layers[0].layer.embeddings)
    sentences = [table[row[row > 0]] for row in x.reshape(-1, 3)]
    expected = each_alone(model.layers[1].layer, sentences)
    found = np.ma.getdata(predict(model, x))
    yield "words", found, expected.reshape(2, 2, 3)


@program()
def states_over_batches():
    """A stateful RNN that reads long series in pieces, the last one short."""
    x = series((7, 5), 8)
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(2, 4, 3)),
            layers.Masking(),
            layers.GRU(3, stateful=True, return_sequences=True),
            layers.LSTM(2, stateful=True),
        ]
    )
    give_weights(model)
    predict(model, x[:, :4])
    found = predict(model, x[:, 4:])
    whole = keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.GRU(3, return_sequences=True),
            layers.LSTM(2),
        ]
    )
    give_weights(whole)
    yield "last", found, each_alone(whole, unpadded(x, (7, 5)))
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            layer.reset_states()
    yield "again", predict(model, x[:, :4])


@program()
def autoencoder():
    """Encode, repeat, decode: `RepeatVector` and `TimeDistributed`."""
    inputs = keras.Input((STEPS, 3))
    x = layers.Masking()(inputs)
    x = layers.LSTM(4)(x)
    x = layers.RepeatVector(STEPS)(x)
    x = layers.LSTM(4, return_sequences=True)(x)
    x = layers.TimeDistributed(layers.Dense(3))(x)
    model = give_weights(keras.Model(inputs, x))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = series()
    weights = valid().astype("float32")
    yield "reconstructed", predict(model, x)
    loss = model.fit(x, x, sample_weight=weights, verbose=0).history["loss"][0]
    yield "loss", np.float32(loss)
    yield "kernel", model.layers[-1].layer.kernel


@program()
def zeros_for_masked_steps():
    """`zero_output_for_mask`, and what an LSTM repeats without it."""
    x = layers.Masking()(series())
    for zero in (True, False):
        lstm = layers.LSTM(2, return_sequences=True, zero_output_for_mask=zero)
        give_weights(built(lstm, x))
        y = array(lstm(x))
        if zero:
            yield "zeros", y, np.where(valid()[..., None], y, 0)
        else:
            yield "repeated", y[1, 3:], np.repeat(y[1, 2:3], 4, axis=0)


def built(layer, x):
    layer(x)
    return layer


@program(
    differs={
        "mask": "A padded row has nothing at its last step, and the result "
        "says so here. Upstream's is plain: it has what the LSTM repeats."
    }
)
def many_to_one_by_slicing():
    """`x[:, -1]` of an LSTM's steps, as many wrote a last step."""
    inputs = keras.Input((STEPS, 3))
    x = layers.Masking()(inputs)
    x = layers.LSTM(3, return_sequences=True)(x)
    x = layers.Lambda(lambda t: t[:, -1, :])(x)
    model = give_weights(keras.Model(inputs, x))
    lengths = STEPS, 3, 1
    found = model(series(lengths))
    full = each_alone(model.layers[2], [series(lengths)[0]])[:, -1]
    yield "of a full row", array(found)[:1], full
    yield "mask", mask_of(found), np.array([True, False, False])


@program()
def last_step_by_length():
    """The last step that is there, gathered by the number of ids."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    x = layers.GRU(3, return_sequences=True)(x)
    length = ops.sum(ops.cast(ops.not_equal(inputs, 0), "int32"), axis=1)
    last = ops.take_along_axis(x, ops.reshape(length - 1, (-1, 1, 1)), axis=1)
    last = ops.squeeze(last, 1)
    model = give_weights(keras.Model(inputs, last))
    yield "last", predict(model, ids()), each_alone(model, ROWS)


@program()
def video():
    """Frames of a clip by `ConvLSTM2D`, with empty frames masked."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 4, 4, 1)).astype("float32")
    lstm = layers.ConvLSTM2D(2, 2)
    mask = valid((3, 2), 3)
    give_weights(built(lstm, x))
    expected = each_alone(lstm, unpadded(x, (3, 2)))
    x[1, 2:] = 50.0
    yield "clip", lstm(x, mask=ops.convert_to_tensor(mask)), expected


@program()
def teacher_forcing():
    """A decoder of characters, trained whole, then run step by step."""
    sources, targets = ids(), ids(6) % 6
    source = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(source)
    _, *states = layers.LSTM(3, return_state=True)(x)
    target = keras.Input((None,), dtype="int32")
    table = layers.Embedding(10, 4)
    decoder = layers.LSTM(3, return_sequences=True, return_state=True)
    dense = layers.Dense(6)
    y, _, _ = decoder(table(target), initial_state=states)
    model = keras.Model([source, target], dense(y))
    give_weights(model)
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    history = model.fit([sources, targets], targets, verbose=0).history
    yield "loss", np.float32(history["loss"][0])
    encoder = keras.Model(source, states)
    given = [keras.Input((3,)), keras.Input((3,))]
    y, *found = decoder(table(target), initial_state=given)
    step = keras.Model([target, *given], [dense(y), *found])
    state = predict(encoder, sources)
    token, said = np.ones((3, 1), "int32"), []
    for _ in range(4):
        y, *state = predict(step, [token, *state])
        token = y.argmax(-1).astype("int32")
        said.append(token[:, 0])
    yield "said", np.stack(said, 1)
    expected = each_alone(lambda row: encoder(row)[0], ROWS)
    yield "encoded", predict(encoder, sources)[0], expected


@program()
def missing_values():
    """A series with gaps, marked by -1; two sensors merged by their own."""
    x = series((7, 7, 7), value=0.0)
    x[0, 2:4] = x[1, 0] = x[2, 6] = -1.0
    inputs = keras.Input((STEPS, 3))
    h = layers.Masking(-1.0)(inputs)
    model = give_weights(keras.Model(inputs, layers.LSTM(3)(h)))
    expected = each_alone(
        model.layers[-1], [row[(row != -1).any(-1)] for row in x]
    )
    yield "encoded", predict(model, x), expected


class MaskedGRU(layers.Layer):
    """A GRU that is told of its mask, inside a layer that is told as well."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.gru = layers.GRU(units, return_sequences=True)
        self.norm = layers.LayerNormalization()

    def build(self, shape):
        self.gru.build(shape)
        self.norm.build((*shape[:-1], self.gru.units))

    def call(self, x, mask=None):
        return self.norm(self.gru(x, mask=mask))

    def compute_mask(self, inputs, mask=None):
        return mask


@program()
def layers_inside_layers():
    """An outer layer passes `mask=mask` on to the inner ones."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    x = MaskedGRU(3)(x)
    x = MaskedGRU(3)(x)
    x = layers.GlobalAveragePooling1D()(x)
    model = give_weights(keras.Model(inputs, x))
    yield "pooled", predict(model, ids()), each_alone(model, ROWS)


@program()
def packed_padding():
    """`masked` series in `unroll`ed and looped LSTMs give the same."""
    x = layers.Masking()(series())
    looped = give_weights(built(layers.LSTM(3), x))
    unrolled = give_weights(built(layers.LSTM(3, unroll=True), x))
    expected = each_alone(looped, unpadded(series()))
    yield "looped", looped(x), expected
    yield "unrolled", unrolled(x), expected
    steps = give_weights(built(layers.LSTM(3, return_sequences=True), x))
    expected = each_alone(steps, unpadded(series()), STEPS)
    yield "steps", masked(array(steps(x)), valid()), expected


@program(
    differs={
        "last": "The last output is that of the last step that is there. "
        "Upstream's is the 0 of a padded step."
    }
)
def zeros_and_a_last_output():
    """`zero_output_for_mask` without `return_sequences`."""
    x = layers.Masking()(series())
    lstm = give_weights(built(layers.LSTM(2, zero_output_for_mask=True), x))
    yield "last", lstm(x), each_alone(lstm, unpadded(series()))


@program()
def states_kept_by_where():
    """A recursion by `scan` that keeps its state where a step is padding."""
    lengths = STEPS, 3, 1
    rows = series(lengths, features=1)
    x = layers.Masking()(rows)[..., 0]
    there = ops.transpose(ops.convert_to_tensor(valid(lengths)))
    steps = ops.transpose(x)
    floats = ops.cast(there, "float32")

    def chosen(state, step):
        new = 0.5 * state + step[0]
        state = ops.where(step[1], new, state)
        return state, state

    def blended(state, step):
        new = 0.5 * state + step[0]
        state = step[1] * new + (1.0 - step[1]) * state
        return state, state

    expected = []
    for row in unpadded(rows[..., 0], lengths):
        state = row[0]
        for step in row[1:]:
            state = 0.5 * state + step
        expected.append(state)
    expected = np.array(expected, "float32")
    last, _ = ops.scan(chosen, steps[0], (steps[1:], there[1:]))
    # All of them are there: the mask says so as well.
    yield "where", last, masked(expected, np.ones(3, bool))
    # A product with what is not there is not there: `where` is the one to use.
    last, _ = ops.scan(blended, steps[0], (steps[1:], floats[1:]))
    yield "blend", last


class Unrolled(layers.Layer):
    """A cell that a loop calls for each step; what it gives is put together."""

    def __init__(self, join, **kwargs):
        super().__init__(**kwargs)
        self.cell, self.join = layers.GRUCell(4), join

    def build(self, input_shape):
        self.cell.build((input_shape[0], input_shape[-1]))

    def call(self, x):
        state = ops.zeros((ops.shape(x)[0], 4))
        states = []
        for t in range(x.shape[1]):
            state, _ = self.cell(x[:, t], [state])
            states.append(state)
        return self.join(states)


@program()
def a_loop_over_steps():
    """A recurrent layer by hand, whose outputs are stacked along time."""
    ways = {
        "stack": lambda xs: ops.stack(xs, axis=1),
        "expand": lambda xs: ops.concatenate([x[:, None] for x in xs], axis=1),
        "layer": lambda xs: layers.Concatenate(axis=1)(
            [ops.expand_dims(x, 1) for x in xs]
        ),
    }
    for name, join in ways.items():
        layer = Unrolled(join)
        layer.build((3, STEPS, 3))
        give_weights(layer)
        expected = each_alone(layer, unpadded(series()), STEPS)
        yield name, layer(layers.Masking()(series())), expected
