"""`Multiply` follows the mask rule of `keras.ops`."""

import functools

from keras.src import ops


class Multiply:
    __added__ = ("_identity",)
    _identity = 1

    def _merge_function(self, inputs):
        return functools.reduce(ops.multiply, inputs)
