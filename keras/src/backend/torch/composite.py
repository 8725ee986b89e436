"""The composite tensor of the PyTorch backend.

A node of `torch.utils._pytree`, which on this backend is `keras.tree`.
"""

from keras.src.backend.common import composite
from keras.src.backend.torch.masked_tensor import run_operator
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
            to_dumpable_context=composite.to_text,
            from_dumpable_context=composite.from_text,
            flatten_with_keys_fn=_parts_with_keys,
        )

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        result = run_operator(func, args, kwargs)
        if result is NotImplemented:
            raise unsupported(f"torch.{func.__name__}", [*args])
        return result


def _parts_with_keys(x):
    parts, description = composite.take_apart(x)
    keys = map(_pytree.GetAttrKey, description[0])
    return list(zip(keys, parts)), description
