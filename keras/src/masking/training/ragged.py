"""Which ragged tensors become masked: a question of the engine and model."""

import itertools
import typing

from keras.src import backend
from keras.src import tree
from keras.src.backend.common.kinds import Model
from keras.src.backend.common.kinds import Operation
from keras.src.backend.common.ragged import is_ragged
from keras.src.backend.common.ragged import is_ragged_of_tensorflow
from keras.src.masking.refusals import is_from_keras
from keras.src.ops.function import Function
from keras.src.utils.module_utils import tensorflow as tf


def is_foreign(x: typing.Any) -> bool:
    """Whether this is a ragged tensor that the backend has no use for.

    On TensorFlow a model may be made for the backend's own.
    """
    return is_ragged(x) and not (
        backend.SUPPORTS_RAGGED_TENSORS and is_ragged_of_tensorflow(x)
    )


def is_ragged_dataset(x: typing.Any) -> bool:
    """Whether this is a `tf.data.Dataset` of `tf.RaggedTensor`s."""
    # Late: adapters import this.
    from keras.src.trainers.data_adapters import is_tf_dataset

    return is_tf_dataset(x) and any(
        isinstance(spec, tf.RaggedTensorSpec)
        for spec in tree.flatten(x.element_spec)
    )


def takes_no_ragged(model: Model) -> bool:
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


def is_of_others(operation: Operation) -> bool:
    """Whether a layer or operation is not Keras's own, or made of others."""
    # Trainers import this. Not all of them have a `train_step`.
    is_model = hasattr(operation, "compute_loss")
    return is_model or not is_from_keras(type(operation).__module__)
