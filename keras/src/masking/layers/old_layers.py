"""The old way: `supports_masking` and `compute_mask`, through an adapter.

A class outside Keras that uses them runs as it ran upstream: it sees plain
tensors that carry their masks as an attribute, and what comes out is masked.
"""

import contextlib
import inspect
import typing
from operator import eq

from keras.src import backend
from keras.src import tree
from keras.src.backend.common import masking as attributes
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.kinds import Layer
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.variables import shape_equal
from keras.src.masking import symbolic
from keras.src.masking.layers.origins import defined_in_keras
from keras.src.masking.layers.origins import has_call_of_keras
from keras.src.masking.layers.origins import is_flagged
from keras.src.masking.layers.origins import owner_of
from keras.src.masking.layers.passing import as_passed
from keras.src.masking.layers.passing import axes_covered
from keras.src.masking.layers.passing import fill_in_plain_masks
from keras.src.masking.layers.passing import masked_at_the_door
from keras.src.masking.layers.scopes import all_plain
from keras.src.masking.layers.scopes import current_scope
from keras.src.masking.layers.scopes import mask_as_given
from keras.src.masking.layers.telling import warn_deprecated
from keras.src.masking.refusals import is_from_keras
from keras.src.utils.python_utils import is_default


def asks(names: typing.Iterable[str]) -> bool:
    """Whether there is a name for a mask among those of the arguments."""
    return "mask" in names or any(f"{name}_mask" in names for name in names)


def is_legacy(layer: Layer) -> bool:
    """Whether a layer from outside Keras handles masks as upstream asks it.

    It overrides `compute_mask`, or it sets `supports_masking` and has a `call`
    of its own. The layer of Keras that it is a subclass of may have set that,
    too: then a `call` that asks for the mask counts on it.
    """
    cls = type(layer)
    if not defined_in_keras(cls, "compute_mask"):
        return True
    if defined_in_keras(cls, "call"):
        return False
    return is_flagged(layer) or _takes_over_flag(layer)


def _takes_over_flag(layer):
    """Whether a `call` asks for the mask, and upstream keeps it for the base.

    Not for those, as recurrent layers, that ask for it themselves: what their
    `call` returns is masked.
    """
    if not layer.supports_masking or not asks(layer.call_signature_parameters):
        return False
    cls = type(layer)
    base = next(c for c in cls.__mro__ if has_call_of_keras(c))
    is_named = asks(inspect.signature(base.call).parameters)
    return not is_named or owner_of(cls, "_choose_protocol").__name__ != "Layer"


def tracing(layer: Layer) -> typing.ContextManager:
    """The scope to trace the `call` of a layer in."""
    is_old = layer._mask_protocol is legacy
    return all_plain() if is_old else contextlib.nullcontext()


def legacy(
    layer: Layer, run: typing.Callable, args: typing.Sequence, kwargs: Named
) -> Nest:
    """`supports_masking` and `compute_mask`: as upstream, through an adapter.

    The layer sees plain tensors that carry their masks as an attribute, and
    its `compute_mask` is asked for those of the outputs.
    """
    found = _run_old(layer, run, args, kwargs)
    is_masked = symbolic.any_masked(args, kwargs)
    masked = layer, *found, is_masked
    return _masked_as_found(*masked)


def legacy_spec(layer: Layer, args: typing.Sequence, kwargs: Named) -> Nest:
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
    masked = layer, outputs, *found, is_masked
    return _masked_as_found(*masked)


def _has_own_spec(layer):
    # Late: layers import this.
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
    args, kwargs, _ = fill_in_as_upstream(layer, args, kwargs)
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
    args, kwargs, previous = fill_in_as_upstream(layer, args, kwargs)
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
        warn_deprecated(layer)
    # What a scope hands on as plain is the layer's own, under the mask too.
    fills = current_scope() is None
    flat = [masked_at_the_door(x, m, fills) for x, m in zip(flat, found)]
    return tree.pack_sequence_as(outputs, flat)


def _mask_by_call(layer, output, given):
    """The mask that `call` gave an output, None if `compute_mask` is asked.

    That is so for a `call` that is Keras's own, and for one that returns what
    it was given, with the mask still on it.
    """
    if defined_in_keras(type(layer), "call") or has_mask(output):
        return None
    mask = attributes.get_keras_mask(output)
    return None if any(output is x and mask is m for x, m in given) else mask


def _computed_masks(layer, first, previous, outputs):
    """A list of what `compute_mask` gives, None for outputs without a mask.

    Where it is inherited, the mask of the one input goes to all outputs that
    it fits, and ends where the layer uses the masked axes up.
    """
    computed = layer.compute_mask(first, previous)
    if not defined_in_keras(type(layer), "compute_mask"):
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
    return is_of_keras or not is_known or axes_covered(output, mask, eq) > 0


def _for_all(first, mask, outputs):
    """The mask of an input for each output, None for what may be a state.

    A state of shape `(batch, units)` has no steps, whatever its size is. With
    no axis beside those of the mask, an output is taken for one, but for the
    first, if the input had any.
    """
    if mask is None or not hasattr(first, "shape"):
        return [mask]
    covered = axes_covered(first, mask) or len(mask.shape)
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
    is_inherited = defined_in_keras(type(layer), "compute_mask")
    is_inherited = is_inherited and not is_from_keras(type(layer).__module__)
    equal = eq if is_inherited else shape_equal
    for i, (output, mask) in enumerate(zip(outputs, computed)):
        if (
            mask is None
            or has_mask(output)
            or axes_covered(output, mask, equal)
        ):
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


def fill_in_as_upstream(
    layer: Layer, args: typing.Sequence, kwargs: Named
) -> tuple[tuple, Named, Mask | None]:
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
    return *as_passed(bound, given, args, kwargs), previous
