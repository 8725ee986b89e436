"""Control flow: masked tensors go through it whole, beside plain ones.

An engine's loops and branches carry nests of plain tensors. So masked tensors
are taken apart into `Parts`, which are nodes of such nests; the functions of
the user put them together on their way in and take them apart on their way
out. A function here gets as `plain` what does the same with plain tensors:
the public function of upstream, or the `compute_output_spec` of its operation,
so that specs come from the very same lines.
"""

import functools
import re
import sys
import typing

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common import hooks
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.backend.common.keras_tensor import needs_dispatch
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.composite import fields
from keras.src.composite.errors import UnsupportedTypeError
from keras.src.composite.errors import unsupported
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import from_foreign
from keras.src.masking.calls import takes_whole
from keras.src.masking.calls import values_of
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.masking.errors import refuse
from keras.src.masking.parts import Parts
from keras.src.masking.parts import from_parts
from keras.src.masking.refusals import refuse_masked
from keras.src.masking.rules.reduce import canonical_axes
from keras.src.ops import specs

hooks.fills("carry", sys.modules[__name__])

AGREE = "give both the same kind of mask with `keras.MaskedTensor`"


@takes_whole
def by_function(call: Call) -> Nest:
    """Carries masked tensors whole; its functions say what becomes of them."""
    return call.pass_on()


by_function.carries_nests = True


# ------------------------------------------------------- apart and together


def _parts(x):
    if isinstance(x, KerasTensor):
        # New ones: specs are found by ops that add nodes to what they take.
        specs = (x, x._mask_spec)
        return Parts(*(KerasTensor(y.shape, y.dtype) for y in specs))
    return Parts(x.values, x.mask)


def apart(nest: Nest) -> Nest:
    """The nest with `Parts` for each masked tensor, eager or symbolic."""
    if not needs_dispatch((nest,)):
        return nest

    def part(x):
        x = from_foreign(x)
        return _parts(x) if has_mask(x) else x

    return tree.map_structure(part, fields.apart(nest))


def _whole(values, mask):
    if isinstance(values, KerasTensor):
        return specs.masked_spec(values, mask)
    return masks.wrap(values, mask)


def together(nest: Nest, make: typing.Callable = _whole) -> Nest:
    """The nest with a masked tensor for each `Parts`."""
    if not _has_parts(nest):
        return nest
    return fields.together(from_parts(nest, make))


def _has_parts(nest):
    if isinstance(nest, dict):
        nest = tuple(nest.values())
    if not isinstance(nest, (list, tuple)):
        return False
    return (
        isinstance(nest, Parts)
        or fields.are_fields(nest)
        or any(map(_has_parts, nest))
    )


def _in_parts(function, check=None):
    """The function, of nests that are taken apart.

    Args:
        function: Function of the user. Anything else is left to the backend,
            to be refused.
        check: Is called with what it returns.
    """
    if not callable(function):
        return function

    def function_in_parts(*args, **kwargs):
        args, kwargs = together((args, kwargs))
        outputs = function(*args, **kwargs)
        if check is not None:
            check(outputs)
        return apart(outputs)

    return function_in_parts


def agree(
    op_name: str, first_name: str, first: Nest, second_name: str, second: Nest
) -> None:
    """Raises unless two nests have masks in the same places, of equal rank.

    Composite tensors have to be of one type, with the same static fields: what
    an engine says of these names neither. All else is left to the engine.
    """
    difference = fields.difference(first, second)
    if difference is not None:
        raise ValueError(
            f"In `keras.ops.{op_name}`, {first_name} and {second_name} have to "
            f"be of one kind, since an engine compiles them once. {difference} "
            "Let both have the same types, static fields and parts."
        )
    ours, others = _mask_ranks(first), _mask_ranks(second)
    if ours == others or not any(ours + others):
        return
    one, other = f"{len(ours)} tensors", f"{len(others)} tensors"
    if len(ours) == len(others):
        pairs = zip(ours, others)
        one, other = map(_words, next(p for p in pairs if p[0] != p[1]))
    raise refuse(
        op_name,
        tree.flatten((first, second)),
        f"{first_name} has {one} where {second_name} has {other}, and both "
        "have to be of one kind.",
        rule=AGREE,
    )


def _mask_ranks(nest):
    # Of no part: those of a branch may be out of reach once its trace is over.
    return [masks.covered(from_foreign(x)) for x in tree.flatten(nest)]


def _words(rank):
    if not rank:
        return "no mask"
    return "a mask over 1 axis" if rank == 1 else f"a mask over {rank} axes"


# ------------------------------------------------------------------ branches


def _branches(op_name, functions):
    """Branches in parts, which have to agree as far as they are run."""
    seen = {}

    def branch(name, function):
        def check(outputs):
            for other, found in seen.items():
                agree(op_name, other, found, name, outputs)
            seen[name] = outputs

        return _in_parts(function, check)

    return [branch(name, function) for name, function in functions]


def cond(
    plain: typing.Callable,
    pred: AnyTensor,
    true_fn: typing.Callable,
    false_fn: typing.Callable,
) -> Nest:
    """The branch that is taken may return masked tensors."""
    _refuse_composite("keras.ops.cond", pred)
    functions = ("`true_fn`", true_fn), ("`false_fn`", false_fn)
    return together(plain(pred, *_branches("cond", functions)))


def _refuse_composite(name, x):
    if isinstance(x, CompositeBase):
        raise unsupported(name, [x])


@takes_whole
def refused_predicate(call: Call) -> Nest:
    """Branches may give masked tensors; a masked predicate is refused."""
    raise call.refuse("A masked predicate is neither true nor false.")


def switch(
    plain: typing.Callable,
    index: AnyTensor,
    branches: typing.Sequence,
    *operands: Nest,
) -> Nest:
    """The branch that is taken may take and return masked tensors."""
    refuse_masked("switch", index, "A masked index names no branch.")
    _refuse_composite("keras.ops.switch", index)
    functions = [(f"branch {i}", f) for i, f in enumerate(branches)]
    branches = _branches("switch", functions)
    return together(plain(index, branches, *apart(operands)))


# --------------------------------------------------------------------- loops


def _carried(
    op_name: str,
    first_name: str,
    new_name: str,
    first: Nest,
    run: typing.Callable,
) -> Nest:
    """What a loop gives, whose state begins with the masks that it gets.

    The first step tells them. Then the loop begins anew, and what is plain of
    the first state is all valid. Each time there are more masks.

    Args:
        op_name: Name of the operation.
        first_name: What the first state is called.
        new_name: What the state after a step is called.
        first: The first state.
        run: Function of the first state, and of a function that it calls with
            the state after a step.
    """
    ranks = []

    def check(new):
        found = _mask_ranks(new)
        if _grows(_mask_ranks(first), found):
            ranks.append(found)
        agree(op_name, first_name, first, new_name, new)

    try:
        return run(first, check)
    except Exception:
        if not ranks:
            raise
        begun = _with_masks(first, ranks[0])
        # A number does not get the axes that a mask covers.
        if _mask_ranks(begun) != ranks[0]:
            raise
    return _carried(op_name, first_name, new_name, begun, run)


def _grows(ours, others):
    """Whether others have masks over more axes, and nowhere over less."""
    pairs = list(zip(ours, others))
    return (
        len(ours) == len(others)
        and ours != others
        and all(own <= other for own, other in pairs)
    )


def _with_masks(nest, ranks):
    """A nest whose masks cover so many axes; what was plain is all valid."""
    # In the order of `_mask_ranks`, which is not that of `map_structure`.
    leaves = map(_with_mask, tree.flatten(nest), ranks)
    return tree.pack_sequence_as(nest, list(leaves))


def _with_mask(x, rank):
    x = from_foreign(x)
    rank = min(rank, len(getattr(x, "shape", ())))
    if not rank:
        return x
    if isinstance(x, KerasTensor):
        mask = KerasTensor(x.shape[:rank], "bool")
        return specs.masked_spec(KerasTensor(x.shape, x.dtype), mask)
    if has_mask(x):
        return masks.wrap(x.values, masks.to_rank(x.mask, x.values, rank))
    values = backend.convert_to_tensor(x)
    shape = backend.shape(values)[:rank]
    return masks.wrap(values, backend.numpy.ones(shape, "bool"))


def while_loop(
    plain: typing.Callable,
    cond: typing.Callable,
    body: typing.Callable,
    loop_vars: Nest,
    maximum_iterations: int | None = None,
) -> Nest:
    """Loop variables may be masked, and stay so.

    One that `body` makes masked of a plain one begins as all valid.
    """

    def is_plain(answer):
        refuse_masked("while_loop", answer, "Its condition has to be plain.")

    def run(loop_vars, check):
        single = has_mask(from_foreign(loop_vars)) or isinstance(
            loop_vars, CompositeBase
        )

        def step(*args):
            new = body(*together(args))
            if single and not isinstance(new, (list, tuple)):
                new = (new,)
            check(new)
            return apart(new)

        outputs = together(
            plain(
                _in_parts(cond, is_plain),
                step,
                # Its parts would pass for two loop variables.
                apart((loop_vars,) if single else loop_vars),
                maximum_iterations=maximum_iterations,
            )
        )
        return outputs[0] if single else outputs

    names = "`loop_vars`", "what `body` returns"
    return _carried("while_loop", *names, loop_vars, run)


def fori_loop(
    plain: typing.Callable,
    lower: typing.Any,
    upper: typing.Any,
    body_fun: typing.Callable,
    init_val: Nest,
) -> Nest:
    """The state may hold masked tensors, and stays of its kind.

    What `body_fun` makes masked of a plain tensor begins as all valid.
    """
    refuse_masked("fori_loop", (lower, upper), "The bounds are plain numbers.")

    def run(state, check):
        body = _in_parts(body_fun, check)
        return together(plain(lower, upper, body, apart(state)))

    names = "`init_val`", "what `body_fun` returns"
    return _carried("fori_loop", *names, init_val, run)


def look_at_step(function: typing.Callable, *args: Nest) -> None:
    """Finds the masks of the state after a step of a loop in a graph.

    Only where something is masked: upstream runs no step to know its specs.

    Args:
        function: What a loop is given, of nests that are taken apart.
        *args: Its arguments, symbolic.
    """
    if not _has_parts(args):
        return
    try:
        backend.compute_output_spec(function, *args)
    except UnsupportedMaskError:
        raise
    except Exception:
        # It is the loop that says so, as it runs.
        pass


# ----------------------------------------------------- over the leading axis


def _elements(xs):
    """Takes apart what is gone through along its first axis.

    An element of a tensor whose mask covers that axis alone has no axis left
    to be masked along. It is plain, and 0 if it is not there.

    Returns:
        The nest, and a mask over the first axis that says which elements are
        there, None if all are.
    """
    alone = []

    def element(x):
        x = from_foreign(x)
        if not has_mask(x):
            return x
        parts = _parts(x)
        if len(parts.mask.shape) > 1:
            return parts
        # One without axes is said of each element.
        alone.append(masks.to_rank(parts.mask, parts.values, 1))
        return ops.filled(x, 0)

    if needs_dispatch((xs,)):
        xs = tree.map_structure(element, fields.apart(xs))
    return xs, functools.reduce(ops.logical_and, alone) if alone else None


def _where_there(outputs, there):
    """Masks what came of elements that are not there, along the first axis."""
    if there is None:
        return outputs

    def one(y):
        if y is None:
            return None
        values, mask = _parts(y) if has_mask(y) else (y, there)
        if mask is not there:
            axes = tuple(range(1, len(mask.shape)))
            mask = ops.logical_and(mask, ops.expand_dims(there, axes))
        if isinstance(values, KerasTensor):
            return specs.masked_spec(values, mask)
        # With 0 under the mask: of 0 there the function may make infinity.
        return backend.MaskedTensor(values, mask)

    return tree.map_structure(one, outputs)


def map_(plain: typing.Callable, f: typing.Callable, xs: Nest) -> Nest:
    """Elements may be masked; one that is not there gives none."""
    xs, there = _elements(xs)
    return _where_there(together(plain(_in_parts(f), xs)), there)


def vectorized_map(
    plain: typing.Callable, function: typing.Callable, elements: Nest
) -> Nest:
    """As `map_`, whose arguments have other names."""
    return map_(plain, function, elements)


def scan(
    plain: typing.Callable,
    f: typing.Callable,
    init: Nest,
    xs: Nest = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[Nest, Nest]:
    """Carry and elements may be masked; a step that is not there is skipped.

    The carry then stays as it was, and the step has no output. Where `f` makes
    a masked carry of a plain one, this begins as all valid.
    """
    options: Named = dict(length=length, reverse=reverse, unroll=unroll)
    xs, there = _elements(xs)

    def run(init, check):
        def step(carry, x):
            x, is_there = (x, None) if there is None else x
            new, y = f(together(carry), together(x))
            check(new)
            return _kept(carry, apart(new), is_there), apart(y)

        return plain(
            step if callable(f) else f,
            apart(init),
            xs if there is None else (xs, there),
            **options,
        )

    names = "`init`", "the carry that `f` returns"
    carry, ys = _carried("scan", *names, init, run)
    return together(carry), _where_there(together(ys), there)


def _kept(carry, new, is_there):
    """The new carry; the old one after a step that is not there."""
    if is_there is None:
        return new
    return tree.map_structure(
        lambda after, before: ops.where(is_there, after, before), new, carry
    )


def associative_scan(
    plain: typing.Callable,
    f: typing.Callable,
    elems: Nest,
    reverse: bool = False,
    axis: int = 0,
) -> Nest:
    """Elements may be masked, as the function takes and returns them."""
    elems = fields.apart(elems)
    leaves = [from_foreign(x) for x in tree.flatten(elems)]
    if not any(map(has_mask, leaves)):
        check = functools.partial(
            agree, "associative_scan", "`elems`", elems, "what `f` returns"
        )
        scans = plain(_in_parts(f, check), elems, reverse=reverse, axis=axis)
        return together(scans)
    (axis,) = canonical_axes(axis, len(leaves[0].shape))
    leaves = [_over_axis(x, axis) if has_mask(x) else x for x in leaves]
    elems = tree.pack_sequence_as(elems, leaves)

    def combine(a, b):
        c = f(together(a, _of_integer), together(b, _of_integer))
        agree("associative_scan", "`elems`", elems, "what `f` returns", c)
        return _as_integers(c)

    scans = plain(combine, _as_integers(elems), reverse=reverse, axis=axis)
    # Some come back in another dtype, again from being added up.
    scans = tree.map_structure(
        lambda y, x: ops.cast(y, backend.standardize_dtype(x.dtype)),
        scans,
        _as_integers(elems),
    )
    return together(scans, _of_integer)


# Masks as integers: some backends add up what they interleave.


def _as_integers(nest):
    return from_parts(
        apart(nest), lambda values, mask: Parts(values, ops.cast(mask, "int32"))
    )


def _of_integer(values, mask):
    return _whole(values, ops.cast(mask, "bool"))


def _over_axis(x, axis):
    """The masked tensor, with a mask that covers this axis."""
    values, mask = _parts(x)
    missing = axis + 1 - len(mask.shape)
    if missing <= 0:
        return x
    rest = tuple(range(axis + 1, len(values.shape)))
    ones = ops.all(ops.ones_like(values, dtype="bool"), axis=rest)
    axes = tuple(range(len(mask.shape), axis + 1))
    return _whole(values, ops.logical_and(ops.expand_dims(mask, axes), ones))


# --------------------------------------------------------------- derivatives


def _check_tangents(primals, tangents):
    """Raises where a tangent has another type than its primal."""
    if not any(map(_has_parts, (primals, tangents))):
        return
    try:
        tree.assert_same_structure(primals, tangents)
    except (TypeError, ValueError):
        primals, tangents = map(fields.together, (primals, tangents))
        raise UnsupportedTypeError(
            "`keras.ops.jvp` takes a tangent of the type of each primal, with "
            f"the same static fields. Received primals {primals!r} and "
            f"tangents {tangents!r}."
        ) from None


def _of_number(values, mask):
    """A masked tensor of its values, and of a mask that is a number."""
    return _whole(values, ops.greater(mask, 0.5))


def _primal(x):
    """`Parts` for a masked primal, with a number for its mask."""
    if not has_mask(x):
        return x
    values, mask = _parts(x)
    return Parts(values, ops.cast(mask, "float32"))


def _tangent(x, t):
    """`Parts` for the tangent of a masked primal."""
    if not has_mask(x):
        reason = "A tangent may be masked where its primal is."
        refuse_masked("jvp", t, reason, rule=AGREE)
        return t
    t = ops.filled(t, 0)
    mask = ops.cast(_parts(x).mask, "float32")
    if not isinstance(t, KerasTensor) and not isinstance(x, KerasTensor):
        t = masks.fill(backend.convert_to_tensor(t), x.mask, 0)
    return Parts(t, ops.zeros_like(mask))


def _masks_aside(outputs):
    """The nest with `Parts` of values alone, and the masks that were there."""
    found = []

    def aside(y):
        if not has_mask(y):
            return y
        found.append(y.mask)
        # An empty nest says that there is a mask.
        return Parts(y.values, ())

    return tree.map_structure(aside, fields.apart(outputs)), found


def jvp(
    plain: typing.Callable,
    fun: typing.Callable,
    primals: Nest,
    tangents: Nest,
    has_aux: bool = False,
) -> tuple:
    """Primals may be masked; a tangent has the mask of its primal.

    A mask is a constant. It is passed as a number with the tangent 0, since
    the function may be traced where it is not at hand. A masked entry of a
    tangent is no step away from its primal: 0.
    """
    primals, tangents = (
        tree.map_structure(from_foreign, fields.apart(nest))
        for nest in (primals, tangents)
    )
    _check_tangents(primals, tangents)

    def with_masks_aside(*args):
        outputs = fun(*together(args, _of_number))
        outputs, aux = outputs if has_aux else (outputs, ())
        outputs, found = _masks_aside(outputs)
        return outputs, (found, apart(aux))

    flat = tree.flatten(primals)
    tangents = [_tangent(*p) for p in zip(flat, tree.flatten(tangents))]
    tangents = tree.pack_sequence_as(primals, tangents)
    primals = tree.map_structure(_primal, primals)
    outputs, slopes, (found, aux) = plain(
        with_masks_aside, primals, tangents, has_aux=True
    )

    def with_masks(nest):
        own = iter(found)
        return together(nest, lambda values, _: _whole(values, next(own)))

    results = with_masks(outputs), with_masks(slopes)
    return (*results, together(aux)) if has_aux else results


# ----------------------------------------------------------------- vectorize


def _giving_plain(pyfunc):
    def one(*args, **kwargs):
        result = pyfunc(*args, **kwargs)
        refuse_masked(
            "vectorize", result, "`pyfunc` has to return plain tensors."
        )
        return result

    return one


def _looped(args, kwargs, excluded):
    """The arguments that are looped over; others must be plain."""
    looped = [x for i, x in enumerate(args) if i not in excluded]
    others = [x for i, x in enumerate(args) if i in excluded]
    others += [x for x in looped if isinstance(x, KerasTensor)]
    refuse_masked(
        "vectorize",
        (others, kwargs),
        "Only eager arguments that are passed by position and not excluded "
        "may be masked.",
    )
    return looped


def vectorize(
    plain: typing.Callable,
    pyfunc: typing.Callable,
    *,
    excluded: typing.Any = None,
    signature: str | None = None,
) -> typing.Callable:
    """The vectorized function merges the masks of its arguments.

    `pyfunc` meets no mask: it sees scalars, or with a signature the core axes,
    which have none. What it makes of masked entries is replaced by 0.
    """

    if not callable(pyfunc):
        return plain(pyfunc)
    of_plain = _giving_plain(pyfunc)
    vectorized = plain(of_plain, excluded=excluded, signature=signature)
    cores_in, cores_out = _core_ranks(signature)
    excluded = excluded or ()

    @functools.wraps(pyfunc)
    def function(*args, **kwargs):
        args = [from_foreign(x) for x in args]
        looped = _looped(args, kwargs, excluded)
        cores = cores_in or [0] * len(looped)
        own = [
            _loop_mask(x, core) for x, core in zip(looped, cores) if has_mask(x)
        ]
        outputs = vectorized(*map(values_of, args), **kwargs)
        if not own:
            return outputs
        mask = functools.reduce(ops.logical_and, own)
        return _masked_loop(outputs, mask, cores_out)

    return function


def _masked_loop(outputs, mask, cores):
    """What a loop gave, with the mask of its axes."""

    def one(y, core):
        loop = backend.shape(y)[: len(y.shape) - core]
        return backend.MaskedTensor(y, ops.broadcast_to(mask, loop))

    if isinstance(outputs, (list, tuple)):
        return type(outputs)(map(one, outputs, cores or [0] * len(outputs)))
    return one(outputs, cores[0] if cores else 0)


def _core_ranks(signature):
    """Numbers of core axes of arguments and results, None without any."""
    if signature is None:
        return None, None
    return [
        [len(re.findall(r"\w+", core)) for core in re.findall(r"\(.*?\)", side)]
        for side in signature.split("->")
    ]


def _loop_mask(x, core):
    """The mask over all axes that are looped over."""
    loop = len(x.shape) - core
    if len(x.mask.shape) > loop:
        raise refuse("vectorize", [x], "A mask must not cover core axes.")
    return masks.to_rank(x.mask, x.values, loop)


def grad(
    plain: typing.Callable, f: typing.Callable, argnums: typing.Any = 0
) -> typing.Callable:
    """Differentiates by the values of masked tensors; a mask is a constant.

    A gradient has the mask of its argument. A masked result is summed over its
    valid entries, as a plain one is over all.
    """
    single = isinstance(argnums, int)

    def gradient(*args, **kwargs):
        args = tree.map_structure(from_foreign, args)
        places = [i % len(args) for i in ([argnums] if single else argnums)]

        def total(*values, **kwargs):
            given = list(values)
            for i in places:
                given[i] = tree.map_structure(_covered_as, args[i], values[i])
            output = f(*given, **kwargs)
            return ops.sum(output) if has_mask(output) else output

        values = list(args)
        for i in places:
            values[i] = tree.map_structure(values_of, args[i])
        found = plain(total, argnums)(*values, **kwargs)
        found = [
            tree.map_structure(_covered_as, args[i], one)
            for i, one in zip(places, [found] if single else found)
        ]
        return found[0] if single else tuple(found)

    return gradient


def _covered_as(x, values):
    """The values, masked where `x` is, if it is masked."""
    return masks.wrap(values, x.mask) if has_mask(x) else values


def custom_gradient(
    plain: typing.Callable, f: typing.Callable
) -> typing.Callable:
    """The function sees the values of one masked argument; see `ops.core`.

    Args:
        plain: What upstream makes of it.
        f: Function of the user, for its name.
    """

    def function(*args, **kwargs):
        masked = [x for x in args if isinstance(x, MaskedTensorBase)]
        if not masked:
            return plain(*args, **kwargs)
        if len(masked) > 1 or len(masked[0].mask.shape) == masked[0].ndim:
            raise refuse(
                getattr(f, "__name__", "custom_gradient"),
                args,
                "What a function with a gradient of its own does to a mask is "
                "known only for one masked argument whose last axis has none.",
                rule="call it on `x.values` and wrap what it returns in a "
                "`keras.MaskedTensor`",
            )
        # What it and its gradient make of 0 may be infinite.
        outputs = plain(*map(masks.filled, args), **kwargs)
        mask = masked[0].mask
        return tree.map_structure(lambda y: masks.settled(y, mask), outputs)

    return function
