"""Padded sequences may come with the mask that says what is padding."""

import numpy as np

from keras.src import backend
from keras.src.backend.common import foreign
from patchset.markers import keeps


@keras_export(
    [
        "keras.utils.pad_sequences",
        "keras.preprocessing.sequence.pad_sequences",
    ]
)
@keeps("_pad_plain")
def pad_sequences(
    sequences,
    maxlen=None,
    dtype="int32",
    padding="pre",
    truncating="pre",
    value=0.0,
    masked=False,
    packed=False,
):
    """Pads sequences to the same length.

    Sequences that are shorter than `maxlen` are padded with `value`, those
    that are longer are cut. With `masked=True` the result says which entries
    are there, whatever they are: an id may be 0, and a measurement may be what
    the padding is filled with.

    Args:
        sequences: List of sequences, which agree in all but their length; or
            a column of lists. Entries may be missing.
        maxlen: Length of the result. Defaults to that of the longest sequence.
        dtype: Dtype of the result. For strings use `object`.
        padding: `"pre"` or `"post"`: pad before or after each sequence.
        truncating: `"pre"` or `"post"`: what to cut off longer ones, their
            beginning or their end.
        value: What to pad with. Of no use with `masked=True`, which has 0.
        masked: Whether to return a masked tensor.
        packed: Whether it stores what is there alone; see
            `keras.MaskedTensor.packed`.

    Returns:
        NumPy array of shape `(len(sequences), maxlen, ...)`; or a masked
        tensor of that shape with a mask of shape `(len(sequences), maxlen)`.

    Raises:
        ValueError: If the sequences differ in more than their length,
            `value` does not go with `dtype`, entries are missing without
            `masked`, or `packed` without it.

    Example:

    >>> x = keras.utils.pad_sequences([[0, 7], [5]], masked=True)
    >>> x
    <MaskedTensor shape=(2, 2), dtype=int32, mask shape=(2, 2)
    [[0 7]
     [-- 5]]>
    """
    if packed and not masked:
        raise ValueError(
            "`packed=True` is a way to store a masked tensor, and "
            "`masked=False` asks for a plain array. Write "
            "`pad_sequences(..., masked=True, packed=True)`."
        )
    if any(map(foreign.is_known, {type(sequences), *map(type, sequences)})):
        sequences = foreign.rows_of(sequences)
    hidden = [np.ma.is_masked(one) for one in sequences]
    if any(hidden) and not masked:
        raise ValueError(
            f"Entries are missing in {sum(hidden)} of {len(hidden)} sequences, "
            "and a plain array does not say so. Write `pad_sequences(..., "
            "masked=True)`."
        )
    options = {"padding": padding, "truncating": truncating}
    values = _pad_plain(sequences, maxlen, dtype, value=value, **options)
    if not masked:
        return values
    valid = [
        ~np.ma.getmaskarray(one) if missing else np.ones(len(one), bool)
        for one, missing in zip(sequences, hidden)
    ]
    mask = _pad_plain(valid, values.shape[1], "bool", value=False, **options)
    x = backend.MaskedTensor(values, mask)
    return x.packed() if packed else x
