"""Rows of unequal length, and ragged tensors of TensorFlow and PyTorch."""

import itertools

import numpy as np

from keras.src import backend
from keras.src import tree
from keras.src.masking.refusals import is_from_keras
from keras.src.ops.function import Function
from keras.src.trainers import data_adapters
from keras.src.trainers.data_adapters import data_adapter_utils
from keras.src.trainers.trainer import Trainer
from keras.src.utils.module_utils import tensorflow as tf


def is_ragged(x):
    """Whether this is a `tf.RaggedTensor` or a nested tensor of PyTorch."""
    return data_adapter_utils.is_tensorflow_ragged(x) or (
        data_adapter_utils.is_torch_tensor(x) and x.is_nested
    )


def is_foreign(x):
    """Whether this is a ragged tensor that the backend has no use for.

    On TensorFlow a model may be made for the backend's own.
    """
    return is_ragged(x) and not (
        backend.SUPPORTS_RAGGED_TENSORS
        and data_adapter_utils.is_tensorflow_ragged(x)
    )


def is_ragged_dataset(x):
    """Whether this is a `tf.data.Dataset` of `tf.RaggedTensor`s."""
    if not data_adapters.is_tf_dataset(x):
        return False
    return any(
        isinstance(spec, tf.RaggedTensorSpec)
        for spec in tree.flatten(x.element_spec)
    )


def takes_no_ragged(model):
    """Whether a model is known to be made for dense tensors.

    Its inputs are known, none is ragged, and all go into Keras's own layers
    and operations. Layers and models of others may be made for ragged ones.
    """
    graph = getattr(model, "_functional", model)
    # A `Sequential` has none before it is built.
    if not isinstance(graph, Function):
        return False
    inputs = tree.flatten(graph.inputs)
    if any(x.ragged for x in inputs):
        return False
    known = {id(x) for x in inputs}
    nodes = itertools.chain(*graph._nodes_by_depth.values())
    return not any(
        is_of_others(node.operation)
        for node in nodes
        if known.intersection(map(id, node.arguments.keras_tensors))
    )


def is_of_others(operation):
    """Whether a layer or operation is not Keras's own, or made of others."""
    return isinstance(operation, Trainer) or not is_from_keras(
        type(operation).__module__
    )


def padded(rows, length=None):
    """Values padded to the longest row, and which of them there are.

    Args:
        rows: List of arrays that agree in all but their first axis; a nested
            tensor of PyTorch; or a `tf.RaggedTensor`, also within a graph.
        length: Length of the time axis. Defaults to that of the longest row.

    Returns:
        The values, with 0 where there are none, and the mask, of shape
        `(rows, length)`, and with an axis more for each further ragged one.
        They are NumPy arrays, or tensors of TensorFlow within a graph and
        where several axes are ragged.

    Raises:
        ValueError: If the rows differ in more than their length, or one is
            longer than `length`.
    """
    if data_adapter_utils.is_tensorflow_ragged(rows):
        if rows.ragged_rank > 1 or not hasattr(rows.flat_values, "numpy"):
            return _padded_by_tensorflow(rows, length)
        ends = rows.row_splits.numpy()[1:]
        # The last piece is what follows the last row: nothing.
        rows = np.split(rows.flat_values.numpy(), ends)[: len(ends)]
    elif is_ragged(rows):
        rows = [row.detach().cpu() for row in rows.unbind()]
    rows = [np.asarray(row) for row in rows]
    inner = {row.shape[1:] for row in rows}
    longest = max((len(row) for row in rows), default=0)
    length = longest if length is None else length
    if len(inner) > 1 or longest > length:
        raise ValueError(
            "The rows of a ragged list must agree in all but their first "
            f"axis, and be no longer than length={length}. Received rows "
            f"of shapes {sorted({row.shape for row in rows})}."
        )
    inner = inner.pop() if inner else ()
    dtype = np.result_type(*rows) if rows else "float32"
    values = np.zeros((len(rows), length) + inner, dtype)
    mask = np.zeros((len(rows), length), "bool")
    for i, row in enumerate(rows):
        values[i, : len(row)] = row
        mask[i, : len(row)] = True
    return values, mask


def _padded_by_tensorflow(rows, length):
    shape = None if length is None else [None, length]
    if length is not None:
        # Which would be cut.
        tf.debugging.assert_less_equal(
            rows.bounding_shape()[1],
            tf.cast(length, rows.row_splits.dtype),
            f"A row is longer than length={length}.",
        )
    there = tf.ones(tf.shape(rows.flat_values)[:1], "bool")
    mask = rows.with_flat_values(there).to_tensor(shape=shape)
    return rows.to_tensor(shape=shape), mask
