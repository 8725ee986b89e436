"""The backend brings its own masked and composite tensors."""

from keras.src.backend.jax import masked_kernels
from keras.src.backend.jax.composite import CompositeTensor
from keras.src.backend.jax.masked_tensor import MaskedTensor
from keras.src.backend.jax.masked_tensor import PackedTensor
