"""`predict` joins the values and the masks of masked outputs apart."""

import types

from keras.src.masking.training import batches
from patchset.markers import keeps


class NumpyTrainer:
    @keeps("_make_whole_predict_function")
    def make_predict_function(self, force=False):
        if self.predict_function is not None and not force:
            return self.predict_function
        # Upstream's function joins what the steps give, so these come apart.
        apart = types.SimpleNamespace(
            predict_function=None,
            steps_per_execution=self.steps_per_execution,
            predict_step=lambda x: batches.take_apart(self.predict_step(x)),
        )
        NumpyTrainer._make_whole_predict_function(apart)
        predict = apart.predict_function
        self.predict_function = lambda x: batches.promise(self, predict(x))

    @keeps("_predict_in_parts")
    def predict(self, *args, **kwargs):
        with batches.of_any_length(self):
            outputs = self._predict_in_parts(*args, **kwargs)
        return batches.to_numpy(outputs)

    @keeps("_predict_on_batch_in_parts")
    def predict_on_batch(self, x):
        return batches.to_numpy(self._predict_on_batch_in_parts(x))
