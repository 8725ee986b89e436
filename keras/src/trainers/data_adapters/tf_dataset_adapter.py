"""A `tf.data.Dataset` may hold masked tensors, or ragged ones."""

import functools

from keras.src import backend
from keras.src import tree
from keras.src.masking.training import data
from keras.src.masking.training import ragged
from keras.src.trainers.data_adapters import data_adapter_utils
from patchset.markers import keeps
from patchset.markers import new


class TFDatasetAdapter:
    __added__ = ("_apart",)
    # The batches of a dataset of ragged tensors, on another backend.
    _apart = None

    @keeps("_init_plain")
    def __init__(self, dataset, class_weight=None, *args, **kwargs):
        if _is_masked(getattr(dataset, "element_spec", None)):
            dataset = dataset.map(_weigh_by(class_weight))
            class_weight = None
        elif not backend.SUPPORTS_RAGGED_TENSORS:
            if ragged.is_ragged_dataset(dataset):
                apart = functools.partial(
                    data.batch_apart, class_weight=class_weight
                )
                self._apart = data.Batches(apart, dataset)
                class_weight = None
        self._init_plain(dataset, class_weight, *args, **kwargs)

    @keeps("_get_plain_numpy_iterator")
    def get_numpy_iterator(self):
        if self._apart:
            return data_adapter_utils.get_numpy_iterator(self._apart)
        return self._get_plain_numpy_iterator()

    @keeps("_get_plain_jax_iterator")
    def get_jax_iterator(self, **kwargs):
        if not self._apart:
            return self._get_plain_jax_iterator(**kwargs)
        batches = data_adapter_utils.get_jax_iterator(self._apart)
        super_batch = kwargs.get("super_batch")
        if super_batch:
            return data_adapter_utils.super_batch_iterator(batches, super_batch)
        return batches

    @keeps("_get_plain_torch_dataloader")
    def get_torch_dataloader(self):
        if self._apart:
            return data_adapter_utils.get_torch_dataloader(self._apart)
        return self._get_plain_torch_dataloader()


@new
def _is_masked(element_spec):
    kinds = backend.MaskedTensor, backend.PackedTensor
    masked = tuple(kind.Spec for kind in kinds if hasattr(kind, "Spec"))
    return any(isinstance(x, masked) for x in tree.flatten(element_spec))


@new
def _weigh_by(class_weight):
    """A function of a batch that turns masks and classes into weights."""

    def weigh(*batch):
        x, y, weights = data_adapter_utils.unpack_x_y_sample_weight(batch)
        if class_weight is not None:
            if data.is_masked_array(y):
                weights = data.weights_of_classes(y, weights, class_weight)
            else:
                by_class = make_class_weight_map_fn(class_weight)
                _, _, weights = by_class(*batch)
        x, y, weights, _ = data.whole_batch(x, y, weights)
        return data_adapter_utils.pack_x_y_sample_weight(x, y, weights)

    return weigh
