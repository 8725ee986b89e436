"""The masked tensor of the JAX backend: a pytree node."""

import jax
import jax.export
from keras.src.backend.common.masked_tensor import MaskedTensorBase


class MaskedTensor(MaskedTensorBase):
    __doc__ = MaskedTensorBase.__doc__

    @staticmethod
    def is_concrete(x):
        return not isinstance(x.values, jax.core.Tracer)

    def _put(self, value):
        # XLA fuses arithmetic with the reduction that follows, and vectorizes
        # it; on CPUs it does neither with a selection by a broadcast mask.
        return self._put_by_arithmetic(value)


def _parts_with_keys(x):
    key = jax.tree_util.GetAttrKey
    return ((key("values"), x.values), (key("mask"), x.mask)), None


# Unflattening takes whatever JAX puts into the leaves (`None`, `object()`,
# `ShapeDtypeStruct`, `float0`), so it must not check.
jax.tree_util.register_pytree_with_keys(
    MaskedTensor,
    _parts_with_keys,
    lambda _, parts: MaskedTensor._wrap(*parts),
    lambda x: ((x.values, x.mask), None),
)

# What `jax.export` writes can be read where Keras has been imported.
jax.export.register_pytree_node_serialization(
    MaskedTensor,
    serialized_name="keras.MaskedTensor",
    serialize_auxdata=lambda _: b"",
    deserialize_auxdata=lambda _: None,
)
