"""Weights that leave padding out of losses and weighted metrics."""

import typing

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src.api_export import keras_export
from keras.src.backend.common import foreign
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.kinds import Tensor


@keras_export("keras.utils.sample_weight_from_mask")
def sample_weight_from_mask(
    mask: typing.Any, dtype: str | None = None
) -> Tensor:
    """Sample weights that are 1 where a mask is valid, and 0 elsewhere.

    Losses and metrics never read a mask. To leave padding out, pass these
    weights as `sample_weight` to `fit` and `evaluate`, and the metrics as
    `weighted_metrics` to `compile` (those in `metrics` ignore all weights).
    With the loss reduction `"mean_with_sample_weight"` the loss is the mean
    over valid entries; the default one divides by the number of all entries.

    Args:
        mask: Boolean array or tensor, `True` where valid, such as
            `x_ids != 0`. Or a `keras.MaskedTensor` or a `numpy.ma` array, of
            which only the mask counts.
        dtype: Dtype of the weights. Defaults to `keras.config.floatx()`.

    Returns:
        Weights of the shape of the mask: a NumPy array for NumPy arrays and
        lists, a tensor of the backend otherwise.

    Raises:
        TypeError: If `mask` is a plain array or tensor that is not boolean.

    Example:

    >>> x_ids = np.array([[7, 4, 2, 0], [5, 2, 0, 0]])
    >>> keras.utils.sample_weight_from_mask(x_ids != 0)
    array([[1., 1., 1., 0.],
           [1., 1., 0., 0.]], dtype=float32)
    """
    dtype = backend.standardize_dtype(dtype or backend.floatx())
    mask = _mask_of(mask)
    if backend.standardize_dtype(mask.dtype) != "bool":
        raise TypeError(
            "`sample_weight_from_mask` takes a boolean mask, True where valid, "
            f"or a masked tensor. Received a plain array of dtype {mask.dtype} "
            f"and shape {tuple(mask.shape)}. Write `x_ids != 0` to get the "
            "mask of ids that are padded with 0."
        )
    if isinstance(mask, np.ndarray):
        return mask.astype(dtype)
    return ops.cast(mask, dtype)


def _mask_of(x):
    x = foreign.as_numpy(x, always=True)
    if isinstance(x, np.ma.MaskedArray):
        return ~np.ma.getmaskarray(x)
    if has_mask(x):
        return x.mask
    return x if hasattr(x, "dtype") else np.asarray(x)


@keras_export("keras.utils.shift_for_next_token")
def shift_for_next_token(ids: typing.Any, padding: int = 0) -> tuple:
    """Splits sequences into what a causal model sees and what it is to say.

    Step `t` of the targets is step `t + 1` of the inputs. The mask is shifted
    along with them: the last token of a sequence is a target once, and padding
    never is one, so a model gets no credit for the padding after an end.

    Args:
        ids: Integer array or tensor of shape `(batch, time)`; or a
            `keras.MaskedTensor` or `numpy.ma` array of that shape, whose mask
            says what is padding.
        padding: The id of padding. Defaults to 0. Not used if `ids` is masked.

    Returns:
        Inputs, targets and sample weights of shape `(batch, time - 1)`, to be
        passed on as `model.fit(inputs, targets, sample_weight=weights)`.
        Inputs and targets are masked if `ids` is.

    Raises:
        ValueError: If `ids` does not have two axes.

    Example:

    >>> # "hello", "world", END, and three times PAD.
    >>> ids = np.array([[4, 5, 1, 0, 0, 0]])
    >>> x, y, sample_weight = keras.utils.shift_for_next_token(ids)
    >>> x
    array([[4, 5, 1, 0, 0]])
    >>> y
    array([[5, 1, 0, 0, 0]])
    >>> sample_weight
    array([[1., 1., 0., 0., 0.]], dtype=float32)
    """
    if not hasattr(ids, "shape"):
        ids = np.asarray(ids)
    if len(ids.shape) != 2:
        raise ValueError(
            "`shift_for_next_token` takes ids of shape (batch, time). Received "
            f"ids of shape {tuple(ids.shape)}."
        )
    inputs, targets = ids[:, :-1], ids[:, 1:]
    masked = isinstance(ids, np.ma.MaskedArray) or has_mask(ids)
    weights = sample_weight_from_mask(targets if masked else targets != padding)
    return inputs, targets, weights
