"""Joins the masked outputs of several batches.

A trainer joins the leaves of what it got, batch after batch, as plain arrays.
So masked outputs are taken apart before and put together at the end.
`np.concatenate` of `numpy.ma` arrays would drop their masks.

Batches may be of different lengths; the shorter ones are padded. How long the
longest is shows with the last one, so the trainer collects promises.
"""

import collections
import functools
import itertools
import typing

import numpy as np

from keras.src import backend
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Model
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.composite import fields
from keras.src.masking.masks import is_masked
from keras.src.masking.parts import Parts
from keras.src.masking.parts import from_parts
from keras.src.masking.parts import to_parts


def to_masked_tensors(outputs: Nest) -> Nest:
    """The structure with a masked tensor for each `Parts`."""

    def make(values, mask):
        if isinstance(values, _Promise):
            values, mask = values.array, mask.array
        return backend.MaskedTensor._wrap(values, mask)

    return from_parts(outputs, make)


class _Promise:
    """An array that NumPy sees as long as the longest of its kind.

    Args:
        array: Tensor of the backend, of batch axis and others.
        ndim: How many leading axes a mask has: in these, lengths may differ.
        lengths: List of the greatest so far, which each promise updates.
    """

    def __init__(self, array, ndim, lengths):
        self.array, self._lengths = array, lengths
        sizes = array.shape[1:ndim]
        lengths[:] = map(max, sizes, lengths or sizes)

    @property
    def dtype(self):
        return self.array.dtype

    def __array__(self, dtype=None, copy=None):
        array = backend.masked_kernels.as_numpy(self.array)
        widths = np.zeros((array.ndim, 2), int)
        lengths = slice(1, 1 + len(self._lengths))
        widths[lengths, 1] = np.subtract(self._lengths, array.shape[lengths])
        array = np.pad(array, widths) if widths.any() else array
        return np.array(array, dtype, copy=copy)


def joins_batches(predict: typing.Callable) -> typing.Callable:
    """Decorator: `predict` of a trainer, which may give masked outputs.

    It joins masked batches of different lengths, and returns a `numpy.ma` array
    for each masked output. (TensorFlow's trainer joins them itself.)
    """

    @functools.wraps(predict)
    def of_any_length(trainer, *args, **kwargs):
        vars(trainer)["_lengths"] = collections.defaultdict(list)
        vars(trainer)["_one_kind"] = fields.OneKind(_ONE_TYPE)
        try:
            return to_numpy(predict(trainer, *args, **kwargs))
        finally:
            del vars(trainer)["_lengths"], vars(trainer)["_one_kind"]

    return of_any_length


_ONE_TYPE = (
    "`predict` joins the outputs of all batches, which must be of one type: "
    "static fields are a part of it, and which parts are there. Annotate what "
    "changes with `keras.KerasTensor`; or pass one batch after another to "
    "`predict_on_batch`."
)


def promise(trainer: Model, outputs: Nest) -> Nest:
    """The structure with promises in each `Parts`, if they are collected."""
    lengths = vars(trainer).get("_lengths")
    if lengths is None:
        return outputs
    vars(trainer)["_one_kind"](outputs)
    places = itertools.count()

    def make(values, mask):
        of_output = lengths[next(places)]
        of_both = (_Promise(x, mask.ndim, of_output) for x in (values, mask))
        return Parts(*of_both)

    return from_parts(outputs, make)


def to_one_array(
    batches: typing.Sequence[MaskedTensorBase],
) -> np.ma.MaskedArray:
    """The `numpy.ma` array of masked tensors, joined along the batch axis."""
    lengths = []
    ndim = batches[0].mask.ndim
    values = [_Promise(x.values, ndim, lengths) for x in batches]
    masks = [_Promise(x.mask, ndim, lengths) for x in batches]
    return _numpy_ma(np.concatenate(values), np.concatenate(masks))


def to_numpy(outputs: Nest) -> Nest:
    """The structure with a `numpy.ma` array for each `Parts` of NumPy arrays.

    To be called once, on outputs that are joined already: NumPy's own
    functions lose the masks of `numpy.ma` arrays.
    """
    return from_parts(outputs, _numpy_ma)


def _numpy_ma(values, mask):
    """The `numpy.ma` array of NumPy values and a mask over leading axes."""
    mask = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    return np.ma.MaskedArray(values, ~np.broadcast_to(mask, values.shape))


def step_in_parts(step: typing.Callable) -> typing.Callable:
    """Wraps a step that returns outputs and a state."""

    def step_that_takes_apart(*args):
        outputs, state = step(*args)
        return to_parts(outputs), state

    return step_that_takes_apart


def concat_batches(batches: typing.Sequence[AnyTensor]) -> AnyTensor:
    """Joins tensors, masked or all plain, along the batch axis.

    Args:
        batches: List of backend tensors or of masked tensors.

    Returns:
        A tensor of the same kind; values and masks are joined apart.
    """
    if not is_masked(batches[0]):
        return backend.numpy.concatenate(batches, axis=0)
    return backend.MaskedTensor._wrap(
        backend.numpy.concatenate([x.values for x in batches], axis=0),
        backend.numpy.concatenate([x.mask for x in batches], axis=0),
    )
