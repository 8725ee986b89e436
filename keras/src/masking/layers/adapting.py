"""What preprocessing layers learn of masked data: that of valid entries."""

import itertools
import typing

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src.backend.common import foreign
from keras.src.backend.common.kinds import Axes
from keras.src.backend.common.kinds import Layer
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking.refusals import users_frame
from keras.src.masking.refusals import warn_at
from keras.src.utils.module_utils import tensorflow as tf


def of_foreign(data: typing.Any) -> typing.Any:
    """Data as they are to be learned of: foreign arrays as those of NumPy."""
    if foreign.is_foreign(data):
        return _of_one_kind(data)
    if type(data) in (list, tuple) and any(map(foreign.is_foreign, data)):
        return type(data)(_of_one_kind(x, always=True) for x in data)
    return data


def _of_one_kind(x, always=False):
    array = foreign.as_numpy(x, always)
    if isinstance(array, dict) and foreign.is_foreign(x):
        raise TypeError(
            "`adapt()` of a layer takes columns of one kind. Received "
            f"{type(x).__name__} with the columns {list(array)}, of several. "
            "Choose columns, or adapt a `keras.utils.FeatureSpace`, which has "
            "a layer for each feature."
        )
    return array


def is_masked(x: typing.Any) -> bool:
    """Whether `x` is a masked tensor or a `numpy.ma` array."""
    return isinstance(x, (MaskedTensorBase, np.ma.MaskedArray))


def as_batches(data: typing.Any) -> typing.Any:
    """Masked data as an iterator over batches, any other as it is."""
    data = of_foreign(data)
    if is_masked(data):
        return iter([data])
    if type(data) in (list, tuple) and any(map(is_masked, data)):
        return iter(data)
    return data


def valid_entries(x: typing.Any) -> np.ndarray:
    """The valid entries of a masked tensor, a NumPy array of rank 1."""
    return _as_numpy_ma(x).compressed()


def documents(x: typing.Any) -> list[np.ndarray]:
    """The valid entries of each row that has any; of rank 1 it is one row."""
    rows = _as_numpy_ma(x)
    rows = rows if rows.ndim > 1 else rows[None]
    return [row for row in map(valid_entries, rows) if row.size]


def _as_numpy_ma(x):
    return ops.convert_to_numpy(x) if isinstance(x, MaskedTensorBase) else x


def warn_of_nothing(
    layer: Layer, is_empty: typing.Any, consequence: str
) -> None:
    """Warns of features of which nothing was there to learn of.

    Args:
        layer: The layer.
        is_empty: Boolean array, True for a feature without a valid entry.
        consequence: What becomes of them, the end of a sentence.
    """
    is_empty = np.atleast_1d(is_empty)
    if not is_empty.any():
        return
    which = "there is no valid entry at all"
    if is_empty.size > 1:
        places = np.flatnonzero(is_empty).tolist()
        which = f"features {places} of {is_empty.size} have no valid entry"
    warn_at(
        users_frame(),
        f"Layer '{layer.name}' ({type(layer).__name__}): in what `adapt()` was "
        f"given {which}. Nothing is learned of them: {consequence}. Leave out "
        "such columns, or give it more data.",
        UserWarning,
    )


def warn_of_no_tokens(layer: Layer, data: typing.Any) -> None:
    """Warns of masked data of which a layer learns no vocabulary."""
    if is_masked(data) and not valid_entries(data).size:
        warn_of_nothing(layer, True, "the vocabulary stays what it is")


def inputs_of(batch: Nest) -> Nest:
    """The inputs of a batch, which may come with targets and weights."""
    inputs = batch[0] if isinstance(batch, tuple) else batch
    return _of_one_kind(inputs, always=True)


def look_into(data: typing.Any) -> tuple[bool, typing.Any]:
    """Whether data is masked, and the data, to be read from its start.

    Args:
        data: Array, tensor, or anything that gives batches. Of a generator
            the first batch decides.

    Returns:
        A tuple of a boolean, and of the data: its batches if it is masked.
    """
    # Late: trainers import layers.
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDataset

    data = of_foreign(data)
    if is_masked(data):
        return True, [data]
    if isinstance(data, np.ndarray) or backend.is_tensor(data):
        return False, data
    if isinstance(data, tf.data.Dataset):
        spec = inputs_of(data.element_spec)
        is_ours = issubclass(spec.value_type, MaskedTensorBase)
        batches = is_ours and len(spec.shape) == 1
        return is_ours, data.batch(128) if batches else data
    if isinstance(data, PyDataset):
        return is_masked(inputs_of(data[0])), data
    if isinstance(data, (list, tuple)):
        return any(is_masked(inputs_of(batch)) for batch in data), data
    if not hasattr(data, "__iter__"):
        return False, data
    batches = iter(data)
    first = list(itertools.islice(batches, 1))
    if any(is_masked(inputs_of(batch)) for batch in first):
        return True, itertools.chain(first, batches)
    return False, itertools.chain(first, map(_plain_only, batches))


def _plain_only(batch):
    if is_masked(inputs_of(batch)):
        raise ValueError(
            "`adapt()` was given a masked batch of shape "
            f"{tuple(inputs_of(batch).shape)} after plain ones, of which "
            "nothing is known any more but their mean. Let all batches be "
            "masked (`keras.MaskedTensor(x, keras.ops.ones(x.shape, "
            '"bool"))`), or pass them in a list.'
        )
    return batch


def moments(x: MaskedTensorBase, axes: Axes) -> list[Tensor]:
    """Count, mean and variance of the valid entries, plain tensors.

    Where nothing is valid, all three are 0.

    Args:
        x: Masked or plain tensor.
        axes: The axes to reduce.
    """
    ones = ops.ones_like(x)
    parts = ops.sum(ones, axes), ops.mean(x, axes), ops.var(x, axes)
    return [ops.filled(part) for part in parts]


def pooled(
    one: typing.Sequence[Tensor], other: typing.Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and variance of two samples as those of all of it."""
    (count, mean, variance), (more, other_mean, other_variance) = one, other
    total = count + more
    share = more / ops.maximum(total, 1)
    step = other_mean - mean
    spread = step * step * share * (1 - share)
    return (
        total,
        mean + step * share,
        variance * (1 - share) + other_variance * share + spread,
    )
