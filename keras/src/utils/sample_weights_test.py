import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src.backend import MaskedTensor
from keras.src.masking.training import scoring
from keras.src.utils.sample_weights import sample_weight_from_mask
from keras.src.utils.sample_weights import shift_for_next_token

IDS = np.array([[7, 4, 2, 0], [5, 2, 0, 0]])
WEIGHTS = np.array([[1, 1, 1, 0], [1, 1, 0, 0]], "float32")


class SampleWeightTest(testing.TestCase):
    def test_numpy_in_numpy_out(self):
        for mask in (
            IDS != 0,
            (IDS != 0).tolist(),
            np.ma.MaskedArray(IDS, IDS == 0),
        ):
            weights = sample_weight_from_mask(mask)
            self.assertIs(type(weights), np.ndarray)
            self.assertEqual(weights.dtype, "float32")
            self.assertAllClose(weights, WEIGHTS)

    def test_tensor_in_tensor_out(self):
        mask = ops.convert_to_tensor(IDS != 0)
        for x in (mask, MaskedTensor(np.ones((2, 4, 3)), mask)):
            weights = sample_weight_from_mask(x, dtype="float16")
            self.assertTrue(backend.is_tensor(weights))
            self.assertDType(weights, "float16")
            self.assertAllClose(weights, WEIGHTS)

    def test_ids_are_not_a_mask(self):
        with self.assertRaisesRegex(TypeError, "Write `x_ids != 0`"):
            sample_weight_from_mask(IDS)


class ShiftTest(testing.TestCase):
    # "hello", "world", END, and padding to a length of 6.
    IDS = np.array([[4, 5, 1, 0, 0, 0]])

    def check(self, x, y, weights):
        x, y = scoring.plain(x, y)
        self.assertAllClose(x, [[4, 5, 1, 0, 0]])
        self.assertAllClose(y, [[5, 1, 0, 0, 0]])
        # END is a target once, and a padding never is.
        self.assertAllClose(weights, [[1, 1, 0, 0, 0]])

    def test_end_is_credited_once_and_padding_never(self):
        x, y, weights = shift_for_next_token(self.IDS)
        self.assertIs(type(weights), np.ndarray)
        self.check(x, y, weights)
        self.check(*shift_for_next_token(self.IDS.tolist()))
        x, y, weights = shift_for_next_token(ops.convert_to_tensor(self.IDS))
        self.assertTrue(backend.is_tensor(weights))
        self.check(x, y, weights)

    def test_both_masks_are_shifted(self):
        ids = MaskedTensor(self.IDS, self.IDS != 0)
        x, y, weights = shift_for_next_token(ids)
        self.assertAllClose(x.mask, [[True, True, True, False, False]])
        self.assertAllClose(y.mask, [[True, True, False, False, False]])
        self.check(x, y, weights)
        hidden = np.ma.MaskedArray(self.IDS, self.IDS == 0)
        x, y, weights = shift_for_next_token(hidden)
        self.assertAllClose(
            np.ma.getmaskarray(x), [[False, False, False, True, True]]
        )
        self.assertAllClose(weights, [[1, 1, 0, 0, 0]])

    def test_another_padding(self):
        _, _, weights = shift_for_next_token([[3, 0, 9]], padding=9)
        self.assertAllClose(weights, [[1, 0]])

    def test_ids_have_two_axes(self):
        with self.assertRaisesRegex(
            ValueError, r"Received ids of shape \(3,\)"
        ):
            shift_for_next_token([1, 2, 3])
