"""Indices as rows of zeros and ones: a masked index has none."""

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.kinds import AnyTensor
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.coverage import covers
from keras.src.masking.packing import packs
from keras.src.masking.rules import packed
from keras.src.masking.rules.merge import only_operand
from keras.src.masking.rules.reduce import canonical_axes


def _check_dense(call):
    if call.argument("sparse"):
        raise call.refuse("A masked tensor is not sparse.")


def _one_hot(call, spec):
    _check_dense(call)
    covered = masks.covered(only_operand(call))
    axis = canonical_axes(call.argument("axis", -1), len(spec.shape))[0]
    return covered + (axis < covered)


@packs(packed.one_hot)
@covers(_one_hot)
def one_hot(call: Call) -> AnyTensor:
    """A masked index gives a row of zeros, under the mask."""
    x = only_operand(call)
    _check_dense(call)
    axis = call.argument("axis", -1)
    canonical_axes(axis, len(x.shape) + 1)
    values = call.compute(masks.zero(x))
    mask = ops.expand_dims(x, axis).mask
    shape = backend.shape(values)[: len(mask.shape)]
    mask = backend.numpy.broadcast_to(mask, shape)
    return masks.wrap(masks.fill(values, mask, 0), mask)


def multi_hot(call: Call) -> AnyTensor:
    """The largest of the one-hot rows; valid where there was an index."""
    x = only_operand(call)
    rows = ops.one_hot(x, **call.kwargs)
    return ops.max(rows, axis=min(len(x.shape) - 1, 1))
