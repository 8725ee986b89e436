"""The masked tensor of the TensorFlow backend: an extension type."""

import typing

import numpy as np

import tensorflow as tf
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.masked_tensor import checked_and_filled
from keras.src.backend.common.operators import COMPARISON
from keras.src.backend.common.packed_tensor import SEVERAL_DEVICES
from keras.src.backend.common.packed_tensor import PackedBase


class _MaskedTensor(MaskedTensorBase):
    """What the extension type adds to the base, outside TensorFlow's reach."""

    @staticmethod
    def is_concrete(x):
        return hasattr(x.values, "numpy")


class _Type(type(tf.experimental.BatchableExtensionType)):
    """The type of the masked tensor, of which a packed one is an instance.

    A subclass of an extension type has its fields, and a packed tensor does
    not store values.
    """

    def __instancecheck__(cls, x):
        return super().__instancecheck__(x) or (
            cls is MaskedTensor and isinstance(x, PackedBase)
        )


def _extension_type(namespace):
    return _Type(
        "MaskedTensor",
        (_MaskedTensor, tf.experimental.BatchableExtensionType),
        namespace,
    )


def _init(self, values, mask=None):
    values, mask = checked_and_filled(values, mask)
    self.__dict__.update(values=values, mask=mask)


def _namespace():
    return {
        "__module__": __name__,
        "__qualname__": "MaskedTensor",
        "__doc__": MaskedTensorBase.__doc__,
        "__annotations__": {"values": tf.Tensor, "mask": tf.Tensor},
        "__init__": _init,
    }


try:
    MaskedTensor = _extension_type(
        _namespace() | {"__name__": "keras.MaskedTensor"}
    )
except ValueError:
    # TensorFlow registers the name for good, so a second copy of Keras in one
    # process (a reload, a purged `sys.modules`) does without one.
    MaskedTensor = _extension_type(_namespace())


class _PackedTensor(PackedBase, _MaskedTensor):
    _is_exact = False
    _is_dynamic = True
    _index_dtype = "int32"
    _pads_for_extremes = True

    @staticmethod
    def _on_host(function, flat, *arrays):
        if all(hasattr(x, "numpy") for x in arrays):
            return function(*(x.numpy() for x in arrays))

        def of_32_bits(*arrays):
            flat, index = function(*arrays)
            return flat, index.astype("int32")

        steps, index = tf.numpy_function(
            of_32_bits, arrays, (flat.dtype, tf.int32), stateful=False
        )
        steps.set_shape([None, *flat.shape[1:]])
        index.set_shape([None])
        return steps, index

    @property
    def shape(self):
        return self.mask.shape.concatenate(self.flat.shape[1:])

    @staticmethod
    def is_concrete(x):
        return hasattr(x.flat, "numpy")

    @staticmethod
    def _may_group(x):
        # Another device would have to be waited for.
        return x.is_concrete(x) and "CPU" in x.flat.device

    @staticmethod
    def _may_keep(values):
        # A tape that is opened later on would not know where it came from.
        return False

    @staticmethod
    def _places(mask):
        if not hasattr(mask, "numpy"):
            return None
        return np.flatnonzero(mask.numpy())

    @staticmethod
    def _all_places(mask):
        return tf.cast(tf.squeeze(tf.where(mask), 1), "int32")

    @staticmethod
    def _gather(x, index):
        return tf.gather(x, index)

    @staticmethod
    def _scatter(flat, index, size):
        # Late: the backend's functions import this type.
        from keras.src.backend.tensorflow import masked_kernels

        shape = tf.concat([[size], tf.shape(flat)[1:]], 0)
        # Steps without entries have no place that could be written to.
        if 0 in flat.shape[1:]:
            return tf.zeros(shape, flat.dtype)
        # What belongs nowhere is 0, and added to what is first.
        there = index < tf.cast(size, index.dtype)
        zero = masked_kernels.constant(0, flat.dtype)
        flat = masked_kernels.select(there, flat, zero)
        index = tf.where(there, index, 0)
        return tf.scatter_nd(tf.expand_dims(index, 1), flat, shape)


def _packed_type(namespace):
    parts = dict.fromkeys(("flat", "mask", "index", "there"), tf.Tensor)
    return type(tf.experimental.ExtensionType)(
        "PackedTensor",
        (_PackedTensor, tf.experimental.ExtensionType),
        {
            "__module__": __name__,
            "__qualname__": "PackedTensor",
            "__annotations__": {**parts, "limit": int},
            **namespace,
        },
    )


try:
    PackedTensor = _packed_type({"__name__": "keras.PackedTensor"})
except ValueError:
    PackedTensor = _packed_type({})


def _refuse_batching(spec, *args):
    raise ValueError(
        "A `tf.data.Dataset` cannot take apart or batch packed masked tensors, "
        "whose steps are stored across the rows. Received one of shape "
        f"{tuple(spec.mask.shape) + tuple(spec.flat.shape[1:])}. Batch padded "
        "ones, and pack each batch: `dataset.map(lambda x: x.packed())`."
    )


def _refuse_several_devices(spec):
    """The shape, which a strategy of several replicas asks a spec for."""
    shape = tuple(spec.mask.shape) + tuple(spec.flat.shape[1:])
    raise ValueError(SEVERAL_DEVICES.format(shape=shape))


PackedTensor.Spec.shape = property(_refuse_several_devices)
PackedTensor.Spec._batch = _refuse_batching
PackedTensor.Spec._to_batched_tensor_list = _refuse_batching


def refuse_component(
    spec: tf.TypeSpec, parts: typing.Sequence[str]
) -> typing.NoReturn:
    """Raises for what pipelines do with the components of an element alone.

    Args:
        spec: Spec of a tensor that is made of several.
        parts: The names of these.
    """
    parts = ", ".join(f"x.{name}" for name in parts)
    raise NotImplementedError(
        "`window`, `reduce` and `scan` of `tf.data` take tensors only. "
        f"Received: {spec!r}. Give them the parts, and put these together "
        f"after: `dataset.map(lambda x: ({parts}))`."
    )


MaskedTensor.Spec._to_legacy_output_types = lambda spec: refuse_component(
    spec, ("values", "mask")
)


# Data pipelines and Keras's adapters ask a spec for these two.
MaskedTensor.Spec.shape = property(lambda spec: spec.values.shape)
MaskedTensor.Spec.dtype = property(lambda spec: spec.values.dtype)


def _common_spec(spec, others):
    """What a trace for all of these takes; None where a rank would be lost.

    A mask of unknown rank is of no use to a rule: there are two traces then.
    """
    common = super(type(spec), spec).most_specific_common_supertype(others)
    ranks = common and (common.values.shape.rank, common.mask.shape.rank)
    return common if ranks and None not in ranks else None


MaskedTensor.Spec.most_specific_common_supertype = _common_spec


# A plain tensor on the left of a comparison does not try the right operand:
# it calls TensorFlow's function, which has to know the type.
def _register_comparison(function, name):
    def compare(*args, **kwargs):
        # Late: ops import this type.
        from keras.src import ops

        # The name of the node, which ours have no use for, comes third.
        kwargs.pop("name", None)
        return getattr(ops, name)(*[*args, *kwargs.values()][:2])

    for side in (0, 1):
        register = tf.experimental.dispatch_for_api(
            function, {side: MaskedTensor}
        )
        register(compare)


for _name in COMPARISON.values():
    _register_comparison(getattr(tf.math, _name), _name)
_register_comparison(tf.__operators__.eq, "equal")
_register_comparison(tf.__operators__.ne, "not_equal")
