"""scikit-learn's estimators of models take tables with holes."""

import numpy as np
import pandas as pd
import pytest
from absl.testing import parameterized
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.preprocessing import StandardScaler

import keras
from keras.src import layers
from keras.src import testing


def table():
    rng = np.random.default_rng(0)
    x = pd.DataFrame(rng.normal(size=(60, 3)), columns=list("abc"))
    y = (x.sum(axis=1) > 0).astype(int)
    hidden = rng.random(x.shape) < 0.2
    hidden[0] = False
    hidden[1] = True
    return x.mask(hidden), y, ~hidden


def make(X, y):
    """A model that fails unless its input is masked."""
    outputs = y.shape[1]
    last = layers.Dense(outputs, "softmax" if outputs > 1 else None)
    model = keras.Sequential([layers.Fill(0, indicator=True), last])
    loss = "categorical_crossentropy" if outputs > 1 else "mse"
    model.compile(keras.optimizers.Adam(0.05), loss)
    assert isinstance(X, np.ma.MaskedArray)
    return model


SOURCES = {
    "NaN": lambda x: x,
    "nullable": lambda x: x.convert_dtypes(),
    "array": lambda x: x.to_numpy(),
    "masked": lambda x: keras.MaskedTensor.from_missing(x),
}
FIT = {"epochs": 15, "verbose": 0}


class MaskedSklearnTest(testing.TestCase):
    @parameterized.parameters(*SOURCES)
    @pytest.mark.requires_trainable_backend
    def test_classifier(self, source):
        x, y, there = table()
        x = SOURCES[source](x)
        model = keras.wrappers.SKLearnClassifier(make, fit_kwargs=FIT).fit(x, y)
        self.assertGreater(model.score(x, y), 0.7)

    @pytest.mark.requires_trainable_backend
    def test_pipeline(self):
        x, y, there = table()
        x = x.convert_dtypes()
        model = keras.wrappers.SKLearnRegressor(make, fit_kwargs=FIT)
        found = make_pipeline(StandardScaler(), model).fit(x, y).predict(x)
        self.assertEqual(found.shape, (60,))
        self.assertTrue(np.isfinite(found).all())

    @pytest.mark.requires_trainable_backend
    def test_rows_without_one_entry(self):
        x, y, there = table()

        def dense(X, y):
            model = keras.Sequential([layers.Dense(1)])
            model.compile("sgd", "mse")
            return model

        model = keras.wrappers.SKLearnRegressor(
            dense, fit_kwargs={"verbose": 0, "batch_size": len(x)}
        )
        with self.assertWarnsRegex(UserWarning, "masked in whole rows"):
            model.fit(x, y)
        with self.assertWarnsRegex(UserWarning, "1 of 60 rows have not one"):
            model.predict(x)

    @parameterized.parameters(
        "SKLearnClassifier", "SKLearnRegressor", "SKLearnTransformer"
    )
    @pytest.mark.requires_trainable_backend
    def test_what_is_infinite_is_refused(self, name):
        # scikit-learn's own check of that looks for NaN as well, and so does
        # not run on estimators that allow NaN.
        x, y, there = table()
        wrong = x.assign(a=np.inf)
        estimator = getattr(keras.wrappers, name)(make, fit_kwargs=FIT)
        with self.assertRaisesRegex(ValueError, "X contains infinity"):
            estimator.fit(wrong, y)
        estimator.fit(x, y)
        method = "transform" if name == "SKLearnTransformer" else "predict"
        with self.assertRaisesRegex(ValueError, "X contains infinity"):
            getattr(estimator, method)(wrong)

    @parameterized.parameters("SKLearnClassifier", "SKLearnRegressor")
    def test_targets_with_holes_are_refused(self, name):
        x, y, there = table()
        estimator = getattr(keras.wrappers, name)(make, fit_kwargs=FIT)
        with self.assertRaisesRegex(ValueError, "y contains NaN"):
            estimator.fit(x, y.astype("Float64").mask(y == 0))

    @pytest.mark.requires_trainable_backend
    def test_columns_of_several_kinds_in_a_pipeline(self):
        x, y, there = table()
        x = x.convert_dtypes().assign(kind=np.where(y, "p", "q"))
        encode = ColumnTransformer(
            [
                ("numbers", "passthrough", list("abc")),
                ("kind", OneHotEncoder(sparse_output=False), ["kind"]),
            ]
        ).set_output(transform="pandas")
        model = keras.wrappers.SKLearnClassifier(make, fit_kwargs=FIT)
        self.assertGreater(
            make_pipeline(encode, model).fit(x, y).score(x, y), 0.7
        )

    def test_strings_are_refused(self):
        x = pd.DataFrame({"a": [1.0, 2.0], "kind": ["x", None]})
        model = keras.wrappers.SKLearnRegressor(make)
        with self.assertRaisesRegex(TypeError, r"\['a', 'kind'\].*Transformer"):
            model.fit(x, [0, 1])
