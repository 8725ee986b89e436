"""The error for an unsupported use of a masked tensor, and who raises it."""

import functools
import inspect
import typing

from keras.src import tree
from keras.src.api_export import keras_export
from keras.src.backend.common.composite import ASKING
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.composite import describe
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import needs_dispatch
from keras.src.backend.common.kinds import Nest
from keras.src.composite.errors import UnsupportedTypeError
from keras.src.masking.refusals import settle

WAYS_OUT = (
    "What to do: fill the masked entries (`keras.ops.filled(x, value)`), drop "
    "the mask on purpose (`x.values`), or {rule}."
)


@keras_export("keras.masking.UnsupportedMaskError")
class UnsupportedMaskError(UnsupportedTypeError):
    """An operation was given a masked tensor that it has no rule for.

    Masks are never dropped in silence. The message names the operation, the
    masked operands with their shapes, the reason, and the ways out.
    """

    op_name = reason = ""
    # Whether the call could go on without masks, which is still to be decided.
    is_open = False


def refuse(
    op_name: str,
    operands: typing.Sequence,
    reason: str,
    rule: str = "add a rule for it",
    is_open: bool = False,
) -> UnsupportedMaskError:
    """The one place that makes the error for an unsupported use.

    Args:
        op_name: Name of the operation or layer.
        operands: Its operands, masked and plain, flat.
        reason: Why it cannot be done, a sentence.
        rule: How the user could add what is missing.
        is_open: Whether the call can go on without masks, so that
            `refusals.settle` has to decide what becomes of the error.

    Returns:
        The error, to be raised.
    """
    described = ", ".join(
        f"operand {i}: {describe(x)}"
        for i, x in enumerate(operands)
        if has_mask(x)
    )
    error = UnsupportedMaskError(
        f"`{op_name}` cannot take this masked tensor ({described}). "
        f"{reason} {WAYS_OUT.format(rule=rule)}"
    )
    error.op_name, error.reason = op_name, reason
    error.is_open = is_open
    return error


def refuse_masked(
    op_name: str, operands: Nest, reason: str, rule: str = "add a rule for it"
) -> None:
    """Raises that error if there is a mask anywhere in the nest `operands`.

    The arrays of `numpy.ma` count as masked tensors.
    """
    operands = _tensors(operands)
    if any(map(has_mask, operands)):
        raise refuse(op_name, operands, reason, rule)


def _tensors(nest):
    # Late: the door imports errors.
    from keras.src.masking.calls import from_foreign

    return [from_foreign(x) for x in tree.flatten(nest) if hasattr(x, "shape")]


def first_only(function: typing.Callable) -> typing.Callable:
    """Decorator: refuses masked tensors beyond the first argument by name.

    For op functions that look only at their first operands before they call
    the backend, which would strip the mask of a `numpy.ma` array.

    Args:
        function: Public function whose first parameter may be masked.
    """
    first = next(iter(inspect.signature(function).parameters))

    def others(args, kwargs):
        return args[1:], {k: v for k, v in kwargs.items() if k != first}

    reason = f"Only its first argument, `{first}`, may be masked."
    return _refusing(function, others, reason)


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
                # Late: the door imports errors.
                from keras.src.composite.rules import apply

                return apply(checked, args, kwargs)
            if any(map(has_mask, _tensors(watched(args, kwargs)))):
                error = refuse(
                    function.__name__,
                    _tensors((args, kwargs)),
                    reason,
                    is_open=True,
                )
                args, kwargs = settle(error, args, kwargs)
        return function(*args, **kwargs)

    return checked


def keep_notes(error: Exception) -> None:
    """Gives an error the notes of the one whose place it took.

    Keras raises a new one, with the arguments of the call in its message.
    """
    if hasattr(error, "_keras_call_info_injected"):
        for note in getattr(error.__context__, "__notes__", ()):
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
