"""Random draws, by what they give over many of them."""

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import UnsupportedMaskError
from keras.src.random import SeedGenerator
from keras.src.random import random


class DrawTest(testing.TestCase):
    def test_a_masked_class_is_never_drawn(self):
        mask = np.array([[True, False, True], [False] * 3])
        x = backend.MaskedTensor(np.array([[0.0, 9.0, 0.0]] * 2, "f"), mask)
        drawn = random.categorical(x, 1000, seed=1)
        self.assertAllEqual(drawn.mask, [True, False])
        classes = backend.convert_to_numpy(drawn.values)
        self.assertEqual(set(classes[0]), {0, 2})
        self.assertAllEqual(classes[1], np.zeros(1000))

    def test_shuffle_keeps_entries_and_their_masks_together(self):
        generator = SeedGenerator(1)
        values = np.arange(50, dtype="float32") + 1
        mask = np.arange(50) % 3 != 0
        before = None
        for _ in range(2):
            x = random.shuffle(
                backend.MaskedTensor(values, mask), seed=generator
            )
            there = backend.convert_to_numpy(x.mask)
            order = backend.convert_to_numpy(x.values)[there]
            self.assertEqual(set(order), set(values[mask]))
            self.assertFalse(before is not None and np.all(order == before))
            before = order

    def test_draws_from_masked_parameters_have_their_moments(self):
        mask = np.array([True, False])
        shape = (2000, 2)
        mask = np.broadcast_to(mask, shape)
        x = backend.MaskedTensor(np.full(shape, 4.0, "float32"), mask)
        for draws, mean in (
            (random.gamma(shape, x, seed=1), 4.0),
            (random.beta(shape, x, 4.0, seed=1), 0.5),
        ):
            self.assertIsInstance(draws, MaskedTensorBase)
            self.assertAllEqual(draws.mask, mask)
            self.assertAllClose(ops.mean(draws), mean, atol=0.2)

    def test_a_draw_is_no_part_of_a_graph(self):
        mask = backend.KerasTensor((2,), "bool")
        x = backend.KerasTensor((2, 3), mask=mask)
        with self.assertRaisesRegex(UnsupportedMaskError, "part of a graph"):
            random.shuffle(x)
