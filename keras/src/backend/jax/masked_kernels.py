"""How JAX fills, sums, blocks and joins masked tensors."""

import math
import typing

import jax
from keras.src.backend.common import masked_kernels as common
from keras.src.backend.common.kinds import Axes
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_kernels import HAS_SAFE_LOGSUMEXP
from keras.src.backend.common.masked_kernels import as_numpy
from keras.src.backend.common.masked_kernels import blocks
from keras.src.backend.common.masked_kernels import constant
from keras.src.backend.common.masked_kernels import expand
from keras.src.backend.common.masked_kernels import fill
from keras.src.backend.common.masked_kernels import filled_copy
from keras.src.backend.common.masked_kernels import index
from keras.src.backend.common.masked_kernels import join_blocks
from keras.src.backend.common.masked_kernels import select
from keras.src.backend.common.masked_kernels import sorts_last
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.jax.programs import run_as_one


def _runs_on_cpu():
    return jax.default_backend() == "cpu"


def put(x: MaskedTensorBase, value: typing.Any) -> Tensor:
    # XLA fuses arithmetic with the reduction that follows, and vectorizes it;
    # on CPUs it does neither with a selection by a broadcast mask.
    if not _runs_on_cpu():
        return common.put(x, value)
    ndim, dtype = x.values.ndim, x.values.dtype
    values = x.values
    if not math.isinf(value):
        values = values * expand(x.mask.astype(dtype), ndim)
    if value == 0:
        return values
    # In its own dtype from the start: the lowest float64 is no float32.
    bias = jax.numpy.where(x.mask, 0, jax.numpy.asarray(value, dtype))
    return values + expand(bias.astype(dtype), ndim)


def total(x: MaskedTensorBase, axes: Axes, keepdims: bool) -> Tensor:
    if not _runs_on_cpu() or x.dtype not in ("float32", "float64"):
        return common.total(x, axes, keepdims)
    inner = tuple(a for a in axes if a >= x.mask.ndim)
    if inner:
        return _of_steps(x, jax.numpy.sum(x.values, inner), axes, keepdims)
    last = x.mask.ndim - 1
    size = math.prod(x.values.shape[x.mask.ndim :])
    if tuple(axes) != (last,) or size <= _NARROW:
        return common.total(x, axes, keepdims)
    # A product of matrices, where XLA has one for it, is the faster one.
    batch = tuple(range(last))
    result = jax.lax.dot_general(
        x.mask.astype(x.values.dtype),
        x.values,
        (((last,), (last,)), (batch, batch)),
        # A sum is exact, whatever users set for products.
        precision=jax.lax.Precision.HIGHEST,
    )
    return jax.numpy.expand_dims(result, last) if keepdims else result


# Up to how many entries of a step XLA sums faster than it multiplies matrices.
_NARROW = 64


def _of_steps(x, sums, axes, keepdims):
    """A sum of what is summed up within steps, with no mask, already.

    A mask that is broadcast into what is summed keeps XLA from vectorizing it.
    """
    covered = x.mask.ndim
    inner = tuple(a for a in axes if a >= covered)
    outer = tuple(a for a in axes if a < covered)
    sums = jax.numpy.sum(fill(sums, x.mask, 0), outer, keepdims=keepdims)
    return jax.numpy.expand_dims(sums, inner) if keepdims else sums


def squares(x: MaskedTensorBase, axes: Axes, keepdims: bool) -> Tensor:
    inner = tuple(a for a in axes if a >= x.mask.ndim)
    if not _runs_on_cpu() or not inner or x.dtype not in ("float32", "float64"):
        return common.squares(x, axes, keepdims)
    sums = jax.numpy.sum(jax.numpy.square(x.values), inner)
    return _of_steps(x, sums, axes, keepdims)


def careful(x: MaskedTensorBase, function: typing.Callable) -> Tensor:
    if not _runs_on_cpu():
        return function(x)

    def of(values, mask):
        return function(x._wrap(values, mask))

    def filled(values, mask):
        return fill(values, mask, 0)

    # Both parts are arguments: what is closed over would escape from layers
    # that are rematerialized, and from what is exported.
    @jax.custom_jvp
    def carefully(values, mask):
        result = of(values, mask)
        # No sum: XLA would make one of this and of that which gave the result.
        is_nan = jax.numpy.any(jax.numpy.isnan(result))
        try:
            return of(filled(values, mask), mask) if is_nan else result
        except jax.errors.TracerBoolConversionError:
            return jax.lax.cond(
                is_nan,
                lambda: of(filled(values, mask), mask),
                lambda: result,
            )

    @carefully.defjvp
    def differentiate(primals, tangents):
        # Its slope is 0 at masked entries, so the selection needs none. A
        # choice would have to keep what both branches need.
        mask = primals[1]
        return jax.jvp(
            lambda values: of(values, mask),
            (filled(*primals),),
            tangents[:1],
        )

    return carefully(x.values, x.mask)
