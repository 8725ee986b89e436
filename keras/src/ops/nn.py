"""The op functions ask the wider question: masked operands are dispatched."""

from keras.src.backend.common.keras_tensor import (
    needs_dispatch as any_symbolic_tensors,
)
from keras.src.masking.errors import first_only

# Their kernels, weights and indices go past the question above.
for _name in (
    "conv",
    "conv_transpose",
    "depthwise_conv",
    "separable_conv",
):
    globals()[_name] = first_only(globals()[_name])
