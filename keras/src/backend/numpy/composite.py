"""The composite tensor of the NumPy backend: a node of `keras.tree`."""

import functools

import optree

from keras.src.backend.common import composite


class CompositeTensor(composite.CompositeBase):
    __doc__ = composite.CompositeBase.__doc__

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        composite.define(cls)
        optree.register_pytree_node(
            cls,
            composite.take_apart,
            functools.partial(composite.put_together, cls),
            namespace="keras",
        )
