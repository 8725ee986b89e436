"""`Fill` ends a mask: what it puts there, learns, saves and exports."""

import os

import numpy as np
import pandas as pd
import polars as pl
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import saving
from keras.src import testing
from patchset.markers import when

NAN = float("nan")
ROWS = np.array([[1.0, 50.0], [2.0, NAN], [9.0, 10.0], [NAN, 30.0], [NAN] * 2])
THERE = ~np.isnan(ROWS)
STATISTICS = {"mean": np.nanmean, "median": np.nanmedian, "learned": np.nanmean}


def as_frame(make):
    rows = [[None if np.isnan(v) else v for v in row] for row in ROWS]
    return make({n: [row[i] for row in rows] for i, n in enumerate("ab")})


SOURCES = {
    "masked": lambda: keras.MaskedTensor(ROWS, THERE),
    "numpy.ma": lambda: np.ma.masked_invalid(ROWS),
    "pandas": lambda: as_frame(pd.DataFrame).astype("Float64"),
    "polars": lambda: as_frame(pl.DataFrame),
    "batches": lambda: [np.ma.masked_invalid(x) for x in (ROWS[:2], ROWS[2:])],
    "generator": lambda: (
        (as_frame(pl.DataFrame)[i : i + 1], 0) for i in range(len(ROWS))
    ),
}


class FillTest(testing.TestCase):
    @parameterized.product(value=tuple(STATISTICS), source=tuple(SOURCES))
    def test_adapts_to_what_is_there(self, value, source):
        layer = layers.Fill(value)
        layer.adapt(SOURCES[source]())
        fill = STATISTICS[value](ROWS, axis=0)
        self.assertAllClose(layer.fill, fill)
        found = layer(keras.MaskedTensor(ROWS, THERE))
        self.assertFalse(ops.is_masked(found))
        self.assertAllClose(found, np.where(THERE, ROWS, fill))
        self.assertEqual(len(layer.trainable_weights), value == "learned")

    @parameterized.parameters(0, -1.5, "learned")
    def test_indicator(self, value):
        x = keras.MaskedTensor(ROWS, THERE)
        layer = layers.Fill(value, indicator=True)
        fill = 0 if value == "learned" else value
        wanted = np.concatenate([np.where(THERE, ROWS, fill), THERE], -1)
        self.assertAllClose(layer(x), wanted)
        inputs = layers.Input((2,), mask_shape=(2,))
        outputs = layer(inputs)
        self.assertEqual(outputs.shape, (None, 4))
        self.assertFalse(ops.is_masked(outputs))
        self.assertAllClose(models.Model(inputs, outputs)(x), wanted)
        plain = np.ones((3, 2), "float32")
        self.assertAllClose(layer(plain), np.ones((3, 4)))

    def test_a_mask_over_steps(self):
        x = keras.MaskedTensor(np.ones((2, 3, 2), "float32"), np.eye(2, 3) > 0)
        found = layers.Fill(7, indicator=True)(x)
        there = np.eye(2, 3)[..., None] * np.ones(2)
        wanted = np.concatenate([np.where(there > 0, 1, 7), there], -1)
        self.assertAllClose(found, wanted)

    def test_integers_stay_integers_under_a_number(self):
        x = pd.DataFrame({"a": [1, None]}, dtype="Int64")
        self.assertIn(
            "int", backend.standardize_dtype(layers.Fill(-1)(x).dtype)
        )
        self.assertDType(layers.Fill("mean")(x), backend.floatx())

    @pytest.mark.requires_trainable_backend
    def test_learned_values_are_trained(self):
        layer = layers.Fill("learned")
        model = models.Sequential([layer])
        model.compile(keras.optimizers.SGD(0.5), "mse")
        x = keras.MaskedTensor(np.zeros((4, 2)), np.array([[True, False]] * 4))
        model.fit(x, np.full((4, 2), 3.0), epochs=30, verbose=0)
        # Of the first feature nothing is missing, so nothing is learned.
        self.assertAllClose(layer.fill, [0, 3], atol=1e-2)

    @parameterized.parameters("mean", "median", "learned", 2.5)
    def test_saved_with_what_it_learned(self, value):
        inputs = layers.Input((2,), mask_shape=(2,))
        layer = layers.Fill(value, indicator=True)
        model = models.Model(inputs, layer(inputs))
        if isinstance(value, str):
            layer.adapt(SOURCES["pandas"]())
        path = os.path.join(self.get_temp_dir(), "model.keras")
        model.save(path)
        x = SOURCES["pandas"]()
        loaded = saving.load_model(path)
        self.assertAllClose(loaded(x), model(x))

    @when(">=3.15")  # Whose exports know names.
    @pytest.mark.skipif(
        backend.backend() not in ("torch", "tensorflow"),
        reason="There is no format that is quick to write.",
    )
    def test_exported_with_values_and_mask(self):
        inputs = layers.Input((2,), mask_shape=(2,), name="x")
        model = models.Model(
            inputs, layers.Fill("mean", indicator=True)(inputs)
        )
        model.layers[-1].adapt(SOURCES["pandas"]())
        path = os.path.join(self.get_temp_dir(), "model")
        values = np.nan_to_num(ROWS).astype("float32")
        wanted = model(keras.MaskedTensor(values, THERE))
        if backend.backend() == "tensorflow":
            model.export(path, verbose=False)
            # Late: on this engine alone.
            import tensorflow as tf

            serve = tf.saved_model.load(path).signatures["serving_default"]
            found = serve(x=tf.constant(values), x_mask=tf.constant(THERE))
            found = next(iter(found.values()))
        else:
            model.export(path + ".onnx", format="onnx", verbose=False)
            # Late: on this engine alone.
            import onnxruntime

            session = onnxruntime.InferenceSession(path + ".onnx")
            names = [one.name for one in session.get_inputs()]
            (found,) = session.run(None, dict(zip(names, (values, THERE))))
        self.assertAllClose(found, wanted)

    def test_a_feature_without_one_value(self):
        x = pd.DataFrame({"a": [1, 3], "b": [None, None]}, dtype="Float64")
        layer = layers.Fill("median")
        with self.assertWarnsRegex(UserWarning, r"features \[1\] of 2 have no"):
            layer.adapt(x)
        self.assertAllClose(layer.fill, [2, 0])

    def test_what_is_refused(self):
        for value in ("mode", None, [1]):
            with self.assertRaisesRegex(ValueError, "Received: value="):
                layers.Fill(value)
        with self.assertRaisesRegex(ValueError, "nothing to learn"):
            layers.Fill(0).adapt(ROWS)
        with self.assertRaisesRegex(
            ValueError, r"features \[0, 1\].*from_miss"
        ):
            layers.Fill("mean").adapt(ROWS)
        with self.assertRaisesRegex(ValueError, r"shape \(5,\).*\(rows, 1\)"):
            layers.Fill("mean").adapt(SOURCES["pandas"]()["a"])
        with self.assertRaisesRegex(ValueError, r"shape \(5,\).*\(rows, 1\)"):
            layers.Fill("learned")(SOURCES["pandas"]()["a"])
