"""How preprocessing layers take masked tensors, beside `protocols`.

They compute with functions of a backend that need not be Keras's own, as in a
`tf.data` pipeline, or with TensorFlow's functions of strings and of tables.
"""

import typing

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common import foreign
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.keras_tensor import needs_dispatch
from keras.src.backend.common.kinds import Layer
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.composite.errors import UnsupportedTypeError
from keras.src.masking import masks
from keras.src.masking import symbolic
from keras.src.masking.calls import from_foreign
from keras.src.masking.calls import values_of
from keras.src.masking.errors import refuse
from keras.src.masking.layers import protocols
from keras.src.masking.layers import steps
from keras.src.utils.backend_utils import PublicFunctions
from keras.src.utils.backend_utils import in_tf_graph
from keras.src.utils.jax_utils import is_in_jax_tracing_scope
from keras.src.utils.module_utils import tensorflow as tf

# What an array of NumPy holds that no backend but TensorFlow has tensors of.
_STRINGS = "OSU"


def instead_of_by_type(
    layer: Layer, protocol: typing.Callable
) -> typing.Callable:
    """This protocol, but for a layer that handles masks by name, or of old."""
    chosen = protocols.choose(layer)
    return protocol if chosen is protocols.by_type else chosen


def by_public_functions(
    layer: Layer, run: typing.Callable, args: typing.Sequence, kwargs: Named
) -> Nest:
    """By type, with public functions for those of the layer's backend.

    Those know masks, and ask for the rules of composite tensors.
    """
    if not needs_dispatch(args, kwargs) or not (
        any_composite(args, kwargs) or _any_masked(args, kwargs)
    ):
        return protocols.by_type(layer, run, args, kwargs)
    with PublicFunctions():
        try:
            return protocols.by_type(layer, run, args, kwargs)
        except Exception as error:
            refused = isinstance(error, UnsupportedTypeError)
            is_random = getattr(layer, "generator", None) is not None
            if refused or not is_random or not in_symbolic_scope():
                raise
        # Not all that is random can be traced. In inference nothing is, and
        # the mask is over as many axes.
        kwargs = kwargs | {"training": False}
        return protocols.by_type(layer, run, args, kwargs)


def at_the_door(
    layer: Layer, call: typing.Callable, inputs: Nest, kwargs: Named
) -> Nest:
    """Calls a layer that converts its inputs for a backend of its own.

    Args:
        layer: The `DataLayer`.
        call: Its `__call__`.
        inputs: Its inputs. The arrays of `numpy.ma` are masked tensors.
        kwargs: Its arguments by name.
    """
    if not needs_dispatch((inputs,), kwargs):
        return call(inputs, **kwargs)
    inputs, kwargs = tree.map_structure(from_foreign, (inputs, kwargs))
    if not symbolic.any_masked((inputs,), kwargs):
        return call(inputs, **kwargs)
    if _in_pipeline_of_another_backend(tree.flatten(inputs)[0]):
        raise refuse(
            layer.name,
            tree.flatten(inputs),
            "In a pipeline of TensorFlow's, masked tensors are those of the "
            f"TensorFlow backend, and this one is {backend.backend()}. Let "
            "the pipeline hand on values and mask as a pair.",
        )
    with PublicFunctions():
        return call(inputs, **kwargs)


def _in_pipeline_of_another_backend(x):
    """Whether TensorFlow traces, and not JAX inside of it, for an export."""
    return (
        backend.backend() != "tensorflow"
        and in_tf_graph()
        and not is_in_jax_tracing_scope(x)
    )


def of_each(
    layer: Layer,
    function: typing.Callable,
    x: Nest,
    core: typing.Any,
    reason: str,
) -> Nest:
    """A function that treats each part of a batch by itself, under the mask.

    Args:
        layer: The layer whose function it is.
        function: Function of one plain tensor.
        x: Plain or masked tensor.
        core: Number of axes of a part; they are the last ones.
        reason: Why no mask may cover them, a sentence.
    """
    if isinstance(x, MaskedTensorBase):
        if len(x.mask.shape) > len(x.shape) - core:
            raise refuse(layer.name, [x], reason)
        if in_symbolic_scope():
            # NumPy runs the function on what memory holds.
            x = masks.wrap(backend.numpy.zeros_like(x.values), x.mask)
    # Some defaults of the public functions are others.
    with PublicFunctions(False):
        return steps.on_values(function, x)


def entry_by_entry(
    layer: Layer,
    run: typing.Callable,
    args: typing.Sequence,
    kwargs: Named,
    values_of: typing.Callable = values_of,
) -> Nest:
    """Of each entry a number, or a row that the layer adds up.

    For layers that compute with TensorFlow's functions. They are given the
    entries one by one, and what they would add up is added up here, over the
    valid ones.
    """
    args, kwargs = _taken(args, kwargs)
    if not _any_masked(args, kwargs):
        return protocols.by_type(layer, run, args, kwargs)
    (inputs,) = *args, *kwargs.values()
    if layer.sparse:
        reason = "With `sparse=True` its result would have no mask."
        raise refuse(layer.name, tree.flatten(inputs), reason)
    mask = masks.merge(tree.flatten(inputs))
    values = tree.map_structure(values_of, inputs)
    if in_symbolic_scope():
        run = _outline_of(layer)
    if layer.output_mode == "int":
        return _wrap(layer, run(values), mask, inputs)
    first = tree.flatten(values)[0]
    rows = run(tree.map_structure(_as_rows, values))
    shape = backend.shape(first)
    rows = backend.numpy.reshape(rows, (*shape, rows.shape[-1]))
    mask = masks.to_rank(mask, first, len(shape))
    return _added_up(layer.output_mode, rows, mask)


def _added_up(output_mode, rows, mask):
    rows = masks.wrap(masks.fill(rows, mask, 0), mask)
    if output_mode == "multi_hot":
        return ops.max(rows, axis=-2)
    if output_mode != "one_hot":
        return ops.sum(rows, axis=-2)
    alone = len(rows.shape) > 2 and rows.shape[-2] == 1
    return ops.squeeze(rows, -2) if alone else rows


def lookup(
    layer: Layer, run: typing.Callable, args: typing.Sequence, kwargs: Named
) -> Nest:
    """As entry by entry, with a token that the table has for masked ones.

    Without indices for tokens that are not in it, a table takes no others.
    """

    def known(x):
        if in_symbolic_scope() or layer.invert or layer.num_oov_indices:
            return values_of(x)
        with tf.init_scope():
            tokens = layer.get_vocabulary(include_special_tokens=False)
        return _filled(x, tokens[0]) if len(tokens) else x.values

    return entry_by_entry(layer, run, args, kwargs, known)


def text_by_text(
    layer: Layer, run: typing.Callable, args: typing.Sequence, kwargs: Named
) -> Nest:
    """Each text by itself: a masked one, or a masked part of it, is empty."""
    args, kwargs = _taken(args, kwargs)
    if not _any_masked(args, kwargs):
        return protocols.by_type(layer, run, args, kwargs)
    (inputs,) = *args, *kwargs.values()
    if in_symbolic_scope():
        run = _outline_of(layer)
    mask = inputs.mask
    if len(mask.shape) > 1:
        mask = backend.numpy.any(mask, axis=tuple(range(1, len(mask.shape))))
    return _wrap(layer, run(_filled(inputs, "")), mask, inputs)


def _any_masked(args, kwargs):
    return needs_dispatch(args, kwargs) and any(
        map(symbolic.has_mask, tree.flatten((args, kwargs)))
    )


def _taken(args, kwargs):
    """The arguments with masked tensors, or arrays, for foreign arrays."""
    if not needs_dispatch(args, kwargs):
        return args, kwargs
    return tree.map_structure(_taken_in, (args, kwargs))


def _taken_in(x):
    """A masked tensor of a foreign array, also of one of strings.

    Where the backend has no strings, they stay with NumPy under the mask.
    """
    x = foreign.as_numpy(x)
    if not isinstance(x, np.ma.MaskedArray):
        return x
    if x.dtype.kind not in _STRINGS or backend.backend() == "tensorflow":
        return from_foreign(x)
    mask = ~np.ma.getmaskarray(x)
    return masks.wrap(
        np.where(mask, x.data, ""), backend.convert_to_tensor(mask)
    )


def _filled(x, value):
    if not isinstance(x.values, np.ndarray):
        return masks.fill(x.values, x.mask, value)
    mask = masks.expand(backend.convert_to_numpy(x.mask), x.values.ndim)
    return np.where(mask, x.values, value)


def _as_rows(values):
    if isinstance(values, np.ndarray):
        return values.reshape(-1, 1)
    return backend.numpy.reshape(values, (-1, 1))


def _outline_of(layer):
    """What takes the place of TensorFlow's functions while others trace."""

    def outline(values):
        shapes = tree.map_structure(lambda x: tuple(x.shape), values)
        shape = layer.compute_output_shape(shapes)
        # Of TensorFlow's, some are unknown.
        known = backend.shape(tree.flatten(values)[0])
        shape = [known[a] if n is None else n for a, n in enumerate(shape)]
        return backend.numpy.zeros(shape)

    return outline


def _wrap(layer, values, mask, inputs):
    if not backend.is_tensor(values):
        reason = f"It gives no tensor but {type(values).__name__}."
        raise refuse(layer.name, tree.flatten(inputs), reason)
    return masks.wrap(values, mask)
