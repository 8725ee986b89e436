"""A step that raises leaves a model with its weights, whatever ran it.

Upstream hands them to the first step, and gets none back if that raises.
"""

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.backend import MaskedTensor
from keras.src.masking.errors import UnsupportedMaskError

VALUES = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("float32")
MASK = np.arange(5) < np.arange(1, 9)[:, None]


class Refuses(layers.Layer):
    """Takes plain tensors alone."""

    def call(self, x):
        return ops.real(ops.fft2((x, ops.zeros_like(x)))[0])


@pytest.mark.skipif(backend.backend() != "jax", reason="of JAX")
class RefusedStepsTest(testing.TestCase):
    @parameterized.product(
        function=("fit", "evaluate", "predict"),
        steps_per_execution=(1, 2),
        run_eagerly=(False, True),
    )
    def test_model_goes_on(self, function, steps_per_execution, run_eagerly):
        model = models.Sequential([layers.Dense(2), Refuses()])
        model.compile(
            "sgd",
            "mse",
            steps_per_execution=steps_per_execution,
            run_eagerly=run_eagerly,
        )
        y = np.zeros((8, 5, 2), "float32")
        model.fit(VALUES, y, batch_size=4, verbose=0)
        expected, weights = model.predict(VALUES), model.get_weights()[0]
        args = (y,) if function != "predict" else ()
        with self.assertRaisesRegex(UnsupportedMaskError, "fft2"):
            getattr(model, function)(
                MaskedTensor(VALUES, MASK), *args, batch_size=4, verbose=0
            )
        self.assertAllClose(model.predict(VALUES), expected)
        self.assertAllClose(model.get_weights()[0], weights)
        model.fit(VALUES, y, batch_size=4, verbose=0)
        self.assertNotAllClose(model.get_weights()[0], weights)
