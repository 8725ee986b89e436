"""Whatever a model is called by first, it may be given masked inputs.

Nests of them, on models that nothing has built yet. What is expected is worked
out with NumPy, over the valid steps.
"""

from unittest import mock

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import optimizers
from keras.src import testing
from keras.src import tree

RNG = np.random.default_rng(0)
ROWS, STEPS = 5, 4
MASK = np.arange(STEPS) < np.array([4, 2, 3, 1, 2])[:, None]
X = RNG.normal(size=(ROWS, STEPS, 2)).astype("float32")
Y = RNG.normal(size=(ROWS, 1)).astype("float32")
# Each of these a model takes for one input.
LEAVES = {
    "masked": lambda: backend.MaskedTensor(X, MASK),
    "numpy_ma": lambda: np.ma.MaskedArray(
        X, np.broadcast_to(~MASK[..., None], X.shape)
    ),
    "plain": lambda: X,
}
NESTS = {
    "masked": "masked",
    "tuple": ("masked", "numpy_ma"),
    "dict": {"a": "masked"},
    "dict_of_tuples": {"a": ("numpy_ma", "plain"), "b": "masked"},
}
CALLS = (
    "fit",
    "evaluate",
    "predict",
    "train_on_batch",
    "test_on_batch",
    "predict_on_batch",
)
if backend.backend() == "numpy":
    # Which trains nothing.
    CALLS = CALLS[1:3] + CALLS[4:]


class Pooled(layers.Layer):
    """The sum of the means over the steps of all inputs."""

    def call(self, x):
        # Not of single ones: NumPy finds out shapes with the real thing.
        return sum(ops.mean(one, axis=1) for one in tree.flatten(x))


class Subclassed(models.Model):
    def __init__(self):
        super().__init__()
        self.pooled = Pooled()
        self.dense = layers.Dense(1, use_bias=False)

    def call(self, x):
        return self.dense(self.pooled(x))


def sequential(nest):
    return models.Sequential([Pooled(), layers.Dense(1, use_bias=False)])


def functional(nest):
    inputs = tree.map_structure(lambda _: layers.Input((None, 2)), nest)
    outputs = layers.Dense(1, use_bias=False)(Pooled()(inputs))
    return models.Model(inputs, outputs)


KINDS = {
    "subclassed": lambda nest: Subclassed(),
    "sequential": sequential,
    "functional": functional,
}


def pooled_by_hand(nest):
    weights = np.full(X.shape[:2], 1 / STEPS), MASK / MASK.sum(1)[:, None]
    return sum(
        (X * weights[leaf != "plain"][..., None]).sum(1)
        for leaf in tree.flatten(nest)
    )


class FirstCallTest(testing.TestCase):
    @parameterized.product(nest=list(NESTS), kind=list(KINDS), call=CALLS)
    def test_masked_inputs(self, nest, kind, call):
        nest = NESTS[nest]
        model = KINDS[kind](nest)
        # At this rate nothing is learned, which would change the kernel.
        model.compile(optimizers.SGD(0.0), "mse")
        x = tree.map_structure(lambda leaf: LEAVES[leaf](), nest)
        if call == "predict":
            found = model.predict(x, batch_size=3, verbose=0)
        elif call == "predict_on_batch":
            found = model.predict_on_batch(x)
        elif call == "fit":
            history = model.fit(x, Y, batch_size=3, verbose=0).history
            found = history["loss"][0]
        elif call == "evaluate":
            found = model.evaluate(x, Y, batch_size=3, verbose=0)
        else:
            found = getattr(model, call)(x, Y)
        expected = pooled_by_hand(nest) @ np.asarray(model.get_weights()[0])
        if not call.startswith("predict"):
            expected = np.mean((expected - Y) ** 2)
        self.assertAllClose(found, expected, atol=1e-5)

    @pytest.mark.requires_trainable_backend
    def test_what_is_built_is_what_runs(self):
        """A model that asks whether its input is masked is built so, too."""
        for nest in ("masked", "dict", "tuple"):

            class Asks(models.Model):
                def __init__(self):
                    super().__init__()
                    self.of_masked = layers.Dense(1)
                    self.of_plain = layers.Dense(1)

                def call(self, x):
                    first = tree.flatten(x)[0]
                    masked = ops.is_masked(first)
                    dense = self.of_masked if masked else self.of_plain
                    return dense(ops.mean(first, axis=1))

            model = Asks()
            x = tree.map_structure(lambda leaf: LEAVES[leaf](), NESTS[nest])
            model.predict(x, verbose=0)
            self.assertTrue(model.of_masked.built)
            self.assertFalse(model.of_plain.built)

    @pytest.mark.requires_trainable_backend
    def test_it_is_built_once(self):
        """A batch after the first one is traced by no shape inference."""
        model = Subclassed()
        model.compile("sgd", "mse", weighted_metrics=["mae"])
        x = LEAVES["masked"]()
        model.train_on_batch(x, Y)
        with mock.patch.object(
            Subclassed, "_build_on_masked", side_effect=AssertionError
        ):
            for one in (x, x.packed()):
                model.train_on_batch(one, Y)
                model.test_on_batch(one, Y)
