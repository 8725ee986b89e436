"""The masked tensor of the TensorFlow backend: an extension type."""

import math

import numpy as np

import tensorflow as tf
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.masked_tensor import checked_and_filled
from keras.src.backend.common.operators import COMPARISON
from tensorflow.python.ops.numpy_ops import np_array_ops


class _MaskedTensor(MaskedTensorBase):
    """What the extension type adds to the base, outside TensorFlow's reach."""

    # Among NaN its sort leaves other numbers out of order.
    sorts_last = math.inf

    @staticmethod
    def is_concrete(x):
        return hasattr(x.values, "numpy")

    @staticmethod
    def _index(x, key):
        """As NumPy does it, which a tensor learns by a global switch only."""
        if not any(len(getattr(k, "shape", ())) for k in key):
            return x[key]
        places = []
        for k in key:
            if getattr(k, "dtype", None) in (tf.bool, np.bool_):
                places.extend(tf.unstack(tf.where(k), len(k.shape), axis=1))
            else:
                places.append(k)
        return np_array_ops._getitem(x, tuple(places))


def _extension_type(namespace):
    return type(tf.experimental.BatchableExtensionType)(
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
