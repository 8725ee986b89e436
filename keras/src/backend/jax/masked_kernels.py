"""How JAX fills, sums, blocks and joins masked tensors."""

import math
import typing

import jax
from keras.src.backend.common import masked_kernels as common
from keras.src.backend.common.kinds import Axes
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_kernels import DOT_IS_MATMUL
from keras.src.backend.common.masked_kernels import HAS_SAFE_LOGSUMEXP
from keras.src.backend.common.masked_kernels import all_hold_some
from keras.src.backend.common.masked_kernels import apart
from keras.src.backend.common.masked_kernels import as_numpy
from keras.src.backend.common.masked_kernels import blocks
from keras.src.backend.common.masked_kernels import constant
from keras.src.backend.common.masked_kernels import expand
from keras.src.backend.common.masked_kernels import fill
from keras.src.backend.common.masked_kernels import filled_copy
from keras.src.backend.common.masked_kernels import index
from keras.src.backend.common.masked_kernels import is_seen_ordinary
from keras.src.backend.common.masked_kernels import join_blocks
from keras.src.backend.common.masked_kernels import select
from keras.src.backend.common.masked_kernels import sorts_last
from keras.src.backend.common.masked_kernels import with_rank
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
    if not _vectorizes(x):
        return common.total(x, axes, keepdims)
    if _inner(x, axes):
        return _of_steps(x, x.values, axes, keepdims)
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


def _vectorizes(x):
    """Whether XLA sums with vectors, if nothing keeps it from that."""
    return _runs_on_cpu() and x.dtype in ("float32", "float64")


def _inner(x, axes):
    """The axes that lie within what the mask takes for one entry."""
    return tuple(a for a in axes if a >= x.mask.ndim)


def _of_steps(x, terms, axes, keepdims):
    """The sum of terms, one for each entry of `x`, over the valid ones.

    First within steps, with no mask: one that is broadcast into what is summed
    keeps XLA from vectorizing it.
    """
    inner = _inner(x, axes)
    outer = tuple(a for a in axes if a not in inner)
    sums = fill(jax.numpy.sum(terms, inner), x.mask, 0)
    sums = jax.numpy.sum(sums, outer, keepdims=keepdims)
    return jax.numpy.expand_dims(sums, inner) if keepdims else sums


def squares(x: MaskedTensorBase, axes: Axes, keepdims: bool) -> Tensor:
    if not _vectorizes(x) or not _inner(x, axes):
        return common.squares(x, axes, keepdims)
    return _of_steps(x, jax.numpy.square(x.values), axes, keepdims)


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
