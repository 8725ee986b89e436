"""Batches that were taken apart become masked tensors at the very end."""

from keras.src.masking.training import data
from patchset.markers import keeps

# What is masked is unpacked by these utilities: it is imported when it comes.


@keeps("_plain_numpy_iterator")
def get_numpy_iterator(iterable):
    return map(data.batch_together, _plain_numpy_iterator(iterable))


@keeps("_plain_jax_iterator")
def get_jax_iterator(iterable):
    return map(data.batch_together, _plain_jax_iterator(iterable))


@keeps("_plain_torch_dataloader")
def get_torch_dataloader(iterable):
    return data.Batches(data.batch_together, _plain_torch_dataloader(iterable))
