"""The masked tensor of the NumPy backend."""

import math

import numpy as np
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.packed_tensor import PackedBase


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
        return self._join_in_place(
            parts, lambda part, shape: np.empty(shape, part.dtype)
        )


class PackedTensor(PackedBase, MaskedTensor):
    @staticmethod
    def _places(mask):
        return np.flatnonzero(mask)

    @staticmethod
    def _gather(x, index):
        return x[index]

    @staticmethod
    def _scatter(flat, index, size):
        # One row more, for what is written nowhere.
        result = np.zeros((size + 1, *flat.shape[1:]), flat.dtype)
        result[index] = flat
        return result[:size]
