"""What losses and metrics see of composite outputs and targets.

A loss for a composite output is given it as it is. One for each of its parts is
a dictionary of losses by the names of parts, or a list of them in their order.
"""

import functools
import typing

from keras.src import ops
from keras.src import tree
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.composite import put_together
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

    Those of a composite one keep their dtypes and masks: what they mean, its
    type knows.
    """
    if not isinstance(x, CompositeBase):
        return tree.map_structure(
            lambda y: ops.convert_to_tensor(y, dtype=dtype), x
        )
    parts, description = take_apart(x)
    tensors = [
        as_tensors(part, None)
        if isinstance(part, CompositeBase)
        else ops.convert_to_tensor(part)
        for part in parts
    ]
    return put_together(type(x), description, tensors)
