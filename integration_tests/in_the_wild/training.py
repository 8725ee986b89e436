"""How masked models were trained: weights, losses, metrics, loops, data."""

import numpy as np

import keras
from in_the_wild.wild import STEPS
from in_the_wild.wild import array
from in_the_wild.wild import cross_entropy
from in_the_wild.wild import give_weights
from in_the_wild.wild import ids
from in_the_wild.wild import predict
from in_the_wild.wild import program
from in_the_wild.wild import series
from in_the_wild.wild import valid
from keras import layers
from keras import ops

THERE = ids() != 0
WEIGHTS = THERE.astype("float32")
TAGS = (ids() * 2) % 5


def tagger(mask_zero=True, **kwargs):
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=mask_zero)(inputs)
    x = layers.LSTM(3, return_sequences=True)(x)
    model = keras.Model(inputs, layers.Dense(5)(x))
    give_weights(model)
    kwargs = {"loss": crossentropy(), **kwargs}
    model.compile(keras.optimizers.SGD(0.1), **kwargs)
    return model


def crossentropy(**kwargs):
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, **kwargs
    )


def losses_of(model):
    logits = np.ma.getdata(predict(model, ids()))
    return cross_entropy(logits, TAGS).astype("float32")


DIVIDES = (
    "A loss does not read the mask of a prediction here: the default reduction "
    "divides by all entries. Upstream divides by those that are there."
)


@program(
    differs={
        "evaluate": DIVIDES,
        "test_on_batch": DIVIDES,
        "train_on_batch": DIVIDES,
    }
)
def weights_of_steps():
    """`sample_weight` of `(batch, time)`, in each form of training."""
    model = tagger()
    expected = (losses_of(model) * WEIGHTS).sum() / np.float32(THERE.size)
    found = model.evaluate(ids(), TAGS, sample_weight=WEIGHTS, verbose=0)
    yield "evaluate", np.float32(found), expected
    found = model.test_on_batch(ids(), TAGS, sample_weight=WEIGHTS)
    yield "test_on_batch", np.float32(found), expected
    found = model.train_on_batch(ids(), TAGS, sample_weight=WEIGHTS)
    yield "train_on_batch", np.float32(found), expected


@program()
def ignored_class():
    """A loss that leaves out one class, on a masked output."""
    tags = np.where(THERE, TAGS, -1)
    model = tagger(loss=crossentropy(ignore_class=-1))
    expected = losses_of(model)[THERE].mean()
    loss = model.evaluate(ids(), tags, verbose=0)
    yield "loss", np.float32(loss), expected


def masked_loss(y_true, y_pred):
    """The loss function of many a tutorial: label 0 does not count."""
    loss = keras.losses.sparse_categorical_crossentropy(
        y_true, y_pred, from_logits=True
    )
    mask = ops.cast(ops.not_equal(y_true, 0), loss.dtype)
    return ops.sum(loss * mask) / ops.sum(mask)


def masked_accuracy(y_true, y_pred):
    hits = ops.equal(
        ops.cast(y_true, "int32"), ops.cast(ops.argmax(y_pred, -1), "int32")
    )
    mask = ops.not_equal(y_true, 0)
    hits = ops.cast(ops.logical_and(hits, mask), "float32")
    return ops.sum(hits) / ops.sum(ops.cast(mask, "float32"))


@program()
def losses_and_metrics_as_functions():
    """Functions that mask by the label, without a mask from the model."""
    tags = np.where(THERE, TAGS + 1, 0) % 5
    model = tagger(mask_zero=False, loss=masked_loss, metrics=[masked_accuracy])
    loss, accuracy = model.evaluate(ids(), tags, verbose=0)
    logits = predict(model, ids())
    counts = tags != 0
    yield (
        "loss",
        np.float32(loss),
        np.float32(cross_entropy(logits, tags)[counts].mean()),
    )
    hits = (logits.argmax(-1) == tags)[counts].mean()
    yield "accuracy", np.float32(accuracy), np.float32(hits)
    model.fit(ids(), tags, verbose=0)
    yield "kernel", model.layers[-1].kernel


class MaskedAccuracy(keras.metrics.Metric):
    """A metric with states, that is told of weights."""

    def __init__(self, name="masked_accuracy", **kwargs):
        super().__init__(name=name, **kwargs)
        self.hits = self.add_weight(name="hits", initializer="zeros")
        self.count = self.add_weight(name="count", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        hit = ops.equal(ops.cast(y_true, "int64"), ops.argmax(y_pred, -1))
        weight = ops.cast(ops.not_equal(y_true, -1), "float32")
        self.hits.assign_add(ops.sum(ops.cast(hit, "float32") * weight))
        self.count.assign_add(ops.sum(weight))

    def result(self):
        return self.hits / self.count


class TrainsItself(keras.Model):
    """`train_step` through `compute_loss`, with metrics of its own."""

    def __init__(self):
        super().__init__()
        self.embed = layers.Embedding(10, 4, mask_zero=True)
        self.rnn = layers.GRU(3, return_sequences=True)
        self.head = layers.Dense(5)

    def call(self, x):
        return self.head(self.rnn(self.embed(x)))

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        loss = keras.losses.sparse_categorical_crossentropy(
            ops.maximum(y, 0), y_pred, from_logits=True
        )
        there = ops.cast(ops.not_equal(y, -1), loss.dtype)
        return ops.sum(loss * there) / ops.sum(there)


@program()
def loss_of_the_models_own():
    """An overridden `compute_loss`, and a metric that masks by the label."""
    model = TrainsItself()
    model(ids())
    give_weights(model)
    model.compile(keras.optimizers.SGD(0.1), metrics=[MaskedAccuracy()])
    tags = np.where(THERE, TAGS, -1)
    logits = np.ma.getdata(predict(model, ids()))
    history = model.fit(ids(), tags, verbose=0).history
    expected = cross_entropy(logits, TAGS)[THERE].mean()
    yield "loss", np.float32(history["loss"][0]), np.float32(expected)
    hits = (logits.argmax(-1) == TAGS)[THERE].mean()
    found = np.float32(history["masked_accuracy"][0])
    yield "accuracy", found, np.float32(hits)
    yield "kernel", model.head.kernel


@program(
    differs={
        "loss": "Upstream strips the mask of a `numpy.ma` target, so that what "
        "lies under it counts."
    }
)
def masked_targets():
    """Unknown targets as `numpy.ma`, for a model without masks."""
    model = tagger(
        mask_zero=False,
        loss=crossentropy(reduction="mean_with_sample_weight"),
    )
    tags = np.ma.MaskedArray(TAGS, ~THERE)
    loss = model.evaluate(ids(), tags, verbose=0)
    yield "loss", np.float32(loss), losses_of(model)[THERE].mean()


@program()
def masked_targets_of_rows():
    """`numpy.ma` targets that have nothing masked are what they always were."""
    model = tagger(mask_zero=False)
    tags = np.ma.MaskedArray(TAGS, np.zeros(TAGS.shape, bool))
    loss = model.evaluate(ids(), tags, verbose=0, batch_size=1)
    yield "loss", np.float32(loss), losses_of(model).mean()


@program()
def class_weights():
    """A class weight for a text classifier with a masked encoder."""
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(10, 4, mask_zero=True),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2),
        ]
    )
    give_weights(model)
    model.compile(keras.optimizers.SGD(0.1), crossentropy())
    y = np.array([0, 1, 1])
    expected = cross_entropy(predict(model, ids()), y) * np.array([1, 3, 3])
    history = model.fit(
        ids(), y, class_weight={0: 1.0, 1: 3.0}, verbose=0
    ).history
    found = np.float32(history["loss"][0])
    yield "loss", found, np.float32(expected.mean())
    yield "kernel", model.layers[-1].kernel


class Buckets(keras.utils.PyDataset):
    """Batches of their own length, with weights for the padding."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        x = ids(5)[:2] if index == 0 else ids(2)[2:]
        tags = (x * 2) % 5
        return x, tags, (x != 0).astype("float32")


@program()
def batches_of_any_length():
    """A `PyDataset` and a generator of batches that differ in length."""

    def batches():
        data = Buckets()
        for i in range(2):
            yield data[i]

    for name, make in (("dataset", Buckets), ("generator", batches)):
        model = tagger(loss=crossentropy(reduction="mean_with_sample_weight"))
        history = model.fit(make(), shuffle=False, verbose=0).history
        yield f"loss, {name}", np.float32(history["loss"][0])
        yield f"kernel, {name}", model.layers[-1].kernel
        found = model.evaluate(make(), verbose=0)
        yield f"evaluated, {name}", np.float32(found)


@program()
def several_outputs():
    """Tags and a class, each with a loss and weights of its own."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    x = layers.Bidirectional(layers.LSTM(2, return_sequences=True))(x)
    tags = layers.Dense(5, name="tags")(x)
    pooled = layers.GlobalAveragePooling1D()(x)
    label = layers.Dense(1, name="label")(pooled)
    model = give_weights(keras.Model(inputs, {"tags": tags, "label": label}))
    model.compile(
        keras.optimizers.SGD(0.1),
        loss={
            "tags": crossentropy(reduction="mean_with_sample_weight"),
            "label": "mse",
        },
        loss_weights={"tags": 2.0, "label": 1.0},
        weighted_metrics={"tags": ["sparse_categorical_accuracy"]},
    )
    y = {"tags": TAGS, "label": np.ones((3, 1))}
    weights = {"tags": WEIGHTS, "label": np.ones(3)}
    found = model.evaluate(
        ids(), y, sample_weight=weights, verbose=0, return_dict=True
    )
    said = predict(model, ids())
    logits = np.ma.getdata(said["tags"])
    losses = cross_entropy(logits, TAGS)[THERE]
    expected = 2 * losses.mean() + ((said["label"] - 1) ** 2).mean()
    yield "loss", np.float32(found["loss"]), np.float32(expected)
    (accuracy,) = (v for k, v in found.items() if k.endswith("accuracy"))
    hits = (logits.argmax(-1) == TAGS)[THERE].mean()
    yield "accuracy", np.float32(accuracy), np.float32(hits)


@program()
def attention_shown():
    """The weights of the attention as an output without a loss."""
    inputs = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    scores = layers.Dense(1)(x)
    padding = ops.expand_dims(ops.cast(ops.equal(inputs, 0), "float32"), -1)
    a = layers.Softmax(axis=1)(scores - 1e9 * padding)
    y = layers.Dense(1)(ops.sum(a * x, axis=1))
    model = give_weights(keras.Model(inputs, [y, a]))
    model.compile(keras.optimizers.SGD(0.1), ["mse", None])
    loss = model.fit(ids(), np.ones((3, 1)), verbose=0).history["loss"][0]
    yield "loss", np.float32(loss)
    weights = np.ma.getdata(predict(model, ids())[1])
    yield (
        "weights sum to",
        np.where(THERE[..., None], weights, 0).sum(1),
        (np.ones((3, 1), "float32")),
    )


@program()
def half_precision():
    """A Transformer's block and an LSTM under `mixed_float16` policies."""
    policy = keras.DTypePolicy("mixed_bfloat16")
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True, dtype=policy)(inputs)
    x = layers.LayerNormalization(dtype=policy)(x)
    x = layers.GlobalAveragePooling1D(dtype=policy)(x)
    x = layers.Dense(2, dtype="float32")(x)
    model = give_weights(keras.Model(inputs, x))
    table, gamma, beta, kernel, bias = map(array, model.weights)
    expected = []
    for row in unpadded_ids():
        h = table[row]
        h = (h - h.mean(-1, keepdims=True)) / np.sqrt(
            h.var(-1, keepdims=True) + 1e-3
        )
        expected.append((h * gamma + beta).mean(0) @ kernel + bias)
    found = predict(model, ids())
    yield (
        "right to",
        np.abs(found - np.stack(expected)).max() < 0.05,
        (np.bool_(True)),
    )
    yield "dtype", str(found.dtype)


def unpadded_ids():
    return [row[row > 0] for row in ids()]


class Captioner(keras.Model):
    """A loss and an accuracy by hand in `test_step`, masked by the labels."""

    def __init__(self):
        super().__init__()
        self.embed = layers.Embedding(10, 4, mask_zero=True)
        self.rnn = layers.LSTM(3, return_sequences=True)
        self.head = layers.Dense(10)
        self.tracker = keras.metrics.Mean(name="loss")
        self.crossentropy = crossentropy(reduction="none")

    def call(self, x):
        return self.head(self.rnn(self.embed(x)))

    @property
    def metrics(self):
        return [self.tracker]

    def score(self, y_true, y_pred):
        mask = ops.not_equal(y_true, 0)
        loss = self.crossentropy(y_true, y_pred)
        mask = ops.cast(mask, dtype=loss.dtype)
        loss *= mask
        return ops.sum(loss) / ops.sum(mask)

    def test_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        y_pred = self(x[:, :-1], training=False)
        self.tracker.update_state(self.score(x[:, 1:], y_pred))
        return {"loss": self.tracker.result()}


@program()
def loss_in_test_step():
    """A captioner that shifts its ids, and scores by hand."""
    model = Captioner()
    model(ids())
    give_weights(model)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    x = ids()
    # Rows that fill the batch: no step is masked that has a label.
    logits = np.ma.getdata(predict(model, x[:, :-1]))
    labels = x[:, 1:]
    expected = cross_entropy(logits, labels)[labels != 0].mean()
    found = model.evaluate(x, verbose=0, return_dict=True)["loss"]
    yield "loss", np.float32(found), np.float32(expected)


class AddsLoss(layers.Layer):
    """A penalty on activations, divided by how many steps there are."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        if mask is not None:
            there = ops.cast(ops.expand_dims(mask, -1), x.dtype)
            penalty = ops.sum(ops.square(x) * there) / ops.sum(there)
            self.add_loss(0.1 * penalty)
        return x


@program()
def penalties():
    """`add_loss` in a layer that asks for its mask."""
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    x = AddsLoss()(x)
    x = layers.GlobalAveragePooling1D()(x)
    model = give_weights(keras.Model(inputs, x))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    y = np.zeros((3, 4))
    table = array(model.layers[1].embeddings)
    rows = np.concatenate([table[row] for row in unpadded_ids()])
    expected = 0.1 * (rows**2).sum() / len(rows)
    expected += (predict(model, ids()) ** 2).mean()
    found = model.evaluate(ids(), y, verbose=0)
    yield "loss", np.float32(found), np.float32(expected)


@program()
def speech():
    """Masked frames, an LSTM, and CTC with the lengths that are known."""
    x = series((7, 5), 7)
    model = keras.Sequential(
        [
            keras.Input((None, 3)),
            layers.Masking(),
            layers.LSTM(4, return_sequences=True),
            layers.Dense(5),
        ]
    )
    give_weights(model)
    y, frames, letters = [[1, 2], [3, 0]], [7, 5], [2, 1]

    def score(logits, *others):
        others = (np.array(other, "int32") for other in others)
        y, frames, letters = map(ops.convert_to_tensor, others)
        loss = ops.ctc_loss(y, logits, letters, frames)
        return loss, ops.ctc_decode(logits, frames, merge_repeated=True)[1]

    loss, decoded = score(model(x), y, frames, letters)
    alone = [
        score(model(x[i : i + 1, :n]), [y[i]], [n], [letters[i]])
        for i, n in enumerate(frames)
    ]
    yield "loss", loss, np.concatenate([array(one) for one, _ in alone])
    scores = np.concatenate([array(one) for _, one in alone])
    yield "score of what is decoded", decoded, scores


@program()
def frames_normalized():
    """`BatchNormalization` of dense features that no mask reaches."""
    inputs = keras.Input((None, 3))
    x = layers.Dense(4)(inputs)
    x = layers.BatchNormalization(momentum=0.5)(x)
    x = layers.Masking()(x)
    x = layers.LSTM(2)(x)
    model = give_weights(keras.Model(inputs, x))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(series(), np.ones((3, 2)), verbose=0)
    yield "moving mean", model.layers[2].moving_mean
    yield "kernel", model.layers[1].kernel


@program(
    differs={
        "moving mean": "Under `TimeDistributed` upstream moves the statistics "
        "by padded frames, too."
    }
)
def frames_normalized_one_by_one():
    """`BatchNormalization` of padded clips, frame by frame."""
    x = series((4, 4), 4)
    padded = np.concatenate([x, np.zeros((2, 5, 3), "float32")], 1)
    norm = layers.BatchNormalization(momentum=0.5)
    model = keras.Sequential(
        [
            keras.Input((9, 3)),
            layers.Masking(),
            layers.TimeDistributed(norm),
            layers.GlobalAveragePooling1D(),
        ]
    )
    model.compile(keras.optimizers.SGD(0.0), "mse")
    model.fit(padded, np.zeros((2, 3)), verbose=0)
    mean = np.zeros(3)
    for frame in x.transpose(1, 0, 2):
        mean = 0.5 * mean + 0.5 * frame.mean(0)
    yield "moving mean", norm.moving_mean, mean.astype("float32")


@program()
def weights_of_rows():
    """`sample_weight` of `(batch,)` for a class of each row."""
    inputs = keras.Input((None, 3))
    x = layers.Masking()(inputs)
    model = give_weights(keras.Model(inputs, layers.GRU(2)(x)))
    model.compile(keras.optimizers.SGD(0.1), "mse", weighted_metrics=["mae"])
    y, w = np.ones((3, 2)), np.array([1.0, 0.0, 2.0])
    loss, mae = model.evaluate(series(), y, sample_weight=w, verbose=0)
    errors = (predict(model, series()) - 1) ** 2
    expected = (errors.mean(1) * w).mean()
    yield "loss", np.float32(loss), np.float32(expected)
    errors = np.abs(predict(model, series()) - 1).mean(1)
    expected = (errors * w).sum() / w.sum()
    yield "mae", np.float32(mae), np.float32(expected)


@program(
    differs={
        "loss": "The score of padding is masked, and so is what is subtracted "
        "from it: to the loss it is 0. A warning says what to write.",
    },
    warns=r"keras.ops.filled\(logits",
)
def pointer():
    """One of the tokens is the answer: a score for each, -1e9 for padding."""
    inputs = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    scores = layers.Flatten()(layers.Dense(1)(x))
    padding = ops.cast(ops.equal(inputs, 0), "float32")
    model = give_weights(keras.Model(inputs, scores - 1e9 * padding))
    model.compile(keras.optimizers.SGD(0.1), crossentropy())
    y = np.array([1, 2, 0])
    table, kernel, bias = map(array, model.weights)
    expected = []
    for row, answer in zip(unpadded_ids(), y):
        logits = (table[row] @ kernel + bias).T
        logits = np.pad(logits, ((0, 0), (0, STEPS - len(row))))
        expected.append(cross_entropy(logits, [answer])[0])
    found = model.evaluate(ids(), y, verbose=0)
    yield "loss", np.float32(found), np.float32(np.mean(expected))


@program()
def gradients_are_clean():
    """One step on a classifier does not move the embedding of padding."""
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(10, 4, mask_zero=True),
            layers.Bidirectional(layers.LSTM(2)),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    give_weights(model)
    before = array(model.layers[0].embeddings)
    model.compile(keras.optimizers.SGD(0.5), "binary_crossentropy")
    model.fit(ids(), np.array([[1], [0], [1]]), epochs=2, verbose=0)
    yield "embeddings", model.layers[0].embeddings
    yield "of padding", array(model.layers[0].embeddings)[0], before[0]


@program()
def metrics_of_masked_predictions():
    """Metrics and losses called by hand on `predict`ed steps."""
    model = tagger()
    logits = np.ma.getdata(predict(model, ids()))
    metric = keras.metrics.SparseCategoricalAccuracy()
    metric.update_state(TAGS, logits, sample_weight=WEIGHTS)
    hits = (logits.argmax(-1) == TAGS)[THERE].mean()
    yield "accuracy", metric.result(), np.float32(hits)
    loss = crossentropy()(TAGS, logits, sample_weight=WEIGHTS)
    expected = (cross_entropy(logits, TAGS) * WEIGHTS).mean()
    yield "loss", loss, np.float32(expected)
    where = valid((5, 3, 1))
    yield (
        "flat",
        crossentropy()(TAGS[where], logits[where]),
        np.float32(cross_entropy(logits, TAGS)[where].mean()),
    )


class StepsByHand(keras.Model):
    """`train_step` as the guides write it for each engine."""

    def call(self, x):
        return self.head(self.rnn(self.embed(x)))

    def __init__(self):
        super().__init__()
        self.embed = layers.Embedding(10, 4, mask_zero=True)
        self.rnn = layers.GRU(3)
        self.head = layers.Dense(1)

    def tracked(self, loss):
        for metric in self.metrics:
            metric.update_state(loss)
        return {metric.name: metric.result() for metric in self.metrics}

    if keras.backend.backend() == "torch":

        def train_step(self, data):
            x, y = data
            self.zero_grad()
            loss = self.compute_loss(y=y, y_pred=self(x, training=True))
            loss.backward()
            weights = list(self.trainable_weights)
            self.optimizer.apply([w.value.grad for w in weights], weights)
            return self.tracked(loss)

    if keras.backend.backend() == "tensorflow":

        def train_step(self, data):
            import tensorflow as tf

            x, y = data
            with tf.GradientTape() as tape:
                loss = self.compute_loss(y=y, y_pred=self(x, training=True))
            gradients = tape.gradient(loss, self.trainable_weights)
            self.optimizer.apply(gradients, self.trainable_weights)
            return self.tracked(loss)


@program()
def steps_by_hand():
    """A training step of one's own over a masked encoder."""
    model = StepsByHand()
    model(ids())
    give_weights(model)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    y = np.array([[1.0], [0.0], [2.0]], "float32")
    expected = ((predict(model, ids()) - y) ** 2).mean()
    history = model.fit(ids(), y, verbose=0).history
    found = np.float32(np.mean(array(history["loss"][0])))
    yield "loss", found, np.float32(expected)
    yield "kernel", model.head.kernel


@program(
    differs={
        "mae": "A weighted metric is the mean over all entries that weigh. "
        "Upstream's is a mean of means, one of each row or batch."
    }
)
def metrics_over_batches():
    """A batch of two steps that are right, and one of many that are not."""
    inputs = keras.Input((None, 2))
    model = keras.Model(inputs, layers.Activation("linear")(inputs))
    model.compile(loss="mse", weighted_metrics=["mae"])

    def batches():
        for steps, value in ((2, 0.0), (50, 1.0)):
            x = np.full((1, steps, 2), value, "float32")
            yield x, np.zeros_like(x), np.ones((1, steps), "float32")

    found = model.evaluate(batches(), steps=2, verbose=0, return_dict=True)
    yield "mae", np.float32(found["mae"]), np.float32(50 / 52)
