"""Rules of `keras.ops.linalg`."""

from keras.src.masking.families import reduce as r
from keras.src.ops import linalg as MODULE

RULES = {
    "norm": r.norm,
}

ELSEWHERE = {}
