"""Nested, shared, copied and saved models with masks inside."""

import os
import tempfile

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


def encoder(return_sequences=False):
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    x = layers.LSTM(3, return_sequences=return_sequences)(x)
    return keras.Model(inputs, x)


@program()
def two_towers():
    """One encoder for two texts, their distance, in a model around it."""
    shared = encoder()
    a = keras.Input((None,), dtype="int32")
    b = keras.Input((None,), dtype="int32")
    distance = layers.Subtract()([shared(a), shared(b)])
    distance = layers.Lambda(ops.abs)(distance)
    cosine = layers.Dot(axes=1, normalize=True)([shared(a), shared(b)])
    x = layers.Concatenate()([distance, cosine])
    model = give_weights(keras.Model([a, b], x))
    data = [ids(), ids(8)[::-1]]
    pairs = zip(ROWS, ROWS[::-1])
    expected = [
        array(model([np.array([one]), np.array([other])]))[0]
        for one, other in pairs
    ]
    yield "distance", predict(model, data), np.stack(expected)


@program()
def models_inside_models():
    """A sequence encoder as a layer: its mask comes out of it."""
    inner = encoder(return_sequences=True)
    middle = keras.Sequential([inner, layers.Dense(4, activation="relu")])
    inputs = keras.Input((None,), dtype="int32")
    x = layers.GlobalAveragePooling1D()(middle(inputs))
    model = give_weights(keras.Model(inputs, x))
    yield "pooled", predict(model, ids()), each_alone(model, ROWS)
    yield "mask", mask_of(inner(ids())), ids() != 0


class Classifier(keras.Model):
    """A subclassed model around functional and sequential ones."""

    def __init__(self, classes=2, **kwargs):
        super().__init__(**kwargs)
        self.classes = classes
        self.encoder = encoder(return_sequences=True)
        self.pool = keras.Sequential(
            [layers.Dense(4), layers.GlobalMaxPooling1D()]
        )
        self.head = layers.Dense(classes)

    def call(self, inputs, training=None):
        x = self.encoder(inputs["ids"])
        return {"logits": self.head(self.pool(x))}

    def get_config(self):
        return {**super().get_config(), "classes": self.classes}


@program()
def dicts_in_and_out():
    """A subclassed model of dicts, called first by `predict`."""
    model = Classifier()
    predict(model, {"ids": ids()})
    give_weights(model)
    found = predict(model, {"ids": ids()})["logits"]
    expected = each_alone(lambda row: model({"ids": row})["logits"], ROWS)
    yield "logits", found, expected


def save_and_load(model, suffix=".keras", **kwargs):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"model{suffix}")
        model.save(path)
        return keras.saving.load_model(path, **kwargs)


@keras.saving.register_keras_serializable("in_the_wild")
class MaskedMean(layers.Layer):
    def __init__(self, power=1.0, **kwargs):
        super().__init__(**kwargs)
        self.power = power
        self.supports_masking = True

    def call(self, x, mask=None):
        there = ops.cast(ops.expand_dims(mask, -1), x.dtype)
        mean = ops.sum(x * there, axis=1) / ops.sum(there, axis=1)
        return mean * self.power

    def compute_mask(self, inputs, mask=None):
        return None

    def get_config(self):
        return {**super().get_config(), "power": self.power}


@program()
def saved_and_loaded():
    """`.keras`, weights alone, a clone, a config: the masks are in them."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    x = layers.Bidirectional(layers.GRU(2, return_sequences=True))(x)
    x = layers.Dense(3)(MaskedMean(2.0)(x))
    model = give_weights(keras.Model(inputs, x))
    expected = each_alone(model, ROWS)
    yield "made", predict(model, ids()), expected
    yield "loaded", predict(save_and_load(model), ids()), expected
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    yield "cloned", predict(clone, ids()), expected
    again = keras.Model.from_config(model.get_config())
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.weights.h5")
        model.save_weights(path)
        again.load_weights(path)
    yield "from a config", predict(again, ids()), expected


@program()
def saved_sequential():
    """A sequential model with `Masking`, saved as `.h5` after training."""
    model = keras.Sequential(
        [
            keras.Input((STEPS, 3)),
            layers.Masking(mask_value=-1.0),
            layers.LSTM(3),
            layers.Dense(1),
        ]
    )
    give_weights(model)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = series(value=-1.0)
    model.fit(x, np.ones((3, 1)), epochs=2, verbose=0)
    found = predict(model, x)
    yield "trained", found
    yield (
        "loaded",
        predict(save_and_load(model, ".h5", compile=False), x),
        found,
    )


class Highway(layers.Layer):
    """A wrapper around any layer, with the mask if that wants it."""

    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer
        self.supports_masking = True

    def build(self, shape):
        self.layer.build(shape)
        self.gate = self.add_weight(shape=(shape[-1],), name="gate")

    def call(self, x, mask=None):
        if self.layer._call_has_mask_argument():
            y = self.layer(x, mask=mask)
        else:
            y = self.layer(x)
        g = ops.sigmoid(self.gate)
        return g * y + (1.0 - g) * x

    def compute_output_shape(self, shape):
        return shape


class Wraps(layers.Wrapper):
    """The same by `Wrapper`, without a word on masks."""

    def call(self, x):
        return x + self.layer(x)


@program(
    differs={"mask of a wrapper": "Upstream's wrapper loses the mask."},
)
def wrappers():
    """Layers around layers."""
    x = layers.Masking()(series())
    wraps = Wraps(layers.LSTM(3, return_sequences=True))
    wraps.build((None, None, 3))
    give_weights(wraps)
    found = wraps(x)
    expected = each_alone(wraps, unpadded(series()), STEPS)
    yield "residual", masked(array(found), valid()), expected
    yield "mask of a wrapper", mask_of(found), valid()


class MaskedBatchNorm(layers.BatchNormalization):
    """A subclass of a built-in layer that asks for the mask."""

    def call(self, inputs, training=None, mask=None):
        self.seen = mask
        return super().call(inputs, training=training, mask=mask)


class MaskedPooling(layers.GlobalAveragePooling1D):
    def call(self, inputs, mask=None):
        self.seen = mask
        return super().call(inputs, mask=mask)


class MaskedSoftmax(layers.Softmax):
    def call(self, inputs, mask=None):
        self.seen = mask
        return ops.squeeze(super().call(ops.expand_dims(inputs, 1)), 1)


class WideDense(layers.Dense):
    """A subclass that upstream keeps the mask for."""

    def call(self, inputs):
        return super().call(inputs) * 2.0


@program()
def subclasses_of_layers():
    """What a subclass of a built-in layer gets as `mask`, and hands on."""
    x = layers.Masking()(series())
    for layer in (MaskedBatchNorm(), MaskedPooling()):
        layer(x)
        yield f"of {type(layer).__name__}", layer.seen, valid()
    tokens = layers.Masking()(series(features=1))
    flat = MaskedSoftmax()
    flat(tokens)
    yield "of a softmax", flat.seen, valid()
    yield "kept by Dense", mask_of(WideDense(2)(x)), valid()


@program()
def subclass_in_a_graph():
    """A `Dense` with something added, between an embedding and an LSTM."""
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(10, 4, mask_zero=True),
            WideDense(3),
            layers.LSTM(2),
        ]
    )
    give_weights(model)
    yield "encoded", predict(model, ids()), each_alone(model, ROWS)


class Pair(layers.Layer):
    """Two outputs, and the inherited `compute_mask`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        return x * 2.0, x + 1.0


class NeedsMasks(layers.Layer):
    """Two inputs and both masks."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs, mask=None):
        a, b = inputs
        am, bm = (ops.expand_dims(ops.cast(m, "float32"), -1) for m in mask)
        return ops.sum(a * am, axis=1) + ops.sum(b * bm, axis=1)

    def compute_mask(self, inputs, mask=None):
        return None


@program()
def lists_of_masks():
    """A layer of two texts that insists on both masks, in a graph."""
    a = keras.Input((None,), dtype="int32")
    b = keras.Input((None,), dtype="int32")
    embed = layers.Embedding(10, 4, mask_zero=True)
    x = NeedsMasks()([embed(a), embed(b)])
    model = give_weights(keras.Model([a, b], x))
    table = array(embed.embeddings)
    pairs = zip(ROWS, ROWS[::-1])
    expected = [table[one].sum(0) + table[other].sum(0) for one, other in pairs]
    yield "summed", predict(model, [ids(), ids()[::-1]]), np.stack(expected)


@program(
    differs={
        "mask of the second": "Upstream gives the mask to the first alone."
    }
)
def pairs_of_outputs():
    """A flag, two outputs, and the inherited `compute_mask`."""
    first, second = Pair()(layers.Masking()(series()))
    yield "first", mask_of(first), valid()
    x = series()
    yield "second", masked(array(second), valid()), masked(x + 1, valid())
    yield "mask of the second", mask_of(second), valid()


class ReturnsMask(layers.Layer):
    """Hands its mask out as a tensor beside its values."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        return ops.relu(x), mask

    def compute_mask(self, inputs, mask=None):
        return [None, None]


@program()
def mask_as_an_output():
    """A layer that returns its mask; the mask is then computed with."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    x, m = ReturnsMask()(x)
    m = ops.cast(m, "float32")
    mean = ops.sum(x * m[..., None], axis=1) / ops.sum(m, axis=1)[:, None]
    model = give_weights(keras.Model(inputs, [mean, m]))
    mean, m = predict(model, ids())
    table = array(model.layers[1].embeddings)
    expected = np.stack([np.maximum(table[row], 0).mean(0) for row in ROWS])
    yield "mean", mean, expected
    yield "mask", m, (ids() != 0).astype("float32")


class FirstValid(layers.Layer):
    """A shape of its own that `call` cannot be traced for: it reads lengths."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        steps = ops.shape(mask)[1]
        order = ops.cast(mask, "int32") * ops.arange(steps, 0, -1)
        first = ops.argmax(order, axis=1)
        first = ops.one_hot(first, steps, dtype=x.dtype)
        return ops.einsum("bt,btd->bd", first, x)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def compute_mask(self, inputs, mask=None):
        return None


@program()
def first_step_that_is_there():
    """`ops.shape(mask)` and a one-hot choice, with padding before and after."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    model = give_weights(keras.Model(inputs, FirstValid()(x)))
    table = array(model.layers[1].embeddings)
    expected = table[[row[0] for row in ROWS]]
    yield "padded after", predict(model, ids()), expected
    yield "padded before", predict(model, ids(padding="pre")), expected


class BackendFunction(layers.Layer):
    """A layer that calls a function that is not Keras's."""

    def call(self, x):
        return np.tanh(x)


@program(refused=r"ops\.|keras\.ops")
def functions_of_the_engine():
    """`np.tanh` of a masked tensor: an error that names the ways out."""
    x = layers.Masking()(series())
    yield "mask", mask_of(x), valid()
    yield "tanh", BackendFunction()(x)


@program()
def convolutions_over_tokens():
    """Filters of several widths, each with a maximum over time."""
    inputs = keras.Input((5,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    pooled = []
    for width in (1, 2, 3):
        c = layers.Conv1D(2, width, padding="valid", activation="relu")(x)
        pooled.append(layers.GlobalMaxPooling1D()(c))
    x = layers.Concatenate()(pooled)
    model = give_weights(keras.Model(inputs, layers.Dense(2)(x)))
    # A row that fills the batch; others are in `convolutions_and_padding`.
    yield "full row", predict(model, ids()[:1, :5])


@program(
    differs={
        "pooled": "Upstream's convolution reads padding, and loses the mask, "
        "so that the average counts it."
    }
)
def convolutions_and_padding():
    """`valid` convolutions, an average, and rows of unequal length."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    x = layers.Conv1D(3, 2)(x)
    x = layers.GlobalAveragePooling1D()(x)
    model = give_weights(keras.Model(inputs, x))
    rows = ROWS[:2]
    yield "pooled", predict(model, ids()[:2]), each_alone(model, rows)


@program()
def recommends_next():
    """Tied weights: logits by the embedding's transposed table."""
    embed = layers.Embedding(10, 4, mask_zero=True)
    inputs = keras.Input((None,), dtype="int32")
    h = layers.GRU(4, return_sequences=True)(embed(inputs))
    h = layers.GRU(4)(h)
    table = embed.embeddings
    logits = layers.Lambda(
        lambda t: ops.matmul(t, ops.transpose(ops.convert_to_tensor(table))),
        output_shape=(10,),
    )(h)
    model = give_weights(keras.Model(inputs, layers.Softmax()(logits)))
    yield "items", predict(model, ids()), each_alone(model, ROWS)


@program(
    differs={
        "scores": "The order of all steps: upstream takes padding for words."
    }
)
def ranks_words():
    """A score for each word, and a softmax over the best three."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    scores = ops.squeeze(layers.Dense(1)(x), -1)
    best, _ = ops.top_k(scores, 3)
    model = give_weights(keras.Model(inputs, ops.softmax(best)))
    table, kernel, bias = map(array, model.weights)
    expected = []
    for row in ROWS[:2]:
        s = np.sort((table[row] @ kernel + bias)[:, 0])[::-1][:3]
        expected.append(softmax(s))
    found = np.ma.getdata(predict(model, ids()[:2]))
    yield "scores", found, np.stack(expected)
