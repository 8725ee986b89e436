"""The error for an unsupported use of a masked tensor, and who makes it."""

import typing

from keras.src.api_export import keras_export
from keras.src.backend.common.composite import describe
from keras.src.backend.common.composite import has_mask
from keras.src.composite.errors import UnsupportedTypeError

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


def keep_notes(error: Exception) -> None:
    """Gives an error the notes of the one whose place it took.

    Keras raises a new one, with the arguments of the call in its message.
    """
    if hasattr(error, "_keras_call_info_injected"):
        for note in getattr(error.__context__, "__notes__", ()):
            if note not in getattr(error, "__notes__", ()):
                error.add_note(note)
