"""Composite tensors in layers."""

import warnings

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.backend import CompositeTensor
from keras.src.backend import MaskedTensor
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.composite.errors import UnsupportedTypeError
from keras.src.composite.rules import rule_for
from keras.src.random import random
from keras.src.testing.composite_models import CAN_TRAIN
from keras.src.testing.composite_models import FEATURES
from keras.src.testing.composite_models import NODES
from keras.src.testing.composite_models import ROWS
from keras.src.testing.composite_models import Graph
from keras.src.testing.composite_models import Interval
from keras.src.testing.composite_models import Pass
from keras.src.testing.composite_models import graph_input
from keras.src.testing.composite_models import graphs
from keras.src.testing.composite_models import weights_of

IMAGES, SOUND = (4, 8, 8, 3), (4, 128)
# Layers that compute with functions of a backend of their own.
OF_THEIR_BACKEND = [
    ("Rescaling", {"scale": 2.0}, IMAGES),
    ("Normalization", {"mean": 0.0, "variance": 1.0}, IMAGES),
    ("CenterCrop", {"height": 4, "width": 4}, IMAGES),
    ("Resizing", {"height": 4, "width": 4}, IMAGES),
    ("RandomFlip", {}, IMAGES),
    ("RandomContrast", {"factor": 0.5}, IMAGES),
    ("RandomRotation", {"factor": 0.5}, IMAGES),
    ("RandomCrop", {"height": 4, "width": 4}, IMAGES),
    ("RandomGrayscale", {"factor": 1.0}, IMAGES),
    ("MelSpectrogram", {"sequence_stride": 16, "fft_length": 32}, SOUND),
]


class Scaled(CompositeTensor):
    values: KerasTensor
    scale: KerasTensor
    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.scale.dtype)

    def to_dense(self):
        return self.values * self.scale


class MakeScaled(layers.Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(
            shape=[1] * len(input_shape), initializer="ones"
        )

    def call(self, x):
        return Scaled(x, ops.convert_to_tensor(self.scale))


class Tagged(CompositeTensor):
    values: KerasTensor
    tag: str = "tag"
    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.values.dtype)


# For who prints them: no layer may take it for leave to drop the type.
@rule_for(ops.convert_to_numpy, Tagged)
def convert_to_numpy(x):
    return ops.convert_to_numpy(x.values)


class LayersTest(testing.TestCase):
    @parameterized.parameters(*OF_THEIR_BACKEND)
    def test_a_layer_of_a_backend_of_its_own(self, name, config, shape):
        layer = getattr(layers, name)(**config)
        values = np.random.default_rng(0).random(shape).astype("float32")
        x = Scaled(values, np.full([1] * len(shape), 2, "float32"))
        is_random = name.startswith("Random")
        if not is_random:
            self.assertAllClose(layer(x), layer(2 * values), rtol=1e-5)
        in_training = {"training": True} if is_random else {}
        with self.assertRaisesRegex(UnsupportedTypeError, "Tagged"):
            layer(Tagged(values), **in_training)
        if not CAN_TRAIN:
            return
        first = MakeScaled()
        model = models.Sequential([first, layer, layers.Flatten()])
        model.compile("sgd", lambda y, y_pred: ops.mean(y_pred, axis=-1))
        model.train_on_batch(values + 1, np.zeros((4, 1)))
        self.assertNotEqual(float(ops.sum(first.scale)), 1.0)

    def test_a_layer_is_built_of_a_nest_of_shapes(self):
        layer = Pass(4)
        y = layer(graphs())
        self.assertIsInstance(y, Graph)
        (shape,) = layer.seen
        self.assertIsInstance(shape, Graph)
        self.assertEqual(shape.nodes, (ROWS, NODES, FEATURES))
        self.assertEqual(shape.links, (ROWS, NODES, NODES))
        symbolic = Pass(4)
        symbolic(graph_input())
        self.assertEqual(symbolic.seen[0].nodes, (None, NODES, FEATURES))

    def test_a_layer_of_keras_takes_an_array_like_type(self):
        layer = layers.Dense(2, activation=None)
        x = Interval(np.zeros((4, 3)), np.ones((4, 3)), (True, False))
        y = layer(x)
        kernel, bias = weights_of(layer)
        self.assertAllClose(
            y.high, np.tile(np.maximum(kernel, 0).sum(0) + bias, (4, 1))
        )
        self.assertEqual(y.closed, (True, False))
        spec = layer(Interval(layers.Input((3,)), layers.Input((3,))))
        self.assertIsInstance(spec, Interval)
        self.assertEqual(spec.shape, (None, 2))

    def test_an_input_spec_is_of_the_whole(self):
        layer = layers.Dense(2)
        layer(Interval(np.zeros((4, 3)), np.ones((4, 3))))
        with self.assertRaisesRegex(ValueError, "expected axis -1"):
            layer(Interval(np.zeros((4, 5)), np.ones((4, 5))))

    def test_a_layer_of_one_tensor_refuses_a_structure(self):
        for x in (graphs(), graph_input()):
            with self.assertRaisesRegex(UnsupportedTypeError, "Dense.*`nodes`"):
                layers.Dense(2)(x)

    def test_float_parts_are_cast_and_others_are_not(self):
        seen = []

        class Look(layers.Layer):
            def call(self, x):
                seen.append(x)
                return x.links

        y = Look(dtype="mixed_float16")(graphs())
        (x,) = seen
        self.assertDType(y, "float16")
        self.assertDType(x.nodes.values, "float16")
        self.assertIsInstance(x.nodes, MaskedTensor)
        self.assertIn("int", backend.standardize_dtype(x.kinds.dtype))

    @parameterized.parameters(
        ("Dropout", (2, 3)),
        ("SpatialDropout1D", (2, 3, 2)),
        ("SpatialDropout2D", (2, 3, 2, 2)),
        ("SpatialDropout3D", (2, 3, 2, 2, 2)),
        ("Attention", (2, 3, 4)),
        ("AdditiveAttention", (2, 3, 4)),
        ("SimpleRNNCell", (2, 3)),
        ("GRUCell", (2, 3)),
        ("LSTMCell", (2, 3)),
    )
    def test_what_drops_asks_for_a_rule(self, name, shape):
        asked = []

        class Noting(CompositeTensor):
            values: KerasTensor
            shape = property(lambda self: self.values.shape)
            dtype = property(lambda self: self.values.dtype)

        def noting(function):
            def rule(*args, **kwargs):
                asked.append(function)
                args = [x.values if isinstance(x, Noting) else x for x in args]
                results = function(*args, **kwargs)
                if isinstance(results, (list, tuple)):
                    return [Noting(x) for x in results]
                return Noting(results)

            return rule

        for function in (
            random.dropout,
            *(ops.add, ops.multiply, ops.subtract, ops.matmul, ops.sum),
            *(ops.softmax, ops.tanh, ops.sigmoid, ops.ones_like),
            *(ops.split, ops.swapaxes, ops.expand_dims, ops.get_item),
            ops.transpose,  # Of Keras 3.14.
        ):
            rule_for(function, Noting)(noting(function))
        x, units = Noting(np.ones(shape, "float32")), {}
        args = (x,)
        if "Attention" in name:
            args, units = ([x, x],), {"dropout": 0.5}
        elif "Cell" in name:
            states = [Noting(np.ones((2, 2), "float32"))]
            args = (x, states * (2 if name == "LSTMCell" else 1))
            units = {"units": 2, "dropout": 0.5, "recurrent_dropout": 0.5}
        else:
            units = {"rate": 0.5}
        layer = getattr(layers, name)(**units)
        layer(*args, training=True)
        self.assertIn(random.dropout, asked)

    def test_a_softmax_over_several_axes_asks_for_its_rule(self):
        class Logits(CompositeTensor):
            values: KerasTensor
            shape = property(lambda self: self.values.shape)
            dtype = property(lambda self: self.values.dtype)

        @rule_for(ops.softmax, Logits)
        def softmax(x, axis=-1):
            return x.replace(values=ops.softmax(x.values, axis))

        @rule_for(ops.where, Logits)
        def where(condition, x1, x2):
            return x1.replace(values=ops.where(condition, x1.values, x2))

        values = np.random.default_rng(0).random((2, 3, 4)).astype("float32")
        mask = values > 0.3
        for axis in (-1, [-1], (1, 2), [1, 2]):
            layer = layers.Softmax(axis)
            for given in ((), (mask,)):
                y = layer(Logits(values), *given)
                self.assertIsInstance(y, Logits)
                of_tuple = tuple(axis) if isinstance(axis, list) else axis
                expected = layers.Softmax(of_tuple)(values, *given)
                self.assertAllClose(y.values, expected, atol=1e-6)

    @parameterized.product(
        place=("__init__", "build"),
        nest=(lambda x: x, lambda x: [1, x], lambda x: {"a": x}),
    )
    def test_a_layer_that_keeps_values_of_its_variables_warns(
        self, place, nest
    ):
        class Scale(layers.Layer):
            def __init__(self):
                super().__init__()
                if place == "__init__":
                    self.make()

            def build(self, input_shape):
                if place == "build":
                    self.make()

            def make(self):
                self.low = self.add_weight(shape=(3,), name="least")
                self.own = Interval(np.zeros(3), np.ones(3))
                self.kept = nest(Interval(self.low, np.ones(3)))

            def call(self, x):
                self.last = Interval(self.low, self.low)
                return x * self.last.low

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Scale()(np.ones((2, 3)))
        (text,) = [str(w.message) for w in caught if "kept" in str(w.message)]
        self.assertIn("part `low` of this `Interval`", text)
        self.assertIn("`least`", text)
        self.assertEqual([w for w in caught if "own" in str(w.message)], [])
        self.assertEqual([w for w in caught if "last" in str(w.message)], [])

    def test_nests_of_composite_tensors(self):
        class Pick(layers.Layer):
            def call(self, x):
                return {"whole": x["graph"], "sum": x["more"][0].low}

        x = {
            "graph": graphs(),
            "more": [Interval(np.ones((2, 3)), np.ones((2, 3)))],
        }
        y = Pick()(x)
        self.assertIsInstance(y["whole"], Graph)
        x["graph"] = graph_input()
        x["more"] = [Interval(layers.Input((3,)), layers.Input((3,)))]
        y = Pick()(x)
        self.assertIsInstance(y["whole"], Graph)
        self.assertEqual(y["sum"].shape, (None, 3))

    def test_activity_regularizers_see_each_part(self):
        layer = layers.Identity(activity_regularizer="l1")
        layer(Interval(np.ones((2, 3)), 2 * np.ones((2, 3))))
        self.assertAllClose(
            sorted(float(x) for x in layer.losses), [0.03, 0.06], rtol=1e-5
        )

    @parameterized.parameters(
        (layers.LSTM, {"units": 2}),
        (layers.TimeDistributed, {"layer": layers.Dense(2)}),
        (layers.Bidirectional, {"layer": layers.LSTM(2)}),
        (layers.Conv1D, {"filters": 2, "kernel_size": 2}),
        (layers.BatchNormalization, {}),
        (layers.LayerNormalization, {}),
        (layers.Embedding, {"input_dim": 2, "output_dim": 2}),
        (layers.Flatten, {}),
    )
    def test_what_has_no_rule_is_named(self, layer_class, arguments):
        x = Interval(np.ones((2, 4, 3)), np.ones((2, 4, 3)))
        with self.assertRaisesRegex(UnsupportedTypeError, "no rule for `Inter"):
            layer_class(**arguments)(x)

    def test_a_variable_takes_none(self):
        variable = backend.Variable(np.zeros((2, 3)))
        x = Interval(np.ones((2, 3)), np.ones((2, 3)))
        with self.assertRaisesRegex(UnsupportedTypeError, "Variable.assign"):
            variable.assign(x)
