"""Masked data is computed with the public functions, which know masks."""

from keras.src.masking.layers import preprocessing
from patchset.markers import keeps
from patchset.markers import new


class DataLayer:
    @new
    def _choose_protocol(self):
        return preprocessing.instead_of_by_type(
            self, preprocessing.by_public_functions
        )

    @keeps("_call_on_plain")
    def __call__(self, inputs, **kwargs):
        return preprocessing.at_the_door(
            self, self._call_on_plain, inputs, kwargs
        )
