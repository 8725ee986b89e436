"""The error for a type that a function has no rule for."""

import inspect
import typing

from keras.src.api_export import keras_export


@keras_export("keras.UnsupportedTypeError")
class UnsupportedTypeError(TypeError):
    """A function was given a tensor of a type that it has no rule for.

    The message names the function, the operand, and the rule to write.
    """


def unsupported(
    name: str,
    operands: typing.Sequence,
    function: typing.Callable | None = None,
    tried: typing.Sequence[type] = (),
) -> UnsupportedTypeError:
    """The one place that makes this error for composite tensors.

    Args:
        name: Full name of the function, as users write it.
        operands: Its operands, flat, composite tensors as one.
        function: The function itself, by whose signature the rule is written;
            None if it looks for no rules.
        tried: Types that have a rule, which returned `NotImplemented`.

    Returns:
        The error, to be raised.
    """
    # Late: the type imports this.
    from keras.src.backend.common.composite import CompositeBase

    found = [
        (i, x) for i, x in enumerate(operands) if isinstance(x, CompositeBase)
    ]
    described = ", ".join(f"operand {i}: {x!r}" for i, x in found)
    type_name = type(found[0][1]).__name__ if found else "MyType"
    if tried:
        reason = (
            "has rules for "
            + ", ".join(f"`{t.__name__}`" for t in tried)
            + ", which return `NotImplemented` for these operands"
        )
    else:
        reason = f"has no rule for `{type_name}`"
    if "Variable" in name:
        todo = "Keep a variable for each part"
    elif not name.startswith("keras."):
        todo = "Use the function of `keras.ops`, with a rule for the type"
    elif function is None:
        todo = "It asks for none. Call it on parts"
    else:
        todo = (
            "Write the rule:\n\n"
            f"@keras.rule_for({name}, {type_name})\n"
            f"def {name.rpartition('.')[-1]}{_signature(function)}:\n"
            "    ...\n\n"
            "or call the function on parts of it"
        )
    if found:
        parts = ", ".join(f"`x.{part}`" for part in found[0][1]._parts)
        todo = f"{todo} ({parts})"
    return UnsupportedTypeError(f"`{name}` {reason} ({described}). {todo}.")


def _signature(function):
    """The parameters, without types: their names may mean nothing there."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return "(*args, **kwargs)"
    empty = inspect.Parameter.empty
    parameters = [
        p.replace(annotation=empty) for p in signature.parameters.values()
    ]
    return str(
        signature.replace(parameters=parameters, return_annotation=empty)
    )
