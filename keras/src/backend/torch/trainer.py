"""`predict` joins the values and the masks of masked outputs apart."""

from keras.src.masking.training import batches
from patchset.markers import keeps
from patchset.markers import when

if when(">=3.16"):
    from keras.src.masking import packing
    from keras.src.masking.masks import is_masked


class TorchTrainer:
    @keeps("_make_whole_predict_function")
    def make_predict_function(self, force=False):
        if self.predict_function is not None and not force:
            return self.predict_function
        self._make_whole_predict_function(force)
        predict = self.predict_function

        def predict_in_parts(data):
            return batches.promise(self, batches.take_apart(predict(data)))

        self.predict_function = predict_in_parts

    @keeps("_predict_in_parts")
    def predict(self, *args, **kwargs):
        with batches.of_any_length(self):
            outputs = self._predict_in_parts(*args, **kwargs)
        return batches.to_numpy(outputs)

    @keeps("_predict_on_batch_in_parts")
    def predict_on_batch(self, x):
        return batches.to_numpy(self._predict_on_batch_in_parts(x))


@when(">=3.16")
@keeps("_gather_plain_outputs")
def _gather_non_batch_axes(data):
    # Several steps are joined after this.
    return _gather_plain_outputs(batches.take_apart(data))


@when(">=3.16")
@keeps("_distribute_plain_data")
def _distribute_data(data, layouts=None):
    if distribution() is None:
        # A masked tensor is one of PyTorch's already.
        return tree.map_structure(
            lambda x: x if is_masked(x) else _distribute_plain_data(x), data
        )
    packing.refuse_several_devices(data)
    # Layouts go by shapes, and so they are found anew for masks.
    apart = _distribute_plain_data(batches.take_apart(data))
    return batches.to_masked_tensors(apart)
