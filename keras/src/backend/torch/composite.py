"""The composite tensor of the PyTorch backend.

A node of `torch.utils._pytree`, on which `keras.tree` stands here.
"""

import functools

import torch
from keras.src.backend.common import composite
from keras.src.backend.torch import operators
from keras.src.backend.torch.masked_tensor import NO_CONSTANTS
from keras.src.backend.torch.masked_tensor import MaskedTensor
from keras.src.composite.errors import unsupported
from torch.utils import _pytree


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
            to_dumpable_context=functools.partial(composite.to_text, cls),
            from_dumpable_context=composite.from_text,
            flatten_with_keys_fn=_parts_with_keys,
        )
        # What `torch.export` writes has examples in it. Nothing of a composite
        # tensor runs where one is loaded.
        torch.serialization.add_safe_globals([cls])

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found = operators.run(func, args, kwargs)
        if found is not NotImplemented:
            return found
        operands = _pytree.tree_leaves((args, kwargs), _is_composite)
        raise unsupported(f"torch.{func.__name__}", operands)

    def __array__(self, dtype=None, copy=None):
        # PyTorch's own tensors say so, but no rule would.
        if torch.is_grad_enabled() and any(map(_has_gradient, _leaves(self))):
            raise TypeError(
                f"An array of NumPy of this `{type(self).__name__}` would cut "
                "off the gradient that its parts have. Write "
                "`keras.ops.convert_to_numpy(x)` if it is to be cut, or use "
                f"functions of `keras.ops`. Received: {self!r}."
            )
        return super().__array__(dtype, copy)

    # PyTorch would read what has a length, and not this, entry by entry.
    def __dlpack__(self, **kwargs):
        raise unsupported("torch.as_tensor", [self])

    __dlpack_device__ = __dlpack__


def _leaves(x):
    return _pytree.tree_leaves(tuple(vars(x)[name] for name in x._parts))


def _has_gradient(x):
    x = x.values if isinstance(x, MaskedTensor) else x
    return getattr(x, "requires_grad", False)


def _parts_with_keys(x):
    parts, description = composite.take_apart(x)
    keys = map(_pytree.GetAttrKey, description[0])
    return list(zip(keys, parts)), description


def _is_composite(x):
    return isinstance(x, CompositeTensor)


def _no_constant(x, name):
    parts = ", ".join(f"x.{part}" for part in x._parts)
    return (
        f"`{name}.apply` was given a composite tensor, which PyTorch would "
        f"take for a constant: nothing would have a gradient. Received: {x!r}. "
        f"Give it parts ({parts}), and make a composite tensor of the results."
    )


NO_CONSTANTS[CompositeTensor] = _no_constant
