"""A `PyDataset` may give masked arrays."""

from keras.src.masking.training import data
from patchset.markers import keeps


class PyDatasetAdapter:
    @keeps("_init_plain")
    def __init__(self, *args, **kwargs):
        self._batch_apart = data.batches_apart()
        self._init_plain(*args, **kwargs)

    @keeps("_standardize_plain_batch")
    def _standardize_batch(self, batch):
        apart = self._batch_apart(batch, self.class_weight)
        if data.is_apart(apart):
            return apart
        return self._standardize_plain_batch(apart)

    @keeps("_get_plain_tf_dataset")
    def get_tf_dataset(self):
        return data.dataset_together(self._get_plain_tf_dataset())
