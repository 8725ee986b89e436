"""Means and sums read no mask of what they are given; 0 * NaN is 0.

A weighted mean is that over all entries, however many a batch has.
"""

from keras.src import backend
from keras.src import losses
from keras.src import ops
from keras.src.backend.common.composite import CompositeBase
from keras.src.masking import packing
from keras.src.masking.training import scoring
from keras.src.masking.training import weighing
from patchset.markers import keeps
from patchset.markers import new


@keeps("_reduce_covered")
def reduce_to_samplewise_values(values, sample_weight, reduce_fn, dtype):
    """Weighs values and reduces them, and the weights, to one per sample.

    Args:
        values: Tensor of shape `(batch, ...)`.
        sample_weight: None, or weights over leading axes of the values. A
            value of weight 0 does not count, NaN and inf included.
        reduce_fn: `ops.mean` or `ops.sum`, for values without weights. Weighted
            ones are summed up, and the weights of all entries, too.
        dtype: Dtype of the results, `None` for the default one.

    Returns:
        The reduced values and weights.
    """
    if sample_weight is not None:
        dtype = dtype or backend.floatx()
        values, sample_weight = weighing.cover(
            ops.cast(values, dtype),
            ops.convert_to_tensor(sample_weight, dtype=dtype),
        )
        values = scoring.without_weightless(values, sample_weight)
        reduce_fn = ops.sum
    return _reduce_covered(values, sample_weight, reduce_fn, dtype)


class MeanMetricWrapper:
    @scoring.takes_packed
    def update_state(self, y_true, y_pred, sample_weight=None):
        if any(map(packing.is_packed, (y_true, y_pred, sample_weight))):
            if self._add_steps(y_true, y_pred, sample_weight):
                return None
            given = packing.padded([y_true, y_pred, sample_weight])
            return MeanMetricWrapper.update_state(self, *given)
        if sample_weight is None:
            values, _ = self._own_values(y_true, y_pred)
            return super().update_state(values)
        if weighing.is_entrywise(self._fn):
            y_true, y_pred = map(ops.convert_to_tensor, (y_true, y_pred))
        sample_weight = ops.convert_to_tensor(sample_weight, dtype=self.dtype)
        if weighing.is_of_entries(self._fn, y_true, y_pred, sample_weight):
            values, _ = weighing.of_entries(
                self._fn, y_true, y_pred, self._fn_kwargs
            )
        else:
            values, mask = self._own_values(y_true, y_pred)
            is_whole = isinstance(y_true, CompositeBase)
            values, sample_weight = weighing.cover(
                ops.cast(values, self.dtype),
                sample_weight,
                f"`{self.name}`",
                weighing.OF_A_WHOLE if is_whole else weighing.OF_ENTRIES,
            )
            # Classes that the function itself ignores.
            sample_weight = losses.loss.apply_mask(
                sample_weight, mask, dtype=self.dtype, reduction="sum"
            )
        return super().update_state(values, sample_weight=sample_weight)

    @new
    def _add_steps(self, y_true, y_pred, sample_weight):
        """Adds what packed predictions give, if it is a metric of steps.

        Without weights each row is one value, the mean of those in it.
        """
        # Late: it imports metrics.
        from keras.src.masking.training import flat

        found = flat.sums(
            self._fn,
            self._fn_kwargs,
            y_true,
            y_pred,
            sample_weight,
            self.dtype,
            is_loss=False,
        )
        if found is None:
            return False
        total, weight = found.total, found.weight
        if sample_weight is None:
            steps = ops.cast(ops.shape(y_pred)[1] * found.size, self.dtype)
            total, weight = total / steps, weight / steps
        self.total.assign_add(ops.cast(total, self.dtype))
        self.count.assign_add(ops.cast(weight, self.dtype))
        return True

    @new
    def _own_values(self, y_true, y_pred):
        """What the function gives, and the mask that it makes."""
        return losses.loss.take_own_mask(
            self._fn(y_true, y_pred, **self._fn_kwargs), (y_true, y_pred)
        )
