"""Masked data is computed with the public functions, which know masks."""

from keras.src.masking import preprocessing
from keras.src.masking import protocols
from pip_build import keeps
from pip_build import new


class DataLayer:
    @new
    def _choose_protocol(self):
        chosen = super()._choose_protocol()
        is_by_type = chosen is protocols.by_type
        return preprocessing.by_public_functions if is_by_type else chosen

    @keeps("_call_on_plain")
    def __call__(self, inputs, **kwargs):
        return preprocessing.at_the_door(
            self, self._call_on_plain, inputs, kwargs
        )
