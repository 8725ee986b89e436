"""`Embedding` of ids that are padding by their number, and masked besides."""

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import testing
from keras.src.testing.masked import testing_utils as u

# Equal sizes, along which a mask that is not aligned goes unnoticed, too.
SHAPES = ((3,), (3, 3), (3, 2), (3, 3, 3), (2, 3, 4))
CASES = [
    (shape, covered) for shape in SHAPES for covered in range(1, len(shape) + 1)
]


class MaskedEmbeddingTest(testing.TestCase):
    @parameterized.parameters(CASES)
    def test_an_id_is_valid_where_it_is_no_padding_and_not_masked(
        self, shape, covered
    ):
        rng = np.random.default_rng(len(shape))
        ids = rng.integers(0, 3, shape).astype("int32")
        mask = rng.uniform(size=shape[:covered]) < 0.6
        layer = layers.Embedding(3, 2, mask_zero=True)
        y = layer(backend.MaskedTensor(ids, mask))
        wanted = (ids != 0) & u.over_all_axes(mask, shape)
        self.assertAllEqual(y.mask, wanted)
        table = u.array(layer.embeddings)
        self.assertAllClose(u.array(y.values)[wanted], table[ids[wanted]])

    @parameterized.parameters(CASES)
    def test_the_spec(self, shape, covered):
        x = layers.Input(shape[1:], dtype="int32", mask_shape=shape[1:covered])
        y = layers.Embedding(3, 2, mask_zero=True)(x)
        self.assertEqual(y._mask_spec.shape, (None, *shape[1:]))
