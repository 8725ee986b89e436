"""Sorts, counts and NaN: what the drawn examples of the tables do not have."""

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src.masking import UnsupportedMaskError
from keras.src.masking.calls import values_of
from patchset.markers import when

NAN, INF = np.nan, np.inf
# The rows: a hidden NaN and a valid one; only NaN is valid; nothing is valid.
X = np.array(
    [[1.0, NAN, 3.0, NAN, 2.0], [NAN, 5.0, NAN, 7.0, 6.0], [NAN] * 5],
    "float32",
)
MASK = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [0] * 5], "bool")
SKIPPED = {
    "nanargmax": (2, -1),
    "nanargmin": (0, -1),
    "nanmax": (3, NAN),
    "nanmean": (2, NAN),
    "nanmedian": (2, NAN),
    "nanmin": (1, NAN),
    "nanprod": (3, 1),
    "nanstd": (1, NAN),
    "nansum": (4, 0),
    "nanvar": (1, NAN),
}


def masked(values, mask):
    return backend.MaskedTensor(np.array(values, "float32"), np.array(mask))


def symbolic(shape, mask_shape, dtype="float32"):
    mask = backend.KerasTensor(mask_shape, "bool")
    return backend.KerasTensor(shape, dtype, mask=mask)


class OrderTest(testing.TestCase):
    def test_a_valid_infinity_comes_before_what_is_masked(self):
        x = masked([1.0, 9.0, INF], [True, False, True])
        for result, expected in (
            (ops.sort(x), [1.0, INF]),
            (ops.argsort(x), [0, 2]),
            (ops.sort(-x), [-INF, -1.0]),
            (ops.top_k(x, 3)[0], [INF, 1.0]),
            (ops.top_k(-x, 3)[1], [0, 2]),
        ):
            self.assertAllEqual(result.mask, [True, True, False])
            self.assertAllEqual(result.values[:2], expected)

    def test_an_entry_met_exactly_is_not_mixed_with_an_infinite_neighbour(self):
        x = masked([1.0, 2.0, INF, 5.0], [True, True, True, False])
        self.assertAllEqual(ops.median(x), 2.0)
        self.assertAllEqual(ops.quantile(x, [0.5, 1.0]), [2.0, INF])

    def test_a_valid_nan_is_found_by_every_quantile(self):
        x = masked(X, MASK)
        result = ops.quantile(x, [0.0, 1.0], axis=1)
        self.assertAllEqual(result.mask, [[True, True, False]] * 2)
        self.assertAllEqual(result.values, [[NAN, NAN, 0.0]] * 2)

    def test_a_hidden_entry_within_a_sequence_takes_no_place(self):
        sequence = masked([1.0, 0.0, 3.0, 4.0], [True, False, True, True])
        places = ops.searchsorted(sequence, np.array([0.5, 3.0, 9.0], "f"))
        self.assertAllEqual(places, [0, 1, 3])

    @when(">=3.15")  # Which has all of these.
    def test_refusals_say_why(self):
        x, plain = masked([0.5, 1.0], [True, False]), np.ones(2, "float32")
        for call, why in (
            (lambda: ops.unique(x), "differ depends on the data"),
            (lambda: ops.nonzero(x), "are not 0 depends on the data"),
            (lambda: ops.corrcoef(x), "Every pair of rows"),
            (lambda: ops.quantile(plain, x), "first argument"),
            (lambda: ops.nanpercentile(plain, x), "first argument"),
            (lambda: ops.percentile(plain, x), "first argument"),
            (lambda: ops.digitize(plain, x), "first argument"),
            (lambda: ops.trapezoid(plain, x), "first argument"),
            (lambda: ops.bincount(np.array([1, 0]), x), "first argument"),
            (lambda: ops.quantile(x, 0.5, method="hazen"), "method must be"),
            (lambda: ops.cdist(x[None] * plain[:, None], 0), "all features"),
        ):
            with self.assertRaisesRegex(UnsupportedMaskError, why):
                call()

    def test_kron_of_two_ranks(self):
        x, y = masked([1.0, 2.0], [True, False]), np.ones((2, 1), "float32")
        result = ops.kron(x, y)
        self.assertAllEqual(ops.filled(result, 7), [[1.0, 7.0]] * 2)

    def test_lists_are_taken_beside_masked_tensors(self):
        x = masked([1.0, 2.0, 4.0], [True, True, False])
        self.assertAllClose(ops.average(x, weights=[3.0, 1.0, 5.0]), 1.25)
        self.assertAllEqual(ops.correlate([1.0] * 3, x, "same").shape, (3,))
        self.assertAllEqual(ops.kron([1.0], x).mask, x.mask)
        self.assertAllEqual(ops.searchsorted([1.5], x).mask, x.mask)


class SkipNanTest(testing.TestCase):
    @parameterized.named_parameters((n, n, *SKIPPED[n]) for n in SKIPPED)
    def test_the_mask_alone_decides_what_is_masked(self, name, some, only_nan):
        result = getattr(ops, name)(masked(X, MASK), axis=1)
        self.assertAllEqual(result.mask, [True, True, False])
        self.assertAllClose(result.values[:2], [some, only_nan])
        self.assertAllEqual(np.isnan(values_of(result)[2:]), [False])

    @when(">=3.15")  # Which has both.
    def test_quantiles(self):
        for name, q in (("nanquantile", 0.5), ("nanpercentile", 50.0)):
            result = getattr(ops, name)(masked(X, MASK), [0.0, q], axis=1)
            self.assertAllEqual(result.mask, [[True, True, False]] * 2)
            self.assertAllClose(
                result.values, [[1.0, NAN, 0.0], [2.0, NAN, 0.0]]
            )

    def test_running_results(self):
        for name, nothing, last in (("nancumsum", 0, 4), ("nancumprod", 1, 3)):
            result = getattr(ops, name)(masked(X, MASK), axis=1)
            self.assertAllEqual(result.mask, MASK)
            self.assertAllClose(result.values[0], [1, 1, last, last, last])
            self.assertAllClose(result.values[1], [nothing] * 5)

    def test_over_all_axes(self):
        self.assertAllClose(ops.nanmean(masked(X, MASK)), 2.0)
        x = masked(X[1:], MASK[1:])
        self.assertAllClose(ops.nanmean(x), NAN)
        self.assertAllClose(ops.nanmean(x[1:]), 0.0)


@when(">=3.15")  # Which has `cdist`.
class UnknownSizesTest(testing.TestCase):
    def test_specs(self):
        x = symbolic((None, None, 4), (None, None))
        for y, shape, mask_shape in (
            (ops.sort(x, axis=1), (None, None, 4), (None, None)),
            (ops.argsort(x, axis=-1), (None, None, 4), (None, None)),
            (ops.median(x, axis=1), (None, 4), (None,)),
            (ops.quantile(x, [0.1, 0.2], axis=1), (2, None, 4), (2, None)),
            (ops.nanmedian(x, axis=(1, 2)), (None,), (None,)),
            (ops.nanmax(x, axis=1), (None, 4), (None,)),
            (ops.average(x, axis=1), (None, 4), (None,)),
            (ops.ptp(x, axis=1), (None, 4), (None,)),
            (ops.diff(x, axis=-1), (None, None, 3), (None, None)),
            (ops.trapezoid(x, axis=1), (None, 4), (None,)),
            (ops.trace(x, axis1=1, axis2=2), (None,), (None,)),
            (ops.nancumsum(x, axis=1), (None, None, 4), (None, None)),
            (ops.cdist(x, x), (None, None, None), (None, None, None)),
        ):
            self.assertEqual(y.shape, shape)
            self.assertEqual(y._mask_spec.shape, mask_shape)
        values, order = ops.top_k(symbolic((None, 9), (None, 9)), 3)
        self.assertEqual(values._mask_spec.shape, (None, 3))
        self.assertEqual(order.shape, (None, 3))
