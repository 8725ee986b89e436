"""Masks that a caller passes beside a tensor: `layer(x, mask=m)`.

One that does not fit is refused where it is passed. Anything that broadcasts
over leading axes fits, as it does upstream. What lies under it is set to 0
here, once: it is no masked tensor's, and there may be NaN.
"""

import inspect
import typing

from keras.src import backend
from keras.src import tree
from keras.src.backend.common.kinds import Layer
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Shape
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking.refusals import is_from_keras


def _leading(layer, shape):
    return [shape[:n] for n in range(1, len(shape) + 1)]


def _joined(layer, shape):
    """What fits a layer that makes a masked tensor of both, and fills it."""
    return _leading(layer, shape)


def _pooled(layer, shape):
    if layer.data_format == "channels_last":
        return _leading(layer, shape)
    return [(shape[0], shape[2]), *_leading(layer, shape)]


def _transformed(layer, shape):
    is_known = layer._fn_expects_mask_arg or layer.mask is not None
    return None if is_known else _leading(layer, shape)


# Layers whose mask has a form of its own: a function of the layer and of the
# shape of its first argument gives the shapes that fit; None where the layer,
# or the function that it holds, looks at the mask itself.
FORMS = {
    "BatchNormalization": _joined,
    "GlobalAveragePooling1D": _pooled,
    "Lambda": _transformed,
    "Softmax": None,
    "TimeDistributed": None,
}


def check(layer: Layer, arguments: Named) -> bool:
    """Raises if a mask does not fit the argument that it belongs to.

    `mask` belongs to the first argument, `<arg>_mask` to `<arg>`. What a
    `mask` means to a `call` from outside of Keras is not known.

    Args:
        layer: The layer.
        arguments: Arguments of its `call`, by their names.

    Returns:
        Whether there is a mask among the arguments.

    Raises:
        ValueError: If a mask cannot be broadcast over leading axes of the
            argument. It names both, their shapes, and the shapes that fit.
    """
    found = False
    for name, owner in _owners(arguments):
        found = True
        if not is_from_keras(type(layer).call.__module__):
            break
        pairs = zip(*map(tree.flatten, (arguments[owner], arguments[name])))
        for x, mask in pairs:
            if mask is not None and x is not None:
                _check_one(layer, name, mask, owner, x)
    return found


def set_to_0(
    layer: Layer,
    arguments: Named,
    args: typing.Sequence,
    kwargs: Named,
) -> tuple[tuple, Named]:
    """The arguments of a call, with 0 wherever an explicit mask is False.

    Args:
        layer: The layer. A mask is known if a class of Keras that the layer
            inherits from has it in its `call`, beside the argument that it
            belongs to, and no form of its own.
        arguments: Arguments of its `call`, by their names.
        args: The positional ones among them.
        kwargs: The others.

    Returns:
        New `args` and `kwargs`.
    """
    args, kwargs = list(args), dict(kwargs)
    places = {name: i for i, name in enumerate(arguments) if i < len(args)}
    for name, owner in _owners(arguments):
        if not _is_known(layer, name, owner):
            continue
        given = tree.flatten(arguments[name])
        for one in _seen_under(owner, arguments):
            flat = tree.flatten(arguments[one])
            flat[: len(given)] = map(_set_to_0, flat, given)
            filled = tree.pack_sequence_as(arguments[one], flat)
            if one in places:
                args[places[one]] = filled
            else:
                kwargs[one] = filled
    return tuple(args), kwargs


def aligned(mask: Mask, shape: Shape) -> Mask:
    """A mask that broadcasts with values, as those of scores do.

    One that does not, from the last axis on, may be one over leading axes.
    """
    mask_shape = tuple(mask.shape)
    own = tuple(shape)[-len(mask_shape) :]
    if _broadcasts(mask_shape, own) or not fits(mask_shape, shape):
        return mask
    return masks.expand(mask, len(shape))


def narrowed(x: MaskedTensorBase, mask: Mask) -> MaskedTensorBase:
    """Masked scores of which only those take part that a pattern allows.

    What is not there cannot take part, whatever the pattern says.

    Args:
        x: Masked tensor.
        mask: Boolean tensor, as `aligned` takes it.

    Raises:
        ValueError: If the mask does not broadcast with the scores.
    """
    mask = aligned(masks.as_bool(masks.filled(mask)), x.shape)
    ndim, shape = len(mask.shape), tuple(x.shape)
    if not _broadcasts(tuple(mask.shape), shape[len(shape) - ndim :]):
        raise ValueError(
            "A mask of scores must be broadcastable to their shape. Received "
            f"scores of shape {shape} and a mask of shape "
            f"{tuple(mask.shape)}. It is True where a score takes part."
        )
    own = masks.expand(x.mask, len(shape))
    joint = backend.numpy.logical_and(own, mask)
    return masks.settled(x.values, masks.over_axes(joint, x.values, len(shape)))


def fits(mask_shape: Shape, shape: Shape) -> bool:
    """Whether a mask is one over leading axes, of which any may have size 1."""
    mask_shape = tuple(mask_shape)
    return bool(mask_shape) and _broadcasts(
        mask_shape, shape[: len(mask_shape)]
    )


def _seen_under(owner, arguments):
    """The arguments that an attention sees only where the owner is valid."""
    shares = owner == "value" and arguments.get("key") is not None
    return ("value", "key") if shares else (owner,)


def _set_to_0(x, mask):
    if x is None or mask is None or mask is getattr(x, "mask", None):
        return x
    mask = masks.as_bool(masks.filled(mask))
    if not fits(mask.shape, tuple(x.shape)):
        return x
    if not isinstance(x, MaskedTensorBase):
        return masks.fill(x, mask, 0)
    return masks.wrap(masks.fill(x.values, mask, 0), x.mask)


def _owners(arguments):
    """Yields the names of the masks given, each with its argument's."""
    for name, mask in arguments.items():
        if mask is None or not name.endswith("mask"):
            continue
        owner = name.removesuffix("_mask")
        if name == "mask":
            owner = next(iter(arguments))
        if owner != name and owner in arguments:
            yield name, owner


def _is_known(layer, *names):
    return _form(layer) is _leading and any(
        is_from_keras(cls.__module__)
        and "call" in vars(cls)
        and inspect.signature(cls.call).parameters.keys() >= set(names)
        for cls in type(layer).__mro__
    )


def _check_one(layer, name, mask, owner, x):
    shape, mask_shape = tuple(x.shape), tuple(getattr(mask, "shape", ()))
    form = _form(layer)
    fitting = form and form(layer, shape)
    if fitting is None or any(_broadcasts(mask_shape, one) for one in fitting):
        return
    raise ValueError(
        f"Layer '{layer.name}' (of type {type(layer).__name__}) was given a "
        f"`{name}` of shape {mask_shape}, which does not fit its argument "
        f"`{owner}` of shape {shape}. A mask is True where the entries along "
        "the leading axes are valid: here its shape must be "
        f"{' or '.join(map(str, fitting))}, in which any axis may have size 1."
    )


def _form(layer):
    for cls in type(layer).__mro__:
        if cls.__name__ in FORMS:
            return FORMS[cls.__name__]
    return _leading


def _broadcasts(mask_shape, shape):
    return len(mask_shape) == len(shape) and all(
        m == 1 or m is None or n is None or m == n
        for m, n in zip(mask_shape, shape)
    )
