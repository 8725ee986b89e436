"""Ops that take a masked tensor apart and put one together."""

import typing

from keras.src import backend
from keras.src.api_export import keras_export
from keras.src.backend.common.backend_utils import canonicalize_axis
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.keras_tensor import needs_dispatch
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.ops.asking import asks_first
from keras.src.ops.operation import Operation


class MakeMasked(Operation):
    """Values and a mask become a masked tensor, in a graph."""

    def call(self, values: Tensor, mask: Mask) -> MaskedTensorBase:
        return backend.MaskedTensor(values, mask)

    def compute_output_spec(
        self, values: KerasTensor, mask: KerasTensor
    ) -> KerasTensor:
        mask = KerasTensor(mask.shape, mask.dtype)
        return KerasTensor(values.shape, values.dtype, mask=mask)


class GetMask(Operation):
    """The mask of a masked tensor, in a graph."""

    def call(self, x: AnyTensor) -> AnyTensor:
        return get_mask(x)

    def compute_output_spec(self, x: KerasTensor) -> KerasTensor:
        return KerasTensor(x._mask_spec.shape, "bool")

    def _call_spec(self, x):
        return self.compute_output_spec(x)


class GetValues(Operation):
    """The values of a masked tensor, in a graph."""

    def call(self, x: AnyTensor) -> AnyTensor:
        return x

    def compute_output_spec(self, x: KerasTensor) -> KerasTensor:
        return KerasTensor(x.shape, x.dtype)

    def _call_spec(self, x):
        return self.compute_output_spec(x)


def get_values(x: AnyTensor) -> Tensor:
    return x.values if has_mask(x) else x


class Filled(Operation):
    def __init__(self, value: float = 0, *, name: str | None = None):
        super().__init__(name=name)
        self.value = value

    def call(self, x: AnyTensor) -> AnyTensor:
        return x

    def compute_output_spec(self, x: KerasTensor) -> KerasTensor:
        return KerasTensor(x.shape, x.dtype)


@asks_first
@keras_export("keras.ops.filled")
def filled(x: AnyTensor, value: float = 0) -> Tensor:
    """The values of a tensor, with `value` in place of masked entries.

    Args:
        x: Masked tensor of any shape and dtype. A plain one is returned as it
            is.
        value: Scalar that the dtype can hold. Defaults to 0.

    Returns:
        A plain tensor of the shape and dtype of `x`.

    Example:

    >>> x = keras.MaskedTensor([1.0, 2.0], [True, False])
    >>> keras.ops.convert_to_numpy(keras.ops.filled(x, -1.0))
    array([ 1., -1.], dtype=float32)
    """
    if needs_dispatch((x,)):
        return Filled(value).symbolic_call(x)
    return x


class Last(Operation):
    def __init__(self, axis: int = 1, *, name: str | None = None):
        super().__init__(name=name)
        self.axis = axis

    def call(self, x: AnyTensor) -> AnyTensor:
        return last(x, self.axis)

    def compute_output_spec(self, x: KerasTensor) -> KerasTensor:
        axis = canonicalize_axis(self.axis, len(x.shape))
        return KerasTensor(x.shape[:axis] + x.shape[axis + 1 :], x.dtype)


@keras_export("keras.ops.last")
def last(x: AnyTensor, axis: int = 1) -> AnyTensor:
    """The last valid entry along an axis.

    Of sequences that are padded, `x[:, -1]` is padding. This is the last step
    that each of them has, wherever the padding is.

    Args:
        x: Masked or plain tensor of any dtype.
        axis: The axis, which is not in the result. Defaults to 1, the steps
            of `(batch, time, ...)`.

    Returns:
        A tensor of the shape of `x` without the axis. Of a plain one it is the
        last entry, as it is where the mask of `x` does not cover the axis. Else
        it is 0 where no entry is valid; that is masked, if there are other axes
        of the mask, and plain if there are none.

    Raises:
        ValueError: If `x` has no such axis.

    Example:

    >>> x = keras.MaskedTensor([[1.0, 2.0, 0.0]], [[True, True, False]])
    >>> keras.ops.convert_to_numpy(keras.ops.last(x)).data
    array([2.], dtype=float32)
    """
    if needs_dispatch((x,)):
        return Last(axis).symbolic_call(x)
    x = backend.convert_to_tensor(x)
    axis = canonicalize_axis(axis, len(x.shape))
    return x[(slice(None),) * axis + (-1,)]


@keras_export("keras.ops.is_masked")
def is_masked(x: typing.Any) -> bool:
    """Whether a tensor is a masked one, eager or symbolic.

    Args:
        x: Anything.

    Returns:
        A Python bool, known from the type alone.

    Example:

    >>> keras.ops.is_masked(keras.MaskedTensor([1.0], [True]))
    True
    """
    return has_mask(x)


@keras_export("keras.ops.get_mask")
def get_mask(x: AnyTensor) -> Mask | None:
    """The mask of a tensor, True where valid, or None for a plain tensor.

    Args:
        x: Plain, masked or symbolic tensor.

    Returns:
        A boolean tensor of shape `x.shape[:mask.ndim]`, or None.

    Example:

    >>> x = keras.MaskedTensor([1.0, 2.0], [True, False])
    >>> keras.ops.convert_to_numpy(keras.ops.get_mask(x))
    array([ True, False])
    """
    if isinstance(x, (MaskedTensorBase, KerasTensor)):
        return x.mask
    return None
