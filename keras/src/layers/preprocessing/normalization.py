"""Mean and variance are those of the valid entries."""

import functools

from keras.src import ops
from keras.src.backend.common.variables import changed_only_where
from keras.src.masking.calls import from_foreign
from keras.src.masking.layers import adapting
from patchset.markers import keeps
from patchset.markers import new


class Normalization:
    @keeps("_adapt_to_plain")
    def adapt(self, data):
        """Computes the mean and variance of values in a dataset.

        They take the place of the arguments `mean` and `variance`, one for
        each position along the axes in `axis`. Masked entries take no part.
        Where nothing is valid, both stay what they are: before anything was
        learned, a mean of 0 and a variance of 1. That is warned of.

        Args:
            data: Array, tensor, `keras.MaskedTensor`, `numpy.ma` array, or
                column or table of pandas, Polars or Arrow; or
                batches of them: a `tf.data.Dataset`, a
                `keras.utils.PyDataset`, or an iterable, which may also yield
                tuples that start with a batch. If any batch is masked, the
                first one of an iterable must be.

        Raises:
            ValueError: If a batch does not fit the shape that the layer was
                built with, or a masked one comes after a plain one.
            TypeError: If `data` is none of these.

        Example:

        >>> layer = keras.layers.Normalization(axis=None)
        >>> x = keras.MaskedTensor([1.0, 9.0, 3.0], [True, False, True])
        >>> layer.adapt(x)
        >>> float(layer.adapt_mean.value)
        2.0
        """
        masked, data = adapting.look_into(data)
        if not masked:
            self._adapt_to_plain(data)
            return
        samples = []
        for batch in data:
            batch = from_foreign(adapting.inputs_of(batch))
            batch = ops.convert_to_tensor(batch, dtype=self.variable_dtype)
            self._check_batch(tuple(batch.shape))
            samples.append(adapting.moments(batch, self._reduce_axis))
        count, mean, variance = functools.reduce(adapting.pooled, samples)
        adapting.warn_of_nothing(
            self,
            ops.convert_to_numpy(count) == 0,
            "the mean stays what it was, 0 at first, and the variance 1",
        )
        learned = [self.adapt_mean, self.adapt_variance]
        with changed_only_where(count > 0, learned):
            self.adapt_mean.assign(mean)
            self.adapt_variance.assign(variance)
        self.finalize_state()

    @new
    def _check_batch(self, shape):
        if not self.built:
            self.build(shape)
        known = self._build_input_shape
        if len(shape) != len(known) or any(
            shape[d] != known[d] for d in self._keep_axis
        ):
            raise ValueError(
                f"Layer '{self.name}' was built with input_shape={known}, and "
                f"`adapt()` was given a batch of shape {shape}. They must "
                f"agree along axis={self.axis}."
            )
