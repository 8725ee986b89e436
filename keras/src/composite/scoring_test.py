"""Weights of composite targets: rows, masks of parts, and both."""

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.backend import CompositeTensor
from keras.src.backend import MaskedTensor
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.composite import scoring

ROWS, TIME = 4, 3


class Labels(CompositeTensor):
    steps: MaskedTensor
    score: KerasTensor


class Both(CompositeTensor):
    labels: Labels
    more: KerasTensor


class Judge(layers.Layer):
    """Predictions of 3 targets, of which one is nested."""

    def __init__(self, nested, **kwargs):
        super().__init__(**kwargs)
        self.nested = nested

    def call(self, x):
        labels = Labels(x, x[:, 0])
        return Both(labels, x) if self.nested else labels


def distance(y_true, y_pred):
    if isinstance(y_true, Both):
        y_true, y_pred = y_true.labels, y_pred.labels
    return ops.abs(y_true.steps - y_pred.steps)


def by_row(y_true, y_pred):
    return ops.mean(distance(y_true, y_pred), axis=-1)


def data():
    rng = np.random.default_rng(0)
    x = rng.random((ROWS, TIME)).astype("float32") + 1
    mask = rng.random((ROWS, TIME)) < 0.5
    weight = np.array([1, 0, 0.5, 2])
    return x, mask, weight


def target(mask=None, nested=False):
    zeros = np.zeros((ROWS, TIME), "float32")
    steps = zeros if mask is None else MaskedTensor(zeros, mask)
    labels = Labels(steps, zeros[:, 0])
    return Both(labels, zeros) if nested else labels


def model_of(outputs, **arguments):
    x = layers.Input((TIME,))
    model = models.Model(x, outputs(x))
    model.compile(**arguments)
    return model


class WholeTest(testing.TestCase):
    @parameterized.product(
        nested=(False, True), masked=(False, True), weighed=(False, True)
    )
    def test_rows_and_masks_weigh_a_loss_of_the_whole(
        self, nested, masked, weighed
    ):
        x, mask, rows = data()
        given = {"sample_weight": rows} if weighed else {}
        weights = np.ones((ROWS, TIME))
        weights = weights * mask if masked else weights
        weights = weights * rows[:, None] if weighed else weights
        model = model_of(
            Judge(nested), loss=distance, weighted_metrics=[distance]
        )
        y = target(mask if masked else None, nested)
        for found in (
            model.evaluate(x, y, batch_size=3, verbose=0, **given),
            model.test_on_batch(x, y, **given),
        ):
            loss, metric = found
            self.assertAllClose(loss, np.mean(x * weights), rtol=1e-5)
            expected = np.sum(x * weights) / np.sum(weights)
            self.assertAllClose(metric, expected, rtol=1e-5)
            model.reset_metrics()

    @parameterized.product(
        policy=("mixed_float16", "mixed_bfloat16", "float64", "float32"),
        nested=(False, True),
        masked=(False, True),
    )
    def test_a_loss_of_the_whole_has_its_own_dtype(
        self, policy, nested, masked
    ):
        """Squares of what a layer computed in float16 would be infinite."""
        seen = []

        def loss(y_true, y_pred):
            for x in tree.flatten((y_true, y_pred)):
                seen.append(backend.standardize_dtype(x.dtype))
            return ops.square(distance(y_true, y_pred))

        x, mask, _ = data()
        judge = Judge(nested, dtype=policy)
        model = model_of(judge, loss=loss)
        y = target(mask if masked else None, nested)
        found = model.evaluate(400 * x, y, verbose=0)
        self.assertEqual(set(seen), {"float32"})
        # A mask of the target weighs.
        expected = np.square(400 * x) * (mask if masked else 1)
        self.assertAllClose(found, expected.mean(), rtol=2e-2)

    @parameterized.parameters(
        ({"steps": "mse", "score": "mse"},), (["mse", "mse"],)
    )
    def test_targets_of_another_type_have_no_parts_of_the_output(self, loss):
        x, _, _ = data()
        model = model_of(Judge(False), loss=loss)
        words = "is a `Labels`.*target is of another type: Both"
        with self.assertRaisesRegex(ValueError, words):
            model.evaluate(x, target(nested=True), verbose=0)

    def test_integers_of_a_whole_stay_integers(self):
        x = Labels(np.ones((2, 3), "int32"), np.ones((2,), "float16"))
        y = scoring.as_tensors(x, "float32")
        self.assertDType(y.steps, "int32")
        self.assertDType(y.score, "float32")

    def test_parts_may_weigh_otherwise(self):
        x, _, rows = data()
        model = model_of(Judge(False), loss=by_row)
        weight = {"steps": rows, "score": None}
        loss = model.evaluate(x, target(), sample_weight=weight, verbose=0)
        joint = np.where(rows == 0, 0, (rows + 1) / 2)
        self.assertAllClose(loss, np.mean(x.mean(-1) * joint), rtol=1e-5)

    def test_masks_of_more_axes_than_the_loss_are_refused(self):
        x, mask, _ = data()
        for arguments in (
            {"loss": by_row},
            {"loss": distance, "weighted_metrics": [by_row]},
        ):
            model = model_of(Judge(False), **arguments)
            with self.assertRaisesRegex(
                ValueError, r"\(4, 3\).*`by_row`.*\(4,\).*dictionary of losses"
            ):
                model.test_on_batch(x, target(mask))

    def test_masks_that_do_not_broadcast_are_refused(self):
        class Two(CompositeTensor):
            nodes: MaskedTensor
            links: MaskedTensor

        class Head(layers.Layer):
            def call(self, x):
                return Two(x, ops.concatenate([x, x], axis=1))

        x, mask, _ = data()
        links = np.concatenate([mask, mask], axis=1)
        y = Two(MaskedTensor(x, mask), MaskedTensor(links * 1.0, links))
        model = model_of(
            Head(), loss=lambda y, p: ops.sum(p.nodes - y.nodes, -1)
        )
        with self.assertRaisesRegex(ValueError, r"`Two`.*\(4, 3\), \(4, 6\)"):
            model.test_on_batch(x, y)


def named(name, outputs):
    return dict(zip("np", outputs)) if name else list(outputs)


class OutputsTest(testing.TestCase):
    def _model(self, by_name):
        return model_of(
            lambda x: named(by_name, [Judge(False)(x), layers.ReLU()(x)]),
            loss=named(by_name, [by_row, "mean_absolute_error"]),
        )

    @parameterized.parameters(False, True)
    def test_a_weight_for_each_output(self, by_name):
        x, _, rows = data()
        model = self._model(by_name)
        y = named(by_name, [target(), np.zeros_like(x)])
        weighed = np.mean(x.mean(-1) * rows)
        for weights, of_first in (
            ([rows, rows], weighed),
            ([None, rows], np.mean(x)),
            ([{"steps": rows, "score": rows}, rows], weighed),
            ([[rows, rows], rows], weighed),
            ([Labels(rows, rows), rows], weighed),
        ):
            weights = named(by_name, weights)
            loss = model.evaluate(x, y, sample_weight=weights, verbose=0)[0]
            self.assertAllClose(loss, of_first + weighed, rtol=1e-5)
            loss = model.test_on_batch(x, y, weights, return_dict=True)["loss"]
            self.assertAllClose(loss, of_first + weighed, rtol=1e-5)

    def test_a_weight_for_each_loss_of_a_part(self):
        x, _, rows = data()
        model = model_of(Judge(False), loss={"steps": "mae", "score": "mae"})
        weights = {"steps": rows, "score": 1 - rows}
        loss = model.evaluate(x, target(), sample_weight=weights, verbose=0)[0]
        expected = np.mean(x.mean(-1) * rows) + np.mean(x[:, 0] * (1 - rows))
        self.assertAllClose(loss, expected, rtol=1e-5)

    @parameterized.parameters(False, True)
    def test_weights_that_do_not_fit_are_outlined(self, by_name):
        x, _, rows = data()
        model = self._model(by_name)
        y = named(by_name, [target(), np.zeros_like(x)])
        for weights in (
            named(by_name, [rows]),
            named(by_name, [{"steps": rows}, rows]),
            named(by_name, [[rows], rows]),
            named(by_name, [rows, [rows]]),
            named(not by_name, [rows, rows]),
        ):
            with self.assertRaises(ValueError) as raised:
                model.evaluate(x, y, sample_weight=weights, verbose=0)
            text = str(raised.exception)
            self.assertIn("Labels(steps=<shape=(4, 3)>", text)
            self.assertNotIn("Fields", text)
            self.assertNotIn("array", text)
