"""What is added is a bias only where it lies along the channels."""

from pip_build import keeps
from pip_build import new


@keeps("_add_or_bias")
def add(x1, x2):
    """The sum of two tensors.

    Upstream takes an operand with one axis for a bias if that is as long as
    the channels are, though it be one number for each image of the batch.
    """
    if _only_looks_like_bias(x1, x2):
        dtype = dtypes.result_type(x1.dtype, x2.dtype)
        return tf.add(
            convert_to_tensor(x1, dtype), convert_to_tensor(x2, dtype)
        )
    return _add_or_bias(x1, x2)


@new
def _only_looks_like_bias(x1, x2):
    if not (isinstance(x1, tf.Tensor) and isinstance(x2, tf.Tensor)):
        return False
    if x1.shape.rank is None or x2.shape.rank is None:
        return False
    wide = [a - len(x2.shape) for a, n in enumerate(x2.shape) if n != 1]
    if len(wide) != 1 or len(x2.shape) > len(x1.shape):
        return False
    (axis,) = wide
    if axis == -1:
        return x1.shape[-1] != x2.shape[-1]
    is_second = axis == 1 - len(x1.shape)
    return not is_second or x1.shape[-1] == x2.shape[axis]
