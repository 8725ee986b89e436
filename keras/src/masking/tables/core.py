"""Rules of `keras.ops.core`."""

from keras.src.masking.families import inquire
from keras.src.masking.families import layout
from keras.src.masking.families.merge import merge
from keras.src.ops import core as MODULE

RULES = {
    "cast": merge,
    "convert_to_tensor": inquire.to_tensor,
    "saturate_cast": merge,
    "slice": layout.slice_,
    "stop_gradient": merge,
    "unstack": layout.along_axis,
}

ELSEWHERE = {}
