"""Rules of `keras.src.ops.einops`."""

from keras.src.masking.rules import arrange
from keras.src.ops import einops as MODULE

RULES = {
    "rearrange": arrange.moved,
}
