"""Weights of another shape than one for each row are refused."""

from keras.src import ops
from keras.src.masking.training import weighing
from patchset.markers import keeps


class FBetaScore:
    @keeps("_update_by_weights_of_rows")
    def update_state(self, y_true, y_pred, sample_weight=None):
        y_true = ops.convert_to_tensor(y_true, dtype=self.dtype)
        if sample_weight is not None and len(y_true.shape) == 2:
            rows = y_true[:, 0]
            sample_weight = weighing.of_each(
                rows, sample_weight, f"`{self.name}`"
            )
        self._update_by_weights_of_rows(y_true, y_pred, sample_weight)
