"""What the authors of layers are told: that a mask ends, what is old."""

import inspect
import itertools
import typing
import warnings
import weakref

from keras.src import backend
from keras.src import tree
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.kinds import Layer
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.masking.layers.origins import defined_in_keras
from keras.src.masking.layers.origins import is_flagged
from keras.src.masking.layers.origins import place_of
from keras.src.masking.refusals import is_from_keras

# Classes whose authors were told, with the kind of warning.
_warned = set()
# Layers that were traced to see whether they lose the mask.
_asked = weakref.WeakSet()


def warn_if_lost(
    layer: Layer, inputs: Nest, mask: Mask, outputs: Nest, given: Nest
) -> None:
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
        place_of(cls, "call"),
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


def warn_deprecated(layer: Layer) -> None:
    """Says once per class what to write in place of the old ways it uses."""
    cls = type(layer)
    if is_from_keras(cls.__module__):
        return
    overrides = not defined_in_keras(cls, "compute_mask")
    uses = {
        "sets `supports_masking`": is_flagged(layer),
        "overrides `compute_mask`": overrides,
        "reads `_keras_mask`": reads_attribute(cls.call),
    }
    used = [use for use, is_used in uses.items() if is_used]
    if not used:
        # It counts on a flag that Keras set.
        return
    place = vars(layer).get("_flagged_outside")
    if overrides or place is None:
        place = place_of(cls, "compute_mask" if overrides else "call")
    _warn_once(
        cls,
        DeprecationWarning,
        f"Layer class `{cls.__name__}` {', '.join(used)}. It goes on working, "
        "but masks are part of the tensors now. Delete these lines, and let "
        "`call` take a `keras.MaskedTensor` and compute with `keras.ops`:\n\n"
        f"{INSTEAD_OF_COMPUTE_MASK if overrides else INSTEAD}",
        place,
    )


def reads_attribute(function: typing.Callable) -> bool:
    code = getattr(inspect.unwrap(function), "__code__", None)
    words = {"_keras_mask", "get_keras_mask"}
    return code is not None and bool(
        words & {*code.co_names, *code.co_freevars}
        or "_keras_mask" in code.co_consts
    )
