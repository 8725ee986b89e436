"""Classes of which some are missing become masked rows."""

from keras.src.api_export import keras_export
from patchset.markers import keeps


@keras_export("keras.utils.to_categorical")
@keeps("_plain_to_categorical")
def to_categorical(x, num_classes=None):
    """Makes a row of each class, with 1 at its place and 0 elsewhere.

    As targets for `categorical_crossentropy`.

    Args:
        x: Integers from 0 to `num_classes - 1`, of shape `(...)` or
            `(..., 1)`. Some may be missing: those of a masked tensor, or of a
            column of pandas, Polars or Arrow.
        num_classes: How many classes there are. Defaults to `max(x) + 1`.

    Returns:
        A NumPy array of shape `(..., num_classes)`, a tensor for a tensor, or
        a masked tensor, with a row masked where its class is missing.

    Example:

    >>> keras.utils.to_categorical([0, 2])
    array([[1., 0., 0.],
           [0., 0., 1.]])
    >>> x = keras.MaskedTensor([0, 2], [True, False])
    >>> keras.utils.to_categorical(x, 3)
    <MaskedTensor shape=(2, 3), dtype=float32, mask shape=(2,)
    [[1.0 0.0 0.0]
     [-- -- --]]>
    """
    # Late: the backend imports this module.
    from keras.src import ops
    from keras.src.backend.common import hooks
    from keras.src.backend.common.keras_tensor import needs_dispatch

    if not needs_dispatch((x,)):
        return _plain_to_categorical(x, num_classes)
    x = hooks.from_foreign(x)
    if len(x.shape) > 1 and x.shape[-1] == 1:
        x = ops.squeeze(x, -1)
    if not num_classes:
        num_classes = int(ops.max(x)) + 1
    return ops.one_hot(x, num_classes)
