"""The functions read no mask, as the classes do not; CTC leaves out frames."""

from keras.src import ops
from keras.src.backend.common.composite import CompositeBase
from keras.src.masking.training import scoring
from patchset.markers import keeps
from patchset.markers import new
from patchset.markers import when


class LossFunctionWrapper:
    @keeps("_call_on_nests")
    def call(self, y_true, y_pred):
        if any(isinstance(y, CompositeBase) for y in (y_true, y_pred)):
            return self.fn(y_true, y_pred, **self._fn_kwargs)
        return self._call_on_nests(y_true, y_pred)


@when(">=3.16")
class SparseCategoricalFocalCrossentropy:
    def __call__(self, y_true, y_pred, sample_weight=None):
        # Its own would read masks.
        return super().__call__(y_true, y_pred, sample_weight)

    @new
    def _to_target(self, y_true):
        # Half precision has not all integers above 256.
        return ops.convert_to_tensor(y_true)


class CTC:
    @new
    def __call__(self, y_true, y_pred, sample_weight=None):
        """Computes the weighted and reduced loss.

        It is the one loss that reads a mask of predictions. How many frames
        there are is no error that a mask could hide: each label still has to
        be said by those that are left. In a row that has none, all classes
        are as likely in each frame.

        Args:
            y_true: Labels of shape `(batch, max_length)`, 0 or masked where
                there are no more.
            y_pred: Logits of shape `(batch, time, classes)`. Frames that are
                masked, wherever they are, are left out.
            sample_weight: Weights of shape `(batch,)`. Of weights for labels
                or frames each row has its largest.

        Returns:
            The loss: a scalar, or one for each row if there is no reduction.
        """
        return super().__call__(
            scoring.weights(y_true),
            scoring.frames(y_pred),
            scoring.of_rows(sample_weight),
        )

    @new
    def call(self, y_true, y_pred):
        if not isinstance(y_pred, tuple):
            return super().call(y_true, y_pred)
        logits, is_frame = y_pred
        count = ops.sum(ops.cast(is_frame, "int32"), axis=1)
        count = ops.where(count > 0, count, ops.shape(logits)[1])
        labels = ops.cast(ops.not_equal(y_true, 0), "int32")
        return ops.ctc_loss(y_true, logits, ops.sum(labels, axis=-1), count)


for _function in scoring.exported_functions(globals()):
    # What a mask says of lengths, CTC is told by its targets.
    if _function.__name__ != "ctc":
        globals()[_function.__name__] = scoring.reads_no_mask(_function)
