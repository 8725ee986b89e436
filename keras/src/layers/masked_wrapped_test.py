"""Modules of other libraries, quantized models and graphs with masked inputs.

A wrapped module gets what it is handed: values and a mask, as two tensors. It
sees a masked tensor as it is, and its library says that it knows none.
"""

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.ops.function import Function
from keras.src.utils import jax_layer
from keras.src.utils import torch_utils

BACKEND = backend.backend()
RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(3, 2)).astype("float32")
X = RNG.normal(size=(2, 4, 3)).astype("float32")
MASK = np.array([[True, True, True, False], [True, False, False, False]])
MEAN = (X @ KERNEL * MASK[..., None]).sum(1) / MASK.sum(1, keepdims=True)


def poisoned(seed):
    poison = RNG.choice([np.nan, np.inf, 1e30, -7.0 - seed], X.shape)
    values = np.where(MASK[..., None], X, poison).astype("float32")
    return backend.MaskedTensor(values, MASK)


def layer_of_torch():
    import torch

    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = torch.nn.Linear(3, 2, bias=False)
            self.dense.weight.data = torch.tensor(KERNEL.T)

        def forward(self, values, mask):
            weights = mask.float()[..., None]
            total = (self.dense(values) * weights).sum(1)
            return total / weights.sum(1)

    layer = torch_utils.TorchModuleWrapper(Mean(), output_shape=(None, 2))
    return lambda x: layer(x.values, x.mask), layer


def mean(values, mask):
    weights = mask[..., None]
    return (values * weights).sum(1) / weights.sum(1)


def layer_of_jax():
    import jax

    def call(params, inputs):
        return mean(jax.numpy.dot(inputs["values"], params), inputs["mask"])

    layer = jax_layer.JaxLayer(call, lambda rng, inputs: KERNEL)
    return lambda x: layer({"values": x.values, "mask": x.mask}), layer


def layer_of_flax():
    from flax import linen

    class Mean(linen.Module):
        @linen.compact
        def __call__(self, inputs):
            dense = linen.Dense(
                2, use_bias=False, kernel_init=lambda *args: KERNEL
            )
            return mean(dense(inputs["values"]), inputs["mask"])

    layer = jax_layer.FlaxLayer(Mean())
    return lambda x: layer({"values": x.values, "mask": x.mask}), layer


WRAPPED = {
    "torch": {"torch": layer_of_torch},
    "jax": {"jax": layer_of_jax, "flax": layer_of_flax},
}.get(BACKEND, {})


class MaskedWrappedTest(testing.TestCase):
    @parameterized.named_parameters(
        (name, name) for name in ("torch", "jax", "flax")
    )
    def test_a_module_gets_values_and_mask(self, name):
        if name not in WRAPPED:
            self.skipTest("The layer is one of another backend.")
        run, _ = WRAPPED[name]()
        for seed in (0, 1):
            self.assertAllClose(run(poisoned(seed)), MEAN, atol=1e-5)
        inputs = layers.Input((4, 3), mask_shape=(4,))
        model = models.Model(inputs, run(inputs))
        self.assertAllClose(model(poisoned(2)), MEAN, atol=1e-5)

    @parameterized.named_parameters(
        (name, name) for name in ("torch", "jax", "flax")
    )
    def test_a_module_that_knows_no_masks_says_so(self, name):
        if name not in WRAPPED:
            self.skipTest("The layer is one of another backend.")
        _, layer = WRAPPED[name]()
        given = {"values": poisoned(0), "mask": MASK}
        with self.assertRaises(TypeError) as caught:
            if name == "torch":
                layer(*map(ops.convert_to_tensor, given.values()))
            else:
                layer({k: ops.convert_to_tensor(x) for k, x in given.items()})
        text = str(caught.exception) + str(caught.exception.__notes__)
        self.assertIn("`x.values`", text)

    def test_quantized_model(self):
        inputs = layers.Input((None, 3), mask_shape=(None,))
        steps = layers.Dense(2, use_bias=False, name="dense")(inputs)
        outputs = [steps, layers.GlobalAveragePooling1D()(steps)]
        model = models.Model(inputs, outputs)
        model.set_weights([KERNEL])
        model.quantize("int8", filters=lambda layer: layer.name == "dense")
        steps, pooled = model(poisoned(0))
        # 7 bits of either factor, over three products.
        limit = 3 * 2 * np.abs(X[MASK]).max() * np.abs(KERNEL).max() / 127
        self.assertMaskedClose(steps, X @ KERNEL, MASK, atol=limit)
        self.assertAllClose(pooled, MEAN, atol=limit)
        others = model(poisoned(1))
        self.assertAllEqual(ops.filled(others[0]), ops.filled(steps))
        self.assertAllEqual(others[1], pooled)

    def test_function_of_a_graph(self):
        x = layers.Input((4, 3), mask_shape=(4,))
        run = Function(x, [x * 2.0, ops.mean(x, axis=1), x.mask])
        double, mean, mask = run(poisoned(0))
        self.assertMaskedClose(double, 2 * X, MASK)
        valid = np.where(MASK[..., None], X, 0)
        expected = valid.sum(1) / MASK.sum(1, keepdims=True)
        self.assertMaskedClose(mean, expected, [True, True], atol=1e-5)
        self.assertAllEqual(mask, MASK)
        # All of what is plain is valid.
        double, mean, mask = run(X)
        self.assertMaskedClose(double, 2 * X, np.ones_like(MASK))
        self.assertMaskedClose(mean, X.mean(1), [True, True], atol=1e-5)
        self.assertAllEqual(mask, np.ones_like(MASK))
