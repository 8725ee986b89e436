"""What losses and metrics see of composite outputs and targets.

A loss for a composite output is given it as it is. One for each of its parts is
a dictionary of losses by the names of parts, or a list of them in their order.
"""

import typing

from keras.src import ops
from keras.src import tree
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.composite import put_together
from keras.src.backend.common.composite import take_apart
from keras.src.backend.common.kinds import Nest
from keras.src.composite.wholes import Whole


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

    Trainers give each part of a target the weights of the row. A loss of the
    whole has one weight, the mean of those of its parts.
    """

    def one(x):
        if not isinstance(x, Whole):
            return x
        parts, _ = take_apart(x.value)
        return sum(parts[1:], parts[0]) / len(parts)

    judged = as_judged(config, sample_weight)
    return (
        judged if judged is sample_weight else tree.map_structure(one, judged)
    )


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
