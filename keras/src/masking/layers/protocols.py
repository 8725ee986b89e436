"""How a layer takes masked tensors: by type, by name, or the old way.

A protocol is a function of a layer, of what runs the layer, and of the
arguments. It hands the arguments on in the form that the layer's `call` asks
for, and gives back what comes out as masked tensors. It is chosen once for
each layer and applies wherever `call` is run.
"""

import typing

from keras.src import tree
from keras.src.backend.common import masking as attributes
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import needs_dispatch
from keras.src.backend.common.kinds import Layer
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking import symbolic
from keras.src.masking.calls import values_of
from keras.src.masking.errors import WAYS_OUT
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.masking.errors import keep_notes
from keras.src.masking.layers.old_layers import asks
from keras.src.masking.layers.old_layers import fill_in_as_upstream
from keras.src.masking.layers.old_layers import is_legacy
from keras.src.masking.layers.old_layers import legacy
from keras.src.masking.layers.origins import defined_in_keras
from keras.src.masking.layers.passing import as_passed
from keras.src.masking.layers.passing import fill_in_masks
from keras.src.masking.layers.passing import masked_at_the_door
from keras.src.masking.layers.recurrence import mask_rows
from keras.src.masking.layers.scopes import Scope
from keras.src.masking.layers.scopes import in_scope
from keras.src.masking.layers.scopes import without_scope
from keras.src.masking.layers.telling import warn_if_lost
from keras.src.masking.packing import like_first


def of(layer: Layer) -> typing.Callable:
    """The protocol of a layer: what its class asks for, or Keras's choice.

    A class from outside that asks for masks in a `call` of its own, or that
    computes them, is given them, whatever Keras chose for its base.
    """
    chosen = choose(layer)
    is_own = not defined_in_keras(type(layer), "call")
    if chosen is legacy or (chosen is named and is_own):
        return chosen
    return layer._choose_protocol()


def choose(layer: Layer) -> typing.Callable:
    """The protocol of a layer, read off its class and its `call`."""
    if is_legacy(layer):
        return legacy
    return named if asks(layer.call_signature_parameters) else by_type


def by_type(
    layer: Layer, run: typing.Callable, args: typing.Sequence, kwargs: Named
) -> Nest:
    """`call(self, x)` sees masked tensors and returns what its ops make."""
    if has_mask(kwargs.get("mask")):
        kwargs = {**kwargs, "mask": masks.filled(kwargs["mask"])}
    try:
        return without_scope(run, args, kwargs)
    except TypeError as error:
        if symbolic.any_masked(args, kwargs):
            _explain(error, layer)
        raise


def using_up(
    layer: Layer, run: typing.Callable, args: typing.Sequence, kwargs: Named
) -> Nest:
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


def named(
    layer: Layer, run: typing.Callable, args: typing.Sequence, kwargs: Named
) -> Nest:
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
        return without_scope(run, args, kwargs)
    bound = layer._call_signature.bind(*args, **kwargs)
    given = dict(bound.arguments)
    first = next(iter(given.values()))
    if defined_in_keras(type(layer), "call"):
        if "initial_state" in bound.arguments:
            mask_rows(bound.arguments)
        fill_in_masks(layer, bound, layer._seen_by_call)
        args, kwargs = as_passed(bound, given, args, kwargs)
        return like_first(first, without_scope(run, args, kwargs))
    with in_scope(Scope(is_old=False)) as scope:
        filled_in = fill_in_masks(layer, bound, scope.hang)
        passed, by_name = as_passed(bound, given, args, kwargs)
        outputs = run(*passed, **by_name)
        hung = [attributes.get_keras_mask(y) for y in tree.flatten(outputs)]
    flat = map(masked_at_the_door, tree.flatten(outputs), hung)
    outputs = tree.pack_sequence_as(outputs, list(flat))
    warn_if_lost(layer, first, filled_in, outputs, (args, kwargs))
    return outputs


def with_empty_masks(
    layer: Layer, args: typing.Sequence, kwargs: Named
) -> tuple[typing.Sequence, Named]:
    """The arguments of a call on a plain nest, which upstream gives a mask.

    It is a nest, too, of None for each tensor: authors take it apart.
    """
    if defined_in_keras(type(layer), "call"):
        return args, kwargs
    args, kwargs, _ = fill_in_as_upstream(layer, args, kwargs)
    return args, kwargs
