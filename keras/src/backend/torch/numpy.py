"""`max` and `min` along axes, without what PyTorch's compiler cannot follow."""

from patchset.markers import keeps

# Upstream does so since then.
__when__ = "<3.16"


@keeps("_max_of_all")
def max(x, axis=None, keepdims=False, initial=None):
    x = convert_to_tensor(x)
    if axis is None or initial is not None or 0 in x.shape:
        return _max_of_all(x, axis, keepdims, initial)
    return amax(x, axis=axis, keepdims=keepdims)


@keeps("_min_of_all")
def min(x, axis=None, keepdims=False, initial=None):
    x = convert_to_tensor(x)
    if axis is None or initial is not None or 0 in x.shape:
        return _min_of_all(x, axis, keepdims, initial)
    return amin(x, axis=axis, keepdims=keepdims)
