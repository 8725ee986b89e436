"""A `PyDataset` may give masked arrays."""

from keras.src.masking.training import data
from patchset.markers import keeps


class PyDatasetAdapter:
    @keeps("_standardize_plain_batch")
    def _standardize_batch(self, batch):
        apart = data.batch_apart(batch, self.class_weight)
        return self._standardize_plain_batch(batch) if apart is batch else apart

    @keeps("_get_plain_tf_dataset")
    def get_tf_dataset(self):
        return data.dataset_together(self._get_plain_tf_dataset())
