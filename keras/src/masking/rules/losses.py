"""Losses as functions: a loss for each step, under the merged mask."""

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.rules import batch
from keras.src.masking.rules.batch import Core
from keras.src.masking.rules.reduce import canonical_axes

PER_FRAME = "One of shape `(batch, time)` is taken: it leaves out frames."


def crossentropy(call: Call) -> AnyTensor:
    """A loss for each step, valid where target and output are.

    The classes go last; where a step is masked, all are as likely.
    """
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
    if len(target.shape) == rank and target.shape[-1] == 1 != output.shape[-1]:
        target = ops.squeeze(target, axis=-1)
    call.args = [target, output]
    target_core = Core(len(target.shape) - rank + 1)
    return batch.batch_only(target_core, Core(1, 1))(call)


def in_front(x: MaskedTensorBase) -> tuple[Tensor, Tensor]:
    """The valid steps of each row first, zeros after them, and their number.

    Args:
        x: Masked tensor of shape `(batch, time, ...)`, its mask over both.
    """
    mask, length = x.mask, backend.shape(x.mask)[1]
    places = backend.numpy.arange(length, dtype="int32")
    # Each step has a key of its own: not all engines sort stably.
    keys = backend.numpy.where(mask, places, places + length)
    order = backend.numpy.argsort(keys, axis=1)
    values = backend.numpy.take_along_axis(
        masks.fill(x.values, mask, 0), masks.expand(order, len(x.shape)), axis=1
    )
    count = backend.numpy.sum(backend.cast(mask, "int32"), axis=1)
    return values, count


def _without_padding(call, place, length_place):
    """Has an operand begin with its valid steps, which its lengths count.

    Args:
        call: The call, whose operands are replaced.
        place: Place of the operand among them.
        length_place: Place of its lengths.

    Returns:
        Which rows have a valid step, None where the mask covers no steps.
    """
    x, args = call.args[place], list(call.args)
    if not isinstance(x, MaskedTensorBase) or len(x.mask.shape) != 2:
        return None
    args[place], count = in_front(x)
    args[length_place] = ops.minimum(args[length_place], count)
    call.args = args
    return backend.numpy.any(x.mask, axis=1)


def _ctc_cores(call):
    """One label in one step always fits, as the blank does not count."""
    label = 1 if call.argument("mask_index", 0) == 0 else 0
    return Core(1, label), Core(2), Core(0, 1), Core(0, 1)


def ctc_loss(call: Call) -> AnyTensor:
    """Masked labels and frames are left out; a length counts valid ones.

    A row without a valid frame has no loss: it is masked. One without a label
    says nothing.
    """
    call.args = [*call.args]
    _without_padding(call, 0, 2)
    rows = _without_padding(call, 1, 3)
    if rows is not None:
        call.args[1] = masks.wrap(call.args[1], rows)
    elif not any(isinstance(x, MaskedTensorBase) for x in call.args):
        return call.compute()
    return batch.batch_only(_ctc_cores, hint=PER_FRAME)(call)


def ctc_decode(call: Call) -> tuple[AnyTensor, AnyTensor]:
    """Masked frames are left out; valid where any is, and the length.

    The sequences have a new first axis.
    """
    call.args = [*call.args]
    rows = _without_padding(call, 0, 1)
    if rows is not None:
        call.args[0] = masks.wrap(call.args[0], rows)
    (paths, scores), mask = batch.on_batch(
        call, (Core(2), Core(0, 1)), PER_FRAME
    )
    shape = backend.shape(paths)[:2]
    path_mask = backend.numpy.expand_dims(mask, 0)
    path_mask = backend.numpy.broadcast_to(path_mask, shape)
    return masks.wrap(paths, path_mask), masks.wrap(scores, mask)
