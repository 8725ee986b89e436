"""The op functions ask the wider question: masked operands are dispatched."""

from keras.src.backend.common.keras_tensor import (
    needs_dispatch as any_symbolic_tensors,
)
from keras.src.ops.asking import asks_first

# They read a shape before they ask, do not ask what an argument is, or call
# another function.
for _name in ("extract_patches_3d", "resize", "ssim"):
    if _name in globals():  # Keras 3.14 has no `ssim`.
        globals()[_name] = asks_first(globals()[_name])
