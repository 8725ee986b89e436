"""A `DataLoader` may give masked and composite tensors, and rows be such."""

import copy

from keras.src import tree
from keras.src.masking.training import data
from patchset.markers import keeps
from patchset.markers import new


@new
class _Apart:
    """A `DataLoader` whose batches are taken apart, in tensors of PyTorch."""

    def __init__(self, dataloader):
        self._dataloader = dataloader
        self._batch_apart = data.for_model(data.batch_apart)

    def __getattr__(self, name):
        return getattr(self._dataloader, name)

    def __len__(self):
        return len(self._dataloader)

    def __iter__(self):
        # Late: PyTorch may be missing.
        import torch

        for batch in map(self._batch_apart, self._dataloader):
            yield tree.map_structure(torch.as_tensor, batch, none_is_leaf=False)


class TorchDataLoaderAdapter:
    @keeps("_init_plain")
    def __init__(self, *args, **kwargs):
        self._init_plain(*args, **kwargs)
        data.teach_pytorch()
        self._dataloader = _Apart(self._dataloader)

    @keeps("_get_numpy_parts")
    def get_numpy_iterator(self):
        return map(data.batch_together, self._get_numpy_parts())

    @keeps("_get_plain_tf_dataset")
    def get_tf_dataset(self):
        apart = copy.copy(self)
        # Which is what the dataset is made of.
        apart.get_numpy_iterator = self._get_numpy_parts
        dataset = apart._get_plain_tf_dataset()
        self._output_signature = apart._output_signature
        return data.dataset_together(dataset)

    @keeps("_get_plain_torch_dataloader")
    def get_torch_dataloader(self):
        batches = self._get_plain_torch_dataloader()
        return data.Batches(data.batch_together, batches)
