"""The composite tensor of the PyTorch backend.

A node of `torch.utils._pytree`, which on this backend is `keras.tree`.
"""

import types

import torch
from keras.src.backend.common import composite
from keras.src.backend.common.operators import ARITHMETIC
from keras.src.backend.common.operators import BITWISE
from keras.src.backend.common.operators import COMPARISON
from keras.src.backend.torch.masked_tensor import NO_CONSTANTS
from keras.src.backend.torch.masked_tensor import MaskedTensor
from keras.src.composite.errors import unsupported
from torch.utils import _pytree
from torch.utils.data._utils.collate import collate
from torch.utils.data._utils.collate import default_collate_fn_map

# Methods of PyTorch's tensors that operators end in, where their names differ.
_NAMES = {"truediv": "div", "floordiv": "floor_divide", "mod": "remainder"}


def _methods():
    """By what PyTorch calls for an operator with a plain tensor, the method of
    the other operand that does it.

    Python calls a reflected method of a composite tensor on the right. For one
    on the left, PyTorch's compiler calls that of the tensor, `__rsub__` say.
    A comparison's reflection is the opposite comparison.
    """
    methods = {}
    for method in ARITHMETIC | BITWISE:
        name = _NAMES.get(method, method)
        methods[f"__{method}__"] = methods[name] = f"__r{method}__"
        methods[f"__r{method}__"] = f"__{method}__"
    for method in BITWISE:
        methods[f"bitwise_{method}"] = f"__{method}__"
    methods["__rdiv__"] = "__truediv__"
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


_METHODS = {
    _key(getattr(torch.Tensor, name)): method
    for name, method in _methods().items()
    if hasattr(torch.Tensor, name)
}


class CompositeTensor(composite.CompositeBase):
    __doc__ = composite.CompositeBase.__doc__

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        composite.define(cls)
        _pytree.register_pytree_node(
            cls,
            composite.take_apart,
            lambda parts, description: composite.put_together(
                cls, description, parts
            ),
            serialized_type_name=composite.name_of(cls),
            to_dumpable_context=composite.to_text,
            from_dumpable_context=composite.from_text,
            flatten_with_keys_fn=_parts_with_keys,
        )
        # What `torch.export` writes has examples in it. Nothing of a composite
        # tensor runs where one is loaded.
        torch.serialization.add_safe_globals([cls])

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        method = _METHODS.get(_key(func))
        if method is None or kwargs or len(args) != 2:
            operands = _pytree.tree_leaves((args, kwargs), _is_composite)
            raise unsupported(f"torch.{func.__name__}", operands)
        tensor, x = args
        if func is torch.Tensor.matmul and torch.compiler.is_compiling():
            raise TypeError(
                "PyTorch's compiler does not tell `a @ b` from `b @ a` if one "
                "is no tensor of PyTorch. Write `keras.ops.matmul(a, b)`."
            )
        return getattr(x, method)(tensor)


def _parts_with_keys(x):
    parts, description = composite.take_apart(x)
    keys = map(_pytree.GetAttrKey, description[0])
    return list(zip(keys, parts)), description


def _is_composite(x):
    return isinstance(x, CompositeTensor)


def _stacked(batch, *, collate_fn_map=None):
    """A batch of composite tensors, as a `DataLoader` collates their parts."""
    taken = [composite.take_apart(x) for x in batch]
    parts, descriptions = zip(*taken)
    for x, description in zip(batch, descriptions):
        if type(x) is not type(batch[0]) or description != descriptions[0]:
            raise TypeError(
                "A batch takes composite tensors of one type whose static "
                "fields agree, and which have the same parts. Received: "
                f"{batch[0]!r} and {x!r}."
            )
    parts = [_stacked_part(part, collate_fn_map) for part in zip(*parts)]
    return composite.put_together(type(batch[0]), descriptions[0], parts)


def _stacked_part(parts, collate_fn_map):
    if isinstance(parts[0], MaskedTensor):
        values = collate(
            [x.values for x in parts], collate_fn_map=collate_fn_map
        )
        mask = collate([x.mask for x in parts], collate_fn_map=collate_fn_map)
        return MaskedTensor._wrap(values, mask)
    return collate(parts, collate_fn_map=collate_fn_map)


default_collate_fn_map[CompositeTensor] = _stacked


def _no_constant(x, name):
    parts = ", ".join(f"x.{part}" for part in x._parts)
    return (
        f"`{name}.apply` was given a composite tensor, which PyTorch would "
        f"take for a constant: nothing would have a gradient. Received: {x!r}. "
        f"Give it parts ({parts}), and make a composite tensor of the results."
    )


NO_CONSTANTS[CompositeTensor] = _no_constant
