"""A `DataLoader` may give masked tensors, if its `collate_fn` makes them."""

from keras.src.masking import batches
from keras.src.masking import data
from pip_build import keeps


class TorchDataLoaderAdapter:
    def get_numpy_iterator(self):
        def to_numpy(x):
            return np.asarray(x.cpu() if hasattr(x, "cpu") else x)

        for batch in map(data.batch_apart, self._dataloader):
            batch = tree.map_structure(to_numpy, batch, none_is_leaf=False)
            yield data.batch_together(tuple(batch))

    def get_jax_iterator(self):
        return map(batches.take_apart, self.get_numpy_iterator())

    @keeps("_get_plain_torch_dataloader")
    def get_torch_dataloader(self):
        return data.TorchBatches(self._get_plain_torch_dataloader())
