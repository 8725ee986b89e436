"""The masked tensor of the OpenVINO backend, which cannot carry one."""

import typing

from keras.src.backend.common.masked_tensor import MaskedTensorBase

__when__ = "<3.16"


class MaskedTensor(MaskedTensorBase):
    __doc__ = MaskedTensorBase.__doc__

    def __init__(self, values: typing.Any, mask: typing.Any):
        raise NotImplementedError(
            "The OpenVINO backend runs inference on plain tensors and cannot "
            "carry a `keras.MaskedTensor`: an OpenVINO graph has no composite "
            "values. Run the model with the NumPy, JAX, TensorFlow or PyTorch "
            "backend (`KERAS_BACKEND`), or give it `values` and the mask as "
            "two plain inputs."
        )

    @staticmethod
    def is_concrete(x: MaskedTensorBase) -> bool:
        return False
