"""How a layer takes masked tensors: by type, by name, or the old way.

A protocol is a function of a layer, of what runs the layer, and of the
arguments. It hands the arguments on in the form that the layer's `call` asks
for, and gives back what comes out as masked tensors. It is chosen once for
each layer and applies wherever `call` is run.
"""

import sys
import threading
import warnings

from keras.src import backend
from keras.src import tree
from keras.src.backend.common import masking as attributes
from keras.src.backend.common.keras_tensor import needs_dispatch
from keras.src.backend.common.masked_tensor import MaskedTensorBase
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
    flagged = "_flagged_outside" in vars(layer) or not _defined_in_keras(
        cls, "supports_masking"
    )
    return (
        flagged
        and layer.supports_masking
        and not _defined_in_keras(cls, "call")
    )


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


def _without_scope(run, args, kwargs):
    """Runs the `call` of a layer that is not an old one."""
    if _state.scope is None:
        return run(*args, **kwargs)
    outer, _state.scope = _state.scope, None
    try:
        return run(*args, **kwargs)
    finally:
        _state.scope = outer


def legacy(layer, run, args, kwargs):
    """`supports_masking` and `compute_mask`: as upstream, through an adapter.

    The layer sees plain tensors that carry their masks as an attribute, and
    its `compute_mask` is asked for those of the outputs.
    """
    _warn_deprecated(layer)
    outer, scope = _state.scope, Scope()
    _state.scope = scope
    try:
        args, kwargs = tree.map_structure(scope.hang, (args, kwargs))
        kwargs, first, previous = _legacy_masks(layer, args, kwargs)
        outputs = run(*args, **kwargs)
        flat = tree.flatten(outputs)
        found = [attributes.get_keras_mask(x) for x in flat]
        if layer.supports_masking and any(m is None for m in found):
            computed = layer.compute_mask(first, previous)
            if computed is not None:
                computed = tree.flatten(computed)
                found = [
                    old if old is not None else new
                    for old, new in zip(found, computed)
                ]
    finally:
        _state.scope = outer
        scope.clear()
    flat = [masked_at_the_door(x, m) for x, m in zip(flat, found)]
    return tree.pack_sequence_as(outputs, flat)


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
    specs = layer.compute_output_spec(*plain_args, **plain_kwargs)
    bound = layer._call_signature.bind(*args, **kwargs)
    first = next(iter(bound.arguments.values()), None)

    def output_masks(first):
        scope = Scope()
        try:
            first = tree.map_structure(scope.hang, first)
            previous = tree.map_structure(attributes.get_keras_mask, first)
            return layer.compute_mask(first, previous)
        finally:
            scope.clear()

    if not layer.supports_masking:
        return specs
    masks_found = backend.compute_output_spec(output_masks, first)
    if masks_found is None:
        return specs
    flat = [
        symbolic.masked_spec(spec, mask)
        if isinstance(mask, backend.KerasTensor) and not has_mask(spec)
        else spec
        for spec, mask in zip(tree.flatten(specs), tree.flatten(masks_found))
    ]
    return tree.pack_sequence_as(specs, flat)


def masked_at_the_door(x, mask):
    """A masked tensor of a plain one and the mask that was hung on it.

    A mask that does not cover leading axes cannot be one of a masked tensor;
    it stays hung on the plain tensor, as old layers expect it.
    """
    if mask is None or isinstance(x, MaskedTensorBase):
        return x
    mask = backend.cast(backend.convert_to_tensor(mask), "bool")
    ndim = len(mask.shape)
    shape, mask_shape = tuple(x.shape)[:ndim], tuple(mask.shape)
    if not ndim or not backend.common.variables.shape_equal(shape, mask_shape):
        attributes._set_mask_attribute(x, mask)
        return x
    return backend.MaskedTensor(x, mask)


def join(inputs, mask):
    """Merges masks that were passed beside the inputs into the inputs.

    Args:
        inputs: Nest of tensors.
        mask: None, or masks in the same order, None for the plain ones.
    """
    if mask is None:
        return inputs
    flat = [
        x
        if m is None
        else backend.MaskedTensor(values_of(x), backend.cast(m, "bool"))
        for x, m in zip(tree.flatten(inputs), tree.flatten(mask))
    ]
    return tree.pack_sequence_as(inputs, flat)


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
    """A sequence and its step mask; what is masked is 0.

    An explicit mask says nothing of what lies under it: there may be NaN.

    Args:
        sequences: Plain tensor of shape `(batch, time, ...)`, or None.
        mask: As `step_mask` takes it, or None. One that covers fewer axes, or
            has axes of size 1, is broadcast.
        ndim: Number of leading axes that make up a step.
    """
    if sequences is None or mask is None:
        return sequences, None
    whole, steps = tree.flatten(mask)[0], step_mask(mask, ndim)
    sequences = masks.fill(sequences, masks.as_bool(whole), 0)
    return sequences, masks.over_axes(steps, sequences, ndim)


def on_values(function, x, *args, **kwargs):
    """A function that treats each entry by itself, run under the mask."""
    if not isinstance(x, MaskedTensorBase):
        return function(x, *args, **kwargs)
    return masks.wrap(function(x.values, *args, **kwargs), x.mask)


def with_mask(outputs, mask):
    """The first of the outputs with this mask; the others as they are."""
    if mask is None:
        return outputs
    if isinstance(outputs, (tuple, list)):
        first, *rest = outputs
        return type(outputs)([with_mask(first, mask), *rest])
    return masks.wrap(outputs, mask)


_warned = set()


def _warn_once(cls, category, message):
    if (cls, category) not in _warned:
        _warned.add((cls, category))
        warnings.warn(message, category, stacklevel=5)


def _warn_deprecated(layer):
    cls = type(layer)
    uses = (
        "sets `supports_masking`"
        if _defined_in_keras(cls, "compute_mask")
        else "overrides `compute_mask`"
    )
    _warn_once(
        cls,
        DeprecationWarning,
        f"Layer class `{cls.__name__}` {uses}. It goes on working, but masks "
        "are part of the tensors now. Delete `supports_masking` and "
        "`compute_mask` and let `call` take a `keras.MaskedTensor`:\n\n"
        "    def call(self, x):\n"
        "        return keras.ops.relu(x)  # The mask comes along.\n\n"
        "or, to make or change a mask:\n\n"
        "        return keras.MaskedTensor(values, mask)",
    )
