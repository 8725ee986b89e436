"""Where an engine handles masked tensors by itself: right, or refused."""

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import ops
from keras.src import testing


def masked(shape, rank, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape).astype("float32")
    return keras.MaskedTensor(values, rng.uniform(size=shape[:rank]) < 0.6)


@pytest.mark.skipif(backend.backend() != "torch", reason="of PyTorch")
class FunctionOfTorchTest(testing.TestCase):
    def test_a_function_with_a_gradient_of_its_own(self):
        """It would be given a constant, and lose the gradient in silence."""
        import torch

        class Doubled(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2.0

            @staticmethod
            def backward(ctx, gradient):
                return gradient * 2.0

        values = torch.ones((2, 3), requires_grad=True)
        x = keras.MaskedTensor(values, [True, False])
        with self.assertRaisesRegex(TypeError, r"Doubled.apply\(x.values\)"):
            Doubled.apply(x)
        y = keras.MaskedTensor(Doubled.apply(x.values), x.mask)
        ops.sum(y).backward()
        self.assertAllClose(values.grad, [[2.0] * 3, [0.0] * 3])
        compiled = torch.compile(
            lambda x: Doubled.apply(x), backend="eager", fullgraph=True
        )
        self.assertAllClose(compiled(torch.ones(3)), [2.0] * 3)


@pytest.mark.skipif(backend.backend() != "torch", reason="of PyTorch")
class AutocastOfTorchTest(testing.TestCase):
    @parameterized.parameters("sum", "mean", "var", "logsumexp", "softmax")
    def test_it_leaves_reductions_as_wide_as_plain_ones(self, name):
        import torch

        x = masked((4, 300, 5), 2)
        with torch.autocast("cpu", torch.bfloat16):
            found = getattr(ops, name)(x, axis=1)
            plain = getattr(ops, name)(x.values, axis=1)
        self.assertEqual(found.dtype, plain.dtype)
        wanted = getattr(ops, name)(x, axis=1)
        self.assertAllClose(
            ops.filled(found), ops.filled(wanted), rtol=1e-5, atol=1e-5
        )
