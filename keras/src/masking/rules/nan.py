"""Reductions that skip NaN: it is one more reason to take no part.

Whether a result is masked is decided by the mask alone. Valid entries that are
all NaN give what upstream gives for them.
"""

from keras.src import backend
from keras.src import ops
from keras.src.masking import masks
from keras.src.masking.calls import Rule
from keras.src.masking.calls import values_of
from keras.src.masking.coverage import covers
from keras.src.masking.rules.layout import full_rank
from keras.src.masking.rules.merge import only_operand
from keras.src.masking.rules.reduce import Reduction
from keras.src.masking.rules.reduce import after_new_axes
from keras.src.masking.rules.scan import running


def skip_nan(plain: str, of_nan: float) -> Rule:
    """A rule for a reduction that skips NaN.

    Args:
        plain: Name of the op that does not skip it.
        of_nan: What valid entries give that all are NaN.
    """

    @covers(after_new_axes)
    def rule(call):
        x = only_operand(call)
        skipped = _masked_where_nan(x)
        result = getattr(ops, plain)(skipped, *call.args[1:], **call.kwargs)
        if skipped is x:
            return result
        reduction = Reduction(call)
        valid, seen = (
            backend.numpy.any(
                mask, axis=reduction.axes, keepdims=reduction.keepdims
            )
            for mask in (full_rank(x), skipped.mask)
        )
        only_nan = backend.numpy.logical_and(
            valid, backend.numpy.logical_not(seen)
        )
        values = values_of(result)
        of_these = backend.convert_to_tensor(of_nan, values.dtype)
        values = backend.numpy.where(only_nan, of_these, values)
        # A quantile for each of several shares has an axis for them in front.
        return reduction.wrap(values, len(values.shape) - len(only_nan.shape))

    rule.__name__ = f"skip_nan({plain!r})"
    rule.__doc__ = f"As `{plain}`, over what is valid and not NaN."
    return rule


def _masked_where_nan(x):
    if not backend.is_float_dtype(x.dtype):
        return x
    number = backend.numpy.logical_not(backend.numpy.isnan(x.values))
    mask = backend.numpy.logical_and(full_rank(x), number)
    return masks.wrap(masks.fill(x.values, number, 0), mask)


def cumulate_skipping_nan(plain: str, identity: float) -> Rule:
    """A rule for a running reduction that skips NaN.

    Args:
        plain: Name of the op that does not skip it.
        identity: Value that leaves the reduction as it is.
    """

    @covers(running)
    def rule(call):
        x = only_operand(call)
        values = x.values
        if backend.is_float_dtype(x.dtype):
            number = backend.numpy.logical_not(backend.numpy.isnan(values))
            values = masks.fill(values, number, identity)
        return getattr(ops, plain)(masks.wrap(values, x.mask), **call.kwargs)

    rule.__name__ = f"cumulate_skipping_nan({plain!r})"
    rule.__doc__ = f"As `{plain}`, with NaN as {identity}: the mask stays."
    return rule
