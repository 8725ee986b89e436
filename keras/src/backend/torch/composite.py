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
from torch.utils.data._utils.collate import collate
from torch.utils.data._utils.collate import default_collate_fn_map


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
