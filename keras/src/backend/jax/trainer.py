"""`predict` joins the values and the masks of masked outputs apart."""

from keras.src.masking import batches
from pip_build import keeps


class JAXTrainer:
    @keeps("_make_plain_function")
    def _make_function(self, step_function, concatenate_outputs=False):
        step_function = batches.step_on_parts(step_function)
        if concatenate_outputs:
            step_function = batches.step_in_parts(step_function)
        return self._make_plain_function(step_function, concatenate_outputs)

    @keeps("_make_plain_predict_function")
    def make_predict_function(self, force=False):
        if self.predict_function is not None and not force:
            return self.predict_function
        self._make_plain_predict_function(force)
        predict = self.predict_function

        def predict_in_parts(state, iterator):
            outputs, state = predict(state, iterator)
            return batches.promise(self, outputs), state

        self.predict_function = predict_in_parts

    @keeps("_predict_in_parts")
    def predict(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None
    ):
        with batches.of_any_length(self):
            outputs = self._predict_in_parts(
                x, batch_size, verbose, steps, callbacks
            )
        return batches.to_numpy(outputs)

    @keeps("_predict_on_batch_in_parts")
    def predict_on_batch(self, x):
        return batches.to_numpy(self._predict_on_batch_in_parts(x))


@keeps("_distribute_plain_data")
def _distribute_data(data, layouts=None):
    # The mask has fewer axes, so it has another layout.
    return _distribute_plain_data(batches.take_apart(data), layouts)
