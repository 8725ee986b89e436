"""The backend brings its own masked tensor."""

from keras.src.backend.tensorflow.masked_tensor import MaskedTensor
