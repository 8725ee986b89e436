"""Masked arrays are batched as their parts, and leave as masked tensors."""

from keras.src import tree
from keras.src.composite import fields
from keras.src.masking.training import data
from patchset.markers import keeps
from patchset.markers import new


@new
def _check_rows(x):
    shapes = [tuple(one.shape) for one in tree.flatten(x) if one is not None]
    if any(shape and shape[0] == 0 for shape in shapes):
        raise ValueError(
            "There is nothing to go through: the data have no rows. Received "
            f"arrays of shapes {shapes}."
        )


class ArrayDataAdapter:
    __added__ = ("_is_in_parts", "_flats")
    _is_in_parts = False
    _flats = ()

    @keeps("_init_plain")
    def __init__(
        self, x, y=None, sample_weight=None, *args, class_weight=None, **kwargs
    ):
        x, y, sample_weight = data.of_foreign((x, y, sample_weight))
        if data.is_to_take_apart(x, y, sample_weight):
            self._is_in_parts = True
            fields.check_rows((x, y, sample_weight))
            if class_weight is not None:
                sample_weight = data.weights_of_classes(
                    y, sample_weight, class_weight
                )
                class_weight = None
            x, y, self._flats = data.rows_apart(x, y)
            x, y, sample_weight = data.to_arrays(x, y, sample_weight)
            _check_rows(x)
        kwargs["class_weight"] = class_weight
        self._init_plain(x, y, sample_weight, *args, **kwargs)

    @keeps("_get_plain_iterator")
    def _get_iterator(self, *args, **kwargs):
        return self._batches(self._get_plain_iterator(*args, **kwargs))

    @keeps("_get_plain_tf_dataset")
    def get_tf_dataset(self):
        dataset = self._get_plain_tf_dataset()
        if not self._is_in_parts:
            return dataset
        return dataset.map(lambda *batch: self._put_together(batch))

    @keeps("_get_plain_torch_dataloader")
    def get_torch_dataloader(self):
        return self._batches(self._get_plain_torch_dataloader())

    @new
    def _batches(self, plain):
        return map(self._put_together, plain) if self._is_in_parts else plain

    @new
    def _put_together(self, batch):
        return data.from_arrays(batch, self._flats)
