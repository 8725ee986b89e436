"""`predict` joins the values and the masks of masked outputs apart."""

from keras.src.masking import batches
from keras.src.masking import data
from pip_build import keeps


class JAXTrainer:
    @keeps("_make_plain_function")
    def _make_function(self, step_function, concatenate_outputs=False):
        step_function = batches.step_on_parts(step_function)
        if concatenate_outputs:
            step_function = batches.step_in_parts(step_function)
        return self._make_plain_function(step_function, concatenate_outputs)

    @keeps("_predict_in_parts")
    def predict(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None
    ):
        outputs = self._predict_in_parts(
            x, batch_size, verbose, steps, callbacks
        )
        return batches.to_numpy(outputs)

    @keeps("_predict_on_batch_in_parts")
    def predict_on_batch(self, x):
        return batches.to_numpy(
            self._predict_on_batch_in_parts(data.whole_batch(x)[0])
        )

    @keeps("_train_on_weighted_batch")
    def train_on_batch(
        self,
        x,
        y=None,
        sample_weight=None,
        class_weight=None,
        return_dict=False,
    ):
        return self._train_on_weighted_batch(
            *data.whole_batch(x, y, sample_weight, class_weight), return_dict
        )

    @keeps("_test_on_weighted_batch")
    def test_on_batch(
        self,
        x,
        y=None,
        sample_weight=None,
        return_dict=False,
    ):
        x, y, sample_weight, _ = data.whole_batch(x, y, sample_weight)
        return self._test_on_weighted_batch(x, y, sample_weight, return_dict)


@keeps("_distribute_plain_data")
def _distribute_data(data, layouts=None):
    # The mask has fewer axes, so it has another layout.
    return _distribute_plain_data(batches.take_apart(data), layouts)
