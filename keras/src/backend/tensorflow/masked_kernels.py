"""How TensorFlow fills, sums, blocks and joins masked tensors."""

import math
import typing

import numpy as np

import tensorflow as tf
from keras.src.backend.common import masked_kernels as common
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_kernels import DOT_IS_MATMUL
from keras.src.backend.common.masked_kernels import HAS_SAFE_LOGSUMEXP
from keras.src.backend.common.masked_kernels import all_hold_some
from keras.src.backend.common.masked_kernels import apart
from keras.src.backend.common.masked_kernels import as_numpy
from keras.src.backend.common.masked_kernels import blocks
from keras.src.backend.common.masked_kernels import careful
from keras.src.backend.common.masked_kernels import constant
from keras.src.backend.common.masked_kernels import filled_copy
from keras.src.backend.common.masked_kernels import is_seen_ordinary
from keras.src.backend.common.masked_kernels import join_blocks
from keras.src.backend.common.masked_kernels import put
from keras.src.backend.common.masked_kernels import run_as_one
from keras.src.backend.common.masked_kernels import squares
from keras.src.backend.common.masked_kernels import total
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from tensorflow.python.ops.numpy_ops import np_array_ops


def sorts_last(x: MaskedTensorBase) -> float:
    # Among NaN its sort leaves other numbers out of order.
    return math.inf


def with_rank(values: Tensor, ndim: int) -> Tensor:
    if values.shape.rank is None:
        values.set_shape([None] * ndim)
    return values


def select(mask: Mask, values: Tensor, value: typing.Any) -> Tensor:
    covered = len(mask.shape)
    # Unknown sizes might be 1, all but that of a batch.
    is_covering = 0 < covered < len(values.shape) and all(
        m == n and (n is not None or axis == 0)
        for axis, (m, n) in enumerate(zip(mask.shape, values.shape))
    )
    is_scalar = not len(getattr(value, "shape", ()))
    if not (is_covering and is_scalar and tf.is_tensor(values)):
        return common.select(mask, values, value)
    # By whole steps it takes a fourth of the time of `where`, that broadcasts.
    if values.shape.is_fully_defined():
        shape = values.shape.as_list()
        flat = [math.prod(shape[:covered]), *shape[covered:]]
    else:
        shape = tf.shape(values)
        flat = tf.concat([[tf.size(mask)], shape[covered:]], 0)
    filled = tf.raw_ops.Select(
        condition=tf.reshape(mask, flat[:1]),
        x=tf.reshape(values, flat),
        y=tf.fill(flat, value),
    )
    filled = tf.reshape(filled, shape)
    filled.set_shape(values.shape)
    return filled


def index(x: Tensor, key: tuple) -> Tensor:
    """As NumPy does it, which a tensor learns by a global switch only."""
    if not any(len(getattr(k, "shape", ())) for k in key):
        return x[key]
    places = []
    for k in key:
        if getattr(k, "dtype", None) in (tf.bool, np.bool_):
            places.extend(tf.unstack(tf.where(k), len(k.shape), axis=1))
        else:
            places.append(k)
    return np_array_ops._getitem(x, tuple(places))
