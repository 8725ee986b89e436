"""What losses and metrics see of composite outputs and targets.

A loss for a composite output is given it as it is. One for each of its parts is
a dictionary of losses by the names of parts, or a list of them in their order.
"""

import functools
import typing

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.composite import take_apart
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.masked_kernels import expand
from keras.src.composite.wholes import Whole

# What to write where weights of parts do not fit a loss of the whole.
INSTEAD_OF_A_WHOLE = (
    "Masks of targets are weights, which the loss itself does not see. Give "
    "the output a dictionary of losses by the names of parts; or let the loss "
    "of the whole keep the axes of the mask, and not go over them; or give "
    "the target the mask as a part of its own, a plain tensor, which the loss "
    "then reads."
)


def as_judged(config: Nest, y: Nest) -> Nest:
    """Outputs or targets in the structure that losses or metrics are given in.

    Args:
        config: Structure of losses or metrics.
        y: Structure of outputs or of targets.
    """
    if not any_composite((y,)):
        return y
    return _as_judged(config, y)


def _as_judged(config, y):
    if isinstance(y, CompositeBase):
        parts, (names, _) = take_apart(y)
        if isinstance(config, dict):
            y = dict(zip(names, parts))
        elif isinstance(config, (list, tuple)) and len(config) == len(parts):
            y = parts
        else:
            return Whole(y)
    if isinstance(y, dict):
        return {k: _as_judged(_at(config, k), v) for k, v in y.items()}
    if isinstance(y, (list, tuple)):
        return [_as_judged(_at(config, i), v) for i, v in enumerate(y)]
    return y


def check_types(config: Nest, y_true: Nest, y_pred: Nest) -> None:
    """Raises if parts of a target would be judged by those of another type.

    A loss of the whole may compare two types: it is given both as they are.

    Args:
        config: Structure of losses.
        y_true: Structure of targets.
        y_pred: Structure of outputs.
    """
    if any_composite((y_pred,)) and any_composite((y_true,)):
        _check_types(config, y_true, y_pred)


def _check_types(config, y_true, y_pred):
    if isinstance(y_pred, CompositeBase):
        if not isinstance(_as_judged(config, y_pred), Whole):
            _check_type(y_true, y_pred)
    elif isinstance(y_pred, dict) and isinstance(y_true, dict):
        for key in y_pred.keys() & y_true.keys():
            _check_types(_at(config, key), y_true[key], y_pred[key])
    elif isinstance(y_pred, (list, tuple)) and isinstance(
        y_true, (list, tuple)
    ):
        for i, pair in enumerate(zip(y_true, y_pred)):
            _check_types(_at(config, i), *pair)


def _check_type(target, output):
    related = isinstance(target, type(output)) or isinstance(
        output, type(target)
    )
    if related or not isinstance(target, CompositeBase):
        return
    name = type(output).__name__
    raise ValueError(
        f"An output is a `{name}`, and has a loss for each of its parts. Its "
        f"target is of another type: {target!r}. Give it a `{name}`; or give "
        "the output a loss function of the whole, which is given both as they "
        "are."
    )


def _at(config, key):
    """The part of a configuration that is about one output."""
    if isinstance(config, dict):
        return config.get(key)
    if isinstance(config, (list, tuple)):
        return config[key] if key in range(len(config)) else None
    return config


def weights_as_judged(config: Nest, sample_weight: Nest) -> Nest:
    """Weights in the structure that losses or metrics are given in.

    Trainers give each part of a target the weights of the row, times its mask.
    A loss of the whole has one weight for each of its entries, the mean of
    those of the parts, and 0 where a part weighs 0: so the mask of one part is
    that of the loss. Weights cover leading axes, here as everywhere.
    """
    judged = as_judged(config, sample_weight)
    if judged is sample_weight:
        return sample_weight
    return tree.map_structure(
        lambda x: _joint(x.value) if isinstance(x, Whole) else x, judged
    )


def _joint(whole):
    """One weight of those of all parts, over all axes of any of them."""
    parts = tree.flatten(whole)
    if all(x is None for x in parts):
        return None
    # None weighs 1.
    parts = [ops.convert_to_tensor(1.0 if x is None else x) for x in parts]
    ndim = max(len(x.shape) for x in parts)
    shapes = [tuple(x.shape) for x in parts]
    parts = [expand(x, ndim) for x in parts]
    for sizes in zip(*(tuple(x.shape) for x in parts)):
        if len(set(sizes) - {1, None}) > 1:
            raise ValueError(
                "A loss or metric of the whole of a composite target has one "
                "weight for each entry. Those of the parts of this "
                f"`{type(whole).__name__}`, which are masks of the parts and "
                f"the `sample_weight`, do not broadcast: they have the shapes "
                f"{shapes}. {INSTEAD_OF_A_WHOLE}"
            )
    joint = functools.reduce(ops.add, parts) / len(parts)
    for x in parts:
        joint = ops.where(ops.equal(x, 0), 0, joint)
    return joint


def as_tensors(x: typing.Any, dtype: str | None) -> typing.Any:
    """A target or a prediction, of tensors.

    Floats in a composite one have the dtype of the loss, as plain ones have:
    squares of float16 are soon infinite, and targets come in another dtype
    than predictions. Integers and masks stay what they are.
    """
    if isinstance(x, CompositeBase):
        return tree.map_structure(lambda y: _with_float(y, dtype), x)
    return tree.map_structure(
        lambda y: ops.convert_to_tensor(y, dtype=dtype), x
    )


def _with_float(x, dtype):
    x = ops.convert_to_tensor(x)
    is_float = backend.is_float_dtype(backend.standardize_dtype(x.dtype))
    return ops.cast(x, dtype) if is_float else x
