"""Python's operators of Keras's own tensor types: functions of `keras.ops`."""

import builtins
import functools
import typing

from keras.src.backend.common.variables import TakesOver
from keras.src.backend.common.variables import standardize_dtype

ARITHMETIC = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "true_divide",
    "floordiv": "floor_divide",
    "mod": "mod",
    "pow": "power",
    "matmul": "matmul",
}
BITWISE = {
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "left_shift",
    "rshift": "right_shift",
}
# A comparison's reflection is the opposite comparison, and Python knows it.
COMPARISON = {
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
}
UNARY = {"neg": "negative", "abs": "absolute", "invert": "bitwise_invert"}

# On booleans these are logical, which not every backend says by itself.
LOGICAL = {
    "bitwise_and": "logical_and",
    "bitwise_or": "logical_or",
    "bitwise_xor": "logical_xor",
    "bitwise_invert": "logical_not",
}


class Operators(TakesOver):
    """Base of the types whose operators are the functions of `keras.ops`."""

    if typing.TYPE_CHECKING:
        _parts: tuple[str, ...]

    # Names of the parts of a composite tensor.
    _parts = ()

    # NumPy arrays and scalars on the left hand their operators over.
    __array_ufunc__ = None

    def __getitem__(self, key):
        return op_named("get_item")(self, key)

    def __round__(self, ndigits=None):
        return op_named("round")(self, decimals=ndigits or 0)

    def __pos__(self):
        return self


_OPS = {}


def op_named(name: str) -> typing.Callable:
    """The function of `keras.ops` of this name."""
    # No `functools.cache`: PyTorch's compiler would look through it.
    if name not in _OPS:
        # Late: ops import this type.
        from keras.src import ops

        _OPS[name] = getattr(ops, name)
    return _OPS[name]


def _binary(name):
    def operator(self, other):
        return op_named(_name_for(name, self, other))(self, other)

    def reflected(self, other):
        return op_named(_name_for(name, self, other))(other, self)

    return operator, reflected


def _unary(name):
    def operator(self):
        return op_named(_name_for(name, self))(self)

    return operator


def _name_for(name, *operands):
    """The name of the op, of its logical twin if all operands are boolean."""
    if name not in LOGICAL or not builtins.all(map(_is_bool, operands)):
        return name
    return LOGICAL[name]


def _is_bool(x):
    dtype = getattr(x, "dtype", None)
    if dtype is None:
        return isinstance(x, bool)
    return standardize_dtype(dtype) == "bool"


def comparing(name: str, operator: typing.Callable) -> typing.Callable:
    """The operator, which leaves it to Python whether a tensor is `None`.

    Args:
        name: Name of its op.
        operator: What compares tensors.
    """
    if name not in ("equal", "not_equal"):
        return operator

    @functools.wraps(operator)
    def compare(self, other):
        if other is None or isinstance(other, str):
            return NotImplemented
        return operator(self, other)

    return compare


for _method, _name in (ARITHMETIC | BITWISE).items():
    _direct, _reflected = _binary(_name)
    setattr(Operators, f"__{_method}__", _direct)
    setattr(Operators, f"__r{_method}__", _reflected)
for _method, _name in COMPARISON.items():
    _direct, _ = _binary(_name)
    setattr(Operators, f"__{_method}__", comparing(_name, _direct))
for _method, _name in UNARY.items():
    setattr(Operators, f"__{_method}__", _unary(_name))
# Of whatever has `__eq__`, Python takes away the hash.
Operators.__hash__ = object.__hash__  # type: ignore[method-assign]
