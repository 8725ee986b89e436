"""A composite step asks for the rule of `keras.random.dropout`."""

from keras.src.masking.door import backend  # noqa: F401
