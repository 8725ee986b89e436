"""Questions about a tensor, which get a plain answer."""

from keras.src import ops
from keras.src.backend.common.kinds import AnyTensor
from keras.src.masking import coverage
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import takes_whole
from keras.src.masking.coverage import covers
from keras.src.masking.packing import packs
from keras.src.masking.rules import packed
from keras.src.masking.rules.merge import kept
from keras.src.masking.rules.merge import only_operand


@takes_whole
@covers(coverage.plain)
def of_values(call: Call) -> AnyTensor:
    """The op on the values: the answer does not depend on the mask."""
    return call.compute()


@takes_whole
@covers(coverage.plain)
def get_mask(call: Call) -> AnyTensor:
    """The mask, a plain tensor."""
    return call.args[0].mask


@takes_whole
@covers(coverage.plain)
def filled(call: Call) -> AnyTensor:
    """A plain tensor, with a value in place of masked entries."""
    x, value = call.args[0], call.argument("value")
    values = call.compute(x)
    return masks.fill(values, x.mask, value)


@takes_whole
@packs(packed.each_step)
@covers(kept)
def like(call: Call) -> AnyTensor:
    """A tensor of the same shape, and with the same mask."""
    x = only_operand(call)
    return masks.wrap(call.compute(), x.mask)


@takes_whole
@packs(packed.each_step)
@covers(kept)
def full_like(call: Call) -> AnyTensor:
    """A tensor of the same shape and mask, with no large value under it."""
    value, result = call.argument("fill_value"), like(call)
    if isinstance(value, (int, float)) and masks.is_ordinary(value):
        return result
    return masks.wrap(masks.fill(result.values, result.mask, 0), result.mask)


@covers(kept)
def empty_like(call: Call) -> AnyTensor:
    """Zeros with the same mask: memory as it is found may hold NaN."""
    return ops.zeros_like(call.args[0], dtype=call.argument("dtype"))


def _check_dense(call):
    if call.argument("sparse") or call.argument("ragged"):
        raise call.refuse("A masked tensor is neither sparse nor ragged.")


def _to_tensor(call, spec):
    _check_dense(call)
    return masks.covered(call.args[0])


@takes_whole
@packs(packed.each_step)
@covers(_to_tensor)
def to_tensor(call: Call) -> AnyTensor:
    """The same with its mask, in another dtype if one is asked for."""
    _check_dense(call)
    x, dtype = call.args[0], call.argument("dtype")
    values = call.compute(x)
    if dtype is not None and masks.narrows(x.dtype, values.dtype):
        values = masks.fill(values, x.mask, 0)
    return masks.wrap(values, x.mask)
