"""The op functions ask the wider question: masked operands are dispatched.

Some operations did or promised in a graph what their functions do not do.
"""

from keras.src.backend import KerasTensor
from keras.src.backend import standardize_data_format
from keras.src.backend.common.keras_tensor import (
    needs_dispatch as any_symbolic_tensors,
)
from keras.src.ops.asking import asks_first
from keras.src.ops.asking import first_only
from patchset.markers import keeps
from patchset.markers import new
from patchset.markers import when


@when("<3.16")
class ConvTranspose:
    def call(self, inputs, kernel):
        """Upstream's swaps `padding` and `output_padding`."""
        return conv_transpose(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            output_padding=self.output_padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )


@when("<3.16")
@new
def _adaptive_pool_spec(op, inputs):
    """Upstream's is right for channels that come first only."""
    spatial = len(inputs.shape) - 2
    size = op.output_size
    size = (size,) * spatial if isinstance(size, int) else tuple(size)
    if standardize_data_format(op.data_format) == "channels_last":
        shape = (inputs.shape[0], *size, inputs.shape[-1])
    else:
        shape = (*inputs.shape[:2], *size)
    return KerasTensor(shape, inputs.dtype)


@when("<3.16")
class AdaptiveMaxPool:
    def compute_output_spec(self, inputs):
        return _adaptive_pool_spec(self, inputs)


@when("<3.16")
class AdaptiveAveragePool:
    def compute_output_spec(self, inputs):
        return _adaptive_pool_spec(self, inputs)


@when("<3.16")
class MultiHot:
    @keeps("_plain_output_spec")
    def compute_output_spec(self, inputs):
        """Upstream's has the dtype of the indices."""
        spec = self._plain_output_spec(inputs)
        return KerasTensor(spec.shape, self.dtype, sparse=self.sparse)

    def call(self, inputs):
        """Upstream's drops `sparse`."""
        return multi_hot(
            inputs,
            num_classes=self.num_classes,
            axis=self.axis,
            dtype=self.dtype,
            sparse=self.sparse,
        )


# Their kernels, weights and indices go past the question above.
for _name, _count in (
    ("conv", 1),
    ("conv_transpose", 1),
    ("depthwise_conv", 1),
    ("dot_product_attention", 3),
    ("separable_conv", 1),
):
    globals()[_name] = first_only(globals()[_name], _count)
# They read a shape before they ask, or do not ask what an argument is.
for _name in (
    "dot_product_attention",
    "fold",
    "psnr",
    "softmax",
    "unfold",
):
    globals()[_name] = asks_first(globals()[_name])
