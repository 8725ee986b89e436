"""A masked operand beside a variable takes over, and none is ever assigned.

Upstream's operators hand the other operand to the backend as it is, which
would make a plain array of it.
"""

import contextlib
import functools
import threading

import numpy as np

from keras.src import backend
from keras.src.backend.common import foreign
from keras.src.backend.common import hooks
from patchset.markers import keeps
from patchset.markers import new


@new
class TakesOver:
    """Base of the types whose operators come before those of a variable."""


# NumPy's masked arrays lose their mask where an engine converts them.
__added__ = ("_NOT_PLAIN", "_OPERATORS", "_changes")
_NOT_PLAIN = (TakesOver, np.ma.MaskedArray)


@new
class _Changes(threading.local):
    """Where variables may change, by their ids; all others may anywhere."""

    where = {}


_changes = _Changes()


@new
@contextlib.contextmanager
def changed_only_where(found, variables):
    """Assignments to these variables change them only where `found` is True.

    It is decided as a value is assigned: of a variable that several devices
    share, each of them assigns its part of a mean.

    Args:
        found: Boolean tensor that broadcasts with the variables.
        variables: The variables.
    """
    outer = _changes.where
    _changes.where = outer | {id(v): found for v in variables}
    try:
        yield
    finally:
        _changes.where = outer


class Variable:
    @keeps("_plain_init")
    def __init__(self, initializer, *args, **kwargs):
        _refuse_masked(self, "__init__", initializer)
        self._plain_init(initializer, *args, **kwargs)

    @keeps("_plain_assign")
    def assign(self, value):
        """Sets the value, which must be a plain tensor of the same shape.

        Args:
            value: Tensor, array or number.

        Returns:
            The value, as a tensor of the variable's dtype.

        Raises:
            UnsupportedMaskError: If `value` is masked: a variable has no place
                for a mask.
        """
        _refuse_masked(self, "assign", value)
        found = _changes.where.get(id(self))
        if found is not None:
            with AutocastScope(None):
                value = backend.numpy.where(found, value, self.value)
        return self._plain_assign(value)


@new
def _refuse_masked(variable, method, value):
    if foreign.is_foreign(value):
        value = hooks.from_foreign(value)
    if isinstance(value, _NOT_PLAIN):
        name = f"{type(variable).__name__}.{method}"
        if getattr(value, "_parts", ()):
            # Late: it imports this.
            from keras.src.composite.errors import unsupported

            raise unsupported(name, [value])
        # Late: it imports this.
        from keras.src.masking.errors import refuse

        raise refuse(
            name,
            [value],
            "A variable holds a plain tensor and has no place for a mask.",
            rule="keep the mask in a second variable of dtype bool",
        )


@new
def _yielding(operator, reflected):
    """The operator, which leaves a masked operand to its reflection.

    Args:
        operator: Upstream's method.
        reflected: Name of the method of the other operand that takes over.
    """

    @functools.wraps(operator)
    def method(self, other):
        if isinstance(other, _NOT_PLAIN) or foreign.is_foreign(other):
            other = hooks.from_foreign(other)
            if isinstance(other, _NOT_PLAIN):
                return getattr(other, reflected)(self)
        return operator(self, other)

    return method


_OPERATORS = {
    "eq": "eq",
    "ne": "ne",
    "lt": "gt",
    "gt": "lt",
    "le": "ge",
    "ge": "le",
}
for _name in "add sub mul truediv floordiv mod pow matmul and or xor".split():
    _OPERATORS[_name] = f"r{_name}"
    _OPERATORS[f"r{_name}"] = _name
for _name, _reflected in _OPERATORS.items():
    _method = getattr(Variable, f"__{_name}__")
    setattr(Variable, f"__{_name}__", _yielding(_method, f"__{_reflected}__"))
