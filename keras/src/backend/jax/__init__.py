"""The backend brings its own masked tensor."""

from keras.src.backend.jax.masked_tensor import MaskedTensor
