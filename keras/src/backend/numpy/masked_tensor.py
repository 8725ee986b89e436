"""The masked tensor of the NumPy backend."""

import numpy as np
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.packed_tensor import PackedBase


class MaskedTensor(MaskedTensorBase):
    __doc__ = MaskedTensorBase.__doc__

    @staticmethod
    def is_concrete(x: MaskedTensorBase) -> bool:
        return True


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
