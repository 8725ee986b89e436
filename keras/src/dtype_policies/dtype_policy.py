"""The values of masked inputs are cast as those of plain ones are."""

from keras.src.backend.common import foreign
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking import packing
from keras.src.masking.calls import tensor_of
from patchset.markers import keeps


class DTypePolicy:
    @keeps("_convert_plain_input")
    def convert_input(self, x, autocast, dtype):
        """Converts an input of a layer to the dtype that it computes in.

        Args:
            x: Tensor, masked tensor, symbolic tensor or array. One of
                `numpy.ma`, or a foreign one with missing entries, becomes a
                masked tensor, and a table of several kinds of columns a
                dictionary.
            autocast: Whether to cast floating point inputs.
            dtype: Dtype to cast them to.
        """
        if foreign.is_foreign(x):
            x = foreign.as_numpy(x)
            if isinstance(x, dict):
                return {
                    name: self.convert_input(
                        tensor_of(column, name), autocast, dtype
                    )
                    for name, column in x.items()
                }
            x = tensor_of(x)
        if not isinstance(x, MaskedTensorBase):
            return self._convert_plain_input(x, autocast, dtype)
        if x.is_packed:
            steps = packing.inner(x)
            found = self.convert_input(steps, autocast, dtype)
            return x if found is steps else packing.around(x, found)
        values = self._convert_plain_input(x.values, autocast, dtype)
        return x if values is x.values else masks.recast(x, values)
