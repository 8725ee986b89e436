"""Erased pixels are noise where there were pixels; padding stays padding."""

from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from patchset.markers import keeps


class RandomErasing:
    @keeps("_transform_plain_images")
    def transform_images(self, images, *args, **kwargs):
        erased = self._transform_plain_images(images, *args, **kwargs)
        if not isinstance(images, MaskedTensorBase):
            return erased
        return masks.wrap(erased.values, images.mask)
