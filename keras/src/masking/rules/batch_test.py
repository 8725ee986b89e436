"""What the tables' tests do not see: refusals, complex results, other axes."""

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src.masking import UnsupportedMaskError
from patchset.markers import when

RNG = np.random.default_rng(0)
EYES = np.stack([np.eye(3, dtype="float32")] * 2)
SCORES = RNG.uniform(0.1, 1.0, (2, 4, 3)).astype("float32")
FIRST = np.array([True, False])


def masked(values, mask):
    return backend.MaskedTensor(values, np.asarray(mask))


def all_valid(values, ndim):
    return masked(values, np.ones(values.shape[:ndim], "bool"))


class BatchTest(testing.TestCase):
    @parameterized.named_parameters(
        ("rows", lambda: ops.inv(all_valid(EYES, 2)), "last 2 axes"),
        ("steps", lambda: ops.rfft(all_valid(SCORES, 3)), "last axis"),
        (
            "right_hand_side",
            lambda: ops.solve(EYES, all_valid(SCORES[:, :3], 2)),
            "last 2 axes",
        ),
        (
            "components",
            lambda: ops.cross(all_valid(EYES, 3), EYES),
            "last axis",
        ),
        (
            "classes",
            lambda: ops.categorical_crossentropy(SCORES, all_valid(SCORES, 3)),
            "last axis",
        ),
        (
            "channels",
            lambda: ops.image.rgb_to_hsv(all_valid(SCORES, 3), "channels_last"),
            "last axis",
        ),
        (
            "pixels",
            lambda: ops.image.resize(all_valid(SCORES[None], 2), (2, 2)),
            "last 3 axes",
        ),
        (
            "labels",
            lambda: ops.ctc_loss(
                np.ones((2, 1), "int32"),
                all_valid(SCORES, 3),
                np.ones(2, "int32"),
                np.array([4, 4]),
            ),
            r"One of shape `\(batch, time\)` is taken",
        ),
        (
            "one_system",
            lambda: ops.lstsq(all_valid(EYES[0], 1), EYES[0]),
            "an equation of zeros",
        ),
        (
            "coordinates",
            lambda: ops.image.map_coordinates(
                all_valid(EYES[0], 1), np.ones((2, 4), "float32"), 1
            ),
            "Coordinates reach all axes",
        ),
    )
    def test_masks_over_core_axes_are_refused_by_name(self, function, reason):
        with self.assertRaisesRegex(UnsupportedMaskError, reason):
            function()

    @when(">=3.15")  # Which has `pinv`.
    def test_singular_matrices_under_the_mask_do_no_harm(self):
        singular = EYES * np.array([1, 0], "float32")[:, None, None]
        for function in (ops.inv, ops.cholesky, ops.pinv):
            result = function(masked(singular, FIRST))
            self.assertAllClose(result.values[0], EYES[0])
            self.assertAllEqual(result.mask, FIRST)
        result = ops.solve(singular, masked(EYES, FIRST))
        self.assertAllClose(result.values[0], EYES[0])

    def test_what_goes_in_under_a_mask_has_a_finite_determinant(self):
        for size in (1, 2, 300):
            zeros = np.zeros((2, size, size), "float32")
            result = ops.det(masked(zeros, [False, False]))
            self.assertAllClose(result.values, [1.0, 1.0], rtol=1e-2)

    def test_complex_numbers_keep_both_parts(self):
        length, angle = RNG.uniform(0, 1, (2, 2, 3)).astype("float32")
        expected = length * np.exp(1j * angle)
        parts = np.stack([expected.real, expected.imag], -1).astype("float32")
        for result in (
            ops.polar(masked(length, FIRST), angle),
            ops.view_as_complex(masked(parts, FIRST)),
        ):
            values = backend.convert_to_numpy(result.values)
            self.assertAllClose(values.real[0], expected.real[0])
            self.assertAllClose(values.imag[0], expected.imag[0])
            self.assertAllEqual(result.mask, FIRST)
            again = ops.view_as_real(result)
            self.assertAllClose(again.values[0], parts[0])
            self.assertAllEqual(again.mask, FIRST)

    def test_cross_with_components_elsewhere(self):
        x, y = RNG.normal(size=(2, 4, 2, 3)).astype("float32")
        mask = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], "bool")
        expected = np.moveaxis(np.cross(x, y), -1, 1)
        result = ops.cross(
            masked(x, mask), np.moveaxis(y, -1, 1), axisb=1, axisc=1
        )
        wide = np.broadcast_to(mask[:, None], (4, 3, 2))
        self.assertAllEqual(result.mask, wide)
        self.assertAllClose(
            backend.convert_to_numpy(result.values)[wide], expected[wide]
        )
        with self.assertRaisesRegex(UnsupportedMaskError, "cross"):
            ops.cross(all_valid(EYES[0], 1), EYES[0], axis=0)

    def test_crossentropy_with_classes_elsewhere(self):
        ids = RNG.integers(0, 4, (2, 3))
        mask = RNG.uniform(size=(2, 3)) < 0.5
        # NumPy's backend takes the classes last only.
        plain = ops.sparse_categorical_crossentropy(
            ids, np.moveaxis(SCORES, 1, -1)
        )
        result = ops.sparse_categorical_crossentropy(
            masked(ids, mask), SCORES, axis=1
        )
        self.assertAllEqual(result.mask, mask)
        self.assertAllClose(
            backend.convert_to_numpy(result.values)[mask],
            backend.convert_to_numpy(plain)[mask],
        )

    def test_sparse_targets_may_be_a_column(self):
        ids = RNG.integers(0, 3, (2, 4, 1))
        result = ops.sparse_categorical_crossentropy(all_valid(ids, 3), SCORES)
        self.assertEqual(tuple(result.mask.shape), (2, 4))
        plain = ops.sparse_categorical_crossentropy(ids, SCORES)
        self.assertAllClose(result.values, plain)

    def test_lists_count_as_tensors(self):
        result = ops.sparse_categorical_crossentropy(
            [0, 1], masked(SCORES[:, 0], FIRST)
        )
        self.assertAllClose(
            result.values[0], -np.log(SCORES[0, 0, 0] / SCORES[0, 0].sum())
        )

    def test_channels_first(self):
        image = RNG.uniform(size=(2, 3, 4, 4)).astype("float32")
        result = ops.image.rgb_to_hsv(masked(image, FIRST), "channels_first")
        plain = ops.image.rgb_to_hsv(image[:1], "channels_first")
        self.assertAllClose(result.values[:1], plain)
        self.assertAllEqual(result.mask, FIRST)

    @pytest.mark.skipif(
        backend.backend() == "numpy", reason="Its specs need all sizes."
    )
    def test_unknown_sizes(self):
        def symbol(*shape, mask=1):
            own = backend.KerasTensor((None, *shape)[:mask], "bool")
            return backend.KerasTensor((None, *shape), mask=own)

        steps = symbol(None, 4, mask=2)
        kernel = np.ones((2, 3, 4), "float32")
        last = {"data_format": "channels_last"}
        for y, shape, mask_shape in (
            (ops.inv(symbol(3, 3)), (None, 3, 3), (None,)),
            (ops.det(symbol(5, 3, 3, mask=2)), (None, 5), (None, 5)),
            (ops.rfft(steps)[0], (None, None, 3), (None, None)),
            (
                ops.conv_transpose(steps, kernel, 2, "same", **last),
                (None, None, 3),
                (None, None),
            ),
            (
                ops.adaptive_max_pool(symbol(5, 4, mask=2), (2,), **last),
                (None, 2, 4),
                (None, 2),
            ),
            (ops.glu(steps), (None, None, 2), (None, None)),
            (
                ops.categorical_crossentropy(steps, steps),
                (None, None),
                (None, None),
            ),
            (
                ops.image.crop_images(symbol(8, 8, 3, mask=3), 1, 1, 2, 2),
                (None, 5, 5, 3),
                (None, 5, 5),
            ),
        ):
            self.assertEqual(y.shape, shape)
            self.assertEqual(y._mask_spec.shape, mask_shape)
