"""Masked tensors do not meet the backend."""

from keras.src.masking.door import backend  # noqa: F401

__when__ = ">=3.16"
