"""Masked inputs are dropped from under their mask, which stays."""

from keras.src.masking.layers import steps
from patchset.markers import keeps


class Dropout:
    @keeps("_drop")
    def call(self, inputs, training=False):
        return steps.on_values(self._drop, inputs, training=training)
