"""`predict` joins the values and the masks of masked outputs apart."""

from keras.src.masking import batches
from keras.src.masking import data
from pip_build import keeps


class NumpyTrainer:
    def make_predict_function(self, force=False):
        if self.predict_function is not None and not force:
            return self.predict_function

        def predict_steps(data):
            steps = [batches.take_apart(self.predict_step(x)) for x in data]
            return tree.map_structure(lambda *xs: np.concatenate(xs), *steps)

        def predict_step(data):
            return batches.take_apart(self.predict_step(data[0]))

        several = self.steps_per_execution > 1
        self.predict_function = predict_steps if several else predict_step

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
