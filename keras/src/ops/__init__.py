"""Adds the ops that take masked tensors apart."""

from keras.src.ops.masking import filled
from keras.src.ops.masking import get_mask
from keras.src.ops.masking import is_masked
from keras.src.ops.masking import last
