"""The backend brings its own masked and composite tensors."""

from keras.src.backend.tensorflow import masked_kernels
from keras.src.backend.tensorflow.composite import CompositeTensor
from keras.src.backend.tensorflow.masked_tensor import MaskedTensor
from keras.src.backend.tensorflow.masked_tensor import PackedTensor
