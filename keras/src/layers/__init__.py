"""A layer that upstream does not have."""

from keras.src.layers.preprocessing.fill import Fill
