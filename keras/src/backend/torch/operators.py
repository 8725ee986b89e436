"""Operators of a plain tensor on the left with one of our types on the right.

Python calls a reflected method of the operand on the right. PyTorch calls its
own function with both instead, and asks `__torch_function__` of our type.
"""

import types
import typing

import torch
from keras.src.backend.common.operators import ARITHMETIC
from keras.src.backend.common.operators import BITWISE
from keras.src.backend.common.operators import COMPARISON

# PyTorch's names, where they differ.
_NAMES = {"truediv": "div", "floordiv": "floor_divide", "mod": "remainder"}


def _reflected():
    """By the name of a function of PyTorch, what the right operand calls it.

    PyTorch's compiler calls a reflected method of the tensor, `__rsub__` say,
    for one of our types on the left. A comparison's reflection is the opposite
    comparison.
    """
    methods = {"true_divide": "__rtruediv__", "__rdiv__": "__truediv__"}
    for method in ARITHMETIC | BITWISE:
        name = _NAMES.get(method, method)
        methods[f"__{method}__"] = methods[name] = f"__r{method}__"
        methods[f"__r{method}__"] = f"__{method}__"
    for method in BITWISE:
        methods[f"bitwise_{method}"] = f"__r{method}__"
    for method in COMPARISON:
        opposite = f"__{method.translate(str.maketrans('lg', 'gl'))}__"
        methods[f"__{method}__"] = methods[method] = opposite
    return methods


def _key(function):
    """What a function is looked up by: PyTorch's compiler knows the names of
    Python's functions only, and can look up others only."""
    if isinstance(function, types.FunctionType):
        return function.__name__
    return function


_BY_NAME = _reflected()
_REFLECTED = {
    _key(getattr(room, name)): method
    for name, method in _BY_NAME.items()
    for room in (torch, torch.Tensor)
    if hasattr(room, name)
}


def run(
    function: typing.Callable, args: tuple, kwargs: dict | None
) -> typing.Any:
    """What an operator gives, or `NotImplemented` for another function.

    Args:
        function: Function of PyTorch that was called.
        args: Its operands, one of which is of one of our types.
        kwargs: Its further arguments.

    Raises:
        TypeError: For a product of matrices in a compiled function.
    """
    method = _REFLECTED.get(_key(function))
    if method is None or kwargs or len(args) != 2:
        return NotImplemented
    if function is torch.Tensor.matmul and torch.compiler.is_compiling():
        raise TypeError(
            "PyTorch's compiler does not tell `a @ b` from `b @ a` if one "
            "is no tensor of PyTorch. Write `keras.ops.matmul(a, b)`."
        )
    first, second = args
    if isinstance(first, torch.Tensor):
        return getattr(second, method)(first)
    # As `torch.add(x, 1)`: the opposite of the opposite.
    return getattr(first, _BY_NAME[method])(second)
