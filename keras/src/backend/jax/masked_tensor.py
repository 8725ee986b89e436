"""The masked tensor of the JAX backend: a pytree node."""

import numpy as np

import jax
import jax.export
from keras.src.backend.common.masked_tensor import MaskedTensorBase


def _runs_on_cpu():
    return jax.default_backend() == "cpu"


class MaskedTensor(MaskedTensorBase):
    __doc__ = MaskedTensorBase.__doc__

    @staticmethod
    def is_concrete(x):
        return not isinstance(x.values, jax.core.Tracer)

    def _put(self, value):
        # XLA fuses arithmetic with the reduction that follows, and vectorizes
        # it; on CPUs it does neither with a selection by a broadcast mask.
        if _runs_on_cpu():
            return self._put_by_arithmetic(value)
        return super()._put(value)

    def _careful(self, function):
        if not _runs_on_cpu():
            return function(self)

        def of_values(values):
            return function(self._wrap(values, self.mask))

        @jax.custom_jvp
        def careful(values):
            result = of_values(values)
            # No sum: XLA would make one of this and of that which gave the
            # result.
            is_nan = jax.numpy.any(jax.numpy.isnan(result))
            try:
                return of_values(filled(values)) if is_nan else result
            except jax.errors.TracerBoolConversionError:
                return jax.lax.cond(
                    is_nan,
                    lambda: of_values(filled(values)),
                    lambda: result,
                )

        @careful.defjvp
        def differentiate(primals, tangents):
            # Its slope is 0 at masked entries, so the selection needs none. A
            # choice would have to keep what both branches need.
            return jax.jvp(of_values, (filled(*primals),), tangents)

        def filled(values):
            return self._wrap(values, self.mask)._with_zeros().values

        return careful(self.values)


# JAX moves axes of all leaves of a node alike (`vmap` with `in_axes=-1`), and a
# mask may have fewer than its values. So it leaves with axes of size 1 in place
# of those that it does not cover, their number beside it: what moves them apart
# from those of the values does not fit, and is refused.


def _take_apart(x):
    values, mask = x.values, x.mask
    if not (_has_axes(values) and _has_axes(mask)):
        return (values, mask), vars(x).get("_added", 0)
    added = len(values.shape) - len(mask.shape)
    if not added:
        return (values, mask), 0
    return (values, _reshaped(mask, (*mask.shape, *(1,) * added))), added


def _put_together(added, parts):
    values, mask = parts
    if not (_has_axes(values) and _has_axes(mask)):
        # Whatever JAX puts into the leaves: `None`, `object()`, axes.
        x = MaskedTensor._wrap(values, mask)
        vars(x)["_added"] = added
        return x
    shape, own = tuple(values.shape), tuple(mask.shape)
    covered = len(own) - added
    if covered < 0 or own != shape[:covered] + (1,) * added:
        raise ValueError(
            f"Values of shape {shape} came back with a mask of shape {own}, of "
            f"which the last {added} axes stand for those that it does not "
            "cover. `jax.vmap` can take or make an axis of masked tensors only "
            "where the mask has it, and `jax.tree.map` has to treat both "
            "alike. Move the axis with `keras.ops.moveaxis` before or after, "
            "or map over `x.values`."
        )
    if isinstance(mask, jax.Array) and mask.dtype != bool:
        if mask.dtype != jax.dtypes.float0:
            raise TypeError(
                "The mask of a masked tensor must be boolean. It came back "
                f"with dtype {mask.dtype}: `jax.tree.map` goes over values and "
                "mask. Use functions of `keras.ops` or operators on the "
                "masked tensor, or map over `x.values`."
            )
    if added:
        mask = _reshaped(mask, own[:covered])
    return MaskedTensor._wrap(values, mask)


def _has_axes(part):
    return isinstance(part, (jax.Array, np.ndarray, jax.ShapeDtypeStruct))


def _reshaped(mask, shape):
    if isinstance(mask, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(shape, mask.dtype)
    return mask.reshape(shape)


def _parts_with_keys(x):
    (values, mask), added = _take_apart(x)
    key = jax.tree_util.GetAttrKey
    return ((key("values"), values), (key("mask"), mask)), added


jax.tree_util.register_pytree_with_keys(
    MaskedTensor, _parts_with_keys, _put_together, _take_apart
)

# What `jax.export` writes can be read where Keras has been imported.
jax.export.register_pytree_node_serialization(
    MaskedTensor,
    serialized_name="keras.MaskedTensor",
    serialize_auxdata=lambda added: bytes([added]),
    deserialize_auxdata=lambda data: data[0],
)
