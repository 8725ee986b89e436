"""The masked tensor of the NumPy backend."""

import math

import numpy as np
from keras.src.backend.common.masked_tensor import MaskedTensorBase


class MaskedTensor(MaskedTensorBase):
    __doc__ = MaskedTensorBase.__doc__

    @staticmethod
    def is_concrete(x):
        return True

    @staticmethod
    def _select(mask, values, value):
        # The backend's makes 32 bits of 64.
        return np.where(mask, values, value)

    @property
    def sorts_last(self):
        # Of the types that it did not make itself, NaN has no place.
        return math.nan if self.values.dtype.kind in "fc" else math.inf

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

    def _join(self, parts):
        # Into one array, so that the memory of a part serves the next one.
        # Fresh memory costs more than the arithmetic.
        joined, end = None, 0
        for part in parts:
            if joined is None:
                shape = len(self.values), *part.shape[1:]
                joined = np.empty(shape, part.dtype)
            start, end = end, end + len(part)
            joined[start:end] = part
        return joined
