"""The masked tensor of the PyTorch backend.

A plain class with `__torch_function__`. It is not registered with
`torch.utils._pytree`, which on this backend is `keras.tree`: there a masked
tensor has to stay one leaf.
"""

import dataclasses
import functools
import typing

import torch
from keras.src.backend.common.kinds import Shape
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.operators import op_named
from keras.src.backend.common.packed_tensor import PackedBase
from keras.src.composite.errors import UnsupportedTypeError

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


def _check_devices(values, mask):
    """Raises where a mask would be moved to the values, or made up there."""
    tensors = isinstance(values, torch.Tensor) and isinstance(
        mask, torch.Tensor
    )
    # While a layer is traced, the values have no device.
    if tensors and mask.device != values.device and not values.is_meta:
        raise ValueError(
            "The mask of a masked tensor must be on the device of its values. "
            f"Received values of shape {tuple(values.shape)} on "
            f"{values.device}, and a mask of shape {tuple(mask.shape)} on "
            f"{mask.device}. Write `mask.to(values.device)`."
        )


# Where `DistributedDataParallel` looks for the tensors in what a model returns.
@dataclasses.dataclass(init=False, repr=False, eq=False)
class MaskedTensor(MaskedTensorBase):
    __doc__ = MaskedTensorBase.__doc__

    values: torch.Tensor
    mask: torch.Tensor

    def __init__(self, values: typing.Any, mask: typing.Any = None):
        _check_devices(values, mask)
        if isinstance(mask, torch.Tensor):
            # Not one that the caller may write to.
            mask = mask.clone()
        super().__init__(values, mask)

    @staticmethod
    def is_concrete(x: MaskedTensorBase) -> bool:
        return not (x.values.is_meta or torch.compiler.is_compiling())

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        name = func.__name__.strip("_")
        if name[0] == "r" and name[1:] in _OPERATORS:
            # `__rsub__`, say: its compiler calls it where Python would not.
            name, args = name[1:], args[::-1]
        if name in _OPERATORS and len(args) == 2 and not kwargs:
            return op_named(_OPERATORS[name])(*args)
        raise TypeError(
            f"`torch.{name}` was given a masked tensor. PyTorch's own functions"
            " do not know masks. Use the function of `keras.ops` of that name,"
            " or go out of the mask on purpose: `keras.ops.filled(x, 0)` puts"
            " a value under the mask, `x.values` drops it."
        )


@dataclasses.dataclass(init=False, repr=False, eq=False)
class PackedTensor(PackedBase, MaskedTensor):
    flat: torch.Tensor
    index: torch.Tensor
    there: torch.Tensor | None
    limit: int

    @property
    def shape(self) -> Shape:
        return self.mask.shape + self.flat.shape[1:]

    @staticmethod
    def is_concrete(x: MaskedTensorBase) -> bool:
        return not (x.flat.is_meta or torch.compiler.is_compiling())

    @staticmethod
    def _may_keep(values):
        # What was computed without a gradient is no use to one, and a compiler
        # would have to hand it out.
        return torch.is_grad_enabled() and not (
            torch.compiler.is_compiling()
            or torch._C._functorch.is_batchedtensor(values)
            or values.is_inference()
        )

    @staticmethod
    def _if(condition, function, otherwise):
        # A compiler would end its graph here.
        if torch.compiler.is_compiling() or condition:
            return function()
        return otherwise()

    @staticmethod
    def _on_host(function, flat, *arrays):
        return function(*(x.cpu().numpy() for x in arrays))

    def _recurrent(self, kind):
        # Late: the backend's functions import this type.
        from keras.src.backend.torch import packed_rnn

        if not self.is_concrete(self) or self.dtype in (
            torch.float16,
            torch.bfloat16,
        ):
            return None
        return packed_rnn.RUN.get(kind)

    @staticmethod
    def _places(mask):
        return mask.nonzero().squeeze(1)

    @staticmethod
    def _gather(x, index):
        return x.index_select(0, index)

    @staticmethod
    def _scatter(flat, index, size):
        # One row more, for what is written nowhere.
        zeros = flat.new_zeros((size + 1, *flat.shape[1:]))
        return zeros.index_copy(0, index, flat)[:size]


def _of_masked(x, name):
    return (
        f"`{name}.apply` was given a masked tensor, which PyTorch would take "
        "for a constant: nothing would have a gradient. Write `y = "
        f"{name}.apply(x.values)`, and `keras.MaskedTensor(y, x.mask)` for a "
        "result that is valid where `x` is."
    )


# Types that are no constants, and what to write: a function of an operand and
# of the name of the function it was given to.
NO_CONSTANTS = {MaskedTensor: _of_masked}


def _refusing(apply):
    """`torch.autograd.Function.apply`, which asks no type that it is given.

    It takes what is no tensor for a constant, so that the values would have no
    gradient, and nobody would be told.
    """

    @functools.wraps(apply)
    def checked(cls, *args, **kwargs):
        # `DistributedDataParallel` hands on what is no tensor as it is.
        is_parallel = cls.__module__.startswith("torch.nn.parallel.")
        for x in (*args, *kwargs.values()):
            if isinstance(x, tuple(NO_CONSTANTS)) and not is_parallel:
                found = next(t for t in NO_CONSTANTS if isinstance(x, t))
                raise UnsupportedTypeError(NO_CONSTANTS[found](x, cls.__name__))
        return apply(cls, *args, **kwargs)

    return classmethod(checked)


torch.autograd.Function.apply = _refusing(
    vars(torch.autograd.Function)["apply"].__func__
)
