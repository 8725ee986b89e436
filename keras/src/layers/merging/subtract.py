"""`Subtract` follows the mask rule of `keras.ops`."""

from patchset.markers import when

if when(">=3.16"):
    from keras.src.masking.door import backend  # noqa: F401


class Subtract:
    __added__ = ("_identity",)
    _identity = 0
