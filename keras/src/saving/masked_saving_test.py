"""Models with masked inputs, masks and values in their graph come back whole.

What they should give is worked out in NumPy, from the weights of the model
that was saved. What lies under the mask is NaN, infinite, or huge.
"""

import copy
import os

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import saving
from keras.src import testing
from keras.src import tree
from keras.src.models import cloning
from keras.src.models.model import model_from_json
from keras.src.ops import specs

FEATURES = 3
RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(3, 4, FEATURES)).astype("float32")
MASK = np.arange(4) < np.array([[4], [1], [2]])
POISON = RNG.choice([np.nan, np.inf, 1e30, -7.0], VALUES.shape)
POISONED = np.where(MASK[..., None], VALUES, POISON).astype("float32")


def masked_input(length=None):
    return layers.Input((length, FEATURES), name="x", mask_shape=(length,))


def functional():
    """The mask and the values are read in the graph, beside a layer."""
    x = masked_input()
    valid = ops.cast(x.mask, "float32")
    counts = ops.sum(valid, axis=1)
    total = ops.sum(x.values * ops.expand_dims(valid, -1), axis=1)
    steps = layers.Dense(2)(x)
    largest = ops.max(steps, axis=1)
    outputs = {"counts": counts, "total": total, "steps": steps}
    return models.Model(x, {**outputs, "largest": largest})


def sequential():
    return models.Sequential([masked_input(), layers.Dense(2), layers.ReLU()])


def nested():
    x = masked_input()
    inner = functional()(x)
    pooled = layers.GlobalMaxPooling1D()(sequential()(x))
    return models.Model(x, {"counts": inner["counts"], "pooled": pooled})


def parts():
    """Nothing but layers, and what takes masked tensors apart and back."""
    x = masked_input()
    steps = layers.Dense(2)(x)
    other = layers.ReLU()(backend.MaskedTensor(steps.values, x.mask))
    filled = ops.filled(steps, 5.0)
    return models.Model(x, {"mask": x.mask, "filled": filled, "other": other})


@saving.register_keras_serializable("masked_saving_test")
class Subclass(models.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(2)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return ops.relu(self.dense(x))


def subclass():
    model = Subclass()
    model(backend.MaskedTensor(VALUES, MASK))
    return model


def oracle(name, kernel, bias):
    """What a model of these weights gives, by NumPy and the mask."""
    steps = VALUES @ kernel + bias
    valid = MASK[..., None]
    relu = np.maximum(steps, 0)
    masked = np.ma.MaskedArray(steps, np.broadcast_to(~valid, steps.shape))
    masked_relu = np.ma.MaskedArray(relu, masked.mask)
    return {
        functional: {
            "counts": MASK.sum(1),
            "total": np.where(valid, VALUES, 0).sum(1),
            "steps": masked,
            # A row of steps is never empty, but its mask stays.
            "largest": np.ma.MaskedArray(masked.max(1), np.zeros((3, 2))),
        },
        sequential: masked_relu,
        nested: {
            "counts": MASK.sum(1),
            "pooled": masked_relu.max(1).data,
        },
        parts: {
            "mask": MASK,
            "filled": np.where(valid, steps, 5.0),
            "other": masked_relu,
        },
        subclass: masked_relu,
    }[name]


def by_file(suffix):
    def back(test, model, _):
        path = os.path.join(test.get_temp_dir(), f"model{suffix}")
        model.save(path)
        return saving.load_model(path)

    return back


def by_weights(test, model, make):
    path = os.path.join(test.get_temp_dir(), "model.weights.h5")
    model.save_weights(path)
    again = make()
    again.load_weights(path)
    return again


def by_json(test, model, _):
    again = model_from_json(model.to_json())
    again.set_weights(model.get_weights())
    return again


def by_config(test, model, _):
    again = type(model).from_config(model.get_config())
    again.set_weights(model.get_weights())
    return again


def by_cloning(**kwargs):
    def back(test, model, _):
        again = cloning.clone_model(model, **kwargs)
        again.set_weights(model.get_weights())
        return again

    return back


def twin(layer):
    return type(layer).from_config(layer.get_config())


def by_copying(test, model, _):
    return copy.deepcopy(model)


GRAPHS = (functional, sequential, nested, parts)
WAYS = {
    "keras": (by_file(".keras"), (*GRAPHS, subclass)),
    # Upstream finds no operations of `keras.ops` in this format.
    "h5": (by_file(".h5"), (sequential, parts)),
    "weights": (by_weights, (*GRAPHS, subclass)),
    "json": (by_json, (functional, sequential, parts)),
    "config": (by_config, GRAPHS),
    "clone": (by_cloning(), GRAPHS),
    "clone_by_function": (by_cloning(clone_function=twin), (functional,)),
    "clone_by_call": (
        by_cloning(
            clone_function=twin,
            call_function=lambda layer, *args, **kwargs: layer(*args, **kwargs),
        ),
        (functional,),
    ),
    "clone_recursive": (
        by_cloning(clone_function=twin, recursive=True),
        (nested,),
    ),
    "copy": (by_copying, (functional, sequential)),
}


class MaskedSavingTest(testing.TestCase):
    def assert_gives(self, model, expected):
        found = model(backend.MaskedTensor(POISONED, MASK))
        tree.assert_same_structure(found, expected)
        for x, y in zip(tree.flatten(found), tree.flatten(expected)):
            self.assertEqual(ops.is_masked(x), isinstance(y, np.ma.MaskedArray))
            if not ops.is_masked(x):
                self.assertAllClose(x, y, atol=1e-5)
                continue
            x = x.to_numpy()
            self.assertAllEqual(x.mask, y.mask)
            self.assertAllClose(x.filled(0), y.filled(0), atol=1e-5)

    @parameterized.named_parameters(
        (f"{way}_{make.__name__}", back, make)
        for way, (back, makes) in WAYS.items()
        for make in makes
    )
    def test_comes_back_whole(self, back, make):
        model = make()
        kernel, bias = RNG.normal(size=(FEATURES, 2)), RNG.normal(size=2)
        # There are two layers in the nested model.
        model.set_weights([kernel, bias] * (len(model.weights) // 2))
        again = back(self, model, make)
        self.assertIsNot(again, model)
        self.assert_gives(again, oracle(make, kernel, bias))
        if make is not subclass:
            shapes = [specs.mask_shape(x) for x in again.inputs]
            self.assertEqual(shapes, [(None, None)])
            # A declared input that is given a plain tensor is all valid.
            plain = again(VALUES)
            whole = again(backend.MaskedTensor(VALUES, np.ones_like(MASK)))
            for x, y in zip(tree.flatten(plain), tree.flatten(whole)):
                self.assertEqual(ops.is_masked(x), ops.is_masked(y))

    def test_clone_on_other_masked_inputs(self):
        for make in (functional, sequential):
            model = make()
            again = cloning.clone_model(model, input_tensors=masked_input(4))
            again.set_weights(model.get_weights())
            self.assertEqual(specs.mask_shape(again.inputs[0]), (None, 4))
            self.assert_gives(again, oracle(make, *model.get_weights()))
            # The clone can be saved in its turn.
            config = type(again).from_config(again.get_config())
            self.assertEqual(specs.mask_shape(config.inputs[0]), (None, 4))

    def test_clone_on_plain_inputs_is_refused(self):
        plain = layers.Input((4, FEATURES))
        with self.assertRaisesRegex(
            ValueError, r"'x' of model .* is masked.*mask_shape"
        ):
            cloning.clone_model(functional(), input_tensors=plain)

    def test_the_config_of_a_plain_input_has_no_new_key(self):
        for x in (layers.Input((4,)), layers.Input(tensor=layers.Input((4,)))):
            config = x._keras_history.operation.get_config()
            self.assertNotIn("mask_shape", config)
