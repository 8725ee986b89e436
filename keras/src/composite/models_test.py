"""Composite tensors in models, and models in files."""

import os

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import saving
from keras.src import testing
from keras.src import tree
from keras.src.backend import CompositeTensor
from keras.src.backend import MaskedTensor
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.models.cloning import clone_model
from keras.src.ops.function import Function
from keras.src.saving import object_registration
from keras.src.saving import serialization_lib
from keras.src.testing.composite_models import CAN_TRAIN
from keras.src.testing.composite_models import MODELS
from keras.src.testing.composite_models import Graph
from keras.src.testing.composite_models import Interval
from keras.src.testing.composite_models import Middle
from keras.src.testing.composite_models import Pass
from keras.src.testing.composite_models import Pool
from keras.src.testing.composite_models import arrays
from keras.src.testing.composite_models import by_hand
from keras.src.testing.composite_models import functional
from keras.src.testing.composite_models import graph_input
from keras.src.testing.composite_models import graphs
from keras.src.testing.composite_models import sequential
from keras.src.testing.composite_models import weights_of
from keras.src.testing.composite_models import with_weights
from keras.src.utils.model_visualization import model_to_dot
from patchset.markers import when

# Keras 3.14 has no exporter of PyTorch's own.
OF_TORCH = ("torch",)
if when("<3.15"):
    OF_TORCH = ()


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

    def test_inputs_by_the_names_of_the_parts(self):
        low = np.arange(12, dtype="float32").reshape((4, 3))
        nodes, mask, links, kinds, _ = arrays()
        graph = {
            "nodes": MaskedTensor(nodes, mask),
            "links": links,
            "kinds": kinds.astype("int32"),
        }
        x = Interval(layers.Input((3,), name="a"), layers.Input((3,), name="b"))
        y = layers.Input((3,), name="c")
        three = {"a": low, "b": low + 1, "c": ops.convert_to_tensor(low)}
        two = {"a": low, "b": low + 1}
        whole = Interval(low, low + 1)
        for model, named, inputs in (
            (functional(), graph, graphs()),
            (models.Model(x, x + 1.0), two, whole),
            (
                models.Model([x, y], x + y),
                three,
                [whole, ops.convert_to_tensor(low)],
            ),
        ):
            expected = tree.flatten(model(inputs))
            named = tree.map_structure(ops.convert_to_tensor, named)
            for found in (model(named), model.predict(named, verbose=0)):
                for one, other in zip(tree.flatten(found), expected):
                    self.assertAllClose(one, other)

    def test_inputs_of_another_type_are_told_the_type_to_give(self):
        low = np.zeros((4, 3), "float32")
        x = Interval(layers.Input((3,), name="a"), layers.Input((3,), name="b"))
        model = models.Model(x, x + 1.0)
        for other in (Single(low), low, {"a": low}, [low, low], graphs()):
            with self.assertRaisesRegex(ValueError, "Expected: Interval"):
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


class Single(CompositeTensor):
    """With fewer parts than what it is given in place of."""

    low: KerasTensor
    shape = property(lambda self: self.low.shape)
    dtype = property(lambda self: self.low.dtype)


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


@object_registration.register_keras_serializable("composite_models")
class _Shift(layers.Layer):
    def call(self, x, by):
        return by + x
