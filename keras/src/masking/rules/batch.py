"""Operations over core axes: masks may cover the batch axes alone.

What lies under a mask would make such an op raise, or give NaN: a singular
matrix, labels that do not fit into their steps. So each operand says what goes
in instead, wherever the result is masked.
"""

import functools
import typing

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import Rule
from keras.src.masking.calls import takes_whole
from keras.src.masking.calls import values_of
from keras.src.masking.coverage import covers


def refused(reason: str) -> Rule:
    """A rule for an op that can do nothing sensible with a mask.

    Args:
        reason: Why, a sentence of the error.
    """

    @takes_whole
    def rule(call):
        raise call.refuse(reason)

    covers(lambda call, spec: rule(call))(rule)

    rule.__name__ = "refused"
    rule.__doc__ = rule.reason = reason
    return rule


class Core(typing.NamedTuple):
    """The axes of an operand that an op works on as a whole.

    Attributes:
        axes: Their number; they are the last ones.
        harmless: What takes the place of a masked core: a scalar, an array
            over the core axes, or a function of the values that gives one.
    """

    axes: int
    harmless: typing.Any = 0


def well_conditioned(matrices: Tensor) -> Tensor:
    """A diagonal of different numbers between 1/2 and 2, whose product is 1.

    Equal eigenvalues would give NaN gradients, and a determinant must not
    overflow. Of integers, the identity.
    """
    row, column = (
        backend.numpy.arange(n, dtype="float32")
        for n in backend.shape(matrices)[-2:]
    )
    is_integer = "int" in backend.standardize_dtype(matrices.dtype)
    size = backend.cast(backend.shape(matrices)[-2], "float32")
    exponent = row * 0 if is_integer else (2 * row + 1) / size - 1
    return backend.numpy.where(
        backend.numpy.equal(row[:, None], column),
        backend.numpy.power(2.0, exponent)[:, None],
        0.0,
    )


VECTOR = Core(1)
MATRIX = Core(2, well_conditioned)
IMAGE = Core(3)
# The one that changes nothing, as it must have an inverse.
TRANSFORM = Core(1, np.array([1, 0, 0, 0, 1, 0, 0, 0], "float32"))
# Corners of a square: any three of them are on no line.
CORNERS = Core(2, np.array([[0, 0], [0, 1], [1, 0], [1, 1]], "float32"))


def batch_only(*cores: Core | typing.Callable, hint: str = "") -> Rule:
    """A rule for an op over core axes: the masks of the batch axes are merged.

    Args:
        *cores: The `Core` of each operand; the last one stands for all others
            too. Or one function of a `Call` that gives them.
        hint: What to do about a mask over core axes, a sentence.
    """

    def cores_of(call):
        return cores[0](call) if callable(cores[0]) else cores

    def coverage(call, spec):
        pairs = _with_cores(call, cores_of(call), hint)
        ndim = max(len(x.shape) - core.axes for x, core in pairs)
        return max(
            ndim - len(x.shape) + core.axes + masks.covered(x)
            for x, core in pairs
            if has_mask(x)
        )

    @takes_whole
    @covers(coverage)
    def rule(call):
        own = cores_of(call)
        values, mask = on_batch(call, own, hint)
        if isinstance(values, (tuple, list)):
            # A tuple of NumPy's or PyTorch's own takes no masked tensors.
            return tuple(masks.wrap(x, mask) for x in values)
        return masks.wrap(values, mask)

    rule.__name__ = "batch_only"
    core = "axes it works on"
    if not callable(cores[0]):
        core = _last(cores[0].axes)
    rule.__doc__ = f"Masks of batch axes are merged; the {core} may have none."
    return rule


def on_batch(
    call: Call, cores: typing.Sequence[Core], hint: str = ""
) -> tuple[Nest, Mask]:
    """The op on what is valid, and the mask over the batch axes.

    Args:
        call: The `Call`. An operand may be a tuple of tensors.
        cores: The `Core` of each operand, the last one for all others too.
        hint: What to do about a mask over core axes, a sentence.
    """
    cores = _one_each(cores, call)
    pairs = _with_cores(call, cores, hint)
    mask = masks.merge([_batch_of(x, core) for x, core in pairs])
    batch = max(len(x.shape) - core.axes for x, core in pairs)
    # NumPy's backend finds a spec by running the op on memory as it is found.
    valid = backend.numpy.zeros_like(mask) if in_symbolic_scope() else mask

    def harmless(core, x):
        if not hasattr(x, "shape"):
            return x
        filler = core.harmless
        filler = filler(values_of(x)) if callable(filler) else filler
        return masks.guarded(x, valid, filler, batch + core.axes)

    args = [
        tree.map_structure(functools.partial(harmless, core), arg)
        for arg, core in zip(call.args, cores)
    ]
    return call.compute(*args), mask


def _one_each(cores, call):
    return (*cores, *[cores[-1]] * (len(call.args) - len(cores)))


def _with_cores(call, cores, hint):
    """The operands, each with its `Core`, over which no mask may be."""
    pairs = [
        (x, core)
        for arg, core in zip(call.args, _one_each(cores, call))
        for x in tree.flatten(arg)
        if hasattr(x, "shape")
    ]
    for x, core in pairs:
        if has_mask(x) and masks.covered(x) > len(x.shape) - core.axes:
            raise call.refuse(_only_before(core.axes, hint))
    return pairs


def _only_before(axes, hint):
    reason = f"It works on the {_last(axes)} as a whole, which no mask may "
    return f"{reason}cover. {hint}".strip()


def _last(axes):
    return "last axis" if axes == 1 else f"last {axes} axes"


def _batch_of(x, core):
    """A stand-in for an operand that has its batch axes alone."""
    batch = len(x.shape) - core.axes
    if not isinstance(x, MaskedTensorBase):
        if not batch:
            return None
        return backend.numpy.ones(backend.shape(x)[:batch], "bool")
    return masks.wrap(masks.to_rank(x.mask, x.values, batch), x.mask)


def as_tensors(call: Call) -> list[AnyTensor]:
    """The operands, with tensors for lists of numbers."""
    call.args = [
        x if hasattr(x, "shape") else backend.convert_to_tensor(x)
        for x in call.args
    ]
    return call.args


def solve(call: Call) -> tuple[Core, ...]:
    """The right-hand side has one vector or one matrix for each matrix."""
    a, b = as_tensors(call)
    return MATRIX, Core(1 + (len(b.shape) >= len(a.shape)))


@takes_whole
def cholesky_inverse(call: Call) -> AnyTensor:
    """A mask of batch axes stays; the last 2 axes may have none.

    From the inverse of the factor: some backends take one matrix only, and mix
    the matrices of a batch.
    """
    (factor,) = call.args
    upper = call.argument("upper", False)
    eye = ops.eye(factor.shape[-1], dtype=factor.dtype)
    eye = ops.broadcast_to(eye, ops.shape(factor))
    inverse = ops.solve_triangular(factor, eye, lower=not upper)
    both = (ops.swapaxes(inverse, -1, -2), inverse)
    return ops.matmul(*(both[::-1] if upper else both))


def cross(call: Call) -> AnyTensor:
    """Masks of batch axes are merged; that of the vectors may have none.

    The axis of the components goes last, and where it belongs after.
    """
    axes = [call.argument(name, -1) for name in ("axisa", "axisb", "axisc")]
    if call.argument("axis") is not None:
        axes = [call.argument("axis")] * 3
    x1, x2 = as_tensors(call)
    if axes == [-1, -1, -1]:
        return batch_only(VECTOR)(call)
    result = ops.cross(
        ops.moveaxis(x1, axes[0], -1), ops.moveaxis(x2, axes[1], -1)
    )
    if x1.shape[axes[0]] == x2.shape[axes[1]] == 2:
        return result
    return ops.moveaxis(result, -1, axes[2])


def colour(call: Call) -> tuple[Core, ...]:
    """The channels of an image, with three different ones: no gray.

    The hue of gray is a division by 0.
    """
    harmless = np.array([0.2, 0.4, 0.8], "float32")
    data_format = backend.standardize_data_format(call.argument("data_format"))
    if data_format == "channels_last":
        return (Core(1, harmless),)
    return (Core(3, harmless[:, None, None]),)


def gray(call: Call) -> tuple[Core, ...]:
    """The channels of an image, one or three."""
    (core,) = colour(call)
    return (Core(core.axes),)


def resampled(call: Call) -> tuple[Core, ...]:
    """The axes from the first one that is resampled on."""
    ndim = len(call.args[0].shape)
    axes = [a % ndim for a in call.argument("spatial_dims")]
    return Core(ndim - min(axes)), Core(1, 1)
