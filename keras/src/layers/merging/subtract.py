"""`Subtract` follows the mask rule of `keras.ops`."""


class Subtract:
    __added__ = ("_identity",)
    _identity = 0
