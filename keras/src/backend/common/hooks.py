"""Functions of rooms above that rooms below call, by name.

`Operation`, the functions of `keras.ops` and those of `keras.random` stand
below the rules for masked and composite tensors, which are made of them. So
they call these, and the room that has one fills it in as it is imported, which
`keras/src/__init__.py` sees to.
"""

import types
import typing

# What each does is said where it is filled in.
apply_rule: typing.Callable
call: typing.Callable
call_function: typing.Callable
carry: types.ModuleType
convert_input: typing.Callable
data: types.ModuleType
from_foreign: typing.Callable
host_array: typing.Callable
keep_plain: typing.Callable
output_spec: typing.Callable
settle: typing.Callable
trace: typing.Callable


def fills(name: str, value: typing.Any = None) -> typing.Any:
    """Fills in a hook, with a value or as the decorator of a function.

    Args:
        name: Name of the hook.
        value: What to call by this name; without, what is decorated.
    """

    def fill(function):
        globals()[name] = function
        return function

    return fill if value is None else fill(value)
