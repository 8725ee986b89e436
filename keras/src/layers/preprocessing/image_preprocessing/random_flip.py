"""The mask of the pixels is flipped as they are."""

from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from patchset.markers import keeps


class RandomFlip:
    @keeps("_flip_plain")
    def _flip_inputs(self, inputs, transformation):
        if not isinstance(inputs, MaskedTensorBase) or transformation is None:
            return self._flip_plain(inputs, transformation)
        # Choosing between two masked tensors would want both to be valid.
        ndim = len(inputs.shape)
        flipped = self._flip_plain(
            masks.expand(inputs.mask, ndim), transformation
        )
        added = tuple(range(len(inputs.mask.shape), ndim))
        return masks.wrap(
            self._flip_plain(inputs.values, transformation),
            self.backend.numpy.squeeze(flipped, added) if added else flipped,
        )
