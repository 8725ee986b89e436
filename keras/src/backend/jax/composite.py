"""The composite tensor of the JAX backend: a pytree node."""

import contextlib
import functools

import optree

import jax
import jax.export
from keras.src.backend.common import composite


class CompositeTensor(composite.CompositeBase):
    __doc__ = composite.CompositeBase.__doc__

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        composite.define(cls)
        put_together = functools.partial(composite.put_together, cls)
        optree.register_pytree_node(
            cls, composite.take_apart, put_together, namespace="keras"
        )
        jax.tree_util.register_pytree_with_keys(
            cls, _parts_with_keys, put_together, composite.take_apart
        )
        # A class that is defined again, as in a notebook, is written under the
        # name of the first one.
        with contextlib.suppress(ValueError):
            jax.export.register_pytree_node_serialization(
                cls,
                serialized_name=composite.name_of(cls),
                serialize_auxdata=lambda x: composite.to_text(cls, x).encode(),
                deserialize_auxdata=lambda x: composite.from_text(x.decode()),
            )


def _parts_with_keys(x):
    parts, description = composite.take_apart(x)
    keys = map(jax.tree_util.GetAttrKey, description[0])
    return tuple(zip(keys, parts)), description
