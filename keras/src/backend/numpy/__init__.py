"""The backend brings its own masked tensor."""

from keras.src.backend.numpy.masked_tensor import MaskedTensor
