"""`predict` joins the values and the masks of masked outputs apart."""

from keras.src.masking.training import batches
from patchset.markers import keeps


class TorchTrainer:
    @keeps("_make_whole_predict_function")
    def make_predict_function(self, force=False):
        if self.predict_function is not None and not force:
            return self.predict_function
        self._make_whole_predict_function(force)
        predict = self.predict_function

        def predict_in_parts(data):
            return batches.promise(self, batches.to_parts(predict(data)))

        self.predict_function = predict_in_parts
