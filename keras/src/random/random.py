"""Masked arguments of the public functions go to their rule."""

import functools

from keras.src.api_export import keras_export
from keras.src.backend.common import hooks
from patchset.markers import keeps
from patchset.markers import new


@keeps("_plain_dropout")
@keras_export("keras.random.dropout")
def dropout(*args, **kwargs):
    """Sets entries to 0 at random, and scales up the others.

    Args:
        inputs: Tensor or masked tensor. What comes out has the same mask.
        rate: Float between 0 and 1, the share of entries to drop.
        noise_shape: Shape of the random tensor, which is broadcast to that of
            `inputs`. Defaults to the shape of `inputs`.
        seed: Integer or `keras.random.SeedGenerator`, as in the other
            functions of this module.

    Returns:
        A tensor of the shape and dtype of `inputs`.
    """
    return _plain_dropout(*args, **kwargs)


@new
def _dispatched(function):
    """The function, whose masked arguments are treated by its rule."""

    @functools.wraps(function)
    def checked(*args, **kwargs):
        # Not at the top: `keras_tensor` imports this module in a roundabout
        # way.
        from keras.src.backend.common.keras_tensor import needs_dispatch

        if needs_dispatch(args, kwargs):
            return hooks.call_function(function, args, kwargs)
        return function(*args, **kwargs)

    return checked


for _name in (
    "beta",
    "binomial",
    "categorical",
    "dropout",
    "gamma",
    "normal",
    "randint",
    "shuffle",
    "truncated_normal",
    "uniform",
):
    globals()[_name] = _dispatched(globals()[_name])
