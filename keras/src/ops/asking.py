"""Decorators of op functions that do not ask upstream's question of all.

Upstream's functions ask of their operands whether one is symbolic, and the
answer is yes for what has rules. These read a shape before, or do not ask of
each argument.
"""

import functools
import inspect
import typing

from keras.src.backend.common import hooks
from keras.src.backend.common.composite import ASKING
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.backend.common.keras_tensor import needs_dispatch


def asks_first(function: typing.Callable) -> typing.Callable:
    """Decorator: the function asks for a rule before it does anything.

    For a public function that reads the shape of an operand first, or that
    does not ask at all what some of its operands are.
    """

    ASKING.add(inspect.unwrap(function))

    @functools.wraps(function)
    def asking(*args, **kwargs):
        if any_composite(args, kwargs):
            return hooks.apply_rule(asking, args, kwargs)
        return function(*args, **kwargs)

    return asking


def first_only(function: typing.Callable, count: int = 1) -> typing.Callable:
    """Decorator: refuses masked tensors beyond the first arguments by name.

    For op functions that look only at their first operands before they call
    the backend, which would strip the mask of a `numpy.ma` array.

    Args:
        function: Public function whose first parameters may be masked.
        count: How many of them.
    """
    first = [*inspect.signature(function).parameters][:count]

    def others(args, kwargs):
        return args[count:], {k: v for k, v in kwargs.items() if k not in first}

    names = "`, `".join(first)
    which = "first argument" if count == 1 else f"first {count} arguments"
    return _refusing(
        function, others, f"Only its {which}, `{names}`, may be masked."
    )


def plain_only(reason: str) -> typing.Callable:
    """Decorator: refuses masked arguments of a function by name.

    Args:
        reason: Why, a sentence of the error.
    """
    return lambda function: _refusing(function, lambda *all_: all_, reason)


def _refusing(function, watched, reason):
    """The function, which refuses masks among the arguments that are watched.

    Args:
        function: Public function.
        watched: Function of its arguments and those by name, which gives
            those that must be plain.
        reason: Why, a sentence of the error.
    """

    ASKING.add(inspect.unwrap(function))

    @functools.wraps(function)
    def checked(*args, **kwargs):
        if needs_dispatch(*watched(args, kwargs)):
            if any_composite(*watched(args, kwargs)):
                return hooks.apply_rule(checked, args, kwargs)
            args, kwargs = hooks.keep_plain(
                function, watched(args, kwargs), args, kwargs, reason
            )
        return function(*args, **kwargs)

    return checked


def carries(name: str) -> typing.Callable:
    """Decorator: the function carries masked tensors in eager calls.

    Symbolic calls stay upstream's: their operation carries them.

    Args:
        name: That of the function of `carry` which does so, and which takes
            the decorated one first.
    """

    def decorator(plain):
        @functools.wraps(plain)
        def function(*args, **kwargs):
            if any_leaf(KerasTensor, args, kwargs):
                return plain(*args, **kwargs)
            return getattr(hooks.carry, name)(plain, *args, **kwargs)

        return function

    return decorator
