"""Masked inputs are dropped from under their mask, which stays."""

from keras.src.masking import protocols
from pip_build import keeps


class BaseSpatialDropout:
    @keeps("_drop_maps")
    def call(self, inputs, training=False):
        return protocols.on_values(self._drop_maps, inputs, training=training)
