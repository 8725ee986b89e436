"""The backend brings its own masked and composite tensors."""

from keras.src.backend.numpy import masked_kernels
from keras.src.backend.numpy.composite import CompositeTensor
from keras.src.backend.numpy.masked_tensor import MaskedTensor
from keras.src.backend.numpy.masked_tensor import PackedTensor
