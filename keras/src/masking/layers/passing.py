"""Masks on their way into a `call` by name, and onto what it returns."""

import inspect
import typing

from keras.src import backend
from keras.src import tree
from keras.src.backend.common import masking as attributes
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Layer
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.variables import shape_equal
from keras.src.masking import masks
from keras.src.masking.calls import values_of
from keras.src.masking.errors import refuse
from keras.src.masking.layers.origins import defined_in_keras
from keras.src.masking.layers.scopes import mask_as_given
from keras.src.ops import specs


def as_passed(
    bound: inspect.BoundArguments,
    given: Named,
    args: typing.Sequence,
    kwargs: Named,
) -> tuple[tuple, Named]:
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


def fill_in_masks(
    layer: Layer,
    bound: inspect.BoundArguments,
    values: typing.Callable = values_of,
) -> Mask | None:
    """Takes masked arguments apart, and passes masks by their names.

    Args:
        layer: The layer.
        bound: `inspect.BoundArguments` of its `call`, changed in place.
        values: Function that gives the values of a masked tensor.

    Returns:
        The mask of the first argument, or None.
    """
    names = list(layer._call_signature.parameters)
    is_of_keras = defined_in_keras(type(layer), "call")
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
        bound.arguments[name] = tree.map_structure(values, value)
    return first_mask


def fill_in_plain_masks(bound: inspect.BoundArguments) -> None:
    """Makes plain ones of masks that are masked themselves: False is there.

    Where a model that upstream saved computes its masks in its graph, and
    where an author does, from tensors that are masked, the masks are, too.
    """
    for name, value in bound.arguments.items():
        if name == "mask" or name.endswith("_mask"):
            bound.arguments[name] = tree.map_structure(masks.filled, value)


def _own_mask(x):
    return x.mask if isinstance(x, MaskedTensorBase) else None


def axes_covered(
    x: AnyTensor, mask: Mask, equal: typing.Callable = shape_equal
) -> int:
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


def masked_at_the_door(
    x: AnyTensor, mask: Mask, fills: bool = True
) -> AnyTensor:
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
        covered = x.shape[: axes_covered(x, mask)]
        y = specs.masked_spec(x, KerasTensor(covered, "bool"))
        attributes.remember_as_given(y._mask_spec, mask)
        return y
    mask = backend.convert_to_tensor(mask)
    covered = axes_covered(x, mask)
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


def masked_inputs(inputs: Nest, mask: Nest) -> Nest:
    """Merges masks that were passed beside the inputs into the inputs.

    Args:
        inputs: Nest of tensors.
        mask: None, or masks in the same order, None for the plain ones. Their
            axes, which are leading ones of the tensors, may have size 1.
    """
    if mask is None:
        return inputs
    flat = [
        x
        if m is None
        else _joined(values_of(x), masks.as_bool(masks.filled(m)))
        for x, m in zip(tree.flatten(inputs), tree.flatten(mask))
    ]
    return tree.pack_sequence_as(inputs, flat)


def _joined(values, mask):
    mask = masks.as_bool(masks.filled(mask))
    mask = masks.over_axes(mask, values, len(mask.shape))
    return backend.MaskedTensor(values, mask)
