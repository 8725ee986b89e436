"""The values of masked inputs are cast as those of plain ones are."""

import numpy as np

from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking import packing
from patchset.markers import keeps


class DTypePolicy:
    @keeps("_convert_plain_input")
    def convert_input(self, x, autocast, dtype):
        """Converts an input of a layer to the dtype that it computes in.

        Args:
            x: Tensor, masked tensor, symbolic tensor or array. A `numpy.ma`
                array becomes a masked tensor.
            autocast: Whether to cast floating point inputs.
            dtype: Dtype to cast them to.
        """
        if isinstance(x, np.ma.MaskedArray):
            x = backend.MaskedTensor(x.data, ~np.ma.getmaskarray(x))
        if not isinstance(x, MaskedTensorBase):
            return self._convert_plain_input(x, autocast, dtype)
        if x.is_packed:
            steps = packing.inner(x)
            found = self.convert_input(steps, autocast, dtype)
            return x if found is steps else packing.around(x, found)
        values = self._convert_plain_input(x.values, autocast, dtype)
        return x if values is x.values else masks.recast(x, values)
