"""Batches that were taken apart become masked tensors at the very end."""

import functools

import numpy as np

from keras.src.backend.common import hooks
from patchset.markers import keeps
from patchset.markers import when

# What is masked is unpacked by these utilities: it is imported when it comes.


@keeps("_plain_numpy_iterator")
def get_numpy_iterator(*args, **kwargs):
    return map(
        hooks.data.batch_together, _plain_numpy_iterator(*args, **kwargs)
    )


@keeps("_plain_jax_iterator")
def get_jax_iterator(*args, **kwargs):
    return map(hooks.data.batch_together, _plain_jax_iterator(*args, **kwargs))


@keeps("_plain_torch_dataloader")
def get_torch_dataloader(*args, **kwargs):
    batches = _plain_torch_dataloader(*args, **kwargs)
    return hooks.data.Batches(hooks.data.batch_together, batches)


@when(">=3.16")
@keeps("_plain_super_batches")
def super_batch_iterator(iterator, super_batch, stack_fn=np.stack):
    return _plain_super_batches(
        map(hooks.data.batch_together, iterator),
        super_batch,
        functools.partial(hooks.data.stacked, stack_fn),
    )
