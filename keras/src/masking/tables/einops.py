"""Rules of `keras.src.ops.einops`."""

from keras.src.masking.families import arrange
from keras.src.ops import einops as MODULE

RULES = {
    "rearrange": arrange.moved,
}
