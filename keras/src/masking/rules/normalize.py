"""Normalizations: masked entries take no part, the mask stays."""

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.kinds import AnyTensor
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import as_one
from keras.src.masking.coverage import covers
from keras.src.masking.packing import Unknown
from keras.src.masking.packing import packs
from keras.src.masking.rules import packed
from keras.src.masking.rules.merge import kept
from keras.src.masking.rules.merge import merge
from keras.src.masking.rules.merge import unchanged
from keras.src.masking.rules.reduce import FINITE
from keras.src.masking.rules.reduce import canonical_axes
from keras.src.masking.rules.reduce import need_order
from keras.src.masking.rules.reduce import promoted


def _softmax(call, spec):
    if _takes_in_mask(call):
        need_order(call)
    return masks.covered(call.args[0])


_of_steps = packed.along("axis")


def _of_several(call, x):
    """Of one entry Keras warns, and names the shape that it was given."""
    axis = call.argument("axis")
    if isinstance(axis, int) and x.shape[axis] == 1:
        raise Unknown
    return _of_steps(call, x)


@as_one
@packs(_of_several)
@covers(_softmax)
def softmax(call: Call) -> AnyTensor:
    """Masked entries take no part; a row without a valid one gives 0.

    They get the smallest number, whose exponential is 0. A finite one, since
    with an infinite one the gradient of such a row would be NaN.
    """
    x = call.args[0]
    axes = canonical_axes(call.argument("axis", -1), len(x.shape))
    if not _takes_in_mask(call):
        return masks.wrap(call.compute(), x.mask)
    need_order(call)
    x = promoted(x, float)
    lowest, _ = FINITE[backend.standardize_dtype(x.dtype)]
    mask_axes = tuple(a for a in axes if a < masks.covered(x))

    def of_block(x):
        values = call.compute(masks.put(x, lowest))
        if backend.masked_kernels.all_hold_some(x, mask_axes):
            # Nothing is left for them.
            return values
        return masks.zero(masks.wrap(values, x.mask))

    return masks.wrap(masks.in_blocks(x, axes, of_block), x.mask)


@packs(packed.along("axis"))
@covers(kept)
def sparsemax(call: Call) -> AnyTensor:
    """Masked entries take no part: too far below the largest for a share."""
    x, axis = call.args[0], call.argument("axis", -1)
    axis = canonical_axes(axis, len(x.shape))[0]
    if axis >= len(x.mask.shape) or x.shape[axis] == 0:
        # Of far numbers, rounded, none gets a share, and upstream divides by 0.
        values = masks.filled(x)
        return masks.wrap(call.compute(values), x.mask)
    top = ops.filled(ops.max(x, axis=axis, keepdims=True), 0)
    mask = masks.expand(x.mask, len(x.shape))
    below = ops.stop_gradient(ops.subtract(top, 2))
    values = call.compute(ops.where(mask, x.values, below))
    return masks.wrap(masks.fill(values, mask, 0), x.mask)


def _takes_in_mask(call):
    """Whether the axes that are normalized are axes of the mask."""
    x = call.args[0]
    axes = canonical_axes(call.argument("axis", -1), len(x.shape))
    return any(a < masks.covered(x) for a in axes)


def _check_scale(call):
    if not has_mask(call.args[0]):
        raise call.refuse("The scale and the offset must be plain.")


def _scaled(call, spec):
    _check_scale(call)
    return masks.covered(call.args[0])


@as_one
@packs(packed.along("axis"))
@covers(_scaled)
def layer_normalization(call: Call) -> AnyTensor:
    """Over axes without a mask as ever, else with the moments of the valid.

    With `rms_scaling` upstream does not move the mean, and adds no offset.
    """
    _check_scale(call)
    if not _takes_in_mask(call):
        return _of_each(call)
    x, axis = promoted(call.args[0], "float32"), call.argument("axis", -1)
    power = ops.var(x, axis=axis, keepdims=True)
    gamma, beta = call.argument("gamma"), call.argument("beta")
    if call.argument("rms_scaling", False):
        return _over_root(call, x, power, gamma)
    x = ops.subtract(x, ops.mean(x, axis=axis, keepdims=True))
    return _over_root(call, x, power, gamma, beta)


@as_one
@packs(packed.along("axis"))
@covers(_scaled)
def rms_normalization(call: Call) -> AnyTensor:
    """As layer normalization, by the mean square."""
    _check_scale(call)
    if not _takes_in_mask(call):
        return _of_each(call)
    x, axis = promoted(call.args[0], "float32"), call.argument("axis", -1)
    power = ops.mean(ops.square(x), axis=axis, keepdims=True)
    return _over_root(call, x, power, call.argument("scale"))


def _of_each(call):
    """Over axes without a mask: the squares of what is masked are none."""
    x = call.args[0]
    return masks.wrap(masks.apart(x, call.compute), x.mask)


def _over_root(call, x, power, scale, offset=None):
    """`x` over the root of its power, scaled and moved; in the old dtype."""
    epsilon = call.argument("epsilon")
    if epsilon is None:
        epsilon = backend.epsilon()
    axes = canonical_axes(call.argument("axis", -1), len(x.shape))
    result = ops.multiply(x, ops.rsqrt(ops.add(power, epsilon)))
    if scale is not None:
        result = ops.multiply(result, _over_axes(scale, axes, x))
    if offset is not None:
        result = ops.add(result, _over_axes(offset, axes, x))
    # What is masked can be far beyond what is valid.
    return ops.cast(result, call.args[0].dtype)


def _over_axes(weight, axes, x):
    """A weight that has the normalized axes, shaped to go with `x`."""
    shape = backend.shape(x.values)
    return backend.numpy.reshape(
        backend.convert_to_tensor(weight, x.dtype),
        [shape[a] if a in axes else 1 for a in range(len(shape))],
    )


@as_one
@packs(packed.along("axis"))
@covers(kept)
def normalize(call: Call) -> AnyTensor:
    """Divides by the norm of the valid entries, of 1 where there are none."""
    x, valid = call.args[0], call.args[0].mask
    axes = canonical_axes(call.argument("axis", -1), len(x.shape))
    axes = tuple(a for a in axes if a < len(valid.shape))
    if axes:
        valid = backend.numpy.any(valid, axis=axes, keepdims=True)
    # A norm over nothing has no gradient.
    values = masks.filled(x) if axes else x.values
    values = call.compute(masks.fill(values, valid, 1))
    return masks.wrap(masks.fill(values, x.mask, 0), x.mask)


@packs(packed.along("axis"))
@covers(merge.coverage)
def batch_normalization(call: Call) -> AnyTensor:
    """Elementwise, given mean and variance: the mask stays."""
    canonical_axes(call.argument("axis"), len(call.args[0].shape))
    return merge(call) if len(call.operands()) == 1 else unchanged(call)
