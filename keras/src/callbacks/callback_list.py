"""Callbacks see masked outputs of `predict` as masked tensors."""

from keras.src.masking.training import batches
from patchset.markers import keeps


class CallbackList:
    @keeps("_pass_on_predict_batch_end")
    def _on_predict_batch_end(self, batch, logs=None):
        self._pass_on_predict_batch_end(batch, batches.to_masked_tensors(logs))
