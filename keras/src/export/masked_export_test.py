"""What is exported gives the values and masks that NumPy works out.

It is run by the engine of its format, on plain tensors, with garbage under the
mask.
"""

import os

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import export
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.backend import MaskedTensor
from keras.src.export import in_pairs
from keras.src.masking.errors import UnsupportedMaskError
from patchset.markers import when

BACKEND = backend.backend()
FORMATS = {
    "tensorflow": ("tf_saved_model", "onnx", "openvino", "litert"),
    "jax": ("tf_saved_model",),
    "torch": ("onnx", "openvino", "torch"),
    "numpy": (),
}[BACKEND]
UNKNOWN_ERRORS = ()
if when("<3.15"):
    UNKNOWN_ERRORS = (ImportError,)  # On JAX.
    # On PyTorch no other takes inputs by name.
    FORMATS = ("openvino",) if BACKEND == "torch" else FORMATS
SUFFIXES = {
    "tf_saved_model": "",
    "onnx": ".onnx",
    "openvino": ".xml",
    "litert": ".tflite",
    "torch": ".pt2",
}
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 2)).astype("float32")
X = RNG.normal(size=(2, 4, 3)).astype("float32")
MASK = np.array([[True, True, True, False], [True, False, False, False]])
POISON = RNG.choice([np.nan, np.inf, 1e30, -7.0], X.shape)
POISONED = np.where(MASK[..., None], X, POISON).astype("float32")
Z = RNG.normal(size=(2, 2)).astype("float32")
INPUTS = {"x": POISONED, "x_mask": MASK, "z": Z}
# What is exported from PyTorch has sizes of its own.
LENGTH = 4 if BACKEND == "torch" else None


def mixed():
    """Masked and plain inputs, and masked and plain outputs."""
    x = layers.Input((LENGTH, 3), name="x", mask_shape=(LENGTH,))
    z = layers.Input((2,), name="z")
    steps = layers.Dense(2, use_bias=False, name="steps")(x)
    pooled = layers.GlobalAveragePooling1D()(steps)
    model = models.Model([x, z], [steps, pooled + z])
    model.set_weights([KERNEL])
    return model


def embedded():
    """A plain input, and the mask of an embedding at the output."""
    ids = layers.Input((LENGTH,), name="ids", dtype="int32")
    model = models.Model(ids, layers.Embedding(5, 2, mask_zero=True)(ids))
    model.set_weights([np.arange(10.0).reshape(5, 2)])
    return model


class Subclass(models.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2, use_bias=False)

    def call(self, x):
        return {"steps": self.dense(x)}


def run(path, format, inputs):
    """The outputs of what was exported: a dictionary, or a list."""
    if format == "tf_saved_model":
        import tensorflow as tf

        serve = tf.saved_model.load(path).signatures["serving_default"]
        found = serve(**{name: tf.constant(x) for name, x in inputs.items()})
        return {name: x.numpy() for name, x in found.items()}
    if format == "onnx":
        import onnxruntime

        return onnxruntime.InferenceSession(path).run(None, inputs)
    if format == "openvino":
        import openvino

        # By default some processors compute with 8 bits of precision.
        exact = {"INFERENCE_PRECISION_HINT": "f32"}
        program = openvino.compile_model(path, "CPU", exact)
        # By place: of PyTorch's inputs only those of a dictionary have names.
        return list(program(list(inputs.values())).values())
    if format == "litert":
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(path).get_signature_runner("serving_default")
        return runner(**inputs)
    import torch

    program = torch.export.load(path).module()
    # Exported with one row.
    rows = [
        {name: torch.tensor(x[i : i + 1]) for name, x in inputs.items()}
        for i in (0, 1)
    ]
    rows = [program(row if len(row) > 1 else row["ids"]) for row in rows]
    return {
        name: np.concatenate([row[name].detach().numpy() for row in rows])
        for name in rows[0]
    }


EACH_FORMAT = parameterized.named_parameters(
    # NumPy's backend exports nothing.
    (name, name)
    for name in FORMATS or ("tf_saved_model",)
)
# Whose outputs have names.
WITH_NAMES = "torch" if BACKEND == "torch" else "tf_saved_model"
# What the backend cannot write, whatever is installed.
UNKNOWN = {"numpy": "tf_saved_model", "jax": "litert", "tensorflow": "torch"}
EXPORTS = pytest.mark.skipif(not FORMATS, reason="exports nothing")
EXPORTS_NAMES = pytest.mark.skipif(
    WITH_NAMES not in FORMATS, reason="exports no names of outputs"
)


# What PyTorch's tracer says of any model of Keras.
@pytest.mark.filterwarnings("ignore:.*(might cause|can cause) the trace")
class MaskedExportTest(testing.TestCase):
    def export(self, model, format="tf_saved_model", **kwargs):
        path = os.path.join(self.get_temp_dir(), f"model{SUFFIXES[format]}")
        model.export(path, format=format, verbose=False, **kwargs)
        return path

    def assert_gives(self, found, expected):
        """The same valid values, and masks; by name where there are names."""
        if not isinstance(found, dict):
            found = dict(zip(expected, found, strict=True))
        self.assertEqual(set(found), set(expected))
        for name, y in expected.items():
            x, valid = found[name], expected.get(f"{name}_mask")
            self.assertEqual(x.dtype, y.dtype)
            self.assertEqual(x.shape, y.shape)
            if valid is not None:
                self.assertTrue(np.isfinite(x).all())
                x, y = x[valid], y[valid]
            self.assertAllClose(x, y, atol=1e-5)

    @EACH_FORMAT
    @EXPORTS
    def test_masked_inputs_and_outputs(self, format):
        path = self.export(mixed(), format)
        steps = X @ KERNEL
        counts = MASK.sum(1, keepdims=True)
        mean = np.where(MASK[..., None], steps, 0).sum(1) / counts
        expected = {"output_0": steps, "output_0_mask": MASK}
        expected["output_1"] = (mean + Z).astype("float32")
        self.assert_gives(run(path, format, INPUTS), expected)

    @EACH_FORMAT
    @EXPORTS
    def test_masked_output_of_a_plain_input(self, format):
        path = self.export(embedded(), format)
        ids = np.array([[1, 2, 0, 3], [4, 0, 0, 0]], "int32")
        table = np.arange(10, dtype="float32").reshape(5, 2)
        expected = {"output_0": table[ids], "output_0_mask": ids != 0}
        self.assert_gives(run(path, format, {"ids": ids}), expected)

    @EXPORTS_NAMES
    def test_a_model_that_was_called_on_masked_tensors(self):
        model = Subclass()
        model(MaskedTensor(POISONED, MASK))
        model.set_weights([KERNEL])
        path = self.export(model, WITH_NAMES)
        inputs = {"input_0": POISONED, "input_0_mask": MASK}
        expected = {"steps": X @ KERNEL, "steps_mask": MASK}
        self.assert_gives(run(path, WITH_NAMES, inputs), expected)

    @EXPORTS_NAMES
    def test_a_signature_with_a_mask(self):
        model = Subclass()
        model(X)
        model.set_weights([KERNEL])
        spec = layers.Input((4, 3), name="steps", mask_shape=(4,))
        path = self.export(model, WITH_NAMES, input_signature=[spec])
        inputs = {"steps": POISONED, "steps_mask": MASK}
        expected = {"steps": X @ KERNEL, "steps_mask": MASK}
        self.assert_gives(run(path, WITH_NAMES, inputs), expected)

    def test_a_plain_model_is_exported_as_it_is(self):
        x = layers.Input((4, 3), name="x")
        model = models.Model(x, layers.Dense(2)(x))
        found = in_pairs.for_export(model, None, True)
        self.assertIs(found[0], model)
        self.assertIsNone(found[1])

    @pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's layer")
    def test_a_loaded_layer_takes_masked_tensors(self):
        model = mixed()
        layer = export.TFSMLayer(self.export(model))
        x, z = MaskedTensor(POISONED, MASK), ops.convert_to_tensor(Z)
        steps, _ = layer([x, z])
        self.assertMaskedClose(steps, X @ KERNEL, MASK, atol=1e-5)
        graph = models.Model(model.inputs, layer(model.inputs))
        for found, expected in zip(graph([x, z]), model([x, z])):
            self.assertIs(type(found), type(expected))
            self.assertAllClose(
                ops.filled(found), ops.filled(expected), atol=1e-5
            )

    @pytest.mark.skipif(BACKEND != "jax", reason="a format of JAX")
    def test_what_jax_exports_takes_masked_tensors(self):
        import jax
        from jax import export

        model = mixed()
        call = jax.jit(lambda *inputs: model(list(inputs)))
        sizes = export.symbolic_args_specs(
            (X, MASK, Z), ("b, t, 3", "b, t", "b, 2")
        )
        values, mask, z = sizes
        exported = export.export(call)(MaskedTensor._wrap(values, mask), z)
        loaded = export.deserialize(exported.serialize())
        x, z = MaskedTensor(POISONED, MASK), ops.convert_to_tensor(Z)
        steps, pooled = loaded.call(x, z)
        self.assertMaskedClose(steps, X @ KERNEL, MASK, atol=1e-5)
        self.assertAllClose(pooled, model([x, z])[1], atol=1e-5)

    @EXPORTS
    def test_an_endpoint_that_is_masked_is_refused(self):
        model = mixed()
        with self.assertRaisesRegex(
            UnsupportedMaskError,
            r"(?s)`ExportArchive`.* 3\), mask of shape .*"
            r"def serve\(x, x_mask\)",
        ):
            export.ExportArchive().track_and_add_endpoint(
                "serve", model, [model.inputs]
            )

    @parameterized.parameters("inputs", "outputs")
    @EXPORTS_NAMES
    def test_two_of_one_name_are_refused(self, what):
        x = layers.Input((4, 3), name="x", mask_shape=(4,))
        other = layers.Input((4,), name="x_mask" if what == "inputs" else "z")
        y = layers.Dense(2)(x)
        outputs = {"y": y, "y_mask" if what == "outputs" else "z": other + 1}
        model = models.Model([x, other], outputs)
        # PyTorch's exporter wraps what is raised while it traces.
        with self.assertRaisesRegex(
            (ValueError, RuntimeError), f"two {what} '[xy]_mask'"
        ):
            self.export(model, WITH_NAMES)
        self.assertEqual(os.listdir(self.get_temp_dir()), [])

    @pytest.mark.skipif(
        BACKEND not in UNKNOWN, reason="PyTorch can have them all"
    )
    def test_what_cannot_be_written_leaves_nothing(self):
        model = mixed()
        # On NumPy it is an `AttributeError`, upstream's as well.
        with self.assertRaises((AttributeError, ValueError, *UNKNOWN_ERRORS)):
            self.export(model, UNKNOWN[BACKEND])
        self.assertEqual(os.listdir(self.get_temp_dir()), [])
