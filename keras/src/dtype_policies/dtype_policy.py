"""The values of masked inputs are cast as those of plain ones are."""

from keras.src.backend.common import foreign
from keras.src.backend.common import hooks
from keras.src.backend.common.masked_tensor import MaskedTensorBase
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
        if isinstance(x, MaskedTensorBase) or foreign.is_foreign(x):
            return hooks.convert_input(self, x, autocast, dtype)
        return self._convert_plain_input(x, autocast, dtype)
