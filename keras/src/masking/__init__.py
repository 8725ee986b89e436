"""Masked tensors: what each operation makes of a mask."""

from keras.src.masking.errors import UnsupportedMaskError
