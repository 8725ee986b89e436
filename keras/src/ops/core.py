"""The op functions ask the wider question: masked operands are dispatched."""

from keras.src.backend.common.keras_tensor import (
    needs_dispatch as any_symbolic_tensors,
)
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking.dispatch import values_of
from keras.src.masking.errors import refuse
from keras.src.masking.masks import wrap
from pip_build import keeps


@keeps("_plain_shape")
@keras_export("keras.ops.shape")
def shape(x):
    """Gets the shape of a tensor, that of the values of a masked one.

    Args:
        x: Tensor, masked tensor or anything with a shape.

    Returns:
        A tuple of integers, with tensors for the sizes that TensorFlow does
        not know yet and None for those of a symbolic tensor.

    Example:

    >>> keras.ops.shape(keras.MaskedTensor([[1.0, 2.0]], [True]))
    (1, 2)
    """
    return _plain_shape(x.values if isinstance(x, MaskedTensorBase) else x)


@keeps("_plain_is_tensor")
@keras_export("keras.ops.is_tensor")
def is_tensor(x):
    """Whether `x` is a tensor of the backend, a masked one included.

    Args:
        x: Anything.

    Example:

    >>> keras.ops.is_tensor(keras.MaskedTensor([1.0], [True]))
    True
    """
    return isinstance(x, MaskedTensorBase) or _plain_is_tensor(x)


@keeps("_plain_convert_to_numpy")
@keras_export("keras.ops.convert_to_numpy")
def convert_to_numpy(x):
    """Converts a tensor to a NumPy array, a masked one to a `numpy.ma` array.

    The mask of a `numpy.ma` array is True where an entry is *not* there. Mind
    that `np.concatenate` and `np.stack` drop it: use those of `numpy.ma`.

    Args:
        x: Tensor or masked tensor.

    Returns:
        A NumPy array, or a `numpy.ma.MaskedArray` for a masked tensor.

    Example:

    >>> x = keras.MaskedTensor([1.0, 2.0], [True, False])
    >>> keras.ops.convert_to_numpy(x)
    masked_array(data=[1.0, --],
                 mask=[False,  True],
           fill_value=1e+20,
                dtype=float32)
    """
    if isinstance(x, np.ma.MaskedArray):
        return x
    if isinstance(x, MaskedTensorBase):
        return x.to_numpy()
    return _plain_convert_to_numpy(x)


@keeps("_plain_custom_gradient")
@keras_export("keras.ops.custom_gradient")
def custom_gradient(f):
    """Gives a function a gradient of one's own.

    Called with a masked tensor, the function sees its values, row by row in
    the features that the mask does not cover, and its result has the mask.
    The gradient function never meets a mask, which has no gradient.

    Args:
        f: Function of tensors that returns a tuple of its result and of the
            gradient function, as `keras.ops.custom_gradient` of Keras 3 does.

    Returns:
        A function that returns the result alone, with that gradient.

    Raises:
        UnsupportedMaskError: If several arguments are masked, or a mask covers
            all axes, so that it cannot be known what becomes of it.
    """
    plain = _plain_custom_gradient(f)

    def function(*args, **kwargs):
        masked = [x for x in args if isinstance(x, MaskedTensorBase)]
        if not masked:
            return plain(*args, **kwargs)
        if len(masked) > 1 or len(masked[0].mask.shape) == masked[0].ndim:
            raise refuse(
                getattr(f, "__name__", "custom_gradient"),
                args,
                "What a function with a gradient of its own does to a mask is "
                "known only for one masked argument whose last axis has none.",
                rule="call it on `x.values` and wrap what it returns in a "
                "`keras.MaskedTensor`",
            )
        outputs = plain(*[values_of(x) for x in args], **kwargs)
        return tree.map_structure(lambda y: wrap(y, masked[0].mask), outputs)

    return function
