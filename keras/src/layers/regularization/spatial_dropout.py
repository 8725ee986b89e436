"""Masked inputs are dropped from under their mask, which stays.

A composite one asks for the rule of `keras.random.dropout`.
"""

import functools

from keras.src.masking.door import backend  # noqa: F401
from keras.src.masking.layers import steps
from patchset.markers import keeps


class BaseSpatialDropout:
    @keeps("_drop_maps")
    def call(self, inputs, training=False):
        return steps.scaled(
            functools.partial(self._drop_maps, training=training), inputs
        )
