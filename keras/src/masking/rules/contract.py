"""Contractions: masked entries count as 0.

Each op of the family says how its axes are named; the rest follows. An axis
that is contracted and that a mask covers is multiplied by the mask; one that
no mask covers (the features of a Dense) needs nothing, since what is finite
stays in its own row.
"""

import typing

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import coverage
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import Rule
from keras.src.masking.calls import as_one
from keras.src.masking.coverage import covers
from keras.src.masking.packing import packs
from keras.src.masking.rules import packed
from keras.src.masking.rules.layout import full_rank
from keras.src.masking.rules.reduce import canonical_axes
from keras.src.masking.rules.reduce import floating

# Of each axis of a tensor: axes of one name are multiplied entry by entry.
Labels: typing.TypeAlias = typing.Sequence[str]
# Operands, the labels of each, and those of the result.
Labelled: typing.TypeAlias = tuple[list, list, list]


def contract(labels_of: typing.Callable) -> Rule:
    """A rule for an op that multiplies its operands and sums.

    Args:
        labels_of: Function of a `Call` that gives the operands, a list of axis
            labels for each of them, and that of the result.
    """

    def coverage(call, spec):
        operands, labels, out = labels_of(call)
        covered = [_covered(x, names) for x, names in zip(operands, labels)]
        if _shared(covered, out) and _is_larger(covered, labels):
            return len(out)
        return reach(covered, out)

    @as_one
    @packs(packed.contracted(labels_of))
    @covers(coverage)
    def rule(call):
        return _contracted(call, *labels_of(call))

    rule.__name__ = f"contract({labels_of.__name__})"
    rule.__doc__ = (
        "Masked entries count as 0; valid where any pair of valid entries "
        "meets."
    )
    return rule


def _contracted(call, operands, labels, out):
    """The result of such an op, with its mask."""
    covered = [_covered(x, names) for x, names in zip(operands, labels)]
    mask = _mask_that_stays(operands, covered, labels, out)
    if mask is not None:
        values = backend.masked_kernels.with_rank(call.compute(), len(out))
        return masks.wrap(values, mask)
    contracted = [[a for a in names if a not in out] for names in covered]
    values = _compute(call, _filled(operands, labels, contracted))
    # TensorFlow's `inner` of an unknown batch.
    values = backend.masked_kernels.with_rank(values, len(out))
    if not any(a in out for names in covered for a in names):
        return values
    shared = _shared(covered, out)
    if shared and _is_larger(covered, labels):
        mask = _count_pairs(call, operands)
    else:
        parts = [
            _reduced_mask(x, names, [a for a in gone if a not in shared])
            for x, names, gone in zip(operands, covered, contracted)
            if names
        ]
        mask = _joint_mask(parts, out, values)
    if _have_own_masks(operands):
        return masks.settled(values, mask)
    return masks.wrap(values, mask)


def _have_own_masks(operands):
    found = [x.mask for x in operands if isinstance(x, MaskedTensorBase)]
    return any(mask is not found[0] for mask in found)


def _shared(covered, out):
    """The labels that all masks cover and the sum takes away."""
    return set.intersection(*({*names} - {*out} for names in covered))


def _mask_that_stays(operands, covered, labels, out):
    """The mask of the only masked operand, if it is that of the result.

    That is so for a Dense over steps: what it covers comes first in the
    result, and no other operand has those axes. None elsewhere.
    """
    (first, *more) = [i for i, names in enumerate(covered) if names]
    names = covered[first]
    if more or out[: len(names)] != names:
        return None
    for i, others in enumerate(labels):
        if i != first and not set(names).isdisjoint(others):
            return None
    return operands[first].mask


def reach(covered: typing.Iterable[Labels], out: Labels) -> int:
    """How many axes a mask covers, of all that go into a result.

    Args:
        covered: For each operand the labels that its mask covers.
        out: The labels of the result.
    """
    places = [out.index(a) for names in covered for a in names if a in out]
    # `default` would end the graph of PyTorch's compiler.
    return max([-1, *places]) + 1


def quantized(
    run: typing.Callable,
    subscripts: str,
    inputs: AnyTensor,
    **kwargs: typing.Any,
) -> AnyTensor:
    """What a layer makes of a masked tensor and of a quantized kernel.

    The layer sees plain values, with 0 under the mask: the largest of them is
    their scale. The mask is that of the contraction with a kernel of floats.

    Args:
        run: What the layer does with plain inputs.
        subscripts: How `einsum` would write it, with the inputs and the kernel.
        inputs: The inputs, masked or plain.
        **kwargs: Further arguments of `run`.
    """
    if not isinstance(inputs, MaskedTensorBase):
        return run(inputs, **kwargs)
    values = run(masks.fill(inputs.values, inputs.mask, 0), **kwargs)
    covered, out = labels_of_first(subscripts, inputs, len(values.shape))
    if not any(a in out for a in covered):
        return values
    gone = [a for a in covered if a not in out]
    part = _reduced_mask(inputs, covered, gone)
    return masks.wrap(values, _joint_mask([part], out, values))


def _filled(operands, labels, contracted):
    """The operands, with 0 where what is masked would meet something else.

    What is contracted is summed with what is valid, by selection: it may not
    be finite. Of several masked operands all but one are 0, since they would
    multiply each other; all, if one may be there, and infinite, where another
    is not. A plain one is 0 where nothing masked meets it.
    """
    covered = [_covered(x, names) for x, names in zip(operands, labels)]
    multiplied, found = False, []
    by_own_masks = _have_own_masks(operands)
    for x, names, gone in zip(operands, labels, contracted):
        if not isinstance(x, MaskedTensorBase):
            x = _without_unmet(x, names, operands, covered)
        elif gone or by_own_masks:
            x = masks.filled(x)
        elif multiplied:
            x = masks.zero(x)
        else:
            multiplied = True
        found.append(x)
    return found


def _without_unmet(x, names, operands, covered):
    """A plain operand, with 0 where it meets only what is masked."""
    if not backend.is_float_dtype(x.dtype):
        return x
    for other, own in zip(operands, covered):
        if set(own) & set(names):
            mask, own = _reduced_mask(other, own, set(own) - set(names))
            x = backend.convert_to_tensor(x)  # It may be a variable.
            x = masks.fill(x, _arranged(mask, own, names), 0)
    return x


def labels_of_first(subscripts: str, inputs: AnyTensor, ndim: int) -> tuple:
    """The labels that the mask of the first operand covers, and the result's.

    Args:
        subscripts: As `einsum` takes them, with a result.
        inputs: The first operand.
        ndim: Rank of the result.
    """
    names, out = subscripts.replace(" ", "").split("->")
    labels = _spell_out(names.split(",")[0], len(inputs.shape))
    return _covered(inputs, labels), _spell_out(out, ndim)


def _covered(x, labels):
    return labels[: masks.covered(x)]


def _compute(call, operands):
    """Runs the op with these in place of its tensor operands."""
    rest = list(operands)
    args = [rest.pop(0) if hasattr(x, "shape") else x for x in call.args]
    return call.compute(*args)


def _is_larger(covered, labels):
    """Whether the masks side by side have more axes than an operand."""
    return len(set().union(*covered)) > max(map(len, labels))


def _count_pairs(call, operands):
    """The mask of a result whose masks would be too large side by side.

    Valid where any pair of valid entries meets: the op itself counts them.
    """
    ones = []
    for x in operands:
        if isinstance(x, MaskedTensorBase):
            weights = backend.cast(x.mask, "float32")
            weights = masks.expand(weights, len(x.shape))
            shape = backend.shape(x.values)
            ones.append(backend.numpy.broadcast_to(weights, shape))
        else:
            ones.append(backend.numpy.ones(backend.shape(x), "float32"))
    return backend.numpy.greater(_compute(call, ones), 0)


def _reduced_mask(x, labels, gone):
    """The mask with its contracted axes reduced by `any`, and its labels."""
    mask = x.mask
    if gone:
        axes = tuple(i for i, a in enumerate(labels) if a in gone)
        mask = backend.numpy.any(mask, axis=axes)
    return mask, [a for a in labels if a not in gone]


def _joint_mask(parts, out, values):
    """AND of masks with labelled axes; `any` over those that `out` lacks."""
    named = [a for _, labels in parts for a in labels]
    gone = sorted({a for a in named if a not in out})
    covered = reach([named], out)
    order = gone + out[:covered]
    joint = None
    for mask, labels in parts:
        mask = _arranged(mask, labels, order)
        joint = (
            mask if joint is None else backend.numpy.logical_and(joint, mask)
        )
    if gone:
        joint = backend.numpy.any(joint, axis=tuple(range(len(gone))))
    target = tuple(values.shape)[:covered]
    is_whole = masks.same_shape(joint.shape, target)
    if not is_whole or set(out[:covered]) - set(named):
        shape = backend.shape(values)[:covered]
        joint = backend.numpy.broadcast_to(joint, shape)
    return joint


def _arranged(mask, labels, order):
    """The mask with an axis for each label of `order`, size 1 if it is new."""
    present = [a for a in order if a in labels]
    axes = [labels.index(a) for a in present]
    if axes != sorted(axes):
        mask = backend.numpy.transpose(mask, axes)
    missing = tuple(i for i, a in enumerate(order) if a not in labels)
    return backend.numpy.expand_dims(mask, missing) if missing else mask


@covers(coverage.whole)
def correlate(call: Call) -> AnyTensor:
    """Masked entries count as 0; valid where any pair of valid ones meets."""
    call.args = tuple(map(ops.convert_to_tensor, call.args))
    values = call.compute(*(ops.filled(x, 0) for x in call.args))
    mask = _count_pairs(call, call.args)
    # PyTorch's backend drops the axis if there is one entry.
    return masks.wrap(ops.reshape(values, (-1,)), ops.reshape(mask, (-1,)))


@covers(coverage.whole)
def kron(call: Call) -> AnyTensor:
    """Every entry of the first times all of the second, valid if both are."""
    x, y = map(ops.convert_to_tensor, call.args)
    ndim = max(len(x.shape), len(y.shape))
    x, y = (
        ops.expand_dims(z, tuple(range(ndim - len(z.shape)))) for z in (x, y)
    )
    sizes = zip(ops.shape(x), ops.shape(y))
    x = ops.expand_dims(x, tuple(range(1, 2 * ndim, 2)))
    y = ops.expand_dims(y, tuple(range(0, 2 * ndim, 2)))
    product = ops.multiply(x, y)
    # How far the mask reaches must not depend on sizes, which may be unknown.
    product = masks.wrap(product.values, full_rank(product))
    return ops.reshape(product, tuple(n * m for n, m in sizes))


def cdist(call: Call) -> AnyTensor:
    """The distance of every row to every row, valid where both are."""
    x, y = map(ops.convert_to_tensor, call.args)
    for operand in (x, y):
        if ops.is_masked(operand) and len(operand.mask.shape) == len(
            operand.shape
        ):
            raise call.refuse("A distance needs all features of a row.")
    dtype = floating(x.dtype, y.dtype)
    x, y = ops.cast(x, dtype), ops.cast(y, dtype)
    between = ops.subtract(ops.expand_dims(x, -2), ops.expand_dims(y, -3))
    return ops.sqrt(ops.sum(ops.square(between), axis=-1))


def matmul(call: Call) -> Labelled:
    """(..., n, k) by (..., k, m), with batch axes that broadcast."""
    x, y = call.args
    x_batch = [f"batch{i}" for i in range(len(x.shape) - 2, 0, -1)]
    y_batch = [f"batch{i}" for i in range(len(y.shape) - 2, 0, -1)]
    batch = max(x_batch, y_batch, key=len)
    rows = ["n"] if len(x.shape) > 1 else []
    columns = ["m"] if len(y.shape) > 1 else []
    return (
        [x, y],
        [x_batch + rows + ["k"], y_batch + ["k"] + columns],
        batch + rows + columns,
    )


def dot(call: Call) -> Labelled:
    """The last axis of the first with the last but one of the second."""
    x, y = call.args
    if not len(x.shape) or not len(y.shape):
        raise call.refuse("A product with a scalar is `keras.ops.multiply`.")
    if backend.masked_kernels.DOT_IS_MATMUL:
        return matmul(call)
    rows = [f"n{i}" for i in range(len(x.shape) - 1)]
    others = [f"m{i}" for i in range(len(y.shape) - 1)]
    y_labels = others[:-1] + ["k"] + others[-1:]
    return [x, y], [rows + ["k"], y_labels], rows + others


def inner(call: Call) -> Labelled:
    """The last axes of both."""
    x, y = call.args
    rows = [f"n{i}" for i in range(len(x.shape) - 1)]
    others = [f"m{i}" for i in range(len(y.shape) - 1)]
    return [x, y], [rows + ["k"], others + ["k"]], rows + others


def outer(call: Call) -> Labelled:
    """Every entry of the first with every entry of the second."""
    x, y = call.args
    if len(x.shape) > 1 or len(y.shape) > 1:
        raise call.refuse("`outer` flattens; reshape to one axis first.")
    return [x, y], [["n"], ["m"]], ["n", "m"]


def vdot(call: Call) -> Labelled:
    """All entries of both, in their order."""
    x, y = call.args
    x_labels = [f"n{i}" for i in range(len(x.shape))]
    return [x, y], [x_labels, [f"m{i}" for i in range(len(y.shape))]], []


def _paired_axes(x, y, axes):
    """The axes of either operand that are summed over, in pairs."""
    if isinstance(axes, int):
        if not 0 <= axes <= min(len(x.shape), len(y.shape)):
            raise ValueError(
                "`axes` is the number of axes to sum over, which both operands "
                f"must have. Received: axes={axes}, shapes {tuple(x.shape)} "
                f"and {tuple(y.shape)}."
            )
        return range(len(x.shape) - axes, len(x.shape)), range(axes)
    x_axes, y_axes = (a if isinstance(a, (list, tuple)) else [a] for a in axes)
    x_axes = [canonical_axes(a, len(x.shape))[0] for a in x_axes]
    y_axes = [canonical_axes(a, len(y.shape))[0] for a in y_axes]
    # Of each operand an axis once, and as many of one as of the other.
    canonical_axes(x_axes, len(x.shape))
    canonical_axes(y_axes, len(y.shape))
    if len(x_axes) != len(y_axes):
        raise ValueError(
            "`axes` must name as many axes of one operand as of the other. "
            f"Received: axes={axes}."
        )
    return x_axes, y_axes


def tensordot(call: Call) -> Labelled:
    """The axes that are named, in pairs."""
    x, y = call.args
    x_axes, y_axes = _paired_axes(x, y, call.argument("axes", 2))
    x_labels = [f"n{i}" for i in range(len(x.shape))]
    y_labels = [f"m{i}" for i in range(len(y.shape))]
    for i, j in zip(x_axes, y_axes):
        y_labels[j] = x_labels[i]
    shared = set(x_labels) & set(y_labels)
    out = [a for a in x_labels + y_labels if a not in shared]
    return [x, y], [x_labels, y_labels], out


def einsum(call: Call) -> Labelled:
    """The axes as the subscripts name them."""
    subscripts = call.argument("subscripts").replace(" ", "")
    operands = list(call.args)
    inputs, _, output = subscripts.partition("->")
    labels = [
        _spell_out(names, len(x.shape))
        for names, x in zip(inputs.split(","), operands)
    ]
    if "->" in subscripts:
        dots = [sum(a.isdigit() for a in names) for names in labels]
        ndim = max([0, *dots])
        rest = len(output.replace("...", ""))
        out = _spell_out(output, ndim + rest)
    else:
        flat = [a for names in labels for a in names]
        dots = sorted({a for a in flat if a.isdigit()}, key=int, reverse=True)
        out = dots + sorted({a for a in flat if flat.count(a) == 1} - {*dots})
    if any(len(set(names)) < len(names) for names in labels):
        raise call.refuse("A label is repeated, so a diagonal is taken.")
    return operands, labels, out


def _spell_out(subscript, ndim):
    """Labels of one operand; the axes of an ellipsis are numbered from last."""
    before, dots, after = subscript.partition("...")
    if not dots:
        return list(subscript)
    hidden = ndim - len(before) - len(after)
    return [*before, *(str(i) for i in range(hidden, 0, -1)), *after]
