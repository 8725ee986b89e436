"""The op functions ask the wider question: masked operands are dispatched."""

import functools

from keras.src.backend.common.keras_tensor import (
    needs_dispatch as any_symbolic_tensors,
)
from keras.src.ops.asking import asks_first
from patchset.markers import new


@new
def _sees_ids(function, op_class):
    """The function, which upstream lets look at its first argument only."""

    @functools.wraps(function)
    def seeing(data, segment_ids, num_segments=None, sorted=False):
        if any_symbolic_tensors((data, segment_ids)):
            _segment_reduce_validation(data, segment_ids)
            op = op_class(num_segments, sorted)
            return op.symbolic_call(data, segment_ids)
        return function(data, segment_ids, num_segments, sorted)

    return seeing


globals().update(
    {
        name: asks_first(_sees_ids(globals()[name], globals()[class_name]))
        for name, class_name in (
            ("segment_max", "SegmentMax"),
            ("segment_min", "SegmentMin"),
            ("segment_prod", "SegmentProd"),
            ("segment_sum", "SegmentSum"),
        )
        if name in globals()  # Keras 3.14 has two of them.
    }
)
