"""Rules of the activations that are operations of their own."""

from keras.src.activations import activations as MODULE
from keras.src.masking.rules.merge import merge

RULES = {
    "mish": merge,
    "relu": merge,
}
