"""Losses and metrics of packed predictions: each valid step by itself.

All entries count, and where a prediction is masked it says nothing. So there
are two parts: the valid steps, and what the targets of the others weigh. The
second depends on no variable, has no gradient, and is computed only if any of
those weighs something. Most often none does.
"""

import dataclasses
import functools
import math
import typing

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import DType
from keras.src.backend.common.kinds import Tensor
from keras.src.losses import losses
from keras.src.losses.loss import squeeze_or_expand_to_same_rank
from keras.src.masking import masks
from keras.src.masking import packing
from keras.src.masking.calls import values_of
from keras.src.masking.training import scoring
from keras.src.masking.training import weighing
from keras.src.metrics import accuracy_metrics

# Functions of numbers of classes, and of an output for each class.
_OF_LABELS = (
    losses.sparse_categorical_crossentropy,
    accuracy_metrics.sparse_categorical_accuracy,
    accuracy_metrics.sparse_top_k_categorical_accuracy,
)
# Functions that take each step by itself, and its last axis as a whole.
_OF_STEPS = (
    losses.categorical_crossentropy,
    losses.categorical_focal_crossentropy,
    losses.categorical_hinge,
    losses.cosine_similarity,
    losses.kl_divergence,
    accuracy_metrics.categorical_accuracy,
    accuracy_metrics.top_k_categorical_accuracy,
)
# Functions that take each entry by itself, then the mean over the last axis.
_OF_ENTRIES = (*weighing.ENTRYWISE, accuracy_metrics.binary_accuracy)


@dataclasses.dataclass
class Sums:
    """What a loss or metric adds up, over valid steps and all others.

    Attributes:
        total: The sum of the weighted values, a scalar.
        weight: The sum of their weights, a scalar.
        size: How many values a step has.
        width: The number of entries over which a loss takes a mean, where it
            is entries that weights weigh; else 1.
        over_time: Whether the function goes over time, the last axis.
    """

    total: typing.Any
    weight: typing.Any
    size: int
    width: int
    over_time: bool


def sums(
    function: typing.Callable,
    arguments: dict,
    y_true: AnyTensor,
    y_pred: AnyTensor,
    sample_weight: Tensor | None,
    dtype: DType,
    is_loss: bool = True,
) -> Sums | None:
    """The `Sums` of a function of targets and packed predictions.

    Args:
        function: A loss or metric, as a function of both.
        arguments: Dictionary of its further arguments.
        y_true: Targets, padded or packed.
        y_pred: Predictions, anything.
        sample_weight: Weights over leading axes of the targets, or None.
        dtype: The dtype of the values.
        is_loss: Whether targets and predictions are brought to one rank, as
            those of a loss are.

    Returns:
        None if the predictions are not packed, or not to be computed by steps:
        whoever asks then computes with padded ones.
    """
    if not packing.is_packed(y_pred) or not _is_known(function, arguments):
        return None
    if isinstance(y_true, CompositeBase) or not hasattr(y_true, "shape"):
        return None
    if sample_weight is not None:
        sample_weight = ops.convert_to_tensor(
            scoring.weights(sample_weight), dtype
        )
    over_time = _goes_over_time(function, y_true, y_pred, is_loss)
    if over_time is None or not _fits(
        function, y_true, y_pred, sample_weight, over_time
    ):
        return None
    return _sums(
        functools.partial(_values, function, arguments, dtype),
        _Steps(y_true, y_pred, sample_weight, dtype, over_time),
    )


def _is_known(function, arguments):
    known = (*_OF_LABELS, *_OF_STEPS, *_OF_ENTRIES)
    return (
        _is_one_of(known, function)
        and arguments.get("axis", -1) == -1
        and arguments.get("ignore_class") is None
    )


def _goes_over_time(function, y_true, y_pred, is_loss):
    """Whether time is the last axis that a function sees, None if unknown."""
    rank_true, rank_pred = len(y_true.shape), len(y_pred.shape)
    if _is_one_of(_OF_LABELS, function):
        is_one = rank_true == rank_pred > 2 and y_true.shape[-1] == 1
        is_usual = rank_true + 1 == rank_pred and y_pred.shape[-1] != 1
        return False if is_one or is_usual else None
    if rank_true != rank_pred:
        longer = y_true if rank_true > rank_pred else y_pred
        is_near = abs(rank_true - rank_pred) == 1 and longer.shape[-1] == 1
        if not is_near or not is_loss:
            return None
    rank = min(rank_true, rank_pred)
    if rank > 2:
        return False
    return True if rank == 2 and _is_one_of(_OF_ENTRIES, function) else None


def _is_one_of(functions, function):
    return any(function is one for one in functions)


def _fits(function, y_true, y_pred, sample_weight, over_time):
    """Whether targets and weights are known to go with the predictions."""
    if len(y_true.shape) < 2 or y_pred.flat.shape[0] == 0:
        return False
    if not _same(y_true.shape[:2], y_pred.shape[:2]):
        return False
    if sample_weight is None:
        return True
    shape = tuple(sample_weight.shape)
    # Behind batch and time, over which a function that goes over time has one.
    of_entries = weighing.is_entrywise(function) or shape[-1:] == (1,)
    most = len(y_pred.shape) - (not of_entries and not over_time)
    return (1 + over_time) <= len(shape) <= most and all(
        n == 1 or _same((n,), (m,)) for n, m in zip(shape, y_pred.shape)
    )


def _same(shape, other):
    return all(n == m or None in (n, m) for n, m in zip(shape, other))


class _Steps:
    """Targets, predictions and weights, of valid steps and of all others."""

    def __init__(self, y_true, y_pred, sample_weight, dtype, over_time):
        self.y_true, self.y_pred = y_true, y_pred
        self.dtype, self.over_time = dtype, over_time
        self.count = ops.shape(y_pred.mask)
        self.weight = self._over_steps(sample_weight)

    def _over_steps(self, weight):
        """Weights of shape `(batch, time, ...)`."""
        if weight is None:
            return ops.ones(self.count, self.dtype)
        missing = 2 - len(weight.shape)
        weight = ops.expand_dims(weight, -1) if missing > 0 else weight
        rest = tuple(weight.shape[2:])
        return ops.broadcast_to(weight, (*self.count, *rest))

    def valid(self) -> tuple:
        """The three for the flat steps."""
        x = self.y_pred
        y_pred = x.flat
        if x.there is not None:
            y_pred = scoring.said(masks.wrap(y_pred, x.there))
        y_true = packing.steps_of(scoring.plain_or_packed(self.y_true), x)
        return self._ranked(y_true, y_pred, packing.packed(self.weight, x))

    def others(self) -> tuple:
        """The three for all steps, in a row; valid ones weigh 0."""
        x = self.y_pred
        zeros = ops.zeros(ops.shape(x), x.dtype)
        y_pred = scoring.said(masks.wrap(zeros, x.mask))
        y_true = packing.padded(scoring.plain_or_packed(self.y_true))
        mask = masks.expand(x.mask, len(self.weight.shape))
        weight = ops.where(mask, 0, self.weight)
        found = map(ops.convert_to_tensor, map(values_of, (y_true, y_pred)))
        return self._ranked(
            *(ops.reshape(y, (-1, *y.shape[2:])) for y in (*found, weight))
        )

    def any_other(self) -> Tensor:
        """Whether a step that is not valid weighs anything."""
        mask = masks.expand(self.y_pred.mask, len(self.weight.shape))
        weighs = ops.not_equal(self.weight, 0)
        return ops.any(ops.logical_and(weighs, ops.logical_not(mask)))

    def _ranked(self, y_true, y_pred, weight):
        """The three, with a last axis for a function that goes over time."""
        if not self.over_time:
            return y_true, y_pred, weight
        logits = getattr(y_pred, "_keras_logits", None)
        y_true, y_pred, weight = (
            ops.reshape(y, (-1, 1)) for y in (y_true, y_pred, weight)
        )
        if logits is not None:
            # TensorFlow takes them in place of the probabilities.
            y_pred._keras_logits = ops.reshape(logits, (-1, 1))
        return y_true, y_pred, weight


def _values(function, arguments, dtype, y_true, y_pred, weight):
    """The values of a function, their weights, and over what it has a mean."""
    y_true = ops.convert_to_tensor(y_true, dtype)
    y_pred = ops.convert_to_tensor(y_pred, dtype)
    y_true, y_pred = squeeze_or_expand_to_same_rank(y_true, y_pred)
    y_true = scoring.quiet(y_true, weight)
    width = 1
    if weighing.is_of_entries(function, y_true, y_pred, weight):
        values, _ = weighing.of_entries(function, y_true, y_pred, arguments)
        width = values.shape[-1]
    else:
        values = function(y_true, y_pred, **arguments)
    return (*weighing.cover(ops.cast(values, dtype), weight), width)


def _sums(values_of, steps):
    def added(y_true, y_pred, weight):
        values, weight, width = values_of(y_true, y_pred, weight)
        total = ops.sum(scoring.without_weightless(values, weight) * weight)
        return total, ops.sum(weight), math.prod(values.shape[1:]), width

    total, weight, size, width = added(*steps.valid())

    def of_others():
        return added(*steps.others())[:2]

    def of_none():
        return ops.zeros_like(total), ops.zeros_like(weight)

    more = backend.PackedTensor._if(steps.any_other(), of_others, of_none)
    total, weight = total + more[0], weight + more[1]
    return Sums(total, weight, size, width, steps.over_time)
