"""A loss reads no mask off its arguments, and weights of 0 stop NaN.

Only a mask that the loss makes itself, for classes or pairs that it leaves
out, still counts in the reduction.
"""

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.composite.errors import UnsupportedTypeError
from keras.src.composite.scoring import as_tensors
from keras.src.composite.wholes import opened
from patchset.markers import keeps
from patchset.markers import new


class Loss:
    def __call__(self, y_true, y_pred, sample_weight=None):
        """Computes the weighted and reduced loss.

        All entries count, masked or not: where `y_pred` is masked it says
        nothing, each of several classes being as likely as any other, and a
        number being 0. So is a masked `y_true`, and a masked `sample_weight`
        weighs 0 where it has nothing.

        Args:
            y_true: Targets.
            y_pred: Predictions.
            sample_weight: Weights over leading axes of the losses: `(batch,)`
                weighs rows, also where there is a loss for each step. Losses
                that take each entry by itself, as the mean squared error and
                binary crossentropy do, take weights of the targets' full
                shape, too. NaN, inf and huge targets of weight 0 change
                neither the loss nor its gradient.

        Returns:
            The loss: a scalar, or one for each entry if there is no reduction.

        Raises:
            ValueError: If the weights do not fit the losses.

        Example:

        >>> y_true, y_pred = np.zeros((1, 2)), np.array([[1.0, 3.0]])
        >>> loss = keras.losses.MeanSquaredError("mean_with_sample_weight")
        >>> float(loss(y_true, y_pred, np.array([[1.0, 0.0]])))
        1.0
        """
        # Late: they import losses.
        from keras.src.masking import packing
        from keras.src.masking.training import scoring
        from keras.src.masking.training import weighing

        y_true, y_pred = map(opened, (y_true, y_pred))
        if packing.is_packed(y_pred):
            loss = self._of_steps(y_true, y_pred, sample_weight)
            if loss is not None:
                return loss
        sample_weight = scoring.weights(sample_weight)
        if sample_weight is not None:
            sample_weight = ops.convert_to_tensor(
                sample_weight, dtype=self.dtype
            )
        if any(isinstance(y, CompositeBase) for y in (y_true, y_pred)):
            return self._of_composite(y_true, y_pred, sample_weight)
        y_pred = scoring.predictions(y_pred)
        (y_true,) = scoring.plain(y_true)

        def to_tensor(x):
            return ops.convert_to_tensor(x, dtype=self.dtype)

        with ops.name_scope(self.name):
            y_true = tree.map_structure(self._to_target, y_true)
            y_pred = tree.map_structure(to_tensor, y_pred)
            if sample_weight is not None:
                y_true = tree.map_structure(
                    lambda y: scoring.quiet(y, sample_weight), y_true
                )
                if weighing.is_of_entries(
                    weighing.function_of(self), y_true, y_pred, sample_weight
                ):
                    losses, sample_weight = weighing.losses_of_entries(
                        self, y_true, y_pred, sample_weight
                    )
                    return reduce_weighted_values(
                        losses, sample_weight, None, self.reduction, self.dtype
                    )
            losses, mask = take_own_mask(
                self.call(y_true, y_pred), (y_true, y_pred)
            )
            if sample_weight is not None and len(losses.shape):
                losses, sample_weight = weighing.cover(
                    losses, sample_weight, weighing.name_of(self)
                )
            return reduce_weighted_values(
                losses, sample_weight, mask, self.reduction, self.dtype
            )

    @new
    def _to_target(self, y_true):
        return ops.convert_to_tensor(y_true, dtype=self.dtype)

    @new
    def _of_steps(self, y_true, y_pred, sample_weight):
        """The loss of packed predictions; None if it is not one of steps."""
        # Late: they import losses.
        from keras.src.masking.training import flat
        from keras.src.masking.training import weighing

        if self.reduction in ("none", None):
            return None
        function = weighing.function_of(self)
        arguments = getattr(self, "_fn_kwargs", {})
        with ops.name_scope(self.name):
            found = flat.sums(
                function, arguments, y_true, y_pred, sample_weight, self.dtype
            )
            if found is None:
                return None
            if self.reduction == "sum":
                # Of means over time, if it goes over time.
                steps = ops.shape(y_pred)[1] if found.over_time else 1
                return found.total / ops.cast(
                    found.width * steps, found.total.dtype
                )
            weighed = self.reduction == "mean_with_sample_weight"
            if weighed and sample_weight is not None:
                number = found.weight
            else:
                batch, time = ops.shape(y_pred)[:2]
                number = ops.cast(batch * time * found.size, found.total.dtype)
            loss = ops.divide_no_nan(found.total, number)
            return scale_loss_for_distribution(loss)

    @new
    def _of_composite(self, y_true, y_pred, sample_weight):
        """The loss of composite tensors, which `call` is given as they are.

        The weights are joint ones of all parts, over leading axes of it.
        """
        # Late: it imports losses.
        from keras.src.masking.training import weighing

        if y_true is None:
            raise ValueError(
                f"The loss {weighing.name_of(self)} of a composite output was "
                "given no targets. Pass `y`, which may be anything that it "
                "does not read; or write `self.add_loss(...)` in a layer."
            )
        with ops.name_scope(self.name):
            try:
                losses = self.call(
                    as_tensors(y_true, self.dtype),
                    as_tensors(y_pred, self.dtype),
                )
            except UnsupportedTypeError as error:
                error.add_note(
                    f"In the loss `{self.name}`. Give a composite output a "
                    "loss for each part, as a dictionary by the names of "
                    "parts, or a loss function of your own, which is given it "
                    "as it is."
                )
                raise
            if sample_weight is not None:
                losses = ops.convert_to_tensor(losses, dtype=self.dtype)
                if len(losses.shape):
                    losses, sample_weight = weighing.cover(
                        losses,
                        sample_weight,
                        weighing.name_of(self),
                        weighing.OF_A_WHOLE,
                    )
            return reduce_weighted_values(
                losses, sample_weight, None, self.reduction, self.dtype
            )


@new
def take_own_mask(losses, arguments):
    """Splits what a loss or metric gave into values and the mask it made.

    One that returns one of its arguments has not made what hangs on it.
    """
    mask = backend.get_keras_mask(losses)
    if mask is None or any(losses is x for x in tree.flatten(arguments)):
        return losses, None
    if isinstance(losses, MaskedTensorBase):
        losses = losses.values
    return losses, mask


@keeps("_reduce_all_weighted_values")
def reduce_weighted_values(
    values,
    sample_weight=None,
    mask=None,
    reduction="sum_over_batch_size",
    dtype=None,
):
    if sample_weight is not None:
        # Late: it imports losses.
        from keras.src.masking.training import scoring
        from keras.src.masking.training import weighing

        values = ops.convert_to_tensor(values, dtype=dtype)
        sample_weight = ops.cast(
            ops.convert_to_tensor(sample_weight, dtype=dtype), values.dtype
        )
        # A loss of the batch as a whole may be weighed by anything.
        if len(values.shape):
            values, sample_weight = weighing.cover(values, sample_weight)
        values = scoring.without_weightless(values, sample_weight)
    return _reduce_all_weighted_values(
        values, sample_weight, mask, reduction, dtype
    )
