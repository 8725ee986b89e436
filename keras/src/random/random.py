"""Dropout keeps a mask; the other functions refuse masked tensors by name."""

import functools

from pip_build import keeps
from pip_build import new


@keeps("_plain_dropout")
@keras_export("keras.random.dropout")
def dropout(inputs, rate, noise_shape=None, seed=None):
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
    # Not at the top: `keras_tensor` imports this module in a roundabout way.
    from keras.src.backend.common.keras_tensor import needs_dispatch

    if not needs_dispatch((inputs,)):
        return _plain_dropout(inputs, rate, noise_shape, seed)
    from keras.src.masking import dispatch
    from keras.src.masking import masks

    inputs = dispatch.from_numpy_ma(inputs)
    values = dispatch.values_of(inputs)
    values = _plain_dropout(values, rate, noise_shape, seed)
    return masks.wrap(values, inputs.mask)


@new
def _plain_only(function):
    """The function, which refuses masked arguments by name."""

    @functools.wraps(function)
    def checked(*args, **kwargs):
        from keras.src.backend.common.keras_tensor import needs_dispatch

        if needs_dispatch(args, kwargs):
            from keras.src.masking import errors

            errors.refuse_masked(
                function.__name__,
                (args, kwargs),
                "Random draws have no rule that says what becomes of a mask.",
            )
        return function(*args, **kwargs)

    return checked


for _name in (
    "beta",
    "binomial",
    "categorical",
    "gamma",
    "normal",
    "randint",
    "shuffle",
    "truncated_normal",
    "uniform",
):
    globals()[_name] = _plain_only(globals()[_name])
