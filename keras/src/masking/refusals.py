"""Whether a refusal is an error or a warning, and where in the user's code."""

import contextlib
import inspect
import types
import typing
import warnings

from keras.src import ops
from keras.src import tree
from keras.src.api_export import keras_export
from keras.src.backend.common import global_state
from keras.src.backend.common import hooks
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Nest
from keras.src.masking.calls import Call
from keras.src.masking.calls import from_foreign
from keras.src.masking.errors import refuse

ACTIONS = ("raise", "warn")


@keras_export("keras.masking.UnsupportedMaskWarning")
class UnsupportedMaskWarning(UserWarning):
    """An operation went on without the masks that it has no rule for.

    Given in place of `keras.masking.UnsupportedMaskError` where
    `keras.config.set_unsupported_mask("warn")` says so.
    """


@keras_export("keras.config.unsupported_mask")
def unsupported_mask() -> str:
    """What an op does that can make nothing of a mask: "raise" or "warn".

    Example:

    >>> keras.config.unsupported_mask()
    'raise'
    """
    return global_state.get_global_attribute("unsupported_mask", "raise")


@keras_export("keras.config.set_unsupported_mask")
def set_unsupported_mask(action: str) -> typing.ContextManager:
    """Sets what an op does that can make nothing of a mask.

    With "raise", the default, it raises
    `keras.masking.UnsupportedMaskError`. With "warn" it gives a
    `keras.masking.UnsupportedMaskWarning`, once for each place in your code,
    puts 0 where nothing is valid, and returns a plain tensor: a way through for
    a script that cannot be changed today. 0 is a number like any other to the
    op, and the mask ends there.

    This is about the functions and operations of `keras.ops` and
    `keras.random`. What cannot go on with plain tensors still raises: a layer
    whose `call` has no argument for a mask, a variable that is assigned a
    masked tensor, branches and loops whose masks do not agree, and whatever
    would turn a masked tensor into an array.

    A graph keeps what was set when the op became part of it, and a compiled
    function what was set when it was traced. Like a dtype policy the setting
    belongs to the thread, and `keras.utils.clear_session()` ends it.

    Args:
        action: "raise" or "warn".

    Returns:
        A context manager that sets what was set before when it is left.

    Raises:
        ValueError: If `action` is anything else.

    Example:

    >>> x = keras.MaskedTensor([3.0, 1.0, 3.0], [True, False, True])
    >>> with keras.config.set_unsupported_mask("warn"):
    ...     y = keras.ops.unique(x)  # Of 3, 0 and 3.
    """
    if action not in ACTIONS:
        raise ValueError(
            "`keras.config.set_unsupported_mask()` takes one of "
            f"{', '.join(map(repr, ACTIONS))}. Received: {action!r}."
        )
    before = unsupported_mask()
    global_state.set_global_attribute("unsupported_mask", action)
    restore = contextlib.ExitStack()
    restore.callback(
        global_state.set_global_attribute, "unsupported_mask", before
    )
    return restore


def refuse_masked(
    op_name: str, operands: Nest, reason: str, rule: str = "add a rule for it"
) -> None:
    """Raises the error for an unsupported use if there is a mask in a nest.

    The arrays of `numpy.ma` count as masked tensors.

    Args:
        op_name: Name of the operation.
        operands: Its operands, a nest.
        reason: Why none may be masked, a sentence.
        rule: How the user could add what is missing.
    """
    operands = _tensors(operands)
    if any(map(has_mask, operands)):
        raise refuse(op_name, operands, reason, rule)


@hooks.fills("keep_plain")
def keep_plain(
    function: typing.Callable,
    watched: Nest,
    args: typing.Sequence,
    kwargs: Named,
    reason: str,
) -> tuple[typing.Sequence, Named]:
    """The arguments of a function some of which must be plain.

    Args:
        function: Public function.
        watched: Nest of the arguments that must be plain.
        args: All its arguments.
        kwargs: Those by name.
        reason: Why, a sentence of the error.

    Returns:
        The arguments to go on with.

    Raises:
        UnsupportedMaskError: As `settle` does, if a watched one is masked.
    """
    if not any(map(has_mask, _tensors(watched))):
        return args, kwargs
    operands = _tensors((args, kwargs))
    error = refuse(function.__name__, operands, reason, is_open=True)
    return settle(error, args, kwargs)


def _tensors(nest):
    return [from_foreign(x) for x in tree.flatten(nest) if hasattr(x, "shape")]


@hooks.fills("settle")
def settle(
    error: typing.Any, args: typing.Sequence, kwargs: Named
) -> tuple[typing.Sequence, Named]:
    """The one place where a refusal is raised, or becomes a warning.

    A rule may call other ops. What those refuse is raised in any case, for the
    op that the user called to take it over.

    Args:
        error: The `UnsupportedMaskError`.
        args: Operands of the call that was refused.
        kwargs: Its operands by name.

    Returns:
        The operands to go on with, plain: 0 where they were masked.

    Raises:
        UnsupportedMaskError: If the setting is "raise", or the error is none
            of a call that can go on: it may come from a function of the user.
    """
    frame = users_frame()
    if not error.is_open or frame is None:
        raise error
    error.is_open = False
    if unsupported_mask() == "raise":
        raise error
    _warn(error, frame)
    return tree.map_structure(ops.filled, (args, kwargs))


_warned = set()


def _warn(error, frame):
    """Warns once for each op in each line of the user's code."""
    place = (frame.f_code.co_filename, frame.f_lineno, error.op_name)
    warn_once(
        place,
        frame,
        f"{error} Instead, `{error.op_name}` goes on with 0 in place of masked "
        "entries and gives a plain result, as "
        '`keras.config.set_unsupported_mask("warn")` asks for.',
        UnsupportedMaskWarning,
    )


def warn_once(
    key: typing.Hashable,
    frame: types.FrameType | None,
    message: str,
    category: type[Warning],
) -> None:
    """Warns of the line that a frame is at, once for each key."""
    if key in _warned:
        return
    warn_at(frame, message, category)
    # Not before: a filter may have made an error of it.
    _warned.add(key)


def warn_at(
    frame: types.FrameType | None, message: str, category: type[Warning]
) -> None:
    """Warns of the line of code that a frame is at."""
    warnings.warn_explicit(
        message,
        category,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__"),
    )


def users_frame(past_rules: bool = False) -> types.FrameType | None:
    """The innermost frame of the user's code.

    Args:
        past_rules: Whether to look for it past a rule that is further in;
            without, there is None then.
    """
    frame = inspect.currentframe()
    while not _is_users(frame) and frame.f_back is not None:
        if not past_rules and frame.f_code is Call.apply_rule.__code__:
            return None
        frame = frame.f_back
    return frame


# Engines call back into Keras while they trace.
_ENGINES = {"jax", "jaxlib", "numpy", "optree", "tensorflow", "torch"}


def _is_users(frame):
    module = frame.f_globals.get("__name__", "")
    # What TensorFlow writes of a user's function is in a file of its own, of
    # which nothing is left to be read.
    return not (
        is_from_keras(module)
        or module.partition(".")[0] in _ENGINES
        or "__autograph_generated_file" in frame.f_code.co_filename
    )


def is_from_keras(module: str) -> bool:
    """Whether a module is part of Keras itself, its tests not counted."""
    inside = module == "keras" or module.startswith(("keras.src.", "keras."))
    return inside and not module.endswith("_test")
