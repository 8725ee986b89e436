"""A dataset of grain may give masked arrays."""

import copy

from keras.src.masking.training import data
from patchset.markers import keeps
from patchset.markers import new


class GrainDatasetAdapter:
    @keeps("_init_plain")
    def __init__(self, dataset, *args, **kwargs):
        self._batch_apart = data.for_model(data.batch_apart)
        apart = _mapped(self._batch_apart, dataset)
        self._init_plain(apart, *args, **kwargs)

    @keeps("_get_plain_dataset_info")
    def _get_dataset_info(self, dataset):
        apart = data.Batches(self._batch_apart, dataset)
        return self._get_plain_dataset_info(apart)

    @keeps("_get_plain_numpy_iterator")
    def get_numpy_iterator(self):
        return data.Batches(
            data.batch_together, self._get_plain_numpy_iterator()
        )

    @keeps("_get_plain_jax_iterator")
    def get_jax_iterator(self, *args, **kwargs):
        batches = self._get_plain_jax_iterator(*args, **kwargs)
        if any((*args, *kwargs.values())):
            return batches  # Several in one, which are put together already.
        return data.Batches(data.batch_together, batches)

    @keeps("_get_plain_tf_dataset")
    def get_tf_dataset(self):
        return data.dataset_together(self._get_plain_tf_dataset())

    @keeps("_get_plain_torch_dataloader")
    def get_torch_dataloader(self):
        return data.Batches(
            data.batch_together, self._get_plain_torch_dataloader()
        )


@new
def _mapped(function, dataset):
    """The dataset, with a function applied to what it gives."""
    if isinstance(dataset, (grain.MapDataset, grain.IterDataset)):
        return dataset.map(function)
    if not isinstance(dataset, grain.DataLoader):
        return dataset

    class Mapped(grain.transforms.Map):
        def map(self, x):
            return function(x)

    # Which upstream makes its own loaders of.
    loader = copy.copy(dataset)
    loader._operations = [*loader._operations, Mapped()]
    return loader
