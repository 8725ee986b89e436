"""Lets masked and symbolic tensors into activations that went past the ops."""

import functools

from keras.src import ops
from keras.src.api_export import keras_export
from keras.src.backend.common.keras_tensor import needs_dispatch
from patchset.markers import keeps


@keeps("_plain_relu")
@keras_export("keras.activations.relu")
@functools.wraps(_plain_relu, assigned=("__doc__",), updated=())
def relu(x, negative_slope=0.0, max_value=None, threshold=0.0):
    if needs_dispatch((x,)):
        return ReLU(negative_slope, max_value, threshold)(x)
    return _plain_relu(x, negative_slope, max_value, threshold)


@keeps("_plain_hard_silu")
@keras_export(["keras.activations.hard_silu", "keras.activations.hard_swish"])
@functools.wraps(_plain_hard_silu, assigned=("__doc__",), updated=())
def hard_silu(x):
    return ops.hard_silu(x) if needs_dispatch((x,)) else _plain_hard_silu(x)


@keeps("_plain_mish")
@keras_export("keras.activations.mish")
@functools.wraps(_plain_mish, assigned=("__doc__",), updated=())
def mish(x):
    return Mish()(x) if needs_dispatch((x,)) else _plain_mish(x)


@keeps("_plain_sparsemax")
@keras_export("keras.activations.sparsemax")
@functools.wraps(_plain_sparsemax, assigned=("__doc__",), updated=())
def sparsemax(x, axis=-1):
    if needs_dispatch((x,)):
        return ops.sparsemax(x, axis)
    return _plain_sparsemax(x, axis)
