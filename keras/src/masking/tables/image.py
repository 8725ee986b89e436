"""Rules of `keras.ops.image`."""

from keras.src.ops import image as MODULE

RULES = {}

ELSEWHERE = {}
