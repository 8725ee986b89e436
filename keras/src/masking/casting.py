"""What a dtype policy makes of masked and foreign inputs of a layer."""

import typing

from keras.src.backend.common import foreign
from keras.src.backend.common import hooks
from keras.src.backend.common.kinds import DType
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking import packing
from keras.src.masking.calls import tensor_of


@hooks.fills("convert_input")
def convert_input(
    policy: typing.Any, x: typing.Any, autocast: bool, dtype: DType
) -> Nest:
    """An input in the dtype that a layer computes in.

    Args:
        policy: Dtype policy.
        x: Tensor, masked tensor, or anything foreign.
        autocast: Whether to cast floating point inputs.
        dtype: Dtype to cast them to.
    """

    def plain(x):
        return policy._convert_plain_input(x, autocast, dtype)

    if foreign.is_foreign(x):
        x = foreign.as_numpy(x)
        if isinstance(x, dict):
            return {
                name: policy.convert_input(
                    tensor_of(column, name), autocast, dtype
                )
                for name, column in x.items()
            }
        x = tensor_of(x)
    if not isinstance(x, MaskedTensorBase):
        return plain(x)
    if x.is_packed:
        steps = packing.inner(x)
        found = policy.convert_input(steps, autocast, dtype)
        return x if found is steps else packing.around(x, found)
    values = plain(x.values)
    return x if values is x.values else masks.recast(x, values)
