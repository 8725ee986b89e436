"""The backend brings its own masked tensor."""

from keras.src.backend.torch.masked_tensor import MaskedTensor
