"""Steps take masked batches, and `predict` gives masked outputs.

Values and masks are joined apart. (`tf.concat` does not know the type.)
"""

import functools

import numpy as np

import tensorflow as tf
from keras.src import tree
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.backend.tensorflow.composite import CompositeTensor
from keras.src.backend.tensorflow.masked_tensor import MaskedTensor
from keras.src.masking import packing
from keras.src.masking.training import batches
from keras.src.masking.training import padding
from patchset.markers import keeps
from patchset.markers import new


# The steps ask the first input for its batch size.
@new
@tf.experimental.dispatch_for_api(tf.shape, {"input": MaskedTensor})
def _shape_of_values(input, out_type=None, name=None):
    return tf.shape(input.values, out_type=out_type or tf.int32, name=name)


@keeps("_concat_plain")
def concat(tensors, axis=0):
    if isinstance(tensors[0], MaskedTensor):
        return batches.concat_batches(tensors)
    if isinstance(tensors[0], CompositeTensor):
        return tree.map_structure(lambda *xs: concat(xs, axis), *tensors)
    return _concat_plain(tensors, axis)


@keeps("_convert_plain_to_np")
def convert_to_np_if_not_ragged(x):
    if isinstance(x, MaskedTensor):
        return x.to_numpy()
    if isinstance(x, np.ma.MaskedArray):
        return x
    return _convert_plain_to_np(x)


@keeps("_concat_plain_if_not_ragged")
def potentially_ragged_concat(tensors):
    if isinstance(tensors[0], MaskedTensor):
        return batches.to_one_array(tensors)
    return _concat_plain_if_not_ragged(tensors)


class TensorFlowTrainer:
    @keeps("_maybe_plain_symbolic_build")
    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        several = self.distribute_strategy.num_replicas_in_sync > 1
        if iterator is not None and several:
            batch = next(next(iter(iterator))[-1])
            # The mean over replicas is of plain tensors; any replica will do.
            local = self.distribute_strategy.experimental_local_results
            first = tree.map_structure(lambda x: local(x)[0], batch)
            if any_leaf((MaskedTensor, CompositeTensor), (first,)):
                iterator, data_batch = None, first
        self._maybe_plain_symbolic_build(iterator, data_batch)

    @new
    def _sees_padding(self, watch, one):
        """Whether the first batch has padding that counts in an output.

        A compiled step notes it in a variable, for the batch comes out of an
        iterator inside it. On several replicas it was looked at before.
        """
        if tf.executing_eagerly():
            watch.look_at(one)
        elif self.distribute_strategy.num_replicas_in_sync == 1:
            if one.name not in watch.notes:
                with tf.init_scope():
                    note = tf.Variable(False, trainable=False)
                watch.notes[one.name] = note, one.advice
            note, _ = watch.notes[one.name]
            note.assign(tf.logical_or(note, one.counts_in_batch()))
            watch.is_noted = True
        return one.name in watch.seen

    @keeps("_make_silent_function")
    def _make_function(self, step_function):
        """The steps, which tell after the first ones what they noted."""
        function = self._make_silent_function(step_function)

        @functools.wraps(function)
        def run(iterator):
            logs = function(iterator)
            if self._compile_loss is not None:
                watch = padding.watch_of(self._compile_loss)
                # Only after a step that was traced.
                if watch.is_noted:
                    watch.is_noted = False
                    for name, (note, advice) in watch.notes.items():
                        if name not in watch.warned and note.numpy():
                            self._warn_of_padding(name, advice)
            return logs

        return run


class TFEpochIterator:
    @keeps("_init_plain")
    def __init__(self, distribute_strategy=None, *args, **kwargs):
        several = getattr(distribute_strategy, "num_replicas_in_sync", 1) > 1
        if several:
            packing.refuse_several_devices([args, kwargs])
        self._init_plain(distribute_strategy, *args, **kwargs)
