"""Losses as functions: a loss for each step, under the merged mask."""

from keras.src import backend
from keras.src.masking import masks
from keras.src.masking.families import batch
from keras.src.masking.families.batch import Core
from keras.src.masking.families.reduce import canonical_axes

PASS_LENGTHS = "Pass the lengths instead: `ops.sum(mask, axis=1)`."


def crossentropy(call):
    """A loss for each step, valid where target and output are.

    The classes go last; where a step is masked, all are as likely.
    """
    from keras.src import ops

    target, output = batch.as_tensors(call)
    rank = len(output.shape)
    (axis,) = canonical_axes(call.argument("axis", -1), rank)
    if axis < rank - 1:
        target, output = (
            ops.moveaxis(x, axis, -1) if len(x.shape) == rank else x
            for x in (target, output)
        )
        return getattr(ops, call.row.name)(
            target, output, from_logits=call.argument("from_logits", False)
        )
    if len(target.shape) == rank and target.shape[-1] != output.shape[-1]:
        target = ops.squeeze(target, axis=-1)
    call.args = [target, output]
    target_core = Core(len(target.shape) - rank + 1)
    return batch.batch_only(target_core, Core(1, 1))(call)


def _ctc_cores(call):
    """One label in one step always fits, as the blank does not count."""
    label = 1 if call.argument("mask_index", 0) == 0 else 0
    return Core(1, label), Core(2), Core(0, 1), Core(0, 1)


ctc_loss = batch.batch_only(_ctc_cores, hint=PASS_LENGTHS)


def ctc_decode(call):
    """Sequences and their scores, valid where output and length are.

    The former have a new first axis.
    """
    (paths, scores), mask = batch.on_batch(
        call, (Core(2), Core(0, 1)), PASS_LENGTHS
    )
    shape = backend.shape(paths)[:2]
    path_mask = backend.numpy.expand_dims(mask, 0)
    path_mask = backend.numpy.broadcast_to(path_mask, shape)
    return masks.wrap(paths, path_mask), masks.wrap(scores, mask)
