"""The masked tensor of the NumPy backend."""

import numpy as np
from keras.src.backend.common.masked_tensor import MaskedTensorBase


class MaskedTensor(MaskedTensorBase):
    __doc__ = MaskedTensorBase.__doc__

    @staticmethod
    def is_concrete(x):
        return True

    def _put(self, value):
        values = self.values.copy()
        values[~self.mask] = value
        return values

    def _sum(self, axes, keepdims):
        axes_below = range(self.mask.ndim, self.values.ndim)
        mask = np.expand_dims(self.mask, tuple(axes_below))
        return np.sum(self.values, axes, keepdims=keepdims, where=mask)

    def _blocks(self):
        return self._split_rows()
