"""A summary can show masks, and masked batches are taken on any backend."""

from keras.src.masking import data
from pip_build import new


class Model:
    __added__ = ("fit", "evaluate", "predict")

    fit = data.takes_ragged(Trainer.fit)
    evaluate = data.takes_ragged(Trainer.evaluate)
    predict = data.takes_ragged(Trainer.predict)

    @new
    def train_on_batch(
        self,
        x,
        y=None,
        sample_weight=None,
        class_weight=None,
        return_dict=False,
    ):
        return super().train_on_batch(
            *data.whole_batch(
                *data.of_ragged_for(self, (x, y)), sample_weight, class_weight
            ),
            return_dict,
        )

    @new
    def test_on_batch(
        self,
        x,
        y=None,
        sample_weight=None,
        return_dict=False,
    ):
        x, y, sample_weight, _ = data.whole_batch(
            *data.of_ragged_for(self, (x, y)), sample_weight
        )
        return super().test_on_batch(x, y, sample_weight, return_dict)

    @new
    def predict_on_batch(self, x):
        return super().predict_on_batch(
            data.whole_batch(data.of_ragged_for(self, x))[0]
        )

    @traceback_utils.filter_traceback
    def summary(
        self,
        line_length=None,
        positions=None,
        print_fn=None,
        expand_nested=False,
        show_trainable=False,
        layer_range=None,
        show_masks=False,
    ):
        """Prints a summary of the model: its layers, shapes and weights.

        Args:
            line_length: Length of the lines. By default what the columns need,
                as far as the terminal has it.
            positions: Where columns end, as shares of the line or as numbers
                of characters.
            print_fn: Function that gets the text. Defaults to `print`.
            expand_nested: Whether to show the layers of nested models.
            show_trainable: Whether to show if a layer is trainable.
            layer_range: Names, or patterns of names, of the first and of the
                last layer to show.
            show_masks: Whether to show the shape of the mask on what each
                layer returns: `-` where it has none, with `(ends)` where there
                was one on what it was given.

        Raises:
            ValueError: If the model has no layer named as in `layer_range`, or
                the line is too short.
        """
        summary_utils.print_summary(
            self,
            line_length,
            positions,
            print_fn,
            expand_nested,
            show_trainable,
            layer_range,
            show_masks,
        )
