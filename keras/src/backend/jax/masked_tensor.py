"""The masked tensor of the JAX backend: a pytree node."""

import functools

import numpy as np

import jax
import jax.export
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.packed_tensor import PackedBase


class MaskedTensor(MaskedTensorBase):
    __doc__ = MaskedTensorBase.__doc__

    @staticmethod
    def is_concrete(x: MaskedTensorBase) -> bool:
        return not isinstance(x.values, jax.core.Tracer)


# What has a shape; JAX puts into leaves all else that it likes, too (`None`,
# `object()`).
_ARRAYS = (jax.Array, np.ndarray, jax.ShapeDtypeStruct)


def _take_apart(x):
    """The values, a mask of as many axes, and how many it has at its end more.

    JAX counts an axis below 0 from the end of each leaf. The mask's last axes
    have to be those of the values, then, or `in_axes=-1` would take different
    ones of the two.
    """
    values, mask = x.values, x.mask
    if not (isinstance(values, _ARRAYS) and isinstance(mask, _ARRAYS)):
        return (values, mask), vars(x).get("_added", 0)
    added = values.ndim - mask.ndim
    return (values, _reshaped(mask, mask.shape + (1,) * added)), added


def _reshaped(x, shape):
    if x.shape == shape:
        return x
    if isinstance(x, jax.ShapeDtypeStruct):
        return x.update(shape=shape)
    return x.reshape(shape)


def _put_together(added, parts):
    """A masked tensor of its parts, as a transformation gives them back."""
    values, mask = parts
    if not (isinstance(values, _ARRAYS) and isinstance(mask, _ARRAYS)):
        x = MaskedTensor._wrap(values, mask)
        vars(x)["_added"] = added
        return x
    if mask.dtype not in (bool, jax.dtypes.float0):
        raise TypeError(
            "The mask of a masked tensor must be boolean. It came back "
            f"with dtype {mask.dtype}: `jax.tree.map` goes over values and "
            "mask. Use functions of `keras.ops` or operators on the "
            "masked tensor, or map over `x.values`."
        )
    own = mask.ndim - added
    if own >= 0 and mask.shape[own:] == (1,) * added:
        mask = _reshaped(mask, mask.shape[:own])
    if mask.shape != values.shape[: mask.ndim]:
        raise ValueError(
            f"Values of shape {values.shape} came back with a mask of "
            f"shape {mask.shape}, which does not cover leading axes of "
            "them. `jax.vmap` takes and makes an axis of both alike, so it "
            "has to be one of the mask: move it to the front with "
            "`keras.ops.moveaxis` before or after, or map over `x.values`."
        )
    return MaskedTensor._wrap(values, mask)


def _parts_with_keys(x):
    key = jax.tree_util.GetAttrKey
    (values, mask), added = _take_apart(x)
    return ((key("values"), values), (key("mask"), mask)), added


jax.tree_util.register_pytree_with_keys(
    MaskedTensor,
    _parts_with_keys,
    _put_together,
    _take_apart,
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


*_PACKED_PARTS, _ = PackedTensor._parts_and_limit


def _packed_parts_with_keys(x):
    key = jax.tree_util.GetAttrKey
    parts = [(key(name), getattr(x, name)) for name in _PACKED_PARTS]
    return parts, x.limit


def _packed_of(limit, parts):
    """A packed masked tensor of its parts, of which arrays alone are checked.

    A transformation that takes a row of each part would take them from the
    rows of the batch and from the flat steps alike.
    """
    _, mask, index, _ = parts
    arrays = isinstance(mask, jax.Array) and isinstance(index, jax.Array)
    if arrays and (mask.ndim != 2 or index.ndim != 1):
        raise ValueError(
            "A packed masked tensor came back with a mask of shape "
            f"{mask.shape}, which has to cover `(batch, time)`. Its steps are "
            "stored across the batch, so `jax.vmap` and `jax.lax.scan` cannot "
            "go over its rows. Write `x.padded()` before."
        )
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
