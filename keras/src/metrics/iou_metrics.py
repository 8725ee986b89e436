"""Weights cover leading axes: those of rows weigh all their entries."""

from keras.src import ops
from keras.src.masking.training import weighing
from patchset.markers import keeps


class _IoUBase:
    @keeps("_update_by_weights_of_entries")
    def update_state(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            labels = ops.convert_to_tensor(y_true)
            if not self.sparse_y_true:
                labels = ops.max(labels, axis=self.axis)
            sample_weight = weighing.of_each(labels, sample_weight)
        return self._update_by_weights_of_entries(y_true, y_pred, sample_weight)
