"""Masked arguments are shown in error messages by their shapes."""

from keras.src import backend
from keras.src.backend.common.composite import has_mask
from patchset.markers import keeps


@keeps("_format_plain_argument_value")
def format_argument_value(value):
    # Of the mask: to ask for values would pad a packed tensor, for a text.
    if has_mask(value) and backend.is_tensor(value.mask):
        return (
            f"MaskedTensor(shape={tuple(value.shape)}, "
            f"dtype={backend.standardize_dtype(value.dtype)}, "
            f"mask shape={tuple(value.mask.shape)})"
        )
    return _format_plain_argument_value(value)
