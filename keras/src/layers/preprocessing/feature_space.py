"""Features with missing entries: each is masked where its column is."""

from keras.src import ops
from keras.src.backend.common import foreign
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking.layers import adapting
from keras.src.utils.module_utils import tensorflow as tf
from patchset.markers import keeps
from patchset.markers import new


class FeatureSpace:
    @keeps("_adapt_to_dataset")
    def adapt(self, dataset, *args, **kwargs):
        """Learns statistics and vocabularies, of the entries that are there.

        Args:
            dataset: A `tf.data.Dataset` of dictionaries, a dictionary of
                arrays by the names of features, or a table of pandas, Polars
                or Arrow. Arrays and columns may have missing entries.
            *args: As upstream takes them, for a `tf.data.Dataset`.
            **kwargs: The same.

        Raises:
            ValueError: If it is something else, or a feature is missing.
        """
        columns = _columns(dataset)
        if columns is None:
            self._adapt_to_dataset(_of_rows(dataset), *args, **kwargs)
            return
        self._check_names(columns)
        for name in self._list_adaptable_preprocessors():
            column = columns[name]
            if len(column.shape) == 1:
                column = column[:, None]
            self.preprocessors[name].adapt(column)
        self._is_adapted = True
        self.get_encoded_features()  # Which makes the encoders.
        self.built = self._sublayers_built = True

    @new
    def _check_names(self, columns):
        lacking = sorted(set(self.features) - set(columns))
        if lacking:
            raise ValueError(
                f"FeatureSpace '{self.name}' has the features {lacking}, of "
                "which there are no columns. Received columns "
                f"{list(columns)}."
            )

    @keeps("_call_on_plain")
    def __call__(self, data):
        columns = _columns(data)
        if columns is None:
            return self._call_on_plain(data)
        self._check_names(columns)
        columns = {name: columns[name] for name in self.features}
        if not any(map(adapting.is_masked, columns.values())):
            return self._call_on_plain(columns)
        return self._call_on_masked(columns)

    @new
    def _call_on_masked(self, columns):
        """Encodes what is there, and masks each feature where it is not."""
        self._check_if_built()
        there = {
            n: _rows(x) for n, x in columns.items() if adapting.is_masked(x)
        }
        plain = {name: self._filled(name, x) for name, x in columns.items()}
        mode, self.output_mode = self.output_mode, "dict"
        try:
            encoded = self._call_on_plain(plain)
        finally:
            self.output_mode = mode
        for name, values in encoded.items():
            cross = self.crosses_by_name.get(name)
            parts = cross.feature_names if cross else [name]
            known = [there[part] for part in parts if part in there]
            encoded[name] = _masked(values, known)
        if mode == "dict":
            return encoded
        names = (*self._preprocessed_features_names,)
        names += (*self._crossed_features_names,)
        return ops.concatenate([encoded[name] for name in names], axis=-1)

    @new
    def _filled(self, name, x):
        """A column with an entry that its preprocessor knows under the mask."""
        if not adapting.is_masked(x):
            return x
        tokens = []
        if hasattr(self.preprocessors[name], "get_vocabulary"):
            # Within a pipeline the table is none of its tensors.
            with tf.init_scope():
                tokens = self.preprocessors[name].get_vocabulary(
                    include_special_tokens=False
                )
        text = "string" in self.features[name].dtype
        value = tokens[0] if len(tokens) else "" if text else 0
        return x.filled(value) if hasattr(x, "filled") else ops.filled(x, value)


@new
def _columns(data):
    """Columns by name, of a table or of a dictionary that has masked ones.

    Returns:
        A dictionary of arrays and tensors, None for what upstream reads.
    """
    if foreign.is_known(type(data)):
        data = foreign.as_columns(data)
    elif not isinstance(data, dict) or not any(
        has_mask(x) or foreign.is_foreign(x) for x in data.values()
    ):
        return None
    return {name: foreign.as_numpy(x) for name, x in data.items()}


@new
def _of_rows(dataset):
    """A dataset with masked columns of shape `(rows, 1)`, any other as it is.

    Upstream's would ask TensorFlow for their axes.
    """
    if not isinstance(dataset, tf.data.Dataset):
        return dataset
    specs = dataset.element_spec
    if not isinstance(specs, dict) or not any(map(_is_masked, specs.values())):
        return dataset
    if all(len(spec.shape) == 0 for spec in specs.values()):
        dataset = dataset.batch(32)
    return dataset.map(
        lambda columns: {
            name: ops.expand_dims(x, -1) if len(x.shape) == 1 else x
            for name, x in columns.items()
        }
    )


@new
def _is_masked(spec):
    return issubclass(spec.value_type, MaskedTensorBase)


@new
def _rows(x):
    """The mask of a column over its rows."""
    mask = ops.logical_not(x.mask) if hasattr(x, "filled") else x.mask
    axes = tuple(range(1, len(mask.shape)))
    return ops.any(mask, axes) if axes else mask


@new
def _masked(values, known):
    """An encoded feature, masked where one of its columns is."""
    if not known:
        return values
    there = known[0]
    for mask in known[1:]:
        there = ops.logical_and(there, mask)
    there = masks.expand(there, len(values.shape))
    there = ops.broadcast_to(there, ops.shape(values))
    return masks.wrap(masks.fill(values, there, 0), there)
