"""What losses and metrics see of masked tensors: plain ones, without a mask.

A mask is made by the model, so whoever leaves out what it covers lets the model
choose what it is judged on. All of it counts, then, but what lies under a mask
means nothing: a prediction says nothing there. Weights come from the data.
"""

import functools
import inspect
import types
import typing

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.api_export import keras_export
from keras.src.backend.common import foreign
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.backend.common.keras_tensor import needs_dispatch
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Tensor
from keras.src.composite.wholes import Whole
from keras.src.composite.wholes import opened
from keras.src.masking import masks
from keras.src.masking import packing
from keras.src.masking.calls import from_foreign
from keras.src.masking.rules.losses import in_front
from keras.src.masking.rules.reduce import FINITE


def plain(*structures: Nest) -> Nest:
    """Each structure with 0 where its masked tensors have nothing."""
    if not needs_dispatch(structures):
        return structures
    return tree.map_structure(_filled, structures)


def plain_or_packed(structure: Nest) -> Nest:
    """The structure as `plain` gives it, but for packed tensors."""
    if not needs_dispatch((structure,)):
        return structure
    return tree.map_structure(
        lambda x: x if packing.is_packed(x) else _filled(x), structure
    )


def predictions(y_pred: Nest) -> Nest:
    """The structure with predictions that say nothing where they are masked.

    There, each of several classes is as likely as any other, and a number is 0,
    whatever a layer left: neither a loss nor its gradient depends on it. The
    arrays of `numpy.ma`, which `predict` returns, count the same.
    """
    if not needs_dispatch((y_pred,)):
        return y_pred
    return tree.map_structure(lambda x: said(from_foreign(x)), y_pred)


def said(x: Nest) -> Nest:
    """A masked prediction as plain values; see `predictions`."""
    if not has_mask(x):
        return x
    said = _with_nothing_said(x.values, x.mask)
    # TensorFlow looks for the logits that belong to its predictions.
    logits = getattr(x.values, "_keras_logits", None)
    if logits is not None:
        said._keras_logits = _with_nothing_said(logits, x.mask)
    return said


def _with_nothing_said(values, mask):
    """The values with 0 where they are masked, rows of 1/n if all of it is."""
    mask = ops.expand_dims(
        mask, tuple(range(len(mask.shape), len(values.shape)))
    )
    dtype = backend.standardize_dtype(values.dtype)
    zero = ops.zeros((), dtype)
    is_number = len(values.shape) < 2 or values.shape[-1] == 1
    if is_number or not backend.is_float_dtype(dtype):
        return ops.where(mask, values, zero)
    share = ops.cast(1 / ops.shape(values)[-1], dtype)
    if mask.shape[-1] == values.shape[-1]:
        share = ops.where(ops.any(mask, axis=-1, keepdims=True), zero, share)
    return ops.where(mask, values, share)


def weights(sample_weight: Nest) -> Nest:
    """Sample weights, with 0 where a masked one has nothing."""
    if not needs_dispatch((sample_weight,)):
        return sample_weight
    return tree.map_structure(_filled, sample_weight)


def frames(y_pred: Nest) -> Nest:
    """Of masked logits the valid frames of each row first, and their mask.

    Args:
        y_pred: Logits of shape `(batch, time, classes)`.

    Returns:
        A tuple of tensors, 0 and False after these frames; the logits as they
        are where their mask covers no frames.
    """
    y_pred = from_foreign(y_pred)
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


def of_rows(sample_weight: Nest) -> Nest:
    """A weight for each row, the largest of those for entries in it."""
    if sample_weight is None:
        return None
    sample_weight = ops.convert_to_tensor(weights(sample_weight))
    axes = tuple(range(1, len(sample_weight.shape)))
    return ops.max(sample_weight, axis=axes) if axes else sample_weight


def _filled(x):
    x = foreign.as_numpy(x)
    if isinstance(x, np.ma.MaskedArray):
        return x.filled(0)
    return ops.filled(x, 0) if has_mask(x) else x


def ignores_masks(update_state: typing.Callable) -> typing.Any:
    """Decorator: an `update_state` that gets plain tensors.

    Required of the decorated: it is a method, and weights are passed in its
    argument `sample_weight`, if it has one. Decorating twice does no more than
    decorating once. Its second argument is a prediction, if no other is called
    `y_pred`, and says nothing where it was masked. One that takes weights
    besides gets both without the NaN, inf and huge numbers that weigh 0.
    """
    if getattr(update_state, "_ignores_masks", False):
        return update_state
    names = _arguments(update_state)
    roles = _roles(names)
    by_role = {"sample_weight": weights, "y_pred": predictions}
    by_place = [by_role.get(role, _plain_one) for role in roles]
    readers = by_role | dict(zip(names, by_place))
    pairs = {"y_true", "y_pred", "sample_weight"} <= set(roles)

    @functools.wraps(update_state)
    def with_plain_tensors(self, *args, **kwargs):
        if needs_dispatch(args, kwargs):
            if hasattr(update_state, "_takes_packed") and any(
                map(packing.is_packed, tree.flatten((args, kwargs)))
            ):
                return _bound(update_state, self)(*args, **kwargs)
            if any_leaf((Whole, CompositeBase), args, kwargs):
                return _bound(update_state, self)(
                    *map(_of_composites, args),
                    **{k: _of_composites(x) for k, x in kwargs.items()},
                )
            rest = [_plain_one] * (len(args) - len(by_place))
            args = [one(x) for one, x in zip(by_place + rest, args)]
            kwargs = {
                k: readers.get(k, _plain_one)(x) for k, x in kwargs.items()
            }
        if pairs:
            args, kwargs = list(args), dict(kwargs)
            _quiet_weightless(self, roles, names, args, kwargs)
        return _bound(update_state, self)(*args, **kwargs)

    vars(with_plain_tensors)["_ignores_masks"] = True
    return with_plain_tensors


def _bound(update_state, metric):
    """The method of a metric; a `tf.function` tells methods by being bound."""
    if isinstance(update_state, types.FunctionType):
        # The compiler of PyTorch takes one `__get__` for another.
        return types.MethodType(update_state, metric)
    return update_state.__get__(metric)


def takes_packed(update_state: typing.Any) -> typing.Any:
    """Decorator: an `update_state` that gets packed tensors as they are.

    Required of the decorated: it hands them on, or knows what to do with them.
    """
    update_state._takes_packed = True
    return update_state


def _of_composites(x):
    """A composite tensor as it is, whose type knows what its masks mean."""
    x = opened(x)
    return x if isinstance(x, CompositeBase) else _plain_one(x)


def exported_functions(namespace: dict) -> list[typing.Callable]:
    """The public functions that a module defines."""
    return [
        x
        for x in list(namespace.values())
        if inspect.isfunction(x)
        and x.__module__ == namespace["__name__"]
        and hasattr(x, "_api_export_path")
    ]


def reads_no_mask(function: typing.Any) -> typing.Callable:
    """A public function that judges plain targets and predictions.

    Args:
        function: Takes `y_true` and `y_pred` first. It is exported anew, under
            the names that it has.
    """

    @functools.wraps(function)
    def judged(y_true, y_pred, *args, **kwargs):
        if needs_dispatch((y_true, y_pred)):
            y_true, y_pred = _plain_one(y_true), predictions(y_pred)
        return function(y_true, y_pred, *args, **kwargs)

    return keras_export(function._api_export_path)(judged)


def _plain_one(x):
    return plain(x)[0]


def _arguments(method):
    """Names of the arguments but `self`; none if they cannot be told."""
    try:
        _, *found = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return []
    first = [p.name for p in found if p.kind <= p.POSITIONAL_OR_KEYWORD]
    rest = [p.name for p in found if p.kind is p.VAR_POSITIONAL]
    by_name = [p.name for p in found if p.kind is p.KEYWORD_ONLY]
    # What has no name of its own may be the target and the prediction.
    return first + rest * (2 - len(first)) + by_name


def _roles(names):
    """What the arguments of a metric are, by the names that Keras has for it.

    The second is what a model predicts, as it is handed over by place.
    """
    second = "".join(names[1:2])
    if not second or "y_pred" in names or "weight" in second:
        return names
    return ["y_true", "y_pred", *names[2:]]


def _quiet_weightless(metric, roles, names, args, kwargs):
    """Replaces targets and predictions of weight 0 that could do harm.

    Args:
        metric: The metric that gets them.
        roles: What the arguments of its `update_state` are; see `_roles`.
        names: Their names.
        args: List of the positional arguments.
        kwargs: Dictionary of the others.
    """
    # Late: metrics import this.
    from keras.src.metrics.reduction_metrics import Mean
    from keras.src.trainers.compile_utils import CompileMetrics

    given = dict(zip(roles, args))
    by_name = {r: n for r, n in zip(roles, names) if n in kwargs}
    given.update({role: kwargs[name] for role, name in by_name.items()})
    sample_weight = given.get("sample_weight")
    # Some of the metrics of a model are not weighted.
    if sample_weight is None or isinstance(metric, CompileMetrics):
        return
    # A mean leaves out the values of weight 0 by itself, and TensorFlow looks
    # for the logits that belong to its predictions.
    pair = ["y_true"] if isinstance(metric, Mean) else ["y_true", "y_pred"]
    for role in pair:
        if "float" in str(getattr(given.get(role), "dtype", "")):
            found = quiet(given[role], sample_weight)
            if role in by_name:
                kwargs[by_name[role]] = found
            else:
                args[roles.index(role)] = found


def without_weightless(values: Tensor, sample_weight: Tensor) -> Tensor:
    """The values with 0 where they weigh 0, so that NaN * 0 is 0.

    Args:
        values: Tensor of one loss for each entry.
        sample_weight: Tensor that broadcasts with the values.
    """
    return ops.where(ops.equal(sample_weight, 0), 0, values)


def quiet(y: Tensor, sample_weight: Tensor | None) -> Tensor:
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
