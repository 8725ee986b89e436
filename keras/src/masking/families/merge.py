"""Elementwise operations: the result is valid where every operand is."""

from keras.src import backend
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks


def merge(call):
    """Valid where every masked operand is; plain operands are neutral.

    A plain operand that varies along the mask gives 0 where the result is
    masked, so that a NaN in it ends there too.
    """
    operands = call.operands()
    mask = masks.merge(operands)
    if all(
        isinstance(x, MaskedTensorBase) or masks.is_scalar(x) for x in operands
    ):
        return masks.wrap(call.compute(), mask)
    ndim = max(len(x.shape) for x in operands)
    args = [_without_nan(x, mask, ndim) for x in call.args]
    return masks.wrap(call.compute(*args), mask)


def _without_nan(operand, mask, ndim):
    if isinstance(operand, MaskedTensorBase) or masks.is_scalar(operand):
        return operand
    if not backend.is_float_dtype(operand.dtype):
        return operand
    return masks.guarded(operand, mask, 0, ndim)


def cast(call):
    """The mask stays; under it nothing is infinite in a smaller dtype."""
    return masks.finite(merge(call))


def guarded(*constants):
    """An op that makes an ordinary finite number non-finite, or is steep.

    Args:
        *constants: For each operand a value in the op's domain, which takes
            its place wherever the result is masked, before the op; None
            leaves the operand as in `merge`.
    """

    def rule(call):
        operands = call.operands()
        mask = masks.merge(operands)
        ndim = max(len(x.shape) for x in operands)
        args = [
            x if masks.is_scalar(x) else masks.guarded(x, mask, constant, ndim)
            for x, constant in zip(call.args, constants)
        ]
        return masks.wrap(call.compute(*args), mask)

    rule.__name__ = f"guarded{constants}"
    rule.__doc__ = (
        "Valid where every masked operand is; what is masked goes in as "
        f"{' and '.join(map(str, constants))}."
    )
    return rule


def only_operand(call):
    """The first operand, which must be the only masked one."""
    x = call.args[0]
    others = [y for y in call.operands() if y is not x]
    if not isinstance(x, MaskedTensorBase) or any(
        isinstance(y, MaskedTensorBase) for y in others
    ):
        raise call.refuse("Only the first argument may be masked.")
    return x


def each_entry(call):
    """Each entry by itself, beside plain arguments: the mask stays."""
    mask = only_operand(call).mask
    return masks.wrap(call.compute(), mask)


def unchanged(call):
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


def glu(call):
    """One half times the sigmoid of the other: valid where both are."""
    from keras.src import ops

    halves = ops.split(only_operand(call), 2, axis=call.argument("axis", -1))
    return masks.wrap(call.compute(), masks.merge(halves))
