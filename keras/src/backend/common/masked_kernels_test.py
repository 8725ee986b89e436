"""Sums by the ways that engines have for narrow steps and for wide ones.

Whatever lies under the mask, also what nobody should have put there.
"""

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src.testing.masked import testing_utils as u

MaskedTensor = backend.MaskedTensor
AXES = (1, (0, 1), (1, 2), None, -1, (0, 2))


def drawn(size, hidden):
    rng = np.random.default_rng(size)
    values = rng.normal(size=(3, 5, size)).astype("float32")
    mask = rng.uniform(size=(3, 5)) < 0.6
    mask[1] = False
    return np.where(mask[..., None], values, np.float32(hidden)), mask


def of_valid(name, values, mask, axis, keepdims):
    """By NumPy, of the valid entries alone; 0 of none."""
    hidden = ~np.broadcast_to(mask[..., None], values.shape)
    array = np.ma.array(values.astype("float64"), mask=hidden)
    found = getattr(array, name)(axis=axis, keepdims=keepdims)
    return np.ma.filled(found, 0)


class SumsTest(testing.TestCase):
    @parameterized.product(
        name=("sum", "mean", "var"),
        size=(2, 70),
        hidden=(0.0, 1e30, np.inf, np.nan),
    )
    def test_over_axes_with_a_mask_and_without(self, name, size, hidden):
        values, mask = drawn(size, hidden)
        x = MaskedTensor._wrap(
            backend.convert_to_tensor(values), backend.convert_to_tensor(mask)
        )
        for axis in AXES:
            for keepdims in (False, True):
                found = getattr(ops, name)(x, axis=axis, keepdims=keepdims)
                wanted = of_valid(name, values, mask, axis, keepdims)
                self.assertAllClose(
                    ops.filled(found), wanted, rtol=1e-4, atol=1e-5
                )

    @parameterized.product(
        name=("sum", "mean", "var"),
        size=(2, 70),
        hidden=(0.0, 1e30, np.inf, np.nan),
    )
    def test_gradients(self, name, size, hidden):
        if backend.backend() == "numpy":
            self.skipTest("NumPy has no gradients.")
        values, mask = drawn(size, hidden)
        for axis in AXES:
            if axis == -1 and not np.isfinite(hidden):
                # Nothing of the mask is summed: what is not finite would stay.
                continue

            def total(arrays, axis=axis):
                x = MaskedTensor._wrap(
                    arrays[0], backend.convert_to_tensor(mask)
                )
                found = getattr(ops, name)(x, axis=axis)
                return ops.sum(ops.filled(ops.square(found), 0))

            (found,) = u.gradients(total, [values])
            wanted = _slopes(
                name, np.where(mask[..., None], values, 0), mask, axis
            )
            self.assertAllClose(found, wanted, rtol=1e-3, atol=1e-4)


def _slopes(name, values, mask, axis):
    """The gradient of the sum of squares of a reduction, by hand."""
    values = values.astype("float64")
    result = of_valid(name, values, mask, axis, True)
    valid = np.broadcast_to(mask[..., None], values.shape)
    count = np.maximum(valid.sum(axis=axis, keepdims=True), 1)
    slope = {
        "sum": 1.0,
        "mean": 1 / count,
        "var": 2
        * (values - of_valid("mean", values, mask, axis, True))
        / count,
    }[name]
    return 2 * result * slope * valid
