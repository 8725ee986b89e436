"""A masked tensor that says by name that this backend cannot carry one."""

from keras.src.backend.openvino.masked_tensor import MaskedTensor

__when__ = "<3.16"
