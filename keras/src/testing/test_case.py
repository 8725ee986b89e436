"""Masked results are compared by values, and by mask where a test asks so.

Never through `numpy.ma`: its comparisons pass wherever an entry is masked.
"""

from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.models import Sequential
from patchset.markers import keeps
from patchset.markers import new
from patchset.markers import when


class TestCase:
    @keeps("_plain_convert_to_numpy")
    def convert_to_numpy(self, x):
        if isinstance(x, MaskedTensorBase):
            x = x.values
        return self._plain_convert_to_numpy(x)

    @when("<3.15")
    def assertAllEqual(self, x1, x2, msg=None):
        """Of arrays, as since Keras 3.15; upstream's is of lists."""
        found, expected = self.convert_to_numpy(x1), self.convert_to_numpy(x2)
        np.testing.assert_array_equal(found, expected, err_msg=msg or "")

    @when(">=3.16")
    @keeps("_assert_equal_arrays")
    def assertAllEqual(self, actual, desired, *args, **kwargs):  # noqa: F811
        desired = self._each(desired, actual)
        self._assert_equal_arrays(actual, desired, *args, **kwargs)

    @when(">=3.16")
    @keeps("_assert_close_arrays")
    def assertAllClose(self, actual, desired, *args, **kwargs):
        desired = self._each(desired, actual)
        self._assert_close_arrays(actual, desired, *args, **kwargs)

    @when(">=3.16")
    @new
    def _each(self, desired, actual):
        """One number is what each entry is compared with."""
        desired = self.convert_to_numpy(desired)
        if desired.ndim:
            return desired
        return np.full(self.convert_to_numpy(actual).shape, desired)

    @new
    def assertMaskedClose(self, actual, values, mask, atol=1e-6, rtol=1e-6):
        """Asserts that masks are equal, and values where they are valid.

        Args:
            actual: Masked tensor.
            values: Array of the values, whatever where masked.
            mask: Array over their leading axes, True where valid.
            atol: Absolute tolerance.
            rtol: Relative tolerance.
        """
        if not isinstance(actual, MaskedTensorBase):
            raise AssertionError(f"Not a masked tensor: {type(actual)}")
        values, mask = np.asarray(values), np.asarray(mask, "bool")
        found = self.convert_to_numpy(actual.mask)
        np.testing.assert_array_equal(found, mask)
        self.assertEqual(tuple(actual.shape), values.shape)
        self.assertAllClose(
            self.convert_to_numpy(actual.values)[mask],
            values[mask],
            atol=atol,
            rtol=rtol,
        )

    @keeps("_run_plain_layer_test")
    def run_layer_test(
        self,
        layer_cls,
        init_kwargs,
        input_shape=None,
        input_dtype=None,
        *args,
        run_training_check=True,
        **kwargs,
    ):
        """Upstream's check of a layer, also for layers that make masks.

        Upstream trains with the layer's output as the target, which would put
        a masked tensor in where data goes in. Such a layer is trained here,
        toward zeros.
        """
        makes_masks = (
            layer_cls.__name__ == "Masking"
            or init_kwargs.get("mask_zero")
            or init_kwargs.get("mask") is not None
        )
        self._run_plain_layer_test(
            layer_cls,
            init_kwargs,
            input_shape,
            input_dtype,
            *args,
            run_training_check=run_training_check and not makes_masks,
            **kwargs,
        )
        if run_training_check and makes_masks:
            data = kwargs.get("input_data")
            if data is None:
                dtype = input_dtype or "float32"
                data = create_eager_tensors(input_shape, dtype, False, False)
            self.run_masked_training(layer_cls(**init_kwargs), data)

    @new
    def run_masked_training(self, layer, data):
        """Trains a layer with masked outputs for a step."""
        if backend.backend() in ("numpy", "openvino"):
            return
        x = backend.convert_to_numpy(data)
        model = Sequential([layer])
        model.compile("sgd", "mse")
        shape = tuple(layer(data).shape)
        history = model.fit(
            x, np.zeros(shape), sample_weight=np.ones(shape[:-1]), verbose=0
        )
        self.assertTrue(np.isfinite(history.history["loss"][0]))
