"""`Average` follows the mask rule of its ops; a union counts who is there."""

from keras.src import ops
from keras.src.backend.common.composite import has_mask
from patchset.markers import new
from patchset.markers import when

if when(">=3.16"):
    from keras.src.masking.door import backend  # noqa: F401


class Average:
    __added__ = ("_identity",)
    _identity = 0

    @new
    def call(self, inputs):
        mean = super().call(inputs)
        if self.mask_mode == "intersection" or not any(map(has_mask, inputs)):
            return mean
        # The sum went by the number of inputs; it goes by those that are valid.
        present = [_presence(x, mean.dtype) for x in inputs]
        share = self._merge_inputs(present)
        return mean / ops.where(share > 0, share, 1)


@new
def _presence(x, dtype):
    """1 where an input is valid, 0 where it is masked."""
    ones = ops.ones(ops.shape(x), dtype=dtype)
    if not has_mask(x):
        return ones
    return ops.filled(type(x)._wrap(ones, x.mask), 0)
