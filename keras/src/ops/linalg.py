"""The op functions ask the wider question: masked operands are dispatched."""

from keras.src.backend.common.keras_tensor import (
    needs_dispatch as any_symbolic_tensors,
)
