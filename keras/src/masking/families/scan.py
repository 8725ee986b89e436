"""Running results: masked entries take no part, the mask stays."""

from keras.src import backend
from keras.src.masking import masks
from keras.src.masking.families.layout import full_rank
from keras.src.masking.families.reduce import bound
from keras.src.masking.families.reduce import canonical_axes


def cumulate(identity):
    """A running reduction: masked entries are its identity.

    Args:
        identity: Value that leaves the reduction as it is.
    """

    def rule(call):
        x, axis = call.args[0], call.argument("axis")
        values = call.compute(
            masks.fill(x.values, x.mask, bound(x.dtype, identity))
        )
        if axis is None:
            mask = backend.numpy.reshape(full_rank(x), (-1,))
            return masks.wrap(values, mask)
        if canonical_axes(axis, len(x.shape))[0] >= len(x.mask.shape):
            values = call.compute()
        return masks.wrap(values, x.mask)

    rule.__name__ = f"cumulate({identity!r})"
    return rule
