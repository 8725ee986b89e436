"""The attribute API of masks, for old layers: it reads composites as well."""

from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.tensor_attributes import get_tensor_attr
from keras.src.backend.common.tensor_attributes import set_tensor_attr
from patchset.markers import keeps
from patchset.markers import new


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
    if isinstance(x, MaskedTensorBase):
        return x._keras_mask
    if isinstance(x, KerasTensor) and x.mask is not None:
        return x.mask
    return _get_mask_attribute(x)


@new
def remember_as_given(mask, given):
    """Notes the form in which an old layer gave a mask, for the next one.

    Masks of masked tensors are boolean and cover leading axes. Old layers hand
    each other floats, and axes of size 1 at the end, to multiply by them.

    Args:
        mask: Mask of a masked tensor, or the spec of one.
        given: The mask as it was given, or its spec.
    """
    set_tensor_attr(mask, "_keras_mask_as_given", given)


@new
def as_given(mask):
    """The form that is noted for a mask; the mask itself if there is none."""
    given = get_tensor_attr(mask, "_keras_mask_as_given")
    return mask if given is None else given
