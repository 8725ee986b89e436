"""What losses and metrics see of masked tensors: the values, never the mask.

A mask is made by the model, so whoever reads it off the predictions lets the
model choose what it is judged on. Weights come from the data.
"""

import functools
import inspect

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common.keras_tensor import needs_dispatch
from keras.src.masking import masks
from keras.src.masking.dispatch import from_numpy_ma
from keras.src.masking.errors import has_mask
from keras.src.masking.families.losses import in_front
from keras.src.masking.families.reduce import FINITE


def plain(*structures):
    """Each structure with the values of its masked tensors.

    What lies under a mask stays what it is: these are the numbers that the
    model gave. `numpy.ma` arrays, which `predict` returns, count the same.
    """
    if not needs_dispatch(structures):
        return structures
    return tree.map_structure(_values, structures)


def weights(sample_weight):
    """Sample weights, with 0 where a masked one has nothing."""
    if not needs_dispatch((sample_weight,)):
        return sample_weight
    return tree.map_structure(_filled, sample_weight)


def frames(y_pred):
    """Of masked logits the valid frames of each row first, and their mask.

    Args:
        y_pred: Logits of shape `(batch, time, classes)`.

    Returns:
        A tuple of tensors, 0 and False after these frames; the logits as they
        are where their mask covers no frames.
    """
    y_pred = from_numpy_ma(y_pred)
    if not has_mask(y_pred) or len(y_pred.shape) != 3:
        return y_pred
    mask = y_pred.mask
    if len(mask.shape) == 1:
        return y_pred
    if len(mask.shape) == 3:
        y_pred = masks.wrap(masks.zero(y_pred), ops.any(mask, axis=-1))
    values, count = in_front(y_pred)
    places = ops.arange(ops.shape(values)[1], dtype="int32")
    return values, ops.less(places, ops.expand_dims(count, 1))


def of_rows(sample_weight):
    """A weight for each row, the largest of those for entries in it."""
    if sample_weight is None:
        return None
    sample_weight = ops.convert_to_tensor(weights(sample_weight))
    axes = tuple(range(1, len(sample_weight.shape)))
    return ops.max(sample_weight, axis=axes) if axes else sample_weight


def _values(x):
    if isinstance(x, np.ma.MaskedArray):
        return x.data
    return x.values if has_mask(x) else x


def _filled(x):
    if isinstance(x, np.ma.MaskedArray):
        return x.filled(0)
    return ops.filled(x, 0) if has_mask(x) else x


def ignores_masks(update_state):
    """Decorator: an `update_state` that gets plain tensors.

    Required of the decorated: it is a method, and weights are passed in its
    argument `sample_weight`, if it has one. Decorating twice does no more than
    decorating once. One that takes `y_true` and `y_pred` besides gets them
    without the NaN, inf and huge numbers that weigh 0.
    """
    if getattr(update_state, "_ignores_masks", False):
        return update_state
    names = _arguments(update_state)
    position = names.index("sample_weight") if "sample_weight" in names else -1
    pairs = {"y_true", "y_pred", "sample_weight"} <= set(names)

    @functools.wraps(update_state)
    def with_plain_tensors(self, *args, **kwargs):
        if needs_dispatch(args, kwargs):
            args = list(args)
            if 0 <= position < len(args):
                args[position] = weights(args[position])
            if "sample_weight" in kwargs:
                kwargs["sample_weight"] = weights(kwargs["sample_weight"])
            args, kwargs = plain(args, kwargs)
        if pairs:
            args, kwargs = list(args), dict(kwargs)
            _quiet_weightless(self, names, args, kwargs)
        # Bound, since a `tf.function` tells methods by that.
        return update_state.__get__(self)(*args, **kwargs)

    with_plain_tensors._ignores_masks = True
    return with_plain_tensors


def _arguments(method):
    """Names of the arguments but `self`; none if they cannot be told."""
    try:
        return list(inspect.signature(method).parameters)[1:]
    except (TypeError, ValueError):
        return []


def _quiet_weightless(metric, names, args, kwargs):
    """Replaces targets and predictions of weight 0 that could do harm.

    Args:
        metric: The metric that gets them.
        names: Names of the positional arguments of its `update_state`.
        args: List of the positional arguments.
        kwargs: Dictionary of the others.
    """
    from keras.src.metrics.reduction_metrics import Mean
    from keras.src.trainers.compile_utils import CompileMetrics

    given = dict(zip(names, args)) | kwargs
    sample_weight = given.get("sample_weight")
    # Some of the metrics of a model are not weighted.
    if sample_weight is None or isinstance(metric, CompileMetrics):
        return
    # A mean leaves out the values of weight 0 by itself, and TensorFlow looks
    # for the logits that belong to its predictions.
    pair = ["y_true"] if isinstance(metric, Mean) else ["y_true", "y_pred"]
    for name in pair:
        if "float" in str(getattr(given.get(name), "dtype", "")):
            found = quiet(given[name], sample_weight)
            if name in kwargs:
                kwargs[name] = found
            else:
                args[names.index(name)] = found


def quiet_masked(y_pred, sample_weight):
    """Predictions whose masked tensors are plain and quiet where they weigh 0.

    Whatever is masked is finite, but a loss of it need not be, nor its slope.
    So none of the gradient goes into masked entries of weight 0. Plain
    predictions stay what they are.
    """

    def quiet_one(x):
        # TensorFlow looks for the logits of a softmax, whose loss is finite.
        if not has_mask(x) or hasattr(x.values, "_keras_logits"):
            return x
        values = quiet(x.values, sample_weight)
        weights = _over_leading_axes(sample_weight, values)
        if weights is None:
            return values
        reached = ops.logical_or(
            masks.expand(x.mask, len(values.shape)), ops.not_equal(weights, 0)
        )
        return ops.where(reached, values, ops.stop_gradient(values))

    return tree.map_structure(quiet_one, y_pred)


def without_weightless(values, sample_weight):
    """The values with 0 where they weigh 0, so that NaN * 0 is 0.

    Args:
        values: Tensor of one loss for each entry.
        sample_weight: Tensor that broadcasts with the values.
    """
    return ops.where(ops.equal(sample_weight, 0), 0, values)


def quiet(y, sample_weight):
    """Targets or predictions without NaN, inf and huge numbers that weigh 0.

    A loss of such a target would be multiplied by 0 too late: its gradient is
    NaN already. Numbers whose square the dtype can hold are left as they are,
    since a loss may compare entries with each other.

    Args:
        y: Array of targets or of predictions, floating point or not.
        sample_weight: Weights over its leading axes: of shape `(batch,)` or
            `(batch, time)` for targets of shape `(batch, time, features)`. An
            axis of size 1 more or less at the end is the same. With any other
            shape the array is returned as it is.
    """
    if not backend.is_float_dtype(y.dtype):
        return y
    y = ops.convert_to_tensor(y)
    sample_weight = _over_leading_axes(sample_weight, y)
    if sample_weight is None:
        return y
    _, largest = FINITE[backend.standardize_dtype(y.dtype)]
    # A tensor: TensorFlow takes a number in Python for one of float32.
    limit = ops.convert_to_tensor(largest**0.5, y.dtype)
    # NaN is not less than anything.
    small = ops.less(ops.absolute(y), limit)
    keep = ops.logical_or(small, ops.not_equal(sample_weight, 0))
    return ops.where(keep, y, 0)


def _over_leading_axes(sample_weight, y):
    """The weights with axes to broadcast over `y`, None if they do not."""
    sample_weight = ops.convert_to_tensor(sample_weight)
    ndim = len(y.shape)
    missing = ndim - len(sample_weight.shape)
    if missing == -1 and sample_weight.shape[-1] == 1:
        sample_weight = ops.squeeze(sample_weight, -1)
    elif missing > 0:
        sample_weight = ops.expand_dims(
            sample_weight, tuple(range(ndim - missing, ndim))
        )
    if len(sample_weight.shape) != ndim:
        return None
    sizes = zip(sample_weight.shape, y.shape, strict=True)
    fits = all(w in (1, None, n) or n is None for w, n in sizes)
    return sample_weight if fits else None
