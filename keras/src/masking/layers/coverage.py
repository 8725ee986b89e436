"""What the masks of Keras's own layers cover, told and not traced.

As `coverage` does for operations: a row a layer, of which the first result has
a mask, or none. Layers without a row, and those from outside Keras, are
traced.
"""

import inspect
import typing

from keras.src import tree
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Layer
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Nest
from keras.src.masking import masks
from keras.src.masking.refusals import is_from_keras
from keras.src.masking.rules import contract
from keras.src.masking.rules.layout import joined_axis
from keras.src.masking.rules.layout import split_point


def kept(
    layer: Layer, operands: typing.Sequence[AnyTensor], spec: Nest
) -> int | None:
    """The mask of the first operand stays; the others are plain."""
    x, *others = operands
    return None if any(map(has_mask, others)) else masks.covered(x)


def activated(
    layer: Layer, operands: typing.Sequence[AnyTensor], spec: Nest
) -> int | None:
    """As `kept`, before an activation that leaves masks as they are."""
    return kept(layer, operands, spec) if _keeps_masks(layer) else None


def _keeps_masks(layer):
    # One from outside Keras may do with a mask what it likes.
    activation = getattr(layer, "activation", None)
    return activation is None or (
        inspect.isfunction(activation) and is_from_keras(activation.__module__)
    )


def _product(subscripts_of):
    """A product with a plain kernel, before an activation.

    Args:
        subscripts_of: Function of the layer, how `einsum` would write it.
    """

    def covered(layer, operands, spec):
        if not _keeps_masks(layer):
            return None
        labels, out = contract.labels_of_first(
            subscripts_of(layer), operands[0], len(spec.shape)
        )
        return contract.reach([labels], out)

    return covered


def windows(
    layer: Layer, operands: typing.Sequence[AnyTensor], spec: Nest
) -> int | None:
    """The mask ends before the channels, which are last."""
    if layer.data_format != "channels_last":
        return None
    covered = activated(layer, operands, spec)
    return covered and min(covered, len(spec.shape) - 1)


def pooled(
    layer: Layer, operands: typing.Sequence[AnyTensor], spec: Nest
) -> int | None:
    """A mask over the batch stays, any other is used up."""
    covered = masks.covered(operands[0])
    return covered if covered == 1 else 0


def embedded(
    layer: Layer, operands: typing.Sequence[AnyTensor], spec: Nest
) -> int | None:
    """As many axes as the ids have, if their zeros are masked."""
    ids = operands[0]
    return len(ids.shape) if layer.mask_zero else masks.covered(ids)


def found(
    layer: Layer, operands: typing.Sequence[AnyTensor], spec: Nest
) -> int | None:
    """Steps are masked as a whole, and entries that were before."""
    ndim = len(operands[0].shape)
    return max(ndim - 1, masks.covered(operands[0]))


def steps(
    layer: Layer, operands: typing.Sequence[AnyTensor], spec: Nest
) -> int | None:
    """A sequence of outputs has a mask over its steps, else as `pooled`."""
    covered = kept(layer, operands, spec)
    if covered is None or (covered == 1 and layer.return_state):
        # States have one over the batch.
        return None
    return 2 if layer.return_sequences else pooled(layer, operands, spec)


def queries(
    layer: Layer, operands: typing.Sequence[AnyTensor], spec: Nest
) -> int | None:
    """Steps are valid where the query is."""
    return min(masks.covered(operands[0]), 1) * 2


def listed_queries(
    layer: Layer, operands: typing.Sequence[AnyTensor], spec: Nest
) -> int | None:
    """As `queries`, with any number of batch axes."""
    query = operands[0]
    return len(query.shape) - 1 if has_mask(query) else 0


def merged(
    layer: Layer, operands: typing.Sequence[AnyTensor], spec: Nest
) -> int | None:
    """As far as any mask reaches; a plain operand ends a union."""
    if layer.mask_mode == "union" and not all(map(has_mask, operands)):
        return 0
    # Axes that an operand lacks are added after the batch.
    lacking = [len(spec.shape) - len(x.shape) for x in operands]
    covered = list(map(masks.covered, operands))
    return max(c + (n if c > 1 else 0) for c, n in zip(covered, lacking))


def joined(
    layer: Layer, operands: typing.Sequence[AnyTensor], spec: Nest
) -> int | None:
    """As `ops.concatenate` tells."""
    return joined_axis(operands, layer.axis, new_axis=False)[1]


def reshaped(
    layer: Layer, operands: typing.Sequence[AnyTensor], spec: Nest
) -> int | None:
    """As `ops.reshape` tells, of a batch of one."""
    x = operands[0]
    target = getattr(layer, "target_shape", (-1,))
    covered = masks.covered(x)
    split = split_point((1, *x.shape[1:]), covered, (1, *target))
    return len(spec.shape) if split is None else split


ROWS = {
    "Activation": activated,
    "ActivityRegularization": kept,
    "AlphaDropout": kept,
    "Attention": listed_queries,
    "BaseConv": windows,
    "BaseConvTranspose": windows,
    "BaseDepthwiseConv": windows,
    "BaseGlobalPooling": pooled,
    "BasePooling": kept,
    "BaseSeparableConv": windows,
    "BatchNormalization": kept,
    "Bidirectional": lambda layer, operands, spec: (
        steps(layer, operands, spec) if layer.merge_mode else None
    ),
    "Concatenate": joined,
    "Dense": _product(lambda layer: "...a,ab->...b"),
    # It is a `Merge`, and merges nothing.
    "Dot": None,
    "Dropout": kept,
    "ELU": kept,
    "EinsumDense": _product(lambda layer: layer.equation),
    "Embedding": embedded,
    "Fill": lambda layer, operands, spec: 0,
    "Flatten": lambda layer, operands, spec: (
        None if layer._channels_first else reshaped(layer, operands, spec)
    ),
    "GaussianDropout": kept,
    "GaussianNoise": kept,
    "GroupNormalization": kept,
    "GroupedQueryAttention": queries,
    "Identity": kept,
    "LayerNormalization": kept,
    "LeakyReLU": kept,
    "Masking": found,
    "Merge": merged,
    "MultiHeadAttention": queries,
    "PReLU": kept,
    "RMSNormalization": kept,
    "RNN": steps,
    "ReLU": kept,
    "Rescaling": kept,
    "Reshape": reshaped,
    # In one direction they are, in the other not.
    "ReversibleEmbedding": None,
    "Softmax": kept,
    "UnitNormalization": kept,
}


def coverage_of(
    layer: Layer, args: typing.Sequence, kwargs: Named
) -> typing.Callable | None:
    """What tells of a call what the masks of its results cover.

    Args:
        layer: The layer.
        args: Arguments of its `call`, some of them masked.
        kwargs: Those by name.

    Returns:
        A function of the specs of the values of all results, that gives a
        number for each, as `coverage.covers` has it; None if only tracing
        tells: of a layer from outside Keras, or with an explicit mask.
    """
    row = _row_of(type(layer))
    if row is None:
        return None
    arguments = layer._call_signature.bind(*args, **kwargs).arguments
    for name, x in arguments.items():
        if x is not None and (name == "mask" or name.endswith("_mask")):
            return None
    operands = [
        x for x in tree.flatten(list(arguments.values())) if hasattr(x, "shape")
    ]

    def coverage(specs):
        return [row(layer, operands, specs[0])] + [0] * (len(specs) - 1)

    return coverage


def _row_of(cls):
    """The row of a class of Keras, or of the nearest that it inherits from."""
    if not is_from_keras(cls.__module__):
        return None
    names = (base.__name__ for base in cls.__mro__)
    return next((ROWS[name] for name in names if name in ROWS), None)
