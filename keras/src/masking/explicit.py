"""Masks that a caller passes beside a tensor: `layer(x, mask=m)`.

One that does not fit is refused where it is passed. Anything that broadcasts
over leading axes fits, as it does upstream.
"""

from keras.src import tree
from keras.src.masking.refusals import is_from_keras

# Layers whose mask has a form of its own: a function of the layer and of the
# shape of its first argument gives the shapes that fit; None where the layer,
# or the function that it holds, looks at the mask itself.
FORMS = {
    "BatchNormalization": lambda layer, shape: [shape[:-1]],
    "GlobalAveragePooling1D": lambda layer, shape: [
        shape[:2]
        if layer.data_format == "channels_last"
        else (shape[0], shape[2])
    ],
    "Lambda": None,
    "Softmax": None,
    "TimeDistributed": None,
}


def check(layer, arguments):
    """Raises if a mask does not fit the argument that it belongs to.

    `mask` belongs to the first argument, `<arg>_mask` to `<arg>`. What a
    `mask` means to a `call` from outside of Keras is not known.

    Args:
        layer: The layer.
        arguments: Arguments of its `call`, by their names.

    Raises:
        ValueError: If a mask cannot be broadcast over leading axes of the
            argument. It names both, their shapes, and the shapes that fit.
    """
    for name, mask in arguments.items():
        if mask is None or not name.endswith("mask"):
            continue
        owner = name.removesuffix("_mask")
        if name == "mask":
            owner = next(iter(arguments))
        if owner == name or owner not in arguments:
            continue
        if not is_from_keras(type(layer).call.__module__):
            return
        masks = tree.flatten(mask)
        for x, one in zip(tree.flatten(arguments[owner]), masks):
            if one is not None and x is not None:
                _check_one(layer, name, one, owner, x)


def _check_one(layer, name, mask, owner, x):
    shape, mask_shape = tuple(x.shape), tuple(getattr(mask, "shape", ()))
    fitting = _fitting(layer, shape)
    if fitting is None or any(_fits(mask_shape, one) for one in fitting):
        return
    raise ValueError(
        f"Layer '{layer.name}' (of type {type(layer).__name__}) was given a "
        f"`{name}` of shape {mask_shape}, which does not fit its argument "
        f"`{owner}` of shape {shape}. A mask is True where the entries along "
        "the leading axes are valid: here its shape must be "
        f"{' or '.join(map(str, fitting))}, in which any axis may have size 1."
    )


def _fitting(layer, shape):
    for cls in type(layer).__mro__:
        if cls.__name__ in FORMS:
            form = FORMS[cls.__name__]
            return form and form(layer, shape)
    return [shape[:n] for n in range(1, len(shape) + 1)]


def _fits(mask_shape, shape):
    return len(mask_shape) == len(shape) and all(
        m == 1 or m is None or n is None or m == n
        for m, n in zip(mask_shape, shape)
    )
