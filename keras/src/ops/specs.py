"""Specs of symbolic tensors, masked and plain."""

from keras.src import backend
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Shape
from keras.src.backend.common.kinds import Tensor


def masked_spec(spec: AnyTensor, mask: KerasTensor | None) -> KerasTensor:
    """A symbolic tensor like `spec` with this mask spec."""
    return KerasTensor(
        spec.shape,
        spec.dtype,
        sparse=spec.sparse,
        record_history=spec.record_history,
        mask=KerasTensor(mask.shape, "bool", record_history=False),
    )


def like_input(x: Tensor, declared: KerasTensor) -> AnyTensor:
    """A tensor for an input of a graph: all valid if declared masked."""
    if x is None or has_mask(x) or not has_mask(declared):
        return x
    ndim = len(declared._mask_spec.shape)
    if isinstance(x, KerasTensor):
        return masked_spec(x, KerasTensor(x.shape[:ndim], "bool"))
    shape = backend.shape(x)[:ndim]
    return backend.MaskedTensor._wrap(x, backend.numpy.ones(shape, "bool"))


def same_spec(x: KerasTensor, y: KerasTensor) -> bool:
    """Whether two symbolic tensors agree in shape and in their mask's."""
    return x.shape == y.shape and mask_shape(x) == mask_shape(y)


def mask_shape(x: KerasTensor) -> Shape | None:
    return None if x._mask_spec is None else x._mask_spec.shape


def copy_spec(x: KerasTensor) -> KerasTensor:
    """A new symbolic tensor of this spec, part of no graph."""
    spec = KerasTensor(x.shape, x.dtype)
    return spec if x._mask_spec is None else masked_spec(spec, x._mask_spec)
