"""A generator may yield masked arrays."""

from keras.src.masking.training import data
from patchset.markers import keeps


class GeneratorDataAdapter:
    @keeps("_init_plain")
    def __init__(self, generator, *args, **kwargs):
        apart = map(data.batches_apart(), generator)
        self._init_plain(apart, *args, **kwargs)

    @keeps("_get_plain_tf_dataset")
    def get_tf_dataset(self):
        return data.dataset_together(self._get_plain_tf_dataset())
