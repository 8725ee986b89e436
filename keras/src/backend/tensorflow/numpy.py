"""What is added is a bias only where it lies along the channels."""

import tensorflow as tf
from keras.src.backend.common import dtypes
from keras.src.backend.tensorflow.core import convert_to_tensor
from patchset.markers import keeps
from patchset.markers import new

# Upstream does so since then.
__when__ = "<3.16"


@keeps("_add_or_bias")
def add(x1, x2):
    """The sum of two tensors.

    Upstream takes an operand with one axis for a bias if that is as long as
    the channels are, though it be one number for each image of the batch.
    """
    shape, other = getattr(x1, "shape", ()), getattr(x2, "shape", ())
    # Most often the shapes are the same, which is quickly seen.
    if not other or shape == other or not _only_looks_like_bias(shape, other):
        return _add_or_bias(x1, x2)
    unlike = (tf.SparseTensor, tf.IndexedSlices)
    if isinstance(x1, unlike) or isinstance(x2, unlike):
        return _add_or_bias(x1, x2)
    x1, x2 = convert_to_tensor(x1), convert_to_tensor(x2)
    dtype = dtypes.result_type(x1.dtype, x2.dtype)
    return tf.add(convert_to_tensor(x1, dtype), convert_to_tensor(x2, dtype))


@new
def _only_looks_like_bias(shape, other):
    shape, other = tf.TensorShape(shape), tf.TensorShape(other)
    if shape.rank is None or len(other) > len(shape):
        return True
    wide = [a - len(other) for a, n in enumerate(other) if n != 1]
    if len(wide) != 1:
        return False
    (axis,) = wide
    if axis == -1:
        return shape[-1] != other[-1]
    is_second = axis == 1 - len(shape)
    return not is_second or shape[-1] == other[axis]
