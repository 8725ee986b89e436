"""The masked tensor of the JAX backend: a pytree node."""

import functools

import numpy as np

import jax
import jax.export
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.nodes import Nodes
from keras.src.backend.common.nodes import check_packed
from keras.src.backend.common.packed_tensor import PackedBase


class MaskedTensor(MaskedTensorBase):
    __doc__ = MaskedTensorBase.__doc__

    @staticmethod
    def is_concrete(x: MaskedTensorBase) -> bool:
        return not isinstance(x.values, jax.core.Tracer)


def _reshaped(x, shape):
    if isinstance(x, jax.ShapeDtypeStruct):
        return x.update(shape=shape)
    return x.reshape(shape)


_nodes = Nodes(
    MaskedTensor._wrap,
    (jax.Array, np.ndarray, jax.ShapeDtypeStruct),
    (bool, jax.dtypes.float0),
    _reshaped,
    may_keep=lambda x: not isinstance(x, jax.core.Tracer),
)


def _parts_with_keys(x):
    key = jax.tree_util.GetAttrKey
    (values, mask), added = _nodes.take_apart(x)
    return ((key("values"), values), (key("mask"), mask)), added


jax.tree_util.register_pytree_with_keys(
    MaskedTensor,
    _parts_with_keys,
    lambda added, parts: _nodes.put_together(parts, added),
    _nodes.take_apart,
)

# What `jax.export` writes can be read where Keras has been imported.
jax.export.register_pytree_node_serialization(
    MaskedTensor,
    serialized_name="keras.MaskedTensor",
    serialize_auxdata=lambda added: str(added).encode(),
    deserialize_auxdata=int,
)


class PackedTensor(PackedBase, MaskedTensor):
    _is_exact = False
    _index_dtype = "int32"

    @staticmethod
    def is_concrete(x: MaskedTensorBase) -> bool:
        return not isinstance(x.flat, jax.core.Tracer)

    @staticmethod
    def _may_keep(values):
        # What is traced belongs to one transformation.
        return not isinstance(values, jax.core.Tracer)

    @staticmethod
    def _may_group(x):
        # Each number of rows would be compiled for, in each batch anew.
        return False

    @staticmethod
    def _if(condition, function, otherwise):
        if isinstance(condition, jax.core.Tracer):
            return jax.lax.cond(condition, function, otherwise)
        # Both would be compiled each time.
        return function() if condition else otherwise()

    @staticmethod
    def _places(mask):
        if isinstance(mask, jax.core.Tracer):
            return None
        return np.flatnonzero(np.asarray(mask))

    @staticmethod
    def _all_places(mask):
        size = mask.shape[0]
        return jax.numpy.nonzero(mask, size=size, fill_value=size)[0]

    @staticmethod
    def _gather(x, index):
        return _gathered(x, index)

    @staticmethod
    def _scatter(flat, index, size):
        return _scattered(flat, index, size)


# Compiled, for outside of a compiler these are many small operations.
@jax.jit
def _gathered(x, index):
    return x.at[index].get(mode="promise_in_bounds")


@functools.partial(jax.jit, static_argnames="size")
def _scattered(flat, index, size):
    zeros = jax.numpy.zeros((size, *flat.shape[1:]), flat.dtype)
    return zeros.at[index].set(flat, mode="drop")


class _PackedKey(jax.tree_util.GetAttrKey):
    """The name of a part, in the error of `jax.vmap` over the rows as well.

    JAX compares the sizes of axes before anything of ours runs.
    """

    def __str__(self):
        return f".{self.name} [packed: write `x.padded()`]"


*_PACKED_PARTS, _ = PackedTensor._parts_and_limit
_PACKED_KEYS = [_PackedKey(name) for name in _PACKED_PARTS]


def _packed_parts_with_keys(x):
    parts = [getattr(x, name) for name in _PACKED_PARTS]
    return list(zip(_PACKED_KEYS, parts)), x.limit


def _packed_of(limit, parts):
    """A packed tensor of its parts, of which arrays alone are checked."""
    _, mask, index, _ = parts
    if isinstance(mask, jax.Array) and isinstance(index, jax.Array):
        check_packed(mask, index)
    return PackedTensor._of_parts(*parts, limit)


jax.tree_util.register_pytree_with_keys(
    PackedTensor,
    _packed_parts_with_keys,
    _packed_of,
    lambda x: ([getattr(x, name) for name in _PACKED_PARTS], x.limit),
)
jax.export.register_pytree_node_serialization(
    PackedTensor,
    serialized_name="keras.PackedTensor",
    serialize_auxdata=lambda limit: str(limit).encode(),
    deserialize_auxdata=int,
)
