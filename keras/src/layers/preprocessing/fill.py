"""A layer that ends a mask by type: it puts numbers where entries are missing.

What it puts there is part of the model, and is saved and exported with it.
"""

import numbers
import typing

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src.api_export import keras_export
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Shape
from keras.src.backend.common.kinds import Tensor
from keras.src.layers.layer import Layer
from keras.src.masking.layers import adapting

_STATISTICS = ("mean", "median")


@keras_export("keras.layers.Fill")
class Fill(Layer):
    """Puts a value in place of masked entries, so that the mask ends here.

    The features are along the last axis. A plain input, which has nothing
    missing, stays as it is.

    Args:
        value: What stands for a missing entry: a number; `"mean"` or
            `"median"`, of those that are there in what `adapt()` was given, for
            each feature; or `"learned"`, a weight for each feature that is
            trained, and starts at the mean. Before `adapt()` it is 0.
        indicator: Whether to append the mask as features: 1 where an entry
            was there, 0 where it was missing.
        **kwargs: Arguments of a layer, such as `name` and `dtype`.

    Input: masked or plain tensor of shape `(batch, ..., features)`, numbers of
    any dtype.

    Output: plain tensor of the same shape, or of twice as many features with
    `indicator`. Floating point unless `value` is a number.

    Raises:
        ValueError: If `value` is none of these, or the number of features is
            not known.

    Example:

    >>> x = keras.MaskedTensor.from_missing([[1.0, 5.0], [3.0, None]])
    >>> layer = keras.layers.Fill("mean", indicator=True)
    >>> layer.adapt(x)
    >>> keras.ops.convert_to_numpy(layer(x))
    array([[1., 5., 1., 1.],
           [3., 5., 1., 0.]], dtype=float32)
    """

    def __init__(
        self,
        value: float | str = "mean",
        indicator: bool = False,
        **kwargs: typing.Any,
    ) -> None:
        super().__init__(**kwargs)
        is_number = isinstance(value, numbers.Real)
        if not (is_number or value in (*_STATISTICS, "learned")):
            raise ValueError(
                "`value` of `Fill` is a number, 'mean', 'median' or 'learned'. "
                f"Received: value={value!r}"
            )
        self.value = value
        self.indicator = bool(indicator)

    def build(self, input_shape: Shape) -> None:
        features = input_shape[-1] if len(input_shape) > 1 else None
        if features is None and (self.indicator or self._has_weights):
            raise ValueError(
                f"Layer '{self.name}' (Fill) fills features, along the last of "
                "at least two axes, and has to know how many there are. "
                f"Received an input of shape {tuple(input_shape)}. Give a "
                "column the shape `(rows, 1)`."
            )
        if self._has_weights:
            self.fill = self.add_weight(
                shape=(features,),
                initializer="zeros",
                trainable=self.value == "learned",
                name="fill",
            )

    @property
    def _has_weights(self):
        return isinstance(self.value, str)

    def adapt(self, data: typing.Any) -> None:
        """Learns what to put in place of missing entries.

        Args:
            data: Masked or plain array, tensor or table, or batches of these:
                a `tf.data.Dataset`, a `keras.utils.PyDataset`, or an iterable,
                which may also yield tuples that start with a batch.

        Raises:
            ValueError: If `value` is a number, or a feature has NaN or an
                infinite number among its valid entries.
        """
        if not self._has_weights:
            raise ValueError(
                f"Layer '{self.name}' (Fill) puts {self.value} in place of "
                "missing entries, and has nothing to learn of data. Use "
                "`Fill('mean')`, `Fill('median')` or `Fill('learned')`."
            )
        masked, batches = adapting.look_into(data)
        if not masked and hasattr(batches, "shape"):
            batches = [batches]
        batches = [_rows(adapting.inputs_of(batch)) for batch in batches]
        rows = np.ma.concatenate(batches)
        if not self.built:
            self.build((None, rows.shape[-1]))
        of_all = np.ma.median if self.value == "median" else np.ma.mean
        found = np.ma.MaskedArray(of_all(rows, axis=0))
        nothing = np.ma.getmaskarray(found)
        adapting.warn_of_nothing(self, nothing, "filled with 0")
        found = found.filled(0)
        if not np.isfinite(found).all():
            raise ValueError(
                f"Layer '{self.name}' (Fill): the {of_all.__name__} of "
                f"features {np.flatnonzero(~np.isfinite(found)).tolist()} is "
                "not finite. A NaN in a plain array is a number; write "
                "`keras.MaskedTensor.from_missing(data)` if it means missing."
            )
        self.fill.assign(found)

    def call(self, x: AnyTensor) -> Tensor:
        if self._has_weights and not backend.is_float_dtype(x.dtype):
            x = ops.cast(x, self.compute_dtype)
        if not ops.is_masked(x):
            there = ops.ones_like(x) if self.indicator else None
            return x if there is None else ops.concatenate([x, there], -1)
        values, there = x.values, x.mask
        missing = len(values.shape) - len(there.shape)
        if missing:
            axes = tuple(range(len(there.shape), len(values.shape)))
            there = ops.logical_and(
                ops.expand_dims(there, axes), ops.ones_like(values, "bool")
            )
        fill = self.fill if self._has_weights else self.value
        values = ops.where(there, values, ops.cast(fill, values.dtype))
        if not self.indicator:
            return values
        return ops.concatenate([values, ops.cast(there, values.dtype)], -1)

    def get_config(self) -> dict:
        config = {"value": self.value, "indicator": self.indicator}
        return {**super().get_config(), **config}


def _rows(batch):
    """The rows of a batch, of shape `(rows, features)`, a `numpy.ma` array."""
    if adapting.is_masked(batch):
        array = ops.convert_to_numpy(batch)
    else:
        array = backend.convert_to_numpy(batch)
    if array.ndim < 2:
        raise ValueError(
            "`adapt()` of `Fill` takes batches of shape `(batch, ..., "
            f"features)`. Received one of shape {array.shape}. Give a column "
            "the shape `(rows, 1)`."
        )
    array = np.ma.asarray(array).reshape(-1, array.shape[-1])
    return array.astype("float64")
