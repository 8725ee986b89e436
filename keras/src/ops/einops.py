"""The op functions ask the wider question: masked operands are dispatched.

A product of sizes is a number and not a tensor, which could not be traced.
"""

from math import prod

from keras.src.backend.common.keras_tensor import (
    needs_dispatch as any_symbolic_tensors,
)
