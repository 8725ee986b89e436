"""Steps take masked batches, and `predict` gives masked outputs.

Values and masks are joined apart. (`tf.concat` does not know the type.)
"""

from keras.src.backend.tensorflow.masked_tensor import MaskedTensor
from keras.src.masking import batches
from keras.src.masking import data
from pip_build import keeps
from pip_build import new


# The steps ask the first input for its batch size.
@new
@tf.experimental.dispatch_for_api(tf.shape, {"input": MaskedTensor})
def _shape_of_values(input, out_type=None, name=None):
    return tf.shape(input.values, out_type=out_type or tf.int32, name=name)


class TensorFlowTrainer:
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

    @keeps("_predict_on_whole_batch")
    def predict_on_batch(self, x):
        return self._predict_on_whole_batch(data.whole_batch(x)[0])


@keeps("_concat_plain")
def concat(tensors, axis=0):
    if isinstance(tensors[0], MaskedTensor):
        return batches.concat_batches(tensors)
    return _concat_plain(tensors, axis)


@keeps("_convert_plain_to_np")
def convert_to_np_if_not_ragged(x):
    if isinstance(x, MaskedTensor):
        return x.to_numpy()
    return _convert_plain_to_np(x)


@keeps("_concat_plain_if_not_ragged")
def potentially_ragged_concat(tensors):
    if isinstance(tensors[0], MaskedTensor):
        return batches.concat_batches(tensors)
    return _concat_plain_if_not_ragged(tensors)
