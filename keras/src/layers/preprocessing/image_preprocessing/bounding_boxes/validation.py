"""Masked boxes have the shape of their values."""

from keras.src.masking.calls import values_of
from patchset.markers import keeps


@keeps("_validate_plain")
def validate_bounding_boxes(bounding_boxes):
    _validate_plain(values_of(bounding_boxes))
