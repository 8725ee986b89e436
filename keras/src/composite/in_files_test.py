"""Models of composite tensors come back from files as they were."""

import math
import os
import pickle

import numpy as np
from absl.testing import parameterized

import keras
from keras.src import activations
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import saving
from keras.src import testing
from keras.src import tree
from keras.src.saving.object_registration import register_keras_serializable
from keras.src.testing.composite_models import Interval

registered = register_keras_serializable("in_files_test")


@registered
class Pair(keras.CompositeTensor):
    left: keras.KerasTensor
    right: keras.KerasTensor


@registered
class Outer(keras.CompositeTensor):
    rows: keras.MaskedTensor
    inner: Pair
    index: keras.KerasTensor | None = None


@registered
class Kept(keras.CompositeTensor):
    value: keras.KerasTensor
    static: object = None


@registered
def double(x):
    return x * 2


VALUES = np.arange(6, dtype="float32").reshape((3, 2))
PAIR = Pair(VALUES, -VALUES)
ROWS = keras.MaskedTensor(VALUES, VALUES > 2)
GIVEN = {
    "structure": (PAIR,),
    "array_like": (Interval(VALUES, VALUES + 1),),
    "composite_and_masked_parts": (Outer(ROWS, PAIR),),
    "integers": (Outer(ROWS, PAIR, np.array([0, 2, 1], "int32")),),
    "list": ([PAIR, VALUES],),
    "dict": ({"a": PAIR, "b": [VALUES]},),
    "two": (PAIR, Outer(ROWS, PAIR)),
}


@registered
class ByCall(models.Model):
    """A model that is built by what its `call` does."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(1)

    def call(self, x, y=None):
        leaves = [one for one in tree.flatten([x, y]) if one is not None]
        if isinstance(x, Outer) and x.index is not None:
            # Of floats this would be an error.
            leaves.append(ops.take(x.inner.left, leaves.pop(), axis=0))
        if isinstance(x, Outer):
            # What is no masked tensor has no mask.
            leaves.append(ops.cast(x.rows.mask, "float32"))
        return self.inner(sum(ops.filled(one, 0) for one in leaves))


@registered
class ByBuild(ByCall):
    def build(self, x_shape, y_shape=None):
        shapes = []
        tree.map_shape_structure(shapes.append, x_shape)
        self.inner.build(shapes[0])


@registered
class Scale(layers.Layer):
    def build(self, x_shape):
        self.seen = (x_shape,)
        self.scale = self.add_weight(shape=(x_shape.value[-1],))

    def call(self, x):
        return x.value * self.scale


STATICS = {
    "names": ("batch", "time", "channel"),
    "nested": (("a", 1), ("b", 2)),
    "function": double,
    "function_of_keras": activations.relu,
    "number_of_numpy": np.float32(2.5),
    "name_of_a_layer": ("dense", 0, 0),
    "nan": math.nan,
    "nan_inside": ("a", (math.nan,)),
}


class InFilesTest(testing.TestCase):
    def _loaded(self, model):
        path = os.path.join(self.get_temp_dir(), "model.keras")
        model.save(path)
        return saving.load_model(path)

    @parameterized.product(
        model_class=(ByCall, ByBuild), given=list(GIVEN), again=(False, True)
    )
    def test_a_model_that_was_built_by_a_call(self, model_class, given, again):
        given = GIVEN[given]
        model = model_class()
        expected = model(*given)
        loaded = self._loaded(model)
        loaded = self._loaded(loaded) if again else loaded
        self.assertAllClose(loaded(*given), expected, rtol=1e-5)

    def test_a_build_that_fails_is_no_model_with_random_weights(self):
        model = ByBuild()
        model(PAIR)
        config = saving.serialize_keras_object(model.get_build_config())
        model = ByBuild()
        model.inner = None
        with self.assertRaisesRegex(AttributeError, "build"):
            model.build_from_config(config)

    def _kept(self, static):
        """A model in which a static is in inputs and outputs."""
        x = Kept(layers.Input((2, 3)), static)
        layer = Scale(name="scale")
        return models.Model(x, {"kept": x, "y": layer(x)})

    @parameterized.named_parameters((name, name) for name in STATICS)
    def test_statics_of_a_functional_model(self, name):
        static = STATICS[name]
        x = Kept(np.ones((2, 2, 3), "float32"), static)
        model = self._kept(static)
        for loaded in (
            self._loaded(model),
            keras.models.model_from_json(model.to_json()),
        ):
            loaded.set_weights(model.get_weights())
            y = loaded(x)
            self.assertAllClose(y["y"], model(x)["y"])
            # Tuples compare what is the same object as equal.
            self.assertEqual((y["kept"].static,), (x.static,))
            shape = loaded.get_layer("scale").seen[0]
            self.assertEqual((shape.static,), (x.static,))
            hash(shape.static)

    def test_one_nan_is_another(self):
        one, other = (Kept(VALUES, ("a", float("nan"))) for _ in range(2))
        self.assertEqual(one.static, other.static)
        self.assertEqual(pickle.loads(pickle.dumps(one)).static, one.static)
