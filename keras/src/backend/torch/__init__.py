"""The backend brings its own masked and composite tensors."""

from keras.src.backend.torch import masked_kernels
from keras.src.backend.torch.composite import CompositeTensor
from keras.src.backend.torch.masked_tensor import MaskedTensor
from keras.src.backend.torch.masked_tensor import PackedTensor
