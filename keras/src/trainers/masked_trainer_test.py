"""Models with masked outputs: fit, evaluate, predict."""

import functools
import warnings

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import callbacks
from keras.src import layers
from keras.src import losses
from keras.src import metrics
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.backend import MaskedTensor
from keras.src.utils.sample_weights import sample_weight_from_mask
from patchset.markers import when

IDS = np.array([[1, 2, 0], [3, 0, 0], [4, 5, 6], [1, 0, 0], [2, 2, 2]])
Y = np.random.default_rng(1337).uniform(size=(5, 3, 1)).astype("float32")
WEIGHTS = sample_weight_from_mask(IDS != 0)
CUTS_BATCHES = False
if when(">=3.16"):  # `guides/upstream_faults.md`: `predict_on_batch`.
    CUTS_BATCHES = backend.backend() == "jax"
TRAINS = backend.backend() not in ("numpy", "openvino")


class Scores(layers.Layer):
    """A score for each id; masked where `masks` says so of ids and scores.

    Args:
        masks: Function of ids and scores that gives the mask.
        plain: Whether to return plain values, with 0 where the mask is False.
    """

    def __init__(self, masks, plain=False):
        super().__init__()
        self.masks = masks
        self.plain = plain
        self.table = self.add_weight(shape=(7, 1), initializer="uniform")

    def call(self, ids):
        # Not a look-up, which NumPy's shape inference tries on any garbage.
        one_hot = ops.equal(ops.expand_dims(ids, -1), ops.arange(7))
        scores = ops.matmul(ops.cast(one_hot, "float32"), self.table)
        masked = MaskedTensor(scores, self.masks(ids, scores))
        return masked.values if self.plain else masked


def no_padding(ids, scores):
    return ops.not_equal(ids, 0)


def only_the_confident(ids, scores):
    return ops.greater(scores[..., 0], 0.02)


def make(masks=no_padding, plain=False, **compile_arguments):
    inputs = layers.Input((3,), dtype="int32")
    scores = Scores(masks, plain)
    model = models.Model(inputs, scores(inputs))
    table = np.random.default_rng(1).uniform(-0.05, 0.05, (7, 1))
    scores.table.assign(table)
    arguments = {"loss": "mse", "metrics": ["mae"], "weighted_metrics": ["mse"]}
    model.compile("sgd", **(arguments | compile_arguments))
    return model


def run_quietly(run, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The output", UserWarning)
        return run(*args, verbose=0, **kwargs)


def padding_warnings(run):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    texts = [str(w.message) for w in caught]
    return [t for t in texts if "count padding" in t]


def of_heads(inputs):
    """Attention of two heads by hand, and a mean over steps."""
    x = layers.Embedding(7, 4, mask_zero=True)(inputs)
    x = ops.transpose(ops.reshape(x, (-1, 6, 2, 2)), (0, 2, 1, 3))
    scores = ops.softmax(ops.matmul(x, ops.transpose(x, (0, 1, 3, 2))))
    x = ops.transpose(ops.matmul(scores, x), (0, 2, 1, 3))
    return ops.mean(ops.reshape(x, (-1, 6, 4)), axis=1)


def of_windows(inputs):
    x = layers.Embedding(7, 4, mask_zero=True)(inputs)
    return layers.Conv1D(2, 2, strides=2)(x)


def of_steps(inputs):
    x = layers.Embedding(7, 4, mask_zero=True)(inputs)
    return ops.mean(x[..., 0], axis=1, keepdims=True)


# Outputs whose masks have no axis as long as the inputs.
WITHOUT_STEPS = {
    "attention": of_heads,
    "means": of_steps,
    "windows": of_windows,
}


class MaskedOutputTest(testing.TestCase):
    def test_predict_gives_numpy_ma(self):
        for steps in (1, 2):
            if steps > 1 and backend.backend() == "torch":
                continue
            model = make(steps_per_execution=steps)
            plain = make(plain=True).predict(IDS, batch_size=2, verbose=0)
            every = [model.predict(IDS, batch_size=2, verbose=0)]
            if steps == 1 or not CUTS_BATCHES:
                every.append(model.predict_on_batch(IDS))
            for found in every:
                self.assertIsInstance(found, np.ma.MaskedArray)
                self.assertAllClose(found.data, plain)
                hidden = np.ma.getmaskarray(found)
                self.assertAllClose(hidden, (IDS == 0)[..., None])

    def test_predict_of_several_outputs_keeps_their_structure(self):
        inputs = layers.Input((3,), dtype="int32")
        outputs = {
            "a": Scores(no_padding)(inputs),
            "b": Scores(no_padding, plain=True)(inputs),
        }
        model = models.Model(inputs, outputs)
        found = model.predict(IDS, batch_size=2, verbose=0)
        self.assertEqual(set(found), {"a", "b"})
        self.assertIsInstance(found["a"], np.ma.MaskedArray)
        self.assertIs(type(found["b"]), np.ndarray)
        self.assertEqual(found["a"].shape, (5, 3, 1))

    def test_predict_joins_batches_of_different_lengths(self):
        sizes = [(3, 4), (2, 7), (1, 0), (2, 2)]
        rng = np.random.default_rng(0)
        batches = [
            MaskedTensor(
                rng.normal(size=size + (3,)).astype("float32"),
                rng.random(size) > 0.3,
            )
            for size in sizes
        ]
        x = layers.Input((None, 3), mask_shape=(None,))
        steps = layers.Dense(2)(x)
        model = models.Model(x, {"steps": steps, "sums": ops.sum(steps, 1)})
        steps, sums = [], []
        for batch in batches:
            values = np.matmul(batch.values, model.get_weights()[0])
            valid = ops.convert_to_numpy(batch.mask)[..., None]
            sums.append(np.where(valid, values, 0).sum(1))
            rows = np.zeros((len(values), 7, 2), "float32")
            rows[:, : values.shape[1]] = np.where(valid, values, 0)
            steps.append(rows)
        valid = np.zeros((8, 7), bool)
        valid[:3, :4], valid[3:5] = batches[0].mask, batches[1].mask
        valid[6:, :2] = batches[3].mask
        data = ((batch,) for batch in batches)
        found = model.predict(data, steps=len(batches), verbose=0)
        self.assertAllClose(
            np.ma.getmaskarray(found["steps"]),
            np.broadcast_to(~valid[..., None], (8, 7, 2)),
        )
        self.assertAllClose(
            found["steps"].filled(0), np.concatenate(steps), atol=1e-5
        )
        self.assertAllClose(found["sums"], np.concatenate(sums), atol=1e-5)

    def test_predict_joins_no_batches_that_differ_beyond_the_mask(self):
        class Rows(models.Model):
            def call(self, x):
                return x * 1.0

        model = Rows()
        x = [np.ones((2, 4, n), "float32") for n in (3, 2)]
        data = ((MaskedTensor(x, np.ones((2, 4), bool)),) for x in x)
        with self.assertRaises(ValueError):
            model.predict(data, steps=2, verbose=0)
        whole = MaskedTensor(x[0], np.ones((2, 4), bool))
        self.assertAllClose(model.predict(whole, verbose=0).filled(0), x[0])

    def test_callbacks_of_predict_see_masked_tensors(self):
        seen = []

        class Look(callbacks.Callback):
            def on_predict_batch_end(self, batch, logs=None):
                seen.append(logs["outputs"])

        make().predict(IDS, batch_size=2, verbose=0, callbacks=[Look()])
        shapes = [tuple(x.mask.shape) for x in seen]
        self.assertEqual(shapes, [(2, 3), (2, 3), (1, 3)])

    def test_evaluate_is_the_loss_of_predict(self):
        for weights in (None, WEIGHTS):
            model = make()
            found = run_quietly(
                model.evaluate, IDS, Y, sample_weight=weights, return_dict=True
            )
            y_pred = model.predict(IDS, verbose=0)
            loss = losses.MeanSquaredError()
            self.assertAllClose(found["loss"], loss(Y, y_pred, weights))
            metric = metrics.MeanSquaredError()
            metric.update_state(Y, y_pred, weights)
            self.assertAllClose(found["mse"], metric.result())
            self.assertAllClose(found["mae"], np.mean(np.abs(Y - y_pred.data)))

    def test_weights_of_the_mask_give_the_mean_over_valid_steps(self):
        model = make(
            loss=losses.MeanSquaredError(reduction="mean_with_sample_weight")
        )
        found = model.evaluate(
            IDS, Y, sample_weight=WEIGHTS, return_dict=True, verbose=0
        )
        valid = IDS != 0
        y_pred = model.predict(IDS, verbose=0).data
        by_hand = np.mean((Y[valid] - y_pred[valid]) ** 2)
        self.assertAllClose(found["loss"], by_hand, atol=1e-6)
        self.assertAllClose(found["mse"], by_hand, atol=1e-6)

    def test_masking_all_but_the_confident_predictions_gains_nothing(self):
        plain, masked = (
            self.all_numbers(make(only_the_confident, plain=plain))
            for plain in (True, False)
        )
        self.assertEqual(set(plain), set(masked))
        for name, value in plain.items():
            self.assertAllClose(masked[name], value)
        mask = make(only_the_confident)(IDS).mask
        self.assertTrue(0 < np.mean(backend.convert_to_numpy(mask)) < 1)

    def all_numbers(self, model):
        """The history of `fit`, and what `evaluate` and `compute_loss` say."""
        logs = {}
        if TRAINS:
            logs = run_quietly(
                model.fit, IDS, Y, epochs=2, batch_size=2, shuffle=False
            ).history
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The output", UserWarning)
            loss = model.compute_loss(None, Y, model(IDS))
        return logs | {
            "evaluate": run_quietly(model.evaluate, IDS, Y),
            "compute_loss": backend.convert_to_numpy(loss),
        }

    @pytest.mark.requires_trainable_backend
    def test_padded_targets_of_weight_0_do_not_reach_training(self):
        trained = []
        for poison in (0.0, 1e20, np.nan):
            y = np.where((IDS != 0)[..., None], Y, poison)
            model = make()
            history = model.fit(
                IDS, y, sample_weight=WEIGHTS, verbose=0, shuffle=False
            ).history
            trained.append(
                model.get_weights() + [history["loss"], history["mse"]]
            )
        for other in trained[1:]:
            for a, b in zip(trained[0], other, strict=True):
                self.assertAllClose(a, b)

    def test_an_override_of_compute_loss_gets_the_masked_tensor(self):
        seen = []

        class Own(models.Model):
            def compute_loss(self, x, y, y_pred, sample_weight, training=True):
                seen.append(ops.is_masked(y_pred))
                return super().compute_loss(x, y, y_pred, sample_weight)

        inputs = layers.Input((3,), dtype="int32")
        model = Own(inputs, Scores(no_padding)(inputs))
        model.compile("sgd", "mse")
        run_quietly(model.evaluate, IDS, Y)
        self.assertTrue(seen)
        self.assertTrue(all(seen))

    def test_a_function_as_metric_gets_plain_tensors(self):
        def share(y_true, y_pred):
            self.assertFalse(ops.is_masked(y_pred))
            return ops.ones_like(y_pred)

        model = make(metrics=[share])
        found = run_quietly(model.evaluate, IDS, Y, return_dict=True)
        self.assertAllClose(found["share"], 1.0)


class PaddingWarningTest(testing.TestCase):
    def run_all(self, model, **kwargs):
        if TRAINS:
            model.fit(IDS, Y, epochs=2, batch_size=2, verbose=0, **kwargs)
        for _ in range(2):
            model.evaluate(IDS, Y, verbose=0, **kwargs)

    def test_one_for_each_output_of_a_compiled_model(self):
        model = make()
        (text,) = padding_warnings(lambda: self.run_all(model))
        self.assertIn(
            "model.fit(x, y, sample_weight="
            "keras.utils.sample_weight_from_mask(x_ids != 0))",
            text,
        )
        self.assertIn("`weighted_metrics`", text)
        self.assertIn(model.output_names[0], text)
        model.compile("sgd", "mse")
        self.assertLen(padding_warnings(lambda: self.run_all(model)), 1)

    def test_it_is_about_the_line_of_the_user(self):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = make()
            model.evaluate(IDS, Y, verbose=0)
        (found,) = (w for w in caught if "sample_weight" in str(w.message))
        self.assertEqual(found.filename, __file__)
        with open(__file__) as file:
            line = file.read().splitlines()[found.lineno - 1]
        self.assertIn("model.evaluate(", line)

    def test_none_with_weights(self):
        model = make()
        found = padding_warnings(
            lambda: self.run_all(model, sample_weight=WEIGHTS)
        )
        self.assertEqual(found, [])

    def test_none_without_a_mask(self):
        model = make(plain=True)
        self.assertEqual(padding_warnings(lambda: self.run_all(model)), [])

    @parameterized.parameters(True, False)
    def test_a_mask_over_the_batch_is_looked_at_once(self, is_padded):
        """Where the first batch has rows that are masked, they count."""

        def over_the_batch(ids, scores):
            return ops.not_equal(ids[:, -1 if is_padded else 0], 0)

        model = make(over_the_batch)

        def run():
            for _ in range(2):
                model.evaluate(IDS, Y, verbose=0)

        found = padding_warnings(run)
        self.assertLen(found, int(is_padded))
        if is_padded:
            self.assertIn("whole rows of the first batch", found[0])
        model.compile("sgd", "mse")
        found = padding_warnings(lambda: model.test_on_batch(IDS, Y))
        self.assertLen(found, int(is_padded))

    @parameterized.product(
        kind=("means", "attention", "windows"), is_padded=(False, True)
    )
    def test_a_mask_without_steps_is_looked_at_once(self, kind, is_padded):
        """An entry that steps went into is there, unless all are padding."""
        ids = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 1, 2, 0]] * 2)
        if is_padded:
            ids[1] = 0
        elif kind == "windows":
            ids[ids == 0] = 1
        inputs = layers.Input((6,), dtype="int32")
        model = models.Model(inputs, WITHOUT_STEPS[kind](inputs))
        y = np.ones((4, *model.output_shape[1:]))

        def run(y=y):
            if TRAINS:
                model.fit(ids, y, batch_size=2, shuffle=False, verbose=0)
            model.evaluate(ids, y, verbose=0)

        model.compile("sgd", "mse")
        found = padding_warnings(run)
        self.assertLen(found, int(is_padded))
        if is_padded:
            size = model.output_shape[1]
            self.assertIn(f"mask, of shape (batch, {size}), is", found[0])
            counts = np.any(ids != 0, axis=1)
            advised = functools.partial(run, MaskedTensor(y, counts))
            self.assertEqual(padding_warnings(advised), [])

    @parameterized.parameters(True, False)
    def test_a_mask_of_classes_without_steps(self, from_logits):
        """It is looked at, too: pooled logits are hardly ever masked."""
        inputs = layers.Input((6,), dtype="int32")
        x = WITHOUT_STEPS["attention"](inputs)
        outputs = x if from_logits else ops.softmax(x)
        model = models.Model(inputs, outputs)
        loss = losses.SparseCategoricalCrossentropy(from_logits=from_logits)
        ids = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 1, 2, 0]])
        for padded in (False, True):
            model.compile("sgd", loss)
            ids[1] *= not padded
            run = functools.partial(model.evaluate, ids, ids[:, 0] // 4)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                run(verbose=0)
            texts = [str(w.message) for w in caught]
            texts = [t for t in texts if "is masked" in t]
            self.assertLen(texts, int(padded))
            if padded:
                advice = "float('-inf')" if from_logits else "(y, counts)"
                self.assertIn(advice, texts[0])

    def test_none_for_an_output_without_a_loss(self):
        inputs = layers.Input((3,), dtype="int32")
        both = [Scores(no_padding, plain)(inputs) for plain in (True, False)]
        model = models.Model(inputs, both)
        for loss, count in ((["mse", None], 0), ([None, "mse"], 1)):
            model.compile("sgd", loss)
            run = functools.partial(model.evaluate, IDS, [Y, Y], verbose=0)
            self.assertLen(padding_warnings(run), count)

    def test_none_for_a_loss_of_ones_own(self):
        class Own(models.Model):
            def compute_loss(self, x, y, y_pred, sample_weight, training=True):
                squares = ops.square(ops.filled(y_pred) - y)
                return ops.mean(squares)

        class Weighing(models.Model):
            def compute_loss(self, x, y, y_pred, sample_weight, training=True):
                return super().compute_loss(x, y, y_pred, y_pred.mask)

        class Unweighing(models.Model):
            def compute_loss(self, x, y, y_pred, sample_weight, training=True):
                return super().compute_loss(x, y, y_pred, None)

        for cls, count in ((Own, 0), (Weighing, 0), (Unweighing, 1)):
            inputs = layers.Input((3,), dtype="int32")
            model = cls(inputs, Scores(no_padding)(inputs))
            model.compile("sgd", "mse")
            run = functools.partial(model.evaluate, IDS, Y, verbose=0)
            self.assertLen(padding_warnings(run), count)

    @parameterized.parameters(0, 1)
    def test_a_class_that_is_ignored_wherever_there_is_padding(self, ignored):
        inputs = layers.Input((3,), dtype="int32")
        scores = Scores(no_padding)(inputs)
        model = models.Model(inputs, ops.concatenate([scores] * 7, axis=-1))
        loss = losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=ignored
        )
        model.compile("sgd", loss)
        found = padding_warnings(lambda: model.evaluate(IDS, IDS, verbose=0))
        self.assertLen(found, ignored)

    def test_none_for_a_loss_that_leaves_frames_out(self):
        inputs = layers.Input((3,), dtype="int32")
        scores = Scores(no_padding)(inputs)
        model = models.Model(inputs, ops.concatenate([scores] * 4, axis=-1))
        labels = np.ones((len(IDS), 1), "int32")
        for loss, count in ((losses.CTC(), 0), ("mse", 1)):
            model.compile("sgd", loss)
            y = labels if count == 0 else np.zeros((len(IDS), 3, 4))
            run = functools.partial(model.evaluate, IDS, y, verbose=0)
            self.assertLen(padding_warnings(run), count)

    @parameterized.parameters(False, True)
    def test_a_mask_of_classes_takes_no_weight(self, from_logits):
        """Probabilities are 0 there; logits have to be filled."""
        inputs = layers.Input((3,), dtype="int32")
        scores = ops.squeeze(Scores(no_padding)(inputs), axis=-1)
        outputs = scores if from_logits else ops.softmax(scores)
        model = models.Model(inputs, outputs)
        model.compile(
            "sgd", losses.SparseCategoricalCrossentropy(from_logits=from_logits)
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loss = model.evaluate(IDS, 0 * IDS[:, 0], verbose=0)
        texts = [str(w.message) for w in caught if "mask" in str(w.message)]
        self.assertLen(texts, int(from_logits))
        if from_logits:
            self.assertIn("ops.filled(logits, float('-inf'))", texts[0])
        else:
            shares = model.predict(IDS, verbose=0).data
            self.assertAllClose(loss, -np.mean(np.log(shares[:, 0])))

    def test_names_the_outputs_that_have_no_weight(self):
        inputs = layers.Input((3,), dtype="int32")
        outputs = {k: Scores(no_padding)(inputs) for k in "ab"}
        model = models.Model(inputs, outputs)
        model.compile("sgd", {"a": "mse", "b": "mse"})
        y = {"a": Y, "b": Y}
        (text,) = padding_warnings(
            lambda: model.evaluate(
                IDS, y, sample_weight={"a": WEIGHTS, "b": None}, verbose=0
            )
        )
        self.assertIn("The output 'b' of", text)


class MaskedBatchTest(testing.TestCase):
    @pytest.mark.requires_trainable_backend
    def test_a_model_is_built_on_the_masks_of_its_batch(self):
        seen = []

        class Branches(models.Model):
            def __init__(self):
                super().__init__()
                self.dense = layers.Dense(1)

            def call(self, x):
                seen.append(ops.is_masked(x))
                return self.dense(x)

        model = Branches()
        model.compile("sgd", "mse", metrics=["mae"])
        x = MaskedTensor(Y, IDS != 0)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The output", UserWarning)
            logs = model.train_on_batch(x, Y, return_dict=True)
            model.test_on_batch(x, Y)
        self.assertTrue(all(seen))
        self.assertTrue(np.isfinite(logs["loss"]))
        found = model.predict_on_batch(x)
        self.assertAllClose(np.ma.getmaskarray(found), (IDS == 0)[..., None])
