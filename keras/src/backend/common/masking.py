"""The attribute API of masks, for old layers: it reads composites as well."""

from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from pip_build import keeps


@keeps("_set_mask_attribute")
def set_keras_mask(x, mask):
    """Hangs a mask on a plain tensor, in place, for a layer of the old kind.

    Args:
        x: Plain tensor.
        mask: Its mask, or `None` to take it off.

    Raises:
        AttributeError: If `x` is a masked tensor and `mask` is not its mask:
            masked tensors are immutable.
    """
    if isinstance(x, MaskedTensorBase):
        x._keras_mask = mask
    else:
        _set_mask_attribute(x, mask)


@keeps("_get_mask_attribute")
def get_keras_mask(x):
    """The mask of a masked tensor, or the one hung on a plain tensor, or None.

    Args:
        x: Plain, masked or symbolic tensor.
    """
    if isinstance(x, (MaskedTensorBase, KerasTensor)) and x.mask is not None:
        return x.mask
    return _get_mask_attribute(x)
