"""Elementwise operations: the result is valid where every operand is."""

import typing

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.masked_tensor import ORDINARY
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.operators import ARITHMETIC
from keras.src.backend.common.operators import COMPARISON
from keras.src.backend.common.operators import comparing
from keras.src.backend.common.operators import op_named
from keras.src.masking import coverage
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import Rule
from keras.src.masking.calls import as_one
from keras.src.masking.calls import takes_whole
from keras.src.masking.coverage import covers
from keras.src.masking.packing import packs
from keras.src.masking.rules import packed


@as_one
@takes_whole
@packs(packed.each_step)
@covers(coverage.merged)
def merge(call: Call) -> AnyTensor:
    """Valid where every masked operand is; plain operands are neutral.

    A plain operand that varies along the mask, or holds what is infinite or
    large, gives 0 where the result is masked, so that this ends there, too. So
    does a masked one that is there where another is not.
    """
    operands = call.operands()
    mask = masks.merge(operands)
    args = call.args
    if len(args) > 1:
        ndim = max(len(x.shape) for x in operands)
        args = [_harmless(x, mask, ndim, operands) for x in args]
    if all(map(masks.is_ordinary, call.kwargs.values())):
        return masks.wrap(call.compute(*args), mask)
    args = [masks.filled(x) for x in args]
    return masks.wrap(masks.fill(call.compute(*args), mask, 0), mask)


@as_one
@takes_whole
@packs(packed.each_step)
@covers(coverage.merged)
def straight(call: Call) -> AnyTensor:
    """Valid where every masked operand is; plain operands are neutral.

    As `merge`, for ops whose slope is a constant, or none. What one of two
    masked operands holds beyond the other ends in the result: by one fill, and
    by none if that is boolean.
    """
    first, *others = call.args
    if not all(map(masks.is_masked, call.args)) or any(
        x.mask is first.mask for x in others
    ):
        return merge(call)
    return masks.settled(call.compute(), masks.merge(call.args))


@as_one
@takes_whole
@packs(packed.each_step)
@covers(coverage.merged)
def multiply(call: Call) -> AnyTensor:
    """Valid where every masked operand is; no two masked numbers multiply."""
    first = call.args[0]
    if all(map(masks.is_masked, call.args)):
        call.args = (masks.wrap(masks.zero(first), first.mask), call.args[1])
    return merge(call)


# The operators that have a shortcut, each to the rule of its row.
SHORTCUTS = {
    "add": straight,
    "subtract": straight,
    "multiply": multiply,
    **dict.fromkeys(COMPARISON.values(), straight),
}


def shortcut(name: str) -> typing.Callable:
    """The operator of an op, which most often has little to do.

    That is a scalar, or one mask of both; anything else goes the way of the
    op, to the rule.

    Args:
        name: Name of an op in `SHORTCUTS`.
    """
    multiplies = SHORTCUTS[name] is multiply

    def operator(self, other):
        op, kind = op_named(name), type(other)
        if kind is float or kind is int:
            if -ORDINARY <= other <= ORDINARY:
                return self._wrap(op(self.values, other), self.mask)
        elif (
            kind is type(self)
            and self.mask is other.mask
            and self.values.ndim == other.values.ndim
        ):
            # What is under two masks is not to be multiplied.
            values = (
                backend.masked_kernels.put(self, 0)
                if multiplies
                else self.values
            )
            return self._wrap(op(values, other.values), self.mask)
        return op(self, other)

    return comparing(name, operator)


for _method, _name in (ARITHMETIC | COMPARISON).items():
    if _name in SHORTCUTS:
        setattr(MaskedTensorBase, f"__{_method}__", shortcut(_name))


def _harmless(x, mask, ndim, operands):
    """An operand of an op that computes with what is under the mask."""
    if masks.is_masked(x):
        return masks.within(x, mask, ndim)
    if not hasattr(x, "shape"):
        if masks.is_ordinary(x):
            return x
        return _along_mask(x, mask, 0, ndim, operands)
    if not backend.is_float_dtype(x.dtype):
        return x
    if len(x.shape) and masks.is_ordinary(x):
        return masks.guarded(x, mask, 0, ndim)
    return _along_mask(x, mask, 0, ndim, operands)


def _along_mask(x, mask, constant, ndim, operands):
    """A plain operand, repeated with a constant wherever the mask is False."""
    if hasattr(x, "dtype"):
        x = backend.convert_to_tensor(x)
    else:
        dtypes = [y.dtype for y in operands]
        if isinstance(x, int) and not any(map(backend.is_float_dtype, dtypes)):
            return x
        dtype = backend.result_type(*dtypes, type(x))
        x = backend.convert_to_tensor(x, dtype)
    return masks.fill(x, masks.expand(mask, ndim), constant)


@takes_whole
@packs(packed.each_step)
@covers(coverage.merged)
def cast(call: Call) -> AnyTensor:
    """The mask stays; under it nothing is infinite in a smaller dtype."""
    return masks.cast(only_operand(call), call.argument("dtype"))


def guarded(*constants: float | None) -> Rule:
    """An op that makes an ordinary finite number non-finite, or is steep.

    Args:
        *constants: For each operand a value in the op's domain, which takes
            its place wherever the result is masked, before the op; None
            leaves the operand as in `merge`.
    """

    @as_one
    @takes_whole
    @packs(packed.each_step)
    @covers(coverage.merged)
    def rule(call):
        operands = call.operands()
        mask = masks.merge(operands)
        ndim = max(len(x.shape) for x in operands)
        args = [
            _harmless(x, mask, ndim, operands)
            if constant is None
            else _in_domain(x, mask, constant, ndim, operands)
            for x, constant in zip(call.args, constants)
        ]
        return masks.wrap(call.compute(*args), mask)

    rule.__name__ = f"guarded{constants}"
    rule.__doc__ = (
        "Valid where every masked operand is; what is masked goes in as "
        f"{' and '.join(str(c) for c in constants if c is not None)}."
    )
    return rule


def _in_domain(x, mask, constant, ndim, operands):
    """An operand with a constant in the op's domain under the mask."""
    if masks.is_masked(x):
        return masks.guarded(x, mask, constant, ndim)
    if x is None or _is_moderate(x):
        return x
    return _along_mask(x, mask, constant, ndim, operands)


def _is_moderate(x):
    """Whether a number is ordinary, and one by which to divide, too."""
    return not hasattr(x, "dtype") and 1 / ORDINARY <= abs(x) <= ORDINARY


def only_operand(call: Call) -> MaskedTensorBase:
    """The first operand, which must be the only masked one."""
    x = call.args[0]
    others = [y for y in call.operands() if y is not x]
    if not has_mask(x) or any(map(has_mask, others)):
        raise call.refuse("Only the first argument may be masked.")
    return x


def kept(call: Call, spec: Nest) -> int:
    """The mask of the only operand that may be masked stays."""
    return masks.covered(only_operand(call))


@packs(packed.first_alone)
@covers(kept)
def each_entry(call: Call) -> AnyTensor:
    """Each entry by itself, beside plain arguments: the mask stays."""
    mask = only_operand(call).mask
    return masks.wrap(call.compute(), mask)


@covers(coverage.kept)
def unchanged(call: Call) -> AnyTensor:
    """One masked operand, whose mask is that of the result.

    For ops whose other operands do not vary along the mask: the scale of a
    normalization, the bound of a triangle.
    """
    (mask,) = {
        id(x.mask): x.mask
        for x in call.operands()
        if isinstance(x, MaskedTensorBase)
    }.values()
    return masks.wrap(call.compute(), mask)


@covers(kept)
def glu(call: Call) -> AnyTensor:
    """One half times the sigmoid of the other: valid where both are."""
    halves = ops.split(only_operand(call), 2, axis=call.argument("axis", -1))
    return masks.wrap(call.compute(), masks.merge(halves))
