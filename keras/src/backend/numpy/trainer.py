"""`predict` joins the values and the masks of masked outputs apart."""

from keras.src.masking.training import batches


class NumpyTrainer:
    def make_predict_function(self, force=False):
        if self.predict_function is not None and not force:
            return self.predict_function

        def predict_steps(data):
            steps = [batches.to_parts(self.predict_step(x)) for x in data]
            steps = tree.map_structure(lambda *xs: np.concatenate(xs), *steps)
            return batches.promise(self, steps)

        def predict_step(data):
            outputs = batches.to_parts(self.predict_step(data[0]))
            return batches.promise(self, outputs)

        several = self.steps_per_execution > 1
        self.predict_function = predict_steps if several else predict_step
