"""Masks of predictions are not read, so the expected losses count all."""

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import ops


class LossTest:
    def test_mask(self):
        """Replaced: a mask on `y_pred` no longer takes entries out.

        Upstream expects the mean over the three entries that are not masked,
        and 0 where everything is. A model could so hide its errors.
        """
        y_true = ops.convert_to_tensor([1.0, 0.0, 1.0, 0.0])
        y_pred = ops.convert_to_tensor([0.1, 0.2, 0.3, 0.4])
        for mask in ([True, False, True, True], [False] * 4):
            backend.set_keras_mask(y_pred, ops.convert_to_tensor(mask))
            loss = ExampleLoss()(y_true, y_pred)
            self.assertDType(loss, "float32")
            self.assertAllClose(loss, (0.81 + 0.04 + 0.49 + 0.16) / 4)

    def test_mask_and_sample_weight(self):
        """Replaced: only `sample_weight` weighs, the mask does not.

        Upstream multiplies the weights by the mask, and divides by the number
        of entries that are not masked.
        """
        y_true = ops.convert_to_tensor([1.0, 0.0, 1.0, 0.0])
        y_pred = ops.convert_to_tensor([0.1, 0.2, 0.3, 0.4])
        backend.set_keras_mask(
            y_pred, ops.convert_to_tensor([True, False, True, True])
        )
        loss = ExampleLoss()(y_true, y_pred, np.array([0.4, 0.3, 0.2, 0.1]))
        self.assertDType(loss, "float32")
        self.assertAllClose(loss, (0.324 + 0.012 + 0.098 + 0.016) / 4)

    @parameterized.named_parameters(
        ("mask", "mask"),
        ("sample_weight", "sample_weight"),
        ("ys", "ys"),
    )
    def test_rank_adjustment(self, uprank):
        """Replaced: ranks are adjusted as ever, but the mask does not weigh.

        Upstream expects the weighted loss of the entries that are not masked.
        """
        parts = {
            "sample_weight": np.array([0.4, 0.3, 0.2, 0.1]),
            "y_true": np.array([1.0, 0.0, 1.0, 0.0]),
            "y_pred": np.array([0.1, 0.2, 0.3, 0.4]),
            "mask": np.array([True, False, True, True]),
        }
        for name in {"ys": ("y_true", "y_pred")}.get(uprank, (uprank,)):
            parts[name] = parts[name][:, None]
        y_pred = ops.convert_to_tensor(parts["y_pred"])
        backend.set_keras_mask(y_pred, ops.convert_to_tensor(parts["mask"]))
        loss = ExampleLoss()(parts["y_true"], y_pred, parts["sample_weight"])
        self.assertDType(loss, "float32")
        self.assertAllClose(loss, (0.324 + 0.012 + 0.098 + 0.016) / 4)
