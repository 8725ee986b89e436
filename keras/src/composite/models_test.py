"""Composite tensors in layers, models, training and files."""

import os
import warnings

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import losses
from keras.src import models
from keras.src import ops
from keras.src import saving
from keras.src import testing
from keras.src.backend import CompositeTensor
from keras.src.backend import MaskedTensor
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.composite.errors import UnsupportedTypeError
from keras.src.composite.rules import rule_for
from keras.src.models.cloning import clone_model
from keras.src.ops.function import Function
from keras.src.random import random
from keras.src.saving import object_registration
from keras.src.saving import serialization_lib
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDataset
from keras.src.utils.model_visualization import model_to_dot
from patchset.markers import when

ROWS, NODES, FEATURES = 22, 5, 3
CAN_TRAIN = backend.backend() != "numpy"

# Keras 3.14 has no exporter of PyTorch's own.
OF_TORCH = ("torch",)
if when("<3.15"):
    OF_TORCH = ()


@object_registration.register_keras_serializable("composite_models_test")
class Graph(CompositeTensor):
    nodes: MaskedTensor
    links: KerasTensor
    kinds: KerasTensor
    name: str = "graph"


@object_registration.register_keras_serializable("composite_models_test")
class Interval(CompositeTensor):
    low: KerasTensor
    high: KerasTensor
    closed: tuple = (True, True)
    shape = property(lambda self: self.low.shape)
    dtype = property(lambda self: self.low.dtype)


@rule_for(ops.add, Interval)
def add(x1, x2):
    return x1.replace(low=x1.low + x2, high=x1.high + x2)


@rule_for(ops.matmul, Interval)
def matmul(x1, x2):
    middle, radius = (x1.low + x1.high) / 2, (x1.high - x1.low) / 2
    middle = ops.matmul(middle, x2)
    radius = ops.matmul(radius, ops.abs(x2))
    return x1.replace(low=middle - radius, high=middle + radius)


@object_registration.register_keras_serializable("composite_models_test")
class Pass(layers.Layer):
    """A round of messages: each node adds what its links bring."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.seen = []

    def build(self, input_shape):
        self.seen.append(input_shape)
        shape = (input_shape.nodes[-1], self.units)
        self.kernel = self.add_weight(shape=shape)

    def call(self, graph):
        nodes = ops.matmul(graph.nodes, self.kernel)
        around = ops.matmul(graph.links, ops.filled(nodes, 0))
        return graph.replace(nodes=nodes + around)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@object_registration.register_keras_serializable("composite_models_test")
class Pool(layers.Layer):
    def call(self, graph):
        return ops.mean(graph.nodes, axis=1)


@object_registration.register_keras_serializable("composite_models_test")
class Middle(layers.Layer):
    def call(self, x):
        return (x.low + x.high) / 2


def arrays():
    rng = np.random.default_rng(0)
    mask = np.arange(NODES) < rng.integers(1, NODES + 1, (ROWS, 1))
    nodes = rng.normal(size=(ROWS, NODES, FEATURES)).astype("float32")
    links = rng.random((ROWS, NODES, NODES)).astype("float32")
    links *= mask[:, None]
    kinds = rng.integers(0, 9, (ROWS, NODES))
    targets = rng.normal(size=(ROWS, 1)).astype("float32")
    return nodes, mask, links, kinds, targets


def graphs(rows=slice(None), hidden=0.0):
    nodes, mask, links, kinds, _ = arrays()
    nodes = np.where(mask[..., None], nodes, np.float32(hidden))
    return Graph(
        MaskedTensor(nodes[rows], mask[rows]), links[rows], kinds[rows]
    )


def graph_input():
    return Graph(
        layers.Input((NODES, FEATURES), mask_shape=True, name="nodes"),
        layers.Input((NODES, NODES), name="links"),
        layers.Input((NODES,), name="kinds", dtype="int32"),
    )


def functional():
    x = graph_input()
    return models.Model(x, layers.Dense(1)(Pool()(Pass(2)(Pass(4)(x)))))


class Subclassed(models.Model):
    def __init__(self):
        super().__init__()
        self.parts = [Pass(4), Pass(2), Pool(), layers.Dense(1)]

    def call(self, x):
        for layer in self.parts:
            x = layer(x)
        return x


def sequential():
    return models.Sequential([Pass(4), Pass(2), Pool(), layers.Dense(1)])


MODELS = {
    "functional": functional,
    "subclassed": Subclassed,
    "sequential": sequential,
}


def by_hand(weights):
    """What these models compute, row by row, of the nodes that are there."""
    first, second, kernel, bias = weights
    nodes, mask, links, _, _ = arrays()
    rows = []
    for x, valid, link in zip(nodes, mask, links):
        x, link = x[valid], link[valid][:, valid]
        for w in (first, second):
            x = x @ w
            x = x + link @ x
        rows.append(x.mean(0) @ kernel + bias)
    return np.array(rows)


def weights_of(model):
    return [backend.convert_to_numpy(w) for w in model.weights]


def with_weights(model):
    """The model, built, with weights that are the same for all models."""
    model(graphs())
    rng = np.random.default_rng(1)
    model.set_weights(
        [rng.normal(size=w.shape, scale=0.3) for w in model.weights]
    )
    return model


class LayersTest(testing.TestCase):
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

    @parameterized.parameters("__init__", "build")
    def test_a_layer_that_keeps_values_of_its_variables_warns(self, place):
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
                self.kept = Interval(self.low, np.ones(3))

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


class ModelsTest(testing.TestCase):
    @parameterized.named_parameters((name, name) for name in MODELS)
    def test_predictions_are_those_by_hand(self, kind):
        for hidden in (0.0, np.nan):
            model = with_weights(MODELS[kind]())
            expected = by_hand(weights_of(model))
            x = graphs(hidden=hidden)
            self.assertAllClose(model(x), expected, rtol=1e-4, atol=1e-5)
            y = model.predict(x, batch_size=8, verbose=0)
            self.assertAllClose(y, expected, rtol=1e-4, atol=1e-5)
            y = model.predict_on_batch(x)
            self.assertAllClose(y, expected, rtol=1e-4, atol=1e-5)

    def test_sequential_of_symbolic_parts(self):
        y = sequential()(graph_input())
        self.assertEqual(y.shape, (None, 1))

    def test_predict_returns_the_type(self):
        x = graph_input()
        model = models.Model(x, {"whole": Pass(4)(x), "part": x.links})
        y = model.predict(graphs(), batch_size=8, verbose=0)
        self.assertIsInstance(y["whole"], Graph)
        self.assertIsInstance(y["whole"].links, np.ndarray)
        self.assertIsInstance(y["whole"].nodes, np.ma.MaskedArray)
        nodes, mask, links, kinds, _ = arrays()
        self.assertAllClose(y["whole"].links, links)
        self.assertAllEqual(y["whole"].kinds, kinds)
        hidden = np.ma.getmaskarray(y["whole"].nodes)
        self.assertAllEqual(hidden[..., 0], ~mask)

    def test_nested_and_cloned_models_and_functions(self):
        inner_input = graph_input()
        inner = models.Model(inner_input, Pass(4)(inner_input))
        x = graph_input()
        model = models.Model(x, layers.Dense(1)(Pool()(Pass(2)(inner(x)))))
        model = with_weights(model)
        expected = by_hand(weights_of(model))
        self.assertAllClose(model(graphs()), expected, rtol=1e-4, atol=1e-5)
        clone = clone_model(model)
        self.assertIsInstance(clone.input, Graph)
        clone.set_weights(model.get_weights())
        self.assertAllClose(clone(graphs()), expected, rtol=1e-4, atol=1e-5)
        function = Function(model.input, model.output)
        self.assertAllClose(
            ops.filled(function(graphs()), 0), expected, rtol=1e-4, atol=1e-5
        )

    @parameterized.parameters("functional", "sequential")
    def test_a_model_of_plain_inputs_on_an_array_like_type(self, kind):
        inner = [layers.Dense(4, activation=None), layers.Dense(2)]
        if kind == "sequential":
            model = models.Sequential([layers.Input((3,)), *inner])
        else:
            x = layers.Input((3,))
            model = models.Model(x, inner[1](inner[0](x)))
        low = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
        x = Interval(low, low, (True, False))
        y = model(x)
        self.assertIsInstance(y, Interval)
        self.assertAllClose(y.low, model(low), rtol=1e-4, atol=1e-5)
        self.assertEqual(y.closed, (True, False))
        spec = model(Interval(layers.Input((3,)), layers.Input((3,))))
        self.assertIsInstance(spec, Interval)
        self.assertEqual(spec.shape, (None, 2))
        y = model.predict(x, batch_size=3, verbose=0)
        self.assertAllClose(y.high, model(low), rtol=1e-4, atol=1e-5)

    def test_a_layer_that_a_model_of_another_type_has_as_well(self):
        """What it gives in that model is no sign of what it gives in this."""
        layer = layers.Dense(2)
        layer(Interval(layers.Input((3,)), layers.Input((3,))))
        x = layers.Input((3,))
        model = models.Model(x, layer(x))
        low = np.zeros((4, 3), "float32")
        y = model(Interval(low, low + 1))
        self.assertIsInstance(y, Interval)
        kernel, bias = weights_of(layer)
        expected = np.tile(np.maximum(kernel, 0).sum(0) + bias, (4, 1))
        self.assertAllClose(y.high, expected)

    def test_a_value_is_no_shared_object(self):
        """One that is made to be written is gone when the next one is, which
        may have its identity: it would be read for the other one."""
        with serialization_lib.ObjectSharingScope():
            x = Interval(np.zeros(2), np.ones(2))
            for _ in range(2):
                config = serialization_lib.serialize_keras_object(x)
                self.assertNotIn("shared_object_id", config)

    def test_a_build_config_may_hold_other_objects(self):
        config = saving.serialize_keras_object(layers.Dense(2))
        layer = layers.Dense(3)
        layer.build_from_config({"input_shape": [None, 4], "inner": config})
        self.assertEqual(layer.kernel.shape, (4, 3))

    def test_a_model_of_another_type_refuses(self):
        x = Interval(layers.Input((3,)), layers.Input((3,)), (True, False))
        model = models.Model(x, layers.Dense(2)(x))
        low = np.zeros((4, 3), "float32")
        for other in (Interval(low, low), {"low": low, "high": low}, low):
            with self.assertRaisesRegex(ValueError, "structure|input"):
                model(other)

    def test_a_layer_that_was_called_on_a_plain_tensor_first(self):
        layer = layers.Dense(2)
        layer(layers.Input((3,)))
        x = Interval(layers.Input((3,)), layers.Input((3,)))
        model = models.Model(x, layer(x))
        low = np.zeros((4, 3), "float32")
        self.assertEqual(model(Interval(low, low)).shape, (4, 2))

    def test_summary_and_plot(self):
        model = functional()
        lines = []
        model.summary(print_fn=lines.append)
        self.assertIn("nodes", "".join(lines))
        pytest.importorskip("pydot")
        dot = model_to_dot(model, show_shapes=True)
        self.assertIn("nodes", dot.to_string())

    @parameterized.named_parameters((name, name) for name in MODELS)
    def test_weights_in_files(self, kind):
        model = with_weights(MODELS[kind]())
        path = os.path.join(self.get_temp_dir(), "model.weights.h5")
        model.save_weights(path)
        other = MODELS[kind]()
        other(graphs())
        other.load_weights(path)
        self.assertAllClose(other(graphs()), model(graphs()))

    def test_models_in_files(self):
        x = graph_input()
        y = Pass(2)(Pass(4)(x))
        model = models.Model(
            {"graph": x}, {"y": layers.Dense(1)(Pool()(y)), "graph": y}
        )
        path = os.path.join(self.get_temp_dir(), "model.keras")
        model.save(path)
        loaded = saving.load_model(path)
        self.assertIsInstance(loaded.input["graph"], Graph)
        self.assertIsInstance(loaded.output["graph"], Graph)
        self.assertEqual(loaded.output["graph"].name, "graph")
        data = {"graph": graphs()}
        self.assertAllClose(loaded(data)["y"], model(data)["y"])
        nodes = loaded(data)["graph"].nodes
        self.assertAllClose(nodes.values, model(data)["graph"].nodes.values)

    @parameterized.parameters("tf_saved_model", "torch")
    def test_exported_with_the_type_that_it_was_called_with(self, format):
        engines = {"tf_saved_model": ("jax", "tensorflow"), "torch": OF_TORCH}
        if backend.backend() not in engines[format]:
            self.skipTest("The engine does not write this format.")
        model = models.Sequential([layers.Dense(2), Middle(), layers.Dense(2)])
        low = np.arange(3, dtype="float32")[None]
        expected = backend.convert_to_numpy(model(Interval(low, low * 2)))
        path = os.path.join(self.get_temp_dir(), "model")
        path += ".pt2" if format == "torch" else ""
        model.export(path, format=format, verbose=False)
        named = {"low": low, "high": low * 2}
        self.assertAllClose(_served(path, format, named), expected, rtol=1e-4)

    def test_a_sequential_model_hands_its_layers_an_array_like_type(self):
        model = models.Sequential([Middle(), layers.Dense(2)])
        low = np.arange(6, dtype="float32").reshape((2, 3))
        x = Interval(low, low * 2)
        model(x)
        kernel, bias = weights_of(model)
        self.assertAllClose(model(x), low * 1.5 @ kernel + bias, rtol=1e-5)
        symbolic = Interval(layers.Input((3,)), layers.Input((3,)))
        outer = models.Sequential([layers.Dense(3), model])
        self.assertEqual(outer(symbolic).shape, (None, 2))
        expected = outer(x)
        path = os.path.join(self.get_temp_dir(), "model.keras")
        for one in (outer, models.Model(symbolic, outer(symbolic))):
            one.save(path)
            self.assertAllClose(saving.load_model(path)(x), expected)
        if CAN_TRAIN:
            fresh = models.Sequential([layers.Dense(3), Middle()])
            fresh.compile("sgd", "mse")
            fresh.fit(x, low, verbose=0)
            self.assertEqual(fresh.predict(x, verbose=0).shape, (2, 3))

    @parameterized.product(
        format=("tf_saved_model", "torch"), kind=list(MODELS)
    )
    def test_exported_with_the_parts_by_name(self, format, kind):
        engines = {"tf_saved_model": ("jax", "tensorflow"), "torch": OF_TORCH}
        if backend.backend() not in engines[format]:
            self.skipTest("The engine does not write this format.")
        model = MODELS[kind]()
        # PyTorch exports with one row.
        rows = slice(0, 1)
        expected = backend.convert_to_numpy(ops.filled(model(graphs(rows)), 0))
        path = os.path.join(self.get_temp_dir(), "model")
        path += ".pt2" if format == "torch" else ""
        model.export(path, format=format, verbose=False)
        nodes, mask, links, kinds, _ = arrays()
        nodes = np.where(mask[..., None], nodes, np.float32(np.nan))
        # One that declares no inputs has those that it was called with.
        dtype = backend.standardize_dtype(graphs().kinds.dtype)
        dtype = "int32" if kind == "functional" else dtype
        named = {
            "nodes": nodes[rows],
            "nodes_mask": mask[rows],
            "links": links[rows],
            "kinds": kinds[rows].astype(dtype),
        }
        self.assertAllClose(_served(path, format, named), expected, rtol=1e-4)

    # What PyTorch's tracer says of any model of Keras.
    @pytest.mark.filterwarnings("ignore:.*(might cause|can cause) the trace")
    # Until 3.15 few exporters take inputs by name.
    @when(">=3.15")
    @parameterized.parameters("onnx", "litert")
    def test_exported_parts_that_come_and_go_by_one_name(self, format):
        engines = {"onnx": ("tensorflow", "torch"), "litert": ("tensorflow",)}
        if backend.backend() not in engines[format]:
            self.skipTest("The engine does not write this format.")
        x = Interval(layers.Input((3,)), layers.Input((3,)))
        model = models.Model(x, x + 1.0)
        suffix = {"onnx": "onnx", "litert": "tflite"}[format]
        path = os.path.join(self.get_temp_dir(), f"model.{suffix}")
        model.export(path, format=format, verbose=False)
        low = np.arange(3, dtype="float32")[None]
        named = {"low": low, "high": low * 2}
        if format == "onnx":
            import onnxruntime

            session = onnxruntime.InferenceSession(path)
            found = session.run(None, named)
        else:
            from ai_edge_litert.interpreter import Interpreter

            runner = Interpreter(path).get_signature_runner("serving_default")
            served = runner(**named)
            found = [served["low"], served["high"]]
        # ONNX of TensorFlow has its outputs by name.
        found = sorted(found, key=np.sum)
        self.assertAllClose(found, [low + 1, low * 2 + 1])

    def test_a_composite_constant_in_a_file(self):
        x = layers.Input((3,))
        constant = Interval(np.zeros((1, 3)), np.ones((1, 3)), (False, True))
        model = models.Model(x, _Shift()(x, constant))
        path = os.path.join(self.get_temp_dir(), "model.keras")
        model.save(path)
        loaded = saving.load_model(path)
        data = np.full((2, 3), 4.0)
        self.assertAllClose(loaded(data).high, data + 1)
        self.assertEqual(loaded.output.closed, (False, True))


class Observed(CompositeTensor):
    x: KerasTensor
    more: KerasTensor | None = None
    scale: float = 1.0


class Use(layers.Layer):
    def call(self, observed):
        y = observed.x * observed.scale
        return y if observed.more is None else y + observed.more


CHANGES = {
    "scale": (
        {"scale": 2.0},
        "static field `scale` of `Observed` was 1.0 first, then 2.0",
    ),
    "more": (
        {"more": np.ones((4, 3), "float32")},
        "part `more` of `Observed` was None first, then there",
    ),
}


class ChangesTest(testing.TestCase):
    """Of a type, from batch to batch of one call."""

    @parameterized.product(change=list(CHANGES), of_dataset=(False, True))
    def test_in_what_goes_in(self, change, of_dataset):
        if of_dataset and not CAN_TRAIN:
            self.skipTest("Upstream, too, begins an epoch of it twice.")
        fields, text = CHANGES[change]
        x = np.ones((4, 3), "float32")
        batches = [
            (Observed(x, **fields) if i > 2 else Observed(x), x)
            for i in range(4)
        ]

        class Source(PyDataset):
            __len__ = lambda self: len(batches)
            __getitem__ = lambda self, i: batches[i]

        model = models.Sequential([Use()])
        model.compile(loss="mean_squared_error")
        source = Source() if of_dataset else iter(batches)
        source = source if of_dataset else (x for x in source)
        if backend.backend() != "tensorflow":
            self.assertAllClose(model.evaluate(source, verbose=0), 1 / 4)
            return
        with self.assertRaisesRegex(Exception, f"{text}.*train_on_batch"):
            model.evaluate(source, verbose=0)
        # They are of different types, one by one.
        self.assertAllClose(model.test_on_batch(*batches[0]), 0)
        model.reset_metrics()
        self.assertAllClose(model.test_on_batch(*batches[3]), 1)

    @parameterized.parameters(*CHANGES)
    def test_in_what_comes_out(self, change):
        fields, text = CHANGES[change]
        x = np.ones((4, 3), "float32")
        model = models.Sequential([layers.Identity()])
        source = (
            (Observed(x, **fields) if i > 2 else Observed(x),) for i in range(4)
        )
        with self.assertRaisesRegex(Exception, f"{text}.*_on_batch"):
            model.predict(source, verbose=0)


def _served(path, format, named):
    """The values that an exported model gives, run by the engine."""
    if format == "torch":
        import torch

        tensors = {k: torch.from_numpy(x) for k, x in named.items()}
        served = torch.export.load(path).module()(tensors)
        served = served["output_0"] if isinstance(served, dict) else served
        return served.detach().numpy()
    import tensorflow as tf

    serve = tf.saved_model.load(path).signatures["serving_default"]
    served = serve(**{k: tf.convert_to_tensor(x) for k, x in named.items()})
    return served["output_0"].numpy()


@object_registration.register_keras_serializable("composite_models_test")
class _Shift(layers.Layer):
    def call(self, x, by):
        return by + x


class Batches(PyDataset):
    def __init__(self):
        super().__init__()
        self.targets = arrays()[-1]

    def __len__(self):
        return -(-ROWS // 8)

    def __getitem__(self, i):
        rows = slice(8 * i, 8 * i + 8)
        return graphs(rows), self.targets[rows]


def batches():
    dataset = Batches()
    for i in range(len(dataset)):
        yield dataset[i]


def one_epoch(kind):
    """The loss of one epoch of gradient descent, worked out in NumPy."""
    model = with_weights(MODELS[kind]())
    return model, float(
        np.mean((by_hand(weights_of(model)) - arrays()[-1]) ** 2)
    )


@pytest.mark.skipif(not CAN_TRAIN, reason="NumPy does not train.")
class TrainingTest(testing.TestCase):
    @parameterized.named_parameters((name, name) for name in MODELS)
    def test_evaluate_and_fit(self, kind):
        model, expected = one_epoch(kind)
        model.compile("sgd", losses.MeanSquaredError())
        y = arrays()[-1]
        loss = model.evaluate(graphs(), y, batch_size=8, verbose=0)
        self.assertAllClose(loss, expected, rtol=1e-4)
        history = model.fit(
            graphs(hidden=np.nan), y, batch_size=8, epochs=4, verbose=0
        ).history["loss"]
        self.assertLess(history[-1], history[0])
        self.assertTrue(np.isfinite(history).all())

    @parameterized.parameters(
        "arrays", "generator", "dataset", "tf", "torch", "grain"
    )
    def test_each_source_of_data(self, source):
        model, expected = one_epoch("functional")
        y = arrays()[-1]
        data = {
            "arrays": lambda: (graphs(), y),
            "generator": lambda: (batches(),),
            "dataset": lambda: (Batches(),),
            "tf": self._tf_data,
            "torch": self._data_loader,
            "grain": self._grain,
        }[source]()
        model.compile("sgd", losses.MeanSquaredError())
        arguments = {"batch_size": 8} if source == "arrays" else {}
        loss = model.evaluate(*data, verbose=0, **arguments)
        self.assertAllClose(loss, expected, rtol=1e-4)

    def _tf_data(self):
        if backend.backend() != "tensorflow":
            self.skipTest("A `tf.data.Dataset` holds TensorFlow's own types.")
        import tensorflow as tf

        data = (graphs(), arrays()[-1])
        return (tf.data.Dataset.from_tensor_slices(data).batch(8),)

    def _data_loader(self):
        if backend.backend() != "torch":
            self.skipTest("A batch of this type is of PyTorch's tensors.")
        import torch

        dataset = Batches()
        return (
            torch.utils.data.DataLoader(
                range(len(dataset)),
                batch_size=1,
                collate_fn=lambda indices: dataset[indices[0]],
            ),
        )

    def _grain(self):
        grain = pytest.importorskip("grain")
        batches = Batches()
        return (
            grain.MapDataset.source(range(len(batches))).map(
                lambda i: batches[i]
            ),
        )

    def test_validation_split_shuffle_and_batches(self):
        model, _ = one_epoch("functional")
        model.compile("sgd", losses.MeanSquaredError())
        y = arrays()[-1]
        history = model.fit(
            graphs(),
            y,
            batch_size=8,
            validation_split=0.25,
            shuffle=True,
            verbose=0,
        ).history
        kept = slice(int(ROWS * 0.75), None)
        residual = by_hand(weights_of(model))[kept] - y[kept]
        self.assertAllClose(
            history["val_loss"], [np.mean(residual**2)], rtol=1e-4
        )
        # Until 3.15 a batch gives the mean since the last reset.
        model.reset_metrics()
        loss = model.test_on_batch(graphs(), y)
        residual = by_hand(weights_of(model)) - y
        self.assertAllClose(loss, np.mean(residual**2), rtol=1e-4)
        model.reset_metrics()
        self.assertAllClose(model.train_on_batch(graphs(), y), loss, rtol=1e-4)

    def _interval_model(self):
        x = Interval(layers.Input((3,)), layers.Input((3,)))
        model = models.Model(x, layers.Dense(2)(x))
        rng = np.random.default_rng(0)
        low = rng.random((6, 3)).astype("float32")
        data = Interval(low, low + 1)
        y = model.predict(data, verbose=0)
        return model, data, y

    def test_a_loss_for_each_part(self):
        model, x, y = self._interval_model()
        target = Interval(y.low + 1, y.high + 2)
        for loss in (
            {"low": "mean_squared_error", "high": "mean_absolute_error"},
            ["mean_squared_error", "mean_absolute_error"],
        ):
            model.compile("sgd", loss)
            values = model.evaluate(x, target, verbose=0)
            self.assertAllClose(np.ravel(values)[0], 1 + 2, rtol=1e-4)

    def test_a_loss_of_the_whole(self):
        model, x, y = self._interval_model()
        seen = []

        def width(y_true, y_pred):
            seen.append((y_true, y_pred))
            return ops.mean(y_pred.high - y_pred.low, axis=-1)

        def highest(y_true, y_pred):
            return ops.max(y_pred.high, axis=-1)

        expected = np.mean(y.high - y.low)
        weight = np.array([1, 0, 0, 0, 0, 0.0])
        for target in (np.zeros((6, 2)), y):
            model.compile("sgd", width, metrics=[highest])
            loss, metric = model.evaluate(x, target, verbose=0)
            self.assertAllClose(loss, expected, rtol=1e-4)
            self.assertAllClose(metric, y.high.max(-1).mean(), rtol=1e-4)
            self.assertIsInstance(seen[-1][1], Interval)
            is_whole = isinstance(seen[-1][0], Interval)
            self.assertEqual(is_whole, isinstance(target, Interval))
            loss = model.evaluate(x, target, sample_weight=weight, verbose=0)[0]
            self.assertAllClose(
                loss, np.mean((y.high - y.low)[0]) / 6, rtol=1e-4
            )

    def test_a_loss_without_rules_says_what_to_give(self):
        model, x, y = self._interval_model()
        model.compile("sgd", "mean_squared_error")
        with self.assertRaises(UnsupportedTypeError) as raised:
            model.fit(x, y, verbose=0)
        self.assertIn("a loss for each part", str(raised.exception.__notes__))

    def test_metrics_for_each_part(self):
        model, x, y = self._interval_model()
        model.compile(
            "sgd",
            {"low": "mse", "high": "mse"},
            metrics={"low": ["mean_absolute_error"]},
        )
        result = model.evaluate(
            x, Interval(y.low + 3, y.high), verbose=0, return_dict=True
        )
        self.assertAllClose(result["low_mean_absolute_error"], 3, rtol=1e-4)
