"""Rules of `keras.random`, whose functions have no operation classes."""

from keras.src.masking.rules import draw
from keras.src.masking.rules.batch import refused
from keras.src.random import random as MODULE

KEYED_BY_FUNCTION = True

_BOUNDS = "A draw like this one takes plain numbers for its bounds and moments."

RULES = {
    "beta": draw.with_parameters(alpha=1, beta=1),
    "binomial": draw.with_parameters(counts=1, probabilities=0.5),
    "categorical": draw.categorical,
    "dropout": draw.dropout,
    "gamma": draw.with_parameters(alpha=1),
    "normal": refused(_BOUNDS),
    "randint": refused(_BOUNDS),
    "shuffle": draw.shuffle,
    "truncated_normal": refused(_BOUNDS),
    "uniform": refused(_BOUNDS),
}

ELSEWHERE = {}
