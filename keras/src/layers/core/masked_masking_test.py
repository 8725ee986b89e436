"""`Masking` on any rank, with NaN as a mask value, and on masked tensors."""

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
from keras.src.testing.masked import testing_utils as u

NAN = float("nan")
VALUES = (0.0, -1.5, NAN)
# Of these steps the features are the mask value, of `PARTLY` some are.
VALID = np.array([[True, False, True], [False, True, True]])
PARTLY = (1, 1)


def steps(mask_value, inner=(4,)):
    """An array of shape (2, 3, *inner) with the mask value in some steps."""
    rng = np.random.default_rng(0)
    x = rng.uniform(1, 2, (*VALID.shape, *inner)).astype("float32")
    x[~VALID] = mask_value
    x[PARTLY][..., 0] = mask_value
    return x


class MaskedMaskingTest(testing.TestCase):
    @parameterized.product(mask_value=VALUES, inner=((1,), (4,)))
    def test_steps_of_the_mask_value_are_masked(self, mask_value, inner):
        x = steps(mask_value, inner)
        valid = VALID.copy()
        valid[PARTLY] = inner != (1,)
        layer = layers.Masking(mask_value)
        y = layer(x)
        self.assertAllEqual(y.mask, valid)
        self.assertAllEqual(layer.compute_mask(x), valid)
        # Filled under the mask, and only there.
        self.assertAllEqual(u.array(y.values), np.where(valid[..., None], x, 0))

    @parameterized.product(mask_value=VALUES, rank=(2, 3, 4, 5))
    def test_any_rank(self, mask_value, rank):
        shape = (2, 3, 2, 3, 2)[:rank]
        rng = np.random.default_rng(1)
        x = rng.choice([1.0, mask_value], shape).astype("float32")
        is_value = np.isnan(x) if np.isnan(mask_value) else x == mask_value
        y = layers.Masking(mask_value)(x)
        self.assertAllEqual(y.mask, ~is_value.all(-1))
        spec = layers.Masking(mask_value)(layers.Input(shape[1:]))
        self.assertEqual(spec._mask_spec.shape, (None, *shape[1:-1]))

    def test_a_tensor_without_features_is_refused_where_it_is(self):
        for x in (np.zeros(3), layers.Input(batch_shape=(3,))):
            with self.assertRaisesRegex(ValueError, r"mask of\s+shape \(\)"):
                layers.Masking()(x)

    def test_a_mask_value_for_each_feature(self):
        x = np.array([[[1, NAN], [NAN, 1], [1, 1], [2, NAN]]], "float32")
        y = layers.Masking([1.0, NAN])(x)
        self.assertAllEqual(y.mask, [[False, True, True, True]])

    def test_numbers_that_are_not_floats(self):
        y = layers.Masking(7)(np.array([[[7, 7], [7, 0]]], "int32"))
        self.assertAllEqual(y.mask, [[False, True]])
        self.assertAllEqual(y.values, [[[0, 0], [7, 0]]])

    @parameterized.product(mask_value=VALUES, rank=(1, 2, 3))
    def test_what_was_masked_before_stays_so(self, mask_value, rank):
        x = steps(mask_value)
        before = np.random.default_rng(2).uniform(size=x.shape[:rank]) < 0.7
        layer = layers.Masking(mask_value)
        y = layer(backend.MaskedTensor(x, before))
        cells = u.over_all_axes(before, x.shape)
        is_value = np.isnan(x) if np.isnan(mask_value) else x == mask_value
        valid = cells & (cells & ~is_value).any(-1, keepdims=True)
        self.assertEqual(len(y.mask.shape), max(rank, 2))
        self.assertAllEqual(u.over_all_axes(y.mask, x.shape), valid)
        self.assertAllEqual(u.array(y.values), np.where(valid, x, 0))
        symbol = layers.Input((3, 4), mask_shape=x.shape[1:rank])
        self.assertEqual(layer(symbol)._mask_spec.shape[1:], y.mask.shape[1:])

    @parameterized.parameters(*VALUES)
    def test_garbage_that_equals_nothing_is_not_looked_at(self, mask_value):
        valid = np.array([[True, True, False]])
        one = np.array([[[mask_value] * 2, [1, 2], [0, 0]]], "float32")
        other = np.where(valid[..., None], one, 5)
        # Past the constructor, which puts 0 there.
        found = [
            layers.Masking(mask_value)(
                backend.MaskedTensor._wrap(
                    backend.convert_to_tensor(x),
                    backend.convert_to_tensor(valid),
                )
            )
            for x in (one, other)
        ]
        for y in found:
            self.assertMaskedClose(
                y, [[[0, 0], [1, 2], [0, 0]]], [[False, True, False]]
            )

    @pytest.mark.requires_trainable_backend
    def test_gradients_of_missing_numbers(self):
        x = steps(NAN)
        x[PARTLY] = 1

        def loss(arrays):
            y = layers.Masking(NAN)(arrays[0])
            return ops.sum(ops.sqrt(ops.sum(ops.square(y), axis=(1, 2))))

        (found,) = u.gradients(loss, [x])
        norms = np.sqrt(np.nansum(x**2, (1, 2), keepdims=True))
        self.assertAllClose(u.array(found), np.nan_to_num(x) / norms)

    def test_missing_steps_do_not_count(self):
        x = steps(NAN)
        x[PARTLY] = 1
        model = models.Sequential(
            [layers.Masking(NAN), layers.GlobalAveragePooling1D()]
        )
        self.assertAllClose(model.predict(x, verbose=0), np.nanmean(x, axis=1))
        # And after a file, whose text has no number NaN.
        path = os.path.join(self.get_temp_dir(), "model.keras")
        model.save(path)
        again = saving.load_model(path)
        self.assertAllClose(again.predict(x, verbose=0), np.nanmean(x, axis=1))

    @parameterized.parameters("mixed_float16", "bfloat16")
    def test_dtypes(self, dtype):
        y = layers.Masking(NAN, dtype=dtype)(steps(NAN))
        self.assertDType(y, dtype.removeprefix("mixed_"))
        self.assertAllEqual(y.mask, VALID)
