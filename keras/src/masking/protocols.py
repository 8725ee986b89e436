"""How a layer takes masked tensors: by type, by name, or the old way.

A protocol is a function of a layer, of what runs the layer, and of the
arguments. It hands the arguments on in the form that the layer's `call` asks
for, and gives back what comes out as masked tensors. It is chosen once for
each layer and applies wherever `call` is run.
"""

import contextlib
import inspect
import sys
import threading
import warnings

from keras.src import backend
from keras.src import tree
from keras.src.backend.common import masking as attributes
from keras.src.backend.common.keras_tensor import needs_dispatch
from keras.src.backend.common.masked_tensor import MaskedTensorBase
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


def choose(layer):
    """The protocol of a layer, read off its class and its `call`."""
    if is_legacy(layer):
        return legacy
    names = layer.call_signature_parameters
    if "mask" in names or any(f"{name}_mask" in names for name in names):
        return named
    return by_type


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
    is passed by the caller beats the tensor's own.
    """
    if not needs_dispatch(args, kwargs) or not symbolic.any_masked(
        args, kwargs
    ):
        return _without_scope(run, args, kwargs)
    bound = layer._call_signature.bind(*args, **kwargs)
    filled_in = fill_in_masks(layer, bound)
    outputs = _without_scope(run, bound.args, bound.kwargs)
    _warn_if_lost(layer, filled_in, outputs)
    return outputs


def fill_in_masks(layer, bound):
    """Takes masked arguments apart, and passes masks by their names.

    Args:
        layer: The layer.
        bound: `inspect.BoundArguments` of its `call`, changed in place.

    Returns:
        The mask of the first argument, or None.
    """
    names = list(layer._call_signature.parameters)
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
        mask = tree.map_structure(_own_mask, value)
        if bound.arguments.get(mask_name) is None:
            bound.arguments[mask_name] = mask
        if name == names[0]:
            first_mask = bound.arguments[mask_name]
        bound.arguments[name] = tree.map_structure(values_of, value)
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


def _warn_if_lost(layer, mask, outputs):
    """Warns once per class if a user's layer returns its steps unmasked."""
    if is_from_keras(type(layer).__module__) or tree.is_nested(outputs):
        return
    if mask is None or tree.is_nested(mask) or has_mask(outputs):
        return
    shape = tuple(getattr(outputs, "shape", ()))
    if len(mask.shape) > 1 and shape[: len(mask.shape)] == tuple(mask.shape):
        _warn_once(
            type(layer),
            UserWarning,
            f"Layer '{layer.name}' (of type {type(layer).__name__}) was given "
            f"a mask of shape {tuple(mask.shape)} and returned a plain tensor "
            f"of shape {shape}: the mask ends here. To keep it, return "
            "`keras.MaskedTensor(outputs, mask)` from `call`.",
        )


# The old way.


def is_legacy(layer):
    """Whether a layer from outside Keras handles masks as upstream asks it.

    It overrides `compute_mask`, or it sets `supports_masking` and has a `call`
    of its own.
    """
    cls = type(layer)
    if not _defined_in_keras(cls, "compute_mask"):
        return True
    return is_flagged(layer) and not _defined_in_keras(cls, "call")


def is_flagged(layer):
    """Whether code outside Keras says that the layer supports masking."""
    is_outside = "_flagged_outside" in vars(layer) or not _defined_in_keras(
        type(layer), "supports_masking"
    )
    return is_outside and layer.supports_masking


def _defined_in_keras(cls, name):
    owner = next(c for c in cls.__mro__ if name in vars(c))
    return is_from_keras(owner.__module__)


def flag_is_set_outside():
    """Whether the code that sets an attribute of a layer is not Keras's."""
    frame = sys._getframe(2)
    while frame.f_code.co_name == "__setattr__":
        frame = frame.f_back
    return not is_from_keras(frame.f_globals.get("__name__", ""))


class Scope:
    """The call of an old layer: plain tensors carry masks as an attribute.

    Built-in layers that are called meanwhile hand out their results in that
    form too. When the call ends, nothing carries the attribute any more.
    """

    def __init__(self):
        self.carriers = []

    def hang(self, x):
        """The values of a masked tensor, with the mask hung on them."""
        if not isinstance(x, MaskedTensorBase):
            return x
        self.carriers.append(
            (x.values, attributes._get_mask_attribute(x.values))
        )
        attributes._set_mask_attribute(x.values, x.mask)
        return x.values

    def clear(self):
        for x, mask in reversed(self.carriers):
            attributes._set_mask_attribute(x, mask)


class _State(threading.local):
    scope = None


_state = _State()


def current_scope():
    """The scope of the old layer whose `call` is running, or None."""
    return _state.scope


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
    bound = layer._call_signature.bind(*args, **kwargs)
    fill_in_plain_masks(bound)
    arguments = (bound.args, bound.kwargs)
    given = [
        (x.values, x.mask)
        for x in tree.flatten(arguments)
        if isinstance(x, MaskedTensorBase)
    ]
    with all_plain() as scope:
        args, kwargs = tree.map_structure(scope.hang, arguments)
        kwargs, first, previous = _legacy_masks(layer, args, kwargs)
        outputs = run(*args, **kwargs)
        flat = tree.flatten(outputs)
        found = [_mask_by_call(layer, x, given) for x in flat]
        if layer.supports_masking and any(m is None for m in found):
            computed = _padded(layer.compute_mask(first, previous), flat)
            computed = _only_fitting(layer, flat, computed)
            found = [
                old if old is not None else new
                for old, new in zip(found, computed)
            ]
    if given or any(m is not None for m in found):
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
    if _defined_in_keras(type(layer), "call"):
        return None
    mask = attributes.get_keras_mask(output)
    return None if any(output is x and mask is m for x, m in given) else mask


def _padded(computed, outputs):
    """A list of what `compute_mask` gave, None for outputs it is silent on."""
    computed = tree.flatten(computed)
    return computed + [None] * (len(outputs) - len(computed))


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
    for i, (output, mask) in enumerate(zip(outputs, computed)):
        if mask is None or _fits(output, mask):
            continue
        if is_inherited and not is_from_keras(type(layer).__module__):
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
    mask_shape = tuple(mask.shape)
    shape = tuple(x.shape)[: len(mask_shape)]
    return len(mask_shape) > 0 and shape_equal(shape, mask_shape)


def _legacy_masks(layer, args, kwargs):
    """Mask arguments as upstream fills them in; what `compute_mask` gets."""
    bound = layer._call_signature.bind(*args, **kwargs)
    names = list(layer._call_signature.parameters)
    first = bound.arguments.get(names[0]) if names else None
    previous = tree.map_structure(attributes.get_keras_mask, first)
    kwargs = dict(kwargs)
    for name, value in bound.arguments.items():
        mask_name = f"{name}_mask" if f"{name}_mask" in names else "mask"
        belongs = mask_name != "mask" or name == names[0]
        if not belongs or mask_name not in names:
            continue
        if bound.arguments.get(mask_name) is None:
            mask = tree.map_structure(attributes.get_keras_mask, value)
            if any(m is not None for m in tree.flatten(mask)):
                kwargs[mask_name] = mask
    explicit = bound.arguments.get("mask")
    return kwargs, first, previous if explicit is None else explicit


def legacy_spec(layer, args, kwargs):
    """Spec of the call of an old layer: its `compute_mask` is traced."""
    plain_args, plain_kwargs = tree.map_structure(
        symbolic.values_spec, (args, kwargs)
    )
    with tracing(layer):
        specs = layer.compute_output_spec(*plain_args, **plain_kwargs)
    if not layer.supports_masking:
        return specs
    bound = layer._call_signature.bind(*args, **kwargs)
    first = next(iter(bound.arguments.values()), None)
    flat = tree.flatten(specs)

    def output_masks(first, explicit):
        with all_plain() as scope:
            first = tree.map_structure(scope.hang, first)
            previous = tree.map_structure(attributes.get_keras_mask, first)
            if explicit is not None:
                previous = tree.map_structure(plain_mask, explicit)
            return _padded(layer.compute_mask(first, previous), flat)

    found = backend.compute_output_spec(
        output_masks, first, bound.arguments.get("mask")
    )
    found = _only_fitting(layer, flat, found)
    if any(m is not None for m in found):
        _warn_deprecated(layer)
    flat = [
        spec if mask is None or has_mask(spec) else _with_prefix(spec, mask)
        for spec, mask in zip(flat, found)
    ]
    return tree.pack_sequence_as(specs, flat)


def _with_prefix(spec, mask):
    shape = spec.shape[: len(mask.shape)]
    return symbolic.masked_spec(spec, backend.KerasTensor(shape, "bool"))


def masked_at_the_door(x, mask, fills=True):
    """A masked tensor of a plain one and the mask that was hung on it.

    A mask that does not cover leading axes cannot be one of a masked tensor;
    it stays hung on the plain tensor, as old layers expect it.

    Args:
        x: Plain tensor; others are given back as they are.
        mask: Its mask, of any dtype, or None.
        fills: Whether to put 0 under the mask.
    """
    if mask is None or isinstance(x, MaskedTensorBase):
        return x
    mask = backend.cast(backend.convert_to_tensor(mask), "bool")
    if not _fits(x, mask):
        attributes._set_mask_attribute(x, mask)
        return x
    return backend.MaskedTensor(x, mask) if fills else masks.wrap(x, mask)


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


def _warn_once(cls, category, message, place=None):
    """Warns once for each class: at a function of it, or where it is called.

    Args:
        cls: Class of the layer.
        category: Class of the warning.
        message: Its text.
        place: The function of the class that the warning is about, if any.
    """
    if (cls, category) in _warned:
        return
    code = getattr(inspect.unwrap(place), "__code__", None)
    if code is None:
        warnings.warn(message, category, stacklevel=5)
    else:
        warnings.warn_explicit(
            message,
            category,
            code.co_filename,
            code.co_firstlineno,
            cls.__module__,
        )
    # Not before: a filter may have made an error of it.
    _warned.add((cls, category))


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
    place = cls.compute_mask if overrides else cls.call
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
