"""Rules of `keras.ops.math`."""

from keras.src.masking.families import reduce as r
from keras.src.masking.families.merge import guarded
from keras.src.masking.families.merge import merge
from keras.src.ops import math as MODULE

RULES = {
    "erf": merge,
    "erfc": merge,
    "erfinv": guarded(0),
    "logsumexp": r.logsumexp,
    "rsqrt": guarded(1),
}

ELSEWHERE = {}
