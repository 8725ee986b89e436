"""`Minimum` follows the mask rule of `keras.ops`."""

import functools

from keras.src import ops


class Minimum:
    __added__ = ("_identity",)
    _identity = "highest"

    def _merge_function(self, inputs):
        return functools.reduce(ops.minimum, inputs)
