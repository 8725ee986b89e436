"""How a layer takes masked tensors: by type, by name, or the old way.

A protocol is a function of a layer, of what runs the layer, and of the
arguments. It hands the arguments on in the form that the layer's `call` asks
for, and gives back what comes out as masked tensors. It is chosen once for
each layer and applies wherever `call` is run.
"""

import contextlib
import inspect
import itertools
import sys
import threading
import warnings
import weakref
from operator import eq

from keras.src import backend
from keras.src import tree
from keras.src.backend.common import masking as attributes
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.keras_tensor import needs_dispatch
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.backend.common.variables import shape_equal
from keras.src.masking import masks
from keras.src.masking import symbolic
from keras.src.masking.dispatch import values_of
from keras.src.masking.errors import WAYS_OUT
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.masking.errors import has_mask
from keras.src.masking.errors import keep_notes
from keras.src.masking.errors import refuse
from keras.src.masking.refusals import is_from_keras
from keras.src.utils.python_utils import is_default


def of(layer):
    """The protocol of a layer: what its class asks for, or Keras's choice.

    A class from outside that asks for masks in a `call` of its own, or that
    computes them, is given them, whatever Keras chose for its base.
    """
    chosen = choose(layer)
    is_own = not _defined_in_keras(type(layer), "call")
    if chosen is legacy or (chosen is named and is_own):
        return chosen
    return layer._choose_protocol()


def choose(layer):
    """The protocol of a layer, read off its class and its `call`."""
    if is_legacy(layer):
        return legacy
    return named if _asks(layer.call_signature_parameters) else by_type


def _asks(names):
    """Whether there is a name for a mask among those of the arguments."""
    return "mask" in names or any(f"{name}_mask" in names for name in names)


def by_type(layer, run, args, kwargs):
    """`call(self, x)` sees masked tensors and returns what its ops make."""
    if has_mask(kwargs.get("mask")):
        kwargs = {**kwargs, "mask": plain_mask(kwargs["mask"])}
    try:
        return _without_scope(run, args, kwargs)
    except TypeError as error:
        if symbolic.any_masked(args, kwargs):
            _explain(error, layer)
        raise


def using_up(layer, run, args, kwargs):
    """As by type, for a layer whose job is to use the masked axes up.

    What it returns is plain, 0 where nothing was valid. A mask over the batch
    alone is not used up.
    """
    outputs = by_type(layer, run, args, kwargs)
    inputs = args[0] if args else next(iter(kwargs.values()))
    if isinstance(inputs, MaskedTensorBase) and len(inputs.mask.shape) > 1:
        return values_of(outputs)
    return outputs


def _explain(error, layer):
    """Adds the way out to the error of an engine, once for all layers."""
    keep_notes(error)
    notes = getattr(error, "__notes__", ())
    told = any(note.startswith(("In `", "Layer '")) for note in notes)
    if told or isinstance(error, UnsupportedMaskError):
        return
    error.add_note(
        f"Layer '{layer.name}' (of type {type(layer).__name__}) was called on "
        "a masked tensor, which its `call` sees as it is. Functions of the "
        "backend do not know masks: use `keras.ops` in `call`. "
        + WAYS_OUT.format(rule="let `call` have a `mask` argument")
    )


def named(layer, run, args, kwargs):
    """`call(self, x, mask=None)` asks for the mask, and gets plain values.

    `mask` belongs to the first argument, `<arg>_mask` to `<arg>`. A mask that
    is passed by the caller beats the tensor's own. The plain values that a
    user's `call` gets carry their masks as an attribute, as upstream's do: the
    layers that it hands them to see the masks.
    """
    if not needs_dispatch(args, kwargs) or not symbolic.any_masked(
        args, kwargs
    ):
        if args and isinstance(args[0], (list, tuple, dict)):
            args, kwargs = with_empty_masks(layer, args, kwargs)
        return _without_scope(run, args, kwargs)
    bound = layer._call_signature.bind(*args, **kwargs)
    given = dict(bound.arguments)
    first = next(iter(given.values()))
    if _defined_in_keras(type(layer), "call"):
        fill_in_masks(layer, bound)
        args, kwargs = _as_passed(bound, given, args, kwargs)
        return _without_scope(run, args, kwargs)
    with _in_scope(Scope(is_old=False)) as scope:
        filled_in = fill_in_masks(layer, bound, scope.hang)
        passed, by_name = _as_passed(bound, given, args, kwargs)
        outputs = run(*passed, **by_name)
        hung = [attributes.get_keras_mask(y) for y in tree.flatten(outputs)]
    flat = map(masked_at_the_door, tree.flatten(outputs), hung)
    outputs = tree.pack_sequence_as(outputs, list(flat))
    _warn_if_lost(layer, first, filled_in, outputs, (args, kwargs))
    return outputs


def with_empty_masks(layer, args, kwargs):
    """The arguments of a call on a plain nest, which upstream gives a mask.

    It is a nest, too, of None for each tensor: authors take it apart.
    """
    if _defined_in_keras(type(layer), "call"):
        return args, kwargs
    args, kwargs, _ = _fill_in_as_upstream(layer, args, kwargs)
    return args, kwargs


def _as_passed(bound, given, args, kwargs):
    """The arguments of a call with new ones among them.

    What the caller passed by position stays there, and what is new goes by
    name: packages wrap their `call`, which takes masks by name only.

    Args:
        bound: `inspect.BoundArguments` of the call, with new arguments.
        given: Those that there were before, by their names.
        args: The positional ones among these.
        kwargs: The others.
    """
    args, kwargs = list(args), dict(kwargs)
    parameters = bound.signature.parameters
    places = {name: i for i, name in enumerate(parameters)}
    for name, value in bound.arguments.items():
        if value is given.get(name):
            continue
        kind = parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            args[places[name] :] = value
        elif kind is inspect.Parameter.VAR_KEYWORD:
            kwargs.update(value)
        elif name not in kwargs and places[name] < len(args):
            args[places[name]] = value
        else:
            kwargs[name] = value
    return tuple(args), kwargs


def fill_in_masks(layer, bound, take_apart=values_of):
    """Takes masked arguments apart, and passes masks by their names.

    Args:
        layer: The layer.
        bound: `inspect.BoundArguments` of its `call`, changed in place.
        take_apart: Function that gives the values of a masked tensor.

    Returns:
        The mask of the first argument, or None.
    """
    names = list(layer._call_signature.parameters)
    is_of_keras = _defined_in_keras(type(layer), "call")
    first_mask = None
    fill_in_plain_masks(bound)
    for name, value in list(bound.arguments.items()):
        if not any(has_mask(x) for x in tree.flatten(value)):
            continue
        mask_name = f"{name}_mask"
        if mask_name not in names:
            mask_name = "mask"
            if name != names[0] or mask_name not in names:
                raise refuse(
                    layer.name,
                    tree.flatten(value),
                    f"`{type(layer).__name__}.call()` has no argument "
                    f"`{name}_mask` for the mask of its argument `{name}`.",
                    rule=f"give `call` an argument `{name}_mask`",
                )
        mask = tree.map_structure(
            _own_mask if is_of_keras else mask_as_given, value
        )
        if bound.arguments.get(mask_name) is None:
            bound.arguments[mask_name] = mask
        if name == names[0]:
            first_mask = bound.arguments[mask_name]
        bound.arguments[name] = tree.map_structure(take_apart, value)
    return first_mask


def fill_in_plain_masks(bound):
    """Makes plain ones of masks that are masked themselves.

    Where a model that upstream saved computes its masks in its graph, and
    where an author does, from tensors that are masked, the masks are, too.
    """
    for name, value in bound.arguments.items():
        if name == "mask" or name.endswith("_mask"):
            bound.arguments[name] = tree.map_structure(plain_mask, value)


def plain_mask(mask):
    """A mask as a plain tensor: where it is masked, nothing is valid."""
    if not isinstance(mask, MaskedTensorBase):
        return mask
    return masks.fill(mask.values, mask.mask, 0)


def _own_mask(x):
    return x.mask if isinstance(x, MaskedTensorBase) else None


def mask_as_given(x):
    """The mask of a tensor in the form in which an old layer gave it.

    Args:
        x: Masked tensor, plain one with a mask hung on it, or symbolic one, of
            which the spec of the mask is given.
    """
    if isinstance(x, KerasTensor):
        return symbolic.mask_as_given(x)
    return attributes.as_given(attributes.get_keras_mask(x))


def _warn_if_lost(layer, inputs, mask, outputs, given):
    """Warns once per class if a user's layer returns its steps unmasked.

    Args:
        layer: The layer.
        inputs: Its first argument.
        mask: The mask of it, as the layer was given it.
        outputs: What it returned.
        given: `(args, kwargs)` of the call, with masked tensors.
    """
    cls = type(layer)
    if (cls, UserWarning) in _warned:
        return
    outputs = tree.flatten(outputs)
    if any(has_mask(y) for y in outputs):
        return
    pairs = list(zip(tree.flatten(inputs), tree.flatten(mask)))
    for y, (x, m) in itertools.product(outputs, pairs):
        if m is not None and _has_steps_of(y, x, m):
            break
    else:
        return
    if len(y.shape) < len(x.shape) and not in_symbolic_scope():
        # A state is as wide as there are steps, or there is a number for each.
        if layer in _asked or not _tell_by_other_lengths(layer, given):
            return
    # While tracing, sizes that are not known are made up.
    shapes = ("", "") if in_symbolic_scope() else map(_of_shape, (m, y))
    _warn_once(
        cls,
        UserWarning,
        "Layer '{}' (of type {}) was given a mask{} and returned a plain "
        "tensor{}: the mask ends here. To keep it, return "
        "`keras.MaskedTensor(outputs, mask)` from `call`.".format(
            layer.name, cls.__name__, *shapes
        ),
        _place_of(cls, "call"),
    )


def _tell_by_other_lengths(layer, given):
    """Traces a call with lengths that are made up, and warns where it loses
    them.

    Returns:
        Whether the call cannot be traced.
    """
    _asked.add(layer)
    args, kwargs = tree.map_structure(_of_any_length, given)
    try:
        backend.compute_output_spec(layer._run_call, *args, **kwargs)
    except Exception:
        return True
    return False


def _of_any_length(x):
    if not isinstance(x, MaskedTensorBase):
        return x
    unknown = (None,) * (len(x.mask.shape) - 1)
    shape = (x.shape[0], *unknown, *x.shape[len(unknown) + 1 :])
    mask = KerasTensor((x.mask.shape[0], *unknown), "bool")
    return KerasTensor(shape, x.dtype, mask=mask)


def _of_shape(x):
    return f" of shape {tuple(x.shape)}"


def _has_steps_of(y, x, mask):
    """Whether an output has the steps, or some steps, of a masked input."""
    shape = tuple(getattr(y, "shape", ()))
    ndim = len(mask.shape)
    if ndim < 2 or len(shape) < 2:
        return False
    if shape[:ndim] == tuple(mask.shape):
        return True
    return len(shape) >= len(x.shape) > ndim and 1 not in shape[1:ndim]


# The old way.


def is_legacy(layer):
    """Whether a layer from outside Keras handles masks as upstream asks it.

    It overrides `compute_mask`, or it sets `supports_masking` and has a `call`
    of its own. The layer of Keras that it is a subclass of may have set that,
    too: then a `call` that asks for the mask counts on it.
    """
    cls = type(layer)
    if not _defined_in_keras(cls, "compute_mask"):
        return True
    if _defined_in_keras(cls, "call"):
        return False
    return is_flagged(layer) or _takes_over_flag(layer)


def _takes_over_flag(layer):
    """Whether a `call` asks for the mask, and upstream keeps it for the base.

    Not for those, as recurrent layers, that ask for it themselves: what their
    `call` returns is masked.
    """
    if not layer.supports_masking or not _asks(layer.call_signature_parameters):
        return False
    cls = type(layer)
    base = next(c for c in cls.__mro__ if _has_call_of_keras(c))
    is_named = _asks(inspect.signature(base.call).parameters)
    return not is_named or _owner(cls, "_choose_protocol").__name__ != "Layer"


def _has_call_of_keras(cls):
    return "call" in vars(cls) and is_from_keras(cls.__module__)


def is_flagged(layer):
    """Whether code outside Keras says that the layer supports masking."""
    is_outside = "_flagged_outside" in vars(layer) or not _defined_in_keras(
        type(layer), "supports_masking"
    )
    return is_outside and layer.supports_masking


def _defined_in_keras(cls, name):
    return is_from_keras(_owner(cls, name).__module__)


def _owner(cls, name):
    """The class that an attribute of a class is inherited from."""
    return next(c for c in cls.__mro__ if name in vars(c))


def place_outside():
    """File, line and module of the code that sets an attribute of a layer.

    None if that is Keras.
    """
    frame = sys._getframe(2)
    while frame.f_code.co_name == "__setattr__":
        frame = frame.f_back
    module = frame.f_globals.get("__name__", "")
    if is_from_keras(module):
        return None
    return frame.f_code.co_filename, frame.f_lineno, module


class Scope:
    """A call in which plain tensors carry their masks as an attribute.

    Layers that are called meanwhile hand out their results in that form too:
    all of them where the layer is of the old kind, else those that were given
    it. When the call ends, nothing carries the attribute any more.
    """

    def __init__(self, is_old=True):
        self.is_old = is_old
        self.carriers = []

    def hang(self, x):
        """The values of a masked tensor, with the mask hung on them."""
        if not isinstance(x, MaskedTensorBase):
            return x
        self.carriers.append(
            (x.values, attributes._get_mask_attribute(x.values))
        )
        attributes._set_mask_attribute(x.values, mask_as_given(x))
        return x.values

    def clear(self):
        for x, mask in reversed(self.carriers):
            attributes._set_mask_attribute(x, mask)


class _State(threading.local):
    scope = None


_state = _State()


def current_scope():
    """The scope of the old layer whose `call` is running, or None."""
    scope = _state.scope
    return scope if scope is not None and scope.is_old else None


def handed_out(outputs, args, kwargs):
    """What a layer returns, in the form that its caller works with.

    Args:
        outputs: Nest of tensors.
        args: What the layer was called with by position.
        kwargs: What it was called with by name.
    """
    scope = _state.scope
    if scope is None or not (scope.is_old or _is_old_form(args, kwargs)):
        return outputs
    return tree.map_structure(scope.hang, outputs)


def _is_old_form(args, kwargs):
    """Whether masks come as an attribute of plain tensors, and only so."""
    tensors = [x for x in tree.flatten((args, kwargs)) if x is not None]
    if kwargs.get("mask") is not None or any(map(has_mask, tensors)):
        return False
    return any(attributes.get_keras_mask(x) is not None for x in tensors)


@contextlib.contextmanager
def _in_scope(scope):
    """Runs what is inside in the scope of an old layer, or in none."""
    outer, _state.scope = _state.scope, scope
    try:
        yield scope
    finally:
        _state.scope = outer
        if scope is not None:
            scope.clear()


def all_plain():
    """The scope of a layer to which those that it calls give plain tensors."""
    return _in_scope(Scope())


def tracing(layer):
    """The scope to trace the `call` of a layer in."""
    is_old = layer._mask_protocol is legacy
    return all_plain() if is_old else contextlib.nullcontext()


def _without_scope(run, args, kwargs):
    """Runs the `call` of a layer that is not an old one."""
    if _state.scope is None:
        return run(*args, **kwargs)
    with _in_scope(None):
        return run(*args, **kwargs)


def legacy(layer, run, args, kwargs):
    """`supports_masking` and `compute_mask`: as upstream, through an adapter.

    The layer sees plain tensors that carry their masks as an attribute, and
    its `compute_mask` is asked for those of the outputs.
    """
    found = _run_old(layer, run, args, kwargs)
    is_masked = symbolic.any_masked(args, kwargs)
    return _masked_as_found(layer, *found, is_masked)


def legacy_spec(layer, args, kwargs):
    """Spec of the call of an old layer: what `legacy` does is traced.

    Of a layer that says itself what it puts out, as upstream, `call` is not.
    """
    run, specs = layer._call_to_run(), None
    if _has_own_spec(layer):
        specs = _own_spec(layer, args, kwargs)
        run = lambda *args, **kwargs: specs

    def traced(*args, **kwargs):
        outputs, *found = _run_old(layer, run, args, kwargs)
        return (outputs if specs is None else None), *found

    outputs, *found = backend.compute_output_spec(traced, *args, **kwargs)
    outputs = outputs if specs is None else specs
    is_masked = symbolic.any_masked(args, kwargs)
    return _masked_as_found(layer, outputs, *found, is_masked)


def _has_own_spec(layer):
    from keras.src.layers.layer import Layer

    has_spec = type(layer).compute_output_spec is not Layer.compute_output_spec
    return has_spec or not is_default(layer.compute_output_shape)


def _own_spec(layer, args, kwargs):
    """What an old layer says that it puts out, asked as upstream asks it.

    That is with the masks by name, where it knows the names.
    """
    known = inspect.signature(layer.compute_output_spec).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in known.values())
    given = kwargs
    args, kwargs, _ = _fill_in_as_upstream(layer, args, kwargs)
    kwargs = {
        name: value
        for name, value in kwargs.items()
        if takes_all or name in known or name in given
    }
    args, kwargs = tree.map_structure(symbolic.values_spec, (args, kwargs))
    with all_plain():
        return layer.compute_output_spec(*args, **kwargs)


def _run_old(layer, run, args, kwargs):
    """Runs the `call` of an old layer, and asks it for the masks.

    Returns:
        The outputs, and for each of them, flat, the mask that `call` hung on
        it and the mask that `compute_mask` gave, None where there is none.
    """
    args, kwargs, previous = _fill_in_as_upstream(layer, args, kwargs)
    with all_plain() as scope:
        args, kwargs = tree.map_structure(scope.hang, (args, kwargs))
        given = [(x, attributes.get_keras_mask(x)) for x, _ in scope.carriers]
        outputs = run(*args, **kwargs)
        flat = tree.flatten(outputs)
        hung = [_mask_by_call(layer, x, given) for x in flat]
        computed = [None] * len(flat)
        if layer.supports_masking and any(m is None for m in hung):
            bound = layer._call_signature.bind(*args, **kwargs)
            first = next(iter(bound.arguments.values()), None)
            computed = _computed_masks(layer, first, previous, flat)
    return outputs, hung, computed


def _masked_as_found(layer, outputs, hung, computed, is_masked):
    """The outputs with the masks that `_run_old` found, or their specs."""
    flat = tree.flatten(outputs)
    computed = _only_fitting(layer, flat, computed)
    found = [m if m is not None else n for m, n in zip(hung, computed)]
    if is_masked or any(m is not None for m in found):
        _warn_deprecated(layer)
    # What a scope hands on as plain is the layer's own, under the mask too.
    fills = current_scope() is None
    flat = [masked_at_the_door(x, m, fills) for x, m in zip(flat, found)]
    return tree.pack_sequence_as(outputs, flat)


def _mask_by_call(layer, output, given):
    """The mask that `call` gave an output, None if `compute_mask` is asked.

    That is so for a `call` that is Keras's own, and for one that returns what
    it was given, with the mask still on it.
    """
    if _defined_in_keras(type(layer), "call") or has_mask(output):
        return None
    mask = attributes.get_keras_mask(output)
    return None if any(output is x and mask is m for x, m in given) else mask


def _computed_masks(layer, first, previous, outputs):
    """A list of what `compute_mask` gives, None for outputs without a mask.

    Where it is inherited, the mask of the one input goes to all outputs that
    it fits, and ends where the layer uses the masked axes up.
    """
    computed = layer.compute_mask(first, previous)
    if not _defined_in_keras(type(layer), "compute_mask"):
        computed = tree.flatten(computed)
        return computed + [None] * (len(outputs) - len(computed))
    if not tree.is_nested(computed) and is_default(layer.compute_mask):
        computed = _for_all(first, computed, outputs)
    computed = tree.flatten(computed)
    computed += [None] * (len(outputs) - len(computed))
    return [
        None if m is None or not _may_inherit(layer, y, m) else m
        for y, m in zip(outputs, computed)
    ]


def _may_inherit(layer, output, mask):
    """Whether a mask that was passed on covers axes that are still there."""
    # Of a spec, only a spec of the mask tells.
    is_known = not isinstance(output, KerasTensor)
    is_of_keras = is_from_keras(type(layer).__module__)
    return is_of_keras or not is_known or _covered(output, mask, eq) > 0


def _for_all(first, mask, outputs):
    """The mask of an input for each output, None for what may be a state.

    A state of shape `(batch, units)` has no steps, whatever its size is. With
    no axis beside those of the mask, an output is taken for one, but for the
    first, if the input had any.
    """
    if mask is None or not hasattr(first, "shape"):
        return [mask]
    covered = _covered(first, mask) or len(mask.shape)
    least = covered + (len(first.shape) > covered)
    return [
        mask if i == 0 or len(getattr(y, "shape", ())) >= least else None
        for i, y in enumerate(outputs)
    ]


def _only_fitting(layer, outputs, computed):
    """The masks that `compute_mask` gave, None for those that have ended.

    Args:
        layer: The layer.
        outputs: List of tensors, or of their specs.
        computed: List of masks and None, or of their specs.

    Raises:
        ValueError: If a mask does not cover leading axes of its output.
    """
    cls = type(layer).__name__
    is_inherited = _defined_in_keras(type(layer), "compute_mask")
    is_inherited = is_inherited and not is_from_keras(type(layer).__module__)
    equal = eq if is_inherited else shape_equal
    for i, (output, mask) in enumerate(zip(outputs, computed)):
        if mask is None or has_mask(output) or _covered(output, mask, equal):
            continue
        if is_inherited:
            # It has the flag only, and uses the masked axes up.
            computed[i] = None
            continue
        raise ValueError(
            f"`{cls}.compute_mask()` of layer '{layer.name}' returned a mask "
            f"of shape {tuple(mask.shape)} for output {i}, which is of shape "
            f"{tuple(output.shape)}. A mask covers leading axes of its tensor: "
            "`mask.shape == output.shape[:mask.ndim]`. Return the mask of "
            "that output, changed as the output was, or None to end it."
        )
    return computed


def _fits(x, mask):
    """Whether a mask covers leading axes of a tensor, as far as is known."""
    return _covered(x, mask) == len(mask.shape) > 0


def _covered(x, mask, equal=shape_equal):
    """The number of leading axes of a tensor that a mask covers, 0 if none.

    Axes of size 1 at its end, as in `(batch, time, 1)`, broadcast over what
    is beside the steps, and cover nothing.

    Args:
        x: Tensor, or the spec of one.
        mask: Its mask, or the spec of it.
        equal: Function of two shapes. By default a size that is not known
            equals any other.
    """
    shape, mask_shape = tuple(x.shape), tuple(mask.shape)
    while mask_shape and not equal(shape[: len(mask_shape)], mask_shape):
        if mask_shape[-1] != 1:
            return 0
        mask_shape = mask_shape[:-1]
    return len(mask_shape)


def _fill_in_as_upstream(layer, args, kwargs):
    """Fills in the mask arguments of an old layer, as upstream does.

    Returns:
        New `args` and `kwargs`, and what `compute_mask` gets for the masks of
        the first argument.
    """
    bound = layer._call_signature.bind(*args, **kwargs)
    names, arguments = list(layer._call_signature.parameters), bound.arguments
    given = dict(arguments)
    fill_in_plain_masks(bound)
    previous = arguments.get("mask")
    if previous is None and names:
        previous = tree.map_structure(mask_as_given, arguments.get(names[0]))
    for name, value in list(arguments.items()):
        mask_name = f"{name}_mask" if f"{name}_mask" in names else "mask"
        belongs = mask_name != "mask" or name == names[0]
        if not belongs or mask_name not in names:
            continue
        if arguments.get(mask_name) is None:
            mask = tree.map_structure(mask_as_given, value)
            # For a nest it is one, of None where nothing is masked.
            if mask is not None:
                arguments[mask_name] = mask
    return *_as_passed(bound, given, args, kwargs), previous


def masked_at_the_door(x, mask, fills=True):
    """A masked tensor of a plain one and the mask that was hung on it.

    A mask that does not cover leading axes cannot be one of a masked tensor;
    it stays hung on the plain tensor, as old layers expect it. They are given
    back the others, too, in the form that is given here.

    Args:
        x: Plain tensor, or the spec of one; others are given back.
        mask: Its mask, of any dtype, or the spec of it, or None.
        fills: Whether to put 0 under the mask.
    """
    if mask is None or has_mask(x):
        return x
    if isinstance(x, KerasTensor):
        covered = x.shape[: _covered(x, mask)]
        y = symbolic.masked_spec(x, KerasTensor(covered, "bool"))
        attributes.remember_as_given(y._mask_spec, mask)
        return y
    mask = backend.convert_to_tensor(mask)
    covered = _covered(x, mask)
    if not covered:
        attributes._set_mask_attribute(x, mask)
        return x
    valid = masks.as_bool(mask)
    if len(mask.shape) > covered:
        extra = tuple(range(covered, len(mask.shape)))
        valid = backend.numpy.squeeze(valid, axis=extra)
    y = backend.MaskedTensor(x, valid) if fills else masks.wrap(x, valid)
    if valid is not mask:
        attributes.remember_as_given(y.mask, mask)
    return y


def masked_as_told(outputs, mask):
    """The result for an explicit mask: masked by it, if a mask can be."""
    return (
        masked_at_the_door(outputs, mask) if _fits(outputs, mask) else outputs
    )


def join(inputs, mask):
    """Merges masks that were passed beside the inputs into the inputs.

    Args:
        inputs: Nest of tensors.
        mask: None, or masks in the same order, None for the plain ones. Their
            axes, which are leading ones of the tensors, may have size 1.
    """
    if mask is None:
        return inputs
    flat = [
        x if m is None else _joined(values_of(x), masks.as_bool(plain_mask(m)))
        for x, m in zip(tree.flatten(inputs), tree.flatten(mask))
    ]
    return tree.pack_sequence_as(inputs, flat)


def _joined(values, mask):
    mask = masks.over_axes(mask, values, len(mask.shape))
    return backend.MaskedTensor(values, mask)


def step_mask(mask, ndim=2):
    """The mask over batch and time: a step counts if any entry of it does.

    Args:
        mask: Mask of a sequence, or a list of which the first is taken; of any
            dtype.
        ndim: Number of leading axes that make up a step.
    """
    mask = masks.as_bool(tree.flatten(mask)[0])
    inner = tuple(range(ndim, len(mask.shape)))
    return backend.numpy.any(mask, axis=inner) if inner else mask


def by_steps(sequences, mask, ndim=2):
    """A sequence, with 0 where it is masked, and its step mask.

    Args:
        sequences: Plain tensor of shape `(batch, time, ...)`, or None.
        mask: As `step_mask` takes it, or None. One that covers fewer axes, or
            has axes of size 1, is broadcast.
        ndim: Number of leading axes that make up a step.
    """
    if sequences is None or mask is None:
        return sequences, None
    steps = step_mask(mask, ndim)
    whole = masks.as_bool(tree.flatten(mask)[0])
    sequences = masks.fill(sequences, whole, 0)
    return sequences, masks.over_axes(steps, sequences, ndim)


def on_values(function, x, *args, **kwargs):
    """A function that treats each entry by itself, run under the mask."""
    if not isinstance(x, MaskedTensorBase):
        return function(x, *args, **kwargs)
    return masks.wrap(function(x.values, *args, **kwargs), x.mask)


def with_mask(outputs, mask):
    """The first of the outputs with this mask; the others as they are.

    Inside the `call` of an old layer, which may call that of its base, all are
    plain: its `compute_mask` is asked.
    """
    if mask is None or current_scope() is not None:
        return outputs
    if isinstance(outputs, (tuple, list)):
        first, *rest = outputs
        return type(outputs)([with_mask(first, mask), *rest])
    return masks.wrap(outputs, mask)


_warned = set()
# Layers that were traced to see whether they lose the mask.
_asked = weakref.WeakSet()


def _warn_once(cls, category, message, place):
    """Warns once for each class, at the code that the warning is about.

    By Python's default filters a `DeprecationWarning` about an installed
    package is not shown to its users, but where its own tests are run.

    Args:
        cls: Class of the layer.
        category: Class of the warning.
        message: Its text.
        place: File, line and module of the code.
    """
    if (cls, category) in _warned:
        return
    warnings.warn_explicit(message, category, *place)
    # Not before: a filter may have made an error of it.
    _warned.add((cls, category))


def _place_of(cls, name):
    """File, line and module of a method of a class, or of its base."""
    owner = _owner(cls, name)
    code = getattr(inspect.unwrap(getattr(owner, name)), "__code__", None)
    if code is None:
        return owner.__module__, 1, owner.__module__
    return code.co_filename, code.co_firstlineno, owner.__module__


INSTEAD = """\
    def call(self, x):
        return keras.ops.relu(x)  # The mask comes along.
"""
INSTEAD_OF_COMPUTE_MASK = """\
    def call(self, x):
        values, mask = x.values, x.mask
        ...
        return keras.MaskedTensor(values, mask)  # Or plain values, to end it.
"""


def _warn_deprecated(layer):
    """Says once per class what to write in place of the old ways it uses."""
    cls = type(layer)
    if is_from_keras(cls.__module__):
        return
    overrides = not _defined_in_keras(cls, "compute_mask")
    uses = {
        "sets `supports_masking`": is_flagged(layer),
        "overrides `compute_mask`": overrides,
        "reads `_keras_mask`": _reads_attribute(cls.call),
    }
    uses = [use for use, is_used in uses.items() if is_used]
    if not uses:
        # It counts on a flag that Keras set.
        return
    place = vars(layer).get("_flagged_outside")
    if overrides or place is None:
        place = _place_of(cls, "compute_mask" if overrides else "call")
    _warn_once(
        cls,
        DeprecationWarning,
        f"Layer class `{cls.__name__}` {', '.join(uses)}. It goes on working, "
        "but masks are part of the tensors now. Delete these lines, and let "
        "`call` take a `keras.MaskedTensor` and compute with `keras.ops`:\n\n"
        f"{INSTEAD_OF_COMPUTE_MASK if overrides else INSTEAD}",
        place,
    )


def _reads_attribute(function):
    code = getattr(inspect.unwrap(function), "__code__", None)
    words = {"_keras_mask", "get_keras_mask"}
    return code is not None and bool(
        words & {*code.co_names, *code.co_freevars}
        or "_keras_mask" in code.co_consts
    )
