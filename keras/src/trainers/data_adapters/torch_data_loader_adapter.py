"""A `DataLoader` may give masked tensors, if its `collate_fn` makes them."""

from keras.src.masking.training import data
from patchset.markers import keeps
from patchset.markers import new


class TorchDataLoaderAdapter:
    @keeps("_init_plain")
    def __init__(self, dataloader):
        self._batch_apart = data.for_model(data.batch_apart)
        self._batch_together = data.for_model(data.batch_together)
        self._init_plain(dataloader)

    def get_numpy_iterator(self):
        return map(data.batch_together, self._get_numpy_parts())

    @new
    def _get_numpy_parts(self):
        def to_numpy(x):
            return np.asarray(x.cpu() if hasattr(x, "cpu") else x)

        for batch in map(self._batch_apart, self._dataloader):
            yield tuple(tree.map_structure(to_numpy, batch, none_is_leaf=False))

    def get_tf_dataset(self):
        # Late: TensorFlow may be missing.
        from keras.src.utils.module_utils import tensorflow as tf

        if self._output_signature is None:
            first = itertools.islice(
                self._get_numpy_parts(),
                data_adapter_utils.NUM_BATCHES_FOR_TENSOR_SPEC,
            )
            self._output_signature = data_adapter_utils.get_tensor_spec(
                list(first)
            )
        dataset = tf.data.Dataset.from_generator(
            self._get_numpy_parts, output_signature=self._output_signature
        )
        return data.dataset_together(dataset)

    @keeps("_get_plain_torch_dataloader")
    def get_torch_dataloader(self):
        return data.Batches(
            self._batch_together, self._get_plain_torch_dataloader()
        )
