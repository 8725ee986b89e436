"""The symbolic side: specs of masked results, told by families or traced."""

import contextlib
import functools
import re
import typing

from keras.src import backend
from keras.src import tree
from keras.src.backend.common import hooks
from keras.src.backend.common import masking as attributes
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Operation
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.composite import rules
from keras.src.masking import calls
from keras.src.masking import dispatch
from keras.src.masking import masks
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.masking.masks import expand
from keras.src.masking.masks import wrap
from keras.src.masking.refusals import is_from_keras
from keras.src.ops.specs import masked_spec


def any_masked(args: Nest, kwargs: Nest) -> bool:
    """Whether a masked tensor, eager or symbolic, is among the arguments."""
    items = (*args, *kwargs.values())
    return any(map(has_mask, items)) or any(
        has_mask(leaf)
        for x in items
        if tree.is_nested(x)
        for leaf in tree.flatten(x)
    )


def values_spec(x: AnyTensor) -> AnyTensor:
    """The spec of the values of `x`; what has no mask, as it is."""
    if isinstance(x, MaskedTensorBase):
        return x.values
    if has_mask(x):
        # With a history: some operations find their spec by calling others.
        return KerasTensor(x.shape, x.dtype)
    return x


@hooks.fills("output_spec")
def output_spec(op: Operation, args: typing.Sequence, kwargs: Named) -> Nest:
    """Spec of a call of an operation with operands of any kind.

    Of masked ones, the values come from the operation's own
    `compute_output_spec`, the masks from the family of its rule, or from
    tracing the rule.

    Args:
        op: Operation.
        args: Its operands.
        kwargs: Its operands by name.

    Returns:
        The structure of `KerasTensor` that the call returns.
    """
    if any_composite(args, kwargs):
        return rules.output_spec(op, args, kwargs)
    if not any_masked(args, kwargs):
        return op.compute_output_spec(*args, **kwargs)

    def run(*args, **kwargs):
        return dispatch.call_of(op, args, kwargs).apply_rule()

    call = dispatch.call_of(op, args, kwargs)
    coverage = getattr(call.row.rule, "coverage", None)
    try:
        if coverage is not None:

            def told(specs):
                return [coverage(call, spec) for spec in specs]

            return told_spec(op, told, run, args, kwargs)
        return traced_spec(op, run, args, kwargs)
    except Exception as error:
        # With the sizes of the graph: tracing makes up some.
        explained = call.explained(error)
        if explained is error:
            raise
        raise explained from None


def told_spec(
    op: Operation,
    coverage: typing.Callable,
    fn: typing.Callable,
    args: typing.Sequence,
    kwargs: Named,
) -> Nest:
    """Spec of a call whose masks need no tracing, as far as that is so.

    Args:
        op: Operation or layer, which tells the spec of the values.
        coverage: Function of the specs of the values of all results. Of each
            it gives how many axes its mask covers, 0 if it is plain, None if
            only tracing tells.
        fn: What to trace then.
        args: Its operands.
        kwargs: Its operands by name.
    """
    specs = _plain_specs(op, args, kwargs)
    flat = tree.flatten(specs)
    covered = coverage(flat)
    if None in covered:
        return traced_spec(op, fn, args, kwargs)
    flat = [covered_spec(*pair) for pair in zip(flat, covered)]
    return tree.pack_sequence_as(specs, flat)


def _plain_specs(op, args, kwargs):
    args, kwargs = tree.map_structure(values_spec, (args, kwargs))
    return op.compute_output_spec(*args, **kwargs)


def traced_spec(
    op: Operation, fn: typing.Callable, args: typing.Sequence, kwargs: Named
) -> Nest:
    """Spec of a call whose masks are found by tracing it.

    Who declares what a call gives may do in it what cannot be traced, with the
    sizes that are made up or at all. As long as it does not refuse masks, it
    is taken to hand on that of its input.

    Args:
        op: Operation or layer, which tells the spec of the values.
        fn: What to trace.
        args: Its operands.
        kwargs: Its operands by name.
    """
    specs = _plain_specs(op, args, kwargs)
    try:
        traced = _trace(fn, args, kwargs)
    except UnsupportedMaskError:
        raise
    except Exception:
        if is_from_keras(type(op).__module__):
            raise
        traced = _handed_on(fn, specs, args, kwargs)
    # A list on one side may be a tuple on the other.
    pairs = zip(tree.flatten(specs), tree.flatten(traced))
    return tree.pack_sequence_as(specs, [with_mask_of(*p) for p in pairs])


def _trace(fn, args, kwargs):
    """Specs of what a function gives, of which the masks count.

    A backend makes up one size for all that are unknown, which need not fit
    those that are known. If it does not, those of other operands take its
    place.
    """
    try:
        return backend.compute_output_spec(fn, *args, **kwargs)
    except UnsupportedMaskError:
        raise
    except Exception:
        for known_args, known_kwargs in _with_known_sizes(args, kwargs):
            with contextlib.suppress(Exception):
                return backend.compute_output_spec(
                    fn, *known_args, **known_kwargs
                )
        raise


def _handed_on(fn, specs, args, kwargs):
    """Specs of which the masks count, where sizes made up did not fit.

    A table of positions has a last one, so unknown sizes are small.
    """
    few = dict(enumerate((2, 3, 5, 7, 11, 13, 17)))
    small = functools.partial(_with_sizes, few, 1)
    with contextlib.suppress(Exception):
        some_args, some_kwargs = tree.map_structure(small, (args, kwargs))
        return backend.compute_output_spec(fn, *some_args, **some_kwargs)
    first = next(filter(has_mask, tree.flatten((args, kwargs))))
    covered = masks.covered(first)

    def as_first(spec):
        fits = spec.shape[:covered] == first.shape[:covered]
        return covered_spec(spec, covered if fits else 0)

    return tree.map_structure(as_first, specs)


def _with_known_sizes(args, kwargs):
    """The arguments, with the sizes of others in place of unknown ones.

    Those that are as far from the first axis, and those as far from the last.
    """
    symbols = [
        x for x in tree.flatten((args, kwargs)) if isinstance(x, KerasTensor)
    ]
    if not any(None in x.shape for x in symbols):
        return
    for order in (1, -1):
        known = {}
        for x in symbols:
            for a, n in enumerate(x.shape[::order]):
                if n not in (None, 1):
                    known.setdefault(a, n)
        one = functools.partial(_with_sizes, known, order)
        yield tree.map_structure(one, (args, kwargs))


def _with_sizes(known, order, x):
    """A symbolic tensor with known sizes, counted in an order of the axes."""
    if not isinstance(x, KerasTensor):
        return x
    sizes = enumerate(x.shape[::order])
    sizes = [known.get(a) if n is None else n for a, n in sizes]
    spec = KerasTensor(sizes[::order], x.dtype)
    return covered_spec(spec, masks.covered(x))


def with_mask_of(spec: KerasTensor, traced: AnyTensor) -> KerasTensor:
    """The spec of the values, with the mask that tracing found."""
    mask = getattr(traced, "_mask_spec", None)
    if mask is None or not isinstance(spec, KerasTensor):
        return spec
    return covered_spec(spec, len(mask.shape))


def covered_spec(spec: KerasTensor, covered: int | None) -> KerasTensor:
    """The spec of values, with a mask over so many leading axes.

    The sizes are those of the values: tracing makes up a number for an unknown
    one, and may compute with it.
    """
    if not covered:
        return spec
    return masked_spec(spec, KerasTensor(spec.shape[:covered], "bool"))


def mask_as_given(x: KerasTensor) -> KerasTensor | None:
    """The spec of the mask in the form in which an old layer gave it.

    At run time the mask knows its form. It is the same object as long as there
    is one masked input to what is computed, so the graph is asked for that.

    Args:
        x: Symbolic tensor.

    Returns:
        The spec of the mask itself where there is no other form, and None
        where there is no mask.
    """
    origin = x
    while has_mask(origin):
        given = attributes.as_given(origin._mask_spec)
        if given is not origin._mask_spec:
            note_form(x._mask_spec, given)
            break
        history = getattr(origin, "_keras_history", None)
        if history is None or history.operation is None:
            break
        node = history.operation._inbound_nodes[history.node_index]
        masked = {id(y): y for y in node.input_tensors if has_mask(y)}
        if len(masked) != 1:
            break
        (origin,) = masked.values()
    return None if x._mask_spec is None else attributes.as_given(x._mask_spec)


def note_form(mask: Mask, given: Mask) -> None:
    """Notes for a mask, or its spec, that old layers know it in this form.

    Args:
        mask: Mask over leading axes.
        given: A spec of it, or the mask itself, of another dtype or with axes
            of size 1 at its end.
    """
    dtype = backend.standardize_dtype(given.dtype)
    extra = len(given.shape) - len(mask.shape)
    if extra < 0 or (dtype == "bool" and not extra):
        return
    if isinstance(mask, KerasTensor):
        shape = (*mask.shape, *(1,) * extra)
        form = KerasTensor(shape, dtype, record_history=False)
    else:
        form = backend.cast(expand(mask, len(given.shape)), dtype)
    attributes.remember_as_given(mask, form)


@hooks.fills("trace")
def carry_masks(
    compute_output_spec: typing.Callable,
    fn: typing.Callable,
    args: typing.Sequence,
    kwargs: Named,
) -> Nest:
    """Runs a backend's `compute_output_spec` on arguments with masks.

    A backend knows how to make a place holder of a symbolic tensor and a spec
    of a tensor. Masks are passed beside the values, as tensors of their own.

    Args:
        compute_output_spec: The backend's, which knows no masks.
        fn: Function to trace.
        args: Its arguments, with masked `KerasTensor`s among them.
        kwargs: Its arguments by name.

    Returns:
        The structure that `fn` returns, with `KerasTensor`s for tensors and
        masked ones for masked tensors.
    """
    leaves = tree.flatten((args, kwargs))
    places = [i for i, x in enumerate(leaves) if isinstance(x, KerasTensor)]
    symbols = [leaves[i] for i in places]
    found = {}

    # Only symbolic tensors are passed. JAX would take the rest, the slices of
    # an index among them, for arrays to trace.
    def run(values, masks):
        masks = iter(masks)
        flat = list(leaves)
        for i, x, value in zip(places, symbols, values):
            # NumPy runs the code on what memory holds, which is no place to
            # look up. Where nothing is valid, rules put harmless numbers.
            mask = None
            if "int" in x.dtype:
                value = backend.numpy.zeros_like(value)
            if has_mask(x):
                mask = backend.numpy.zeros_like(next(masks))
                note_form(mask, mask_as_given(x))
            flat[i] = wrap(value, mask)
        args_and_kwargs = tree.pack_sequence_as((args, kwargs), flat)
        outputs = fn(*args_and_kwargs[0], **args_and_kwargs[1])
        flat = tree.flatten(outputs)
        # No None, which would be a part that is not there.
        found["structure"] = tree.map_structure(lambda _: 0, outputs)
        found["masked"] = [isinstance(x, MaskedTensorBase) for x in flat]
        # Not all backends take None among the outputs.
        found["none"] = [x is None for x in flat]
        values = [calls.values_of(x) for x in flat if x is not None]
        return values, [x.mask for x in flat if has_mask(x)]

    try:
        specs, mask_specs = compute_output_spec(
            run,
            [values_spec(x) for x in symbols],
            [x._mask_spec for x in symbols if has_mask(x)],
        )
    except Exception as error:
        _name_unknown_sizes(error, symbols)
        raise
    specs, mask_specs = iter(specs), iter(mask_specs)
    flat = []
    for is_none, is_masked in zip(found["none"], found["masked"]):
        spec = None if is_none else next(specs)
        flat.append(masked_spec(spec, next(mask_specs)) if is_masked else spec)
    return tree.pack_sequence_as(found["structure"], flat)


# What backends take for an unknown size: NumPy and PyTorch two numbers in turn,
# JAX a symbol.
_MADE_UP = (83, 89)
_SIZES = re.compile(r"(?:(?<![\w.])|(?<=\dx))\d+(?=x|\b)|\bdynamic_dimension\b")


def _name_unknown_sizes(error, symbols):
    """Writes None for the sizes that tracing made up, in what an error says.

    And for their multiples, which are not known either.
    """
    sizes = {n for x in symbols for n in x.shape}
    if None not in sizes:
        return

    def of_graph(found):
        size = found[0]
        if size.isdigit() and (
            int(size) in (0, *sizes) or all(int(size) % n for n in _MADE_UP)
        ):
            return size
        return "None"

    def rewritten(text):
        return _SIZES.sub(of_graph, text) if isinstance(text, str) else text

    error.args = tuple(map(rewritten, error.args))
    notes = getattr(error, "__notes__", None)
    if notes:
        notes[:] = map(rewritten, notes)
