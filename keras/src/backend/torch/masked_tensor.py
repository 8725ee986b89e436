"""The masked tensor of the PyTorch backend.

A plain class with `__torch_function__`. It is not registered with
`torch.utils._pytree`, which on this backend is `keras.tree`: there a masked
tensor has to stay one leaf.
"""

from keras.src.backend.common.masked_tensor import MaskedTensorBase

# What PyTorch calls the operator functions that `tensor + masked` ends in.
_OPERATORS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "div": "true_divide",
    "truediv": "true_divide",
    "true_divide": "true_divide",
    "floordiv": "floor_divide",
    "floor_divide": "floor_divide",
    "remainder": "mod",
    "mod": "mod",
    "pow": "power",
    "matmul": "matmul",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "left_shift",
    "rshift": "right_shift",
    "bitwise_and": "bitwise_and",
    "bitwise_or": "bitwise_or",
    "bitwise_xor": "bitwise_xor",
}


class MaskedTensor(MaskedTensorBase):
    __doc__ = MaskedTensorBase.__doc__

    @staticmethod
    def is_concrete(x):
        return not x.values.is_meta

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        name = func.__name__.strip("_")
        if name in _OPERATORS and len(args) == 2 and not kwargs:
            from keras.src import ops

            return getattr(ops, _OPERATORS[name])(*args)
        raise TypeError(
            f"`torch.{name}` was given a masked tensor. PyTorch's own functions"
            " do not know masks. Use the function of `keras.ops` of that name,"
            " or go out of the mask on purpose: `keras.ops.filled(x, 0)` puts"
            " a value under the mask, `x.values` drops it."
        )
