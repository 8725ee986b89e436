"""Means and sums read no mask of what they are given; 0 * NaN is 0."""

from pip_build import new


def reduce_to_samplewise_values(values, sample_weight, reduce_fn, dtype):
    """Weighs values and reduces them, and the weights, to one per sample.

    Args:
        values: Tensor of shape `(batch, ...)`.
        sample_weight: None, or weights over leading axes of the values. A
            value of weight 0 does not count, NaN and inf included.
        reduce_fn: `ops.mean` or `ops.sum`.
        dtype: Dtype of the results, `None` for the default one.

    Returns:
        The reduced values and weights.
    """
    from keras.src.masking import scoring

    dtype = dtype or backend.floatx()
    values = ops.cast(values, dtype)
    if sample_weight is not None:
        values, sample_weight = losses.loss.squeeze_or_expand_to_same_rank(
            values, ops.convert_to_tensor(sample_weight, dtype=dtype)
        )
        rank = len(sample_weight.shape)
        inner = list(range(rank, len(values.shape)))
        # The weights are reduced too, so each value needs one of its own.
        sample_weight = ops.broadcast_to(
            sample_weight, ops.shape(values)[:rank]
        )
        if rank:
            values = scoring.without_weightless(
                values, ops.expand_dims(sample_weight, inner)
            )
        if inner:
            values = reduce_fn(values, axis=inner)
        values = values * sample_weight
        sample_weight = _reduce_inner(sample_weight, reduce_fn)
    return _reduce_inner(values, reduce_fn), sample_weight


@new
def _reduce_inner(x, reduce_fn):
    """Reduces all axes but the first."""
    axes = list(range(1, len(x.shape)))
    return reduce_fn(x, axis=axes) if axes else x


class MeanMetricWrapper:
    def update_state(self, y_true, y_pred, sample_weight=None):
        values, mask = losses.loss.take_own_mask(
            self._fn(y_true, y_pred, **self._fn_kwargs), (y_true, y_pred)
        )
        if sample_weight is not None:
            # Classes that the function itself ignores.
            sample_weight = losses.loss.apply_mask(
                sample_weight, mask, dtype=self.dtype, reduction="sum"
            )
        return super().update_state(values, sample_weight=sample_weight)
