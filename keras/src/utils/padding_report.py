"""How much of a batch is padding, and what packing it would save."""

import typing

from keras.src import backend
from keras.src import tree
from keras.src.api_export import keras_export
from keras.src.backend.common.composite import has_mask
from keras.src.masking.calls import from_foreign
from keras.src.masking.layers.steps import step_mask


@keras_export("keras.utils.padding_report")
def padding_report(x: typing.Any) -> str:
    """Tells how much of a batch is padding, and what packing would save.

    Args:
        x: Structure of tensors: inputs as `fit` takes them, a batch, or one
            masked tensor. Those whose masks do not cover `(batch, time)` are
            left out.

    Returns:
        Text with a line for each masked tensor, or one that says that there
        is none.

    Raises:
        ValueError: If a tensor is symbolic: what is valid is not known.

    Example:

    >>> x = keras.MaskedTensor.from_ragged([[1, 2, 3], [4]])
    >>> print(keras.utils.padding_report(x))
    x: 2 rows of 3 steps, of 1 to 3 valid ones. 4 of 6 steps are valid \
(67 %); x.packed() would compute with 67 % of the steps.
    """
    lines = [
        _line("".join(["x", *(f"[{key!r}]" for key in path)]), leaf)
        for path, leaf in _leaves(x)
        if len(leaf.shape) > 1 and len(leaf.mask.shape) > 1
    ]
    return "\n".join(lines) or "Nothing has a mask over `(batch, time)`."


def _leaves(x):
    """The masked tensors of a structure, each with its path."""
    for path, leaf in tree.flatten_with_path(x):
        leaf = from_foreign(leaf)
        if not has_mask(leaf):
            continue
        if isinstance(leaf, backend.KerasTensor):
            raise ValueError(
                "`padding_report` counts what is valid, and this is the "
                f"symbolic tensor `{leaf.name}`. Pass a batch."
            )
        yield path, leaf


def _line(name, x):
    mask = backend.convert_to_numpy(step_mask(x.mask))
    batch, time = mask.shape
    valid, lengths = int(mask.sum()), mask.sum(1)
    span = f"{lengths.min()} to {lengths.max()}" if batch else "no"
    share = round(100 * valid / max(mask.size, 1))
    start = (
        f"{name}: {batch} rows of {time} steps, of {span} valid ones. {valid} "
        f"of {mask.size} steps are valid ({share} %); "
    )
    if x.is_packed:
        stored = x.flat.shape[0]
        return start + f"it is packed, in {stored} steps."
    if len(x.mask.shape) > 2:
        return start + "its mask covers entries inside of steps as well."
    return start + f"{name}.packed() would compute with {share} % of the steps."
