"""What weights weigh: rows, steps, or single entries of the targets.

Weights, like masks, cover leading axes. A loss has an entry for each of the
targets but for their last axis, which it goes over; weights of the targets'
full shape weigh the single entries before that. Static shapes tell which.
"""

import typing

from keras.src import ops
from keras.src import tree
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Tensor
from keras.src.composite.scoring import INSTEAD_OF_A_WHOLE
from keras.src.losses import losses
from keras.src.losses.loss import squeeze_or_expand_to_same_rank
from keras.src.masking.training import scoring
from keras.src.utils.naming import get_object_name

# Losses, as functions, that take each entry by itself and then the mean over
# an axis. Any other has a loss of the axis as a whole.
ENTRYWISE = (
    losses.binary_crossentropy,
    losses.binary_focal_crossentropy,
    losses.hinge,
    losses.huber,
    losses.log_cosh,
    losses.mean_absolute_error,
    losses.mean_absolute_percentage_error,
    losses.mean_squared_error,
    losses.mean_squared_logarithmic_error,
    losses.poisson,
    losses.squared_hinge,
)


def is_entrywise(function: typing.Callable) -> bool:
    """Whether a function is a loss that takes each entry by itself."""
    return any(function is one for one in ENTRYWISE)


def is_of_entries(
    function: typing.Callable,
    y_true: AnyTensor,
    y_pred: AnyTensor,
    sample_weight: Tensor | None,
) -> bool:
    """Whether weights are for single entries of a loss that has such.

    Args:
        function: A loss, as a function of targets and predictions.
        y_true: Tensor of targets, or a nest of them.
        y_pred: Tensor of predictions, or a nest of them.
        sample_weight: Tensor of weights.
    """
    nested = tree.is_nested(y_true) or tree.is_nested(y_pred)
    if nested or not is_entrywise(function):
        return False
    ndim = len(squeeze_or_expand_to_same_rank(y_true, y_pred)[0].shape)
    shape = tuple(sample_weight.shape)
    if len(shape) > ndim and shape[-1] == 1:
        shape = shape[:-1]
    # One weight for the whole last axis is one for a loss.
    return 0 < len(shape) == ndim and shape[-1] != 1


def of_entries(
    function: typing.Callable, y_true: Tensor, y_pred: Tensor, arguments: Named
) -> tuple[Tensor, typing.Any]:
    """The loss of each entry, and the axis over which a mean follows.

    Args:
        function: One of `ENTRYWISE`.
        y_true: Tensor of targets.
        y_pred: Tensor of predictions.
        arguments: Dictionary of further arguments of the function.
    """
    y_true, y_pred = squeeze_or_expand_to_same_rank(y_true, y_pred)
    logits = getattr(y_pred, "_keras_logits", None)
    # Over a last axis of size 1, the mean is the loss itself.
    y_true, y_pred = ops.expand_dims(y_true, -1), ops.expand_dims(y_pred, -1)
    if logits is not None:
        # TensorFlow takes them in place of the probabilities.
        y_pred._keras_logits = ops.expand_dims(logits, -1)
    axis = arguments.get("axis", -1)
    if axis != -1:
        arguments = {**arguments, "axis": -1}
    return function(y_true, y_pred, **arguments), axis


def function_of(loss: typing.Any) -> typing.Callable | None:
    """The function of a loss that only wraps one, else None."""
    is_wrapper = type(loss).call is losses.LossFunctionWrapper.call
    return loss.fn if is_wrapper else None


def name_of(loss: typing.Any) -> str:
    """What a user calls a loss, for messages."""
    is_plain = type(loss) is losses.LossFunctionWrapper
    return f"`{get_object_name(loss.fn) if is_plain else type(loss).__name__}`"


def losses_of_entries(
    loss: typing.Any,
    y_true: Tensor,
    y_pred: Tensor,
    sample_weight: Tensor | None,
) -> tuple | None:
    """Losses, and weights of their shape, or None if they are weighed.

    A sum, and losses without a reduction, are of means over the last axis, as
    without weights.

    Args:
        loss: Loss that wraps one of `ENTRYWISE`.
        y_true: Tensor of targets.
        y_pred: Tensor of predictions.
        sample_weight: Tensor of weights over all axes of the targets.
    """
    of_each, axis = of_entries(loss.fn, y_true, y_pred, loss._fn_kwargs)
    of_each, sample_weight = cover(of_each, sample_weight)
    if loss.reduction not in ("sum", "none", None):
        return of_each, sample_weight
    weights = ops.cast(sample_weight, of_each.dtype)
    of_each = scoring.without_weightless(of_each, weights) * weights
    return ops.mean(of_each, axis=axis), None


def of_each(
    entries: Tensor, sample_weight: Tensor, name: str = "the entries"
) -> Tensor:
    """The weights in the shape of what they weigh.

    Args:
        entries: Tensor of the shape.
        sample_weight: Weights over its leading axes, as `cover` takes them.
        name: What the entries are, for the message.
    """
    sample_weight = ops.convert_to_tensor(sample_weight)
    extra = len(sample_weight.shape) - len(entries.shape)
    if extra == 1 and sample_weight.shape[-1] == 1:
        sample_weight = ops.squeeze(sample_weight, -1)
    return cover(entries, sample_weight, name)[1]


_DOES_NOT_FIT = (
    "The `sample_weight` of shape {weights} does not fit {name} of shape "
    "{shape}. Weights cover leading axes: of shape (batch,) they weigh rows, "
    "of shape (batch, time) the steps of each row, and of shape (1, time) the "
    "steps of all rows. The mask of a target is a weight, too."
)
OF_ENTRIES = (
    "The `sample_weight` of shape {weights} weighs single entries, and does "
    "not fit {name} of shape {shape}: it takes the entries of an axis of the "
    "targets together. The mask of a target is a weight, too; that of a "
    "`numpy.ma` array has all axes. Where a target `y` is there or not as a "
    "whole, pass `keras.MaskedTensor(y.data, ~np.ma.getmaskarray(y)[..., 0])`, "
    "or a `sample_weight` of shape {shape}. For single entries, take a loss of "
    "each by itself (mean squared error, binary crossentropy and their like; "
    "a loss of your own that keeps the last axis), or give the model an "
    "output for each."
)
OF_A_WHOLE = (
    "The weights of shape {weights}, of the `sample_weight` and the masks of "
    "parts of a composite target, weigh more axes than {name} of the whole "
    "has, which is of shape {shape}. "
) + INSTEAD_OF_A_WHOLE


def cover(
    values: Tensor,
    sample_weight: Tensor,
    name: str = "the losses",
    too_many: str = OF_ENTRIES,
) -> tuple[Tensor, Tensor]:
    """Values and weights of the same shape.

    Args:
        values: Tensor of one loss, or metric, for each entry.
        sample_weight: Tensor of weights over its leading axes, of size 1 in
            any of them, or with an axis of size 1 more or less at the end.
        name: What the values are, for the message.
        too_many: The message where the weights have more axes than values.

    Returns:
        The two.

    Raises:
        ValueError: If the weights have more axes, or other sizes.
    """
    given = tuple(sample_weight.shape)
    values, sample_weight = squeeze_or_expand_to_same_rank(
        values, sample_weight
    )
    shape, weights = tuple(values.shape), tuple(sample_weight.shape)
    if weights == shape and None not in shape:
        return values, sample_weight
    fits = len(weights) <= len(shape) and all(
        n == m or 1 in (n, m) or None in (n, m) for n, m in zip(shape, weights)
    )
    if not fits:
        text = _DOES_NOT_FIT if len(given) <= len(shape) else too_many
        raise ValueError(text.format(name=name, shape=shape, weights=given))
    missing = tuple(range(len(weights), len(shape)))
    if missing:
        sample_weight = ops.expand_dims(sample_weight, missing)
    # A size that is not known may be 1.
    ones = ops.ones_like(values, dtype=sample_weight.dtype)
    return values, sample_weight * ones
