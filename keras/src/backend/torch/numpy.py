"""`max` and `min` along axes, without what PyTorch's compiler cannot follow.

Since Keras 3.15 `any` and `all` of several axes are right, and so is `median`
of an even number of entries.
"""

from patchset.markers import keeps
from patchset.markers import new
from patchset.markers import when

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


@when("<3.15")
@new
def _last_first(x, axis):
    """The axes, so that one that is gone moves none that is still to come."""
    if axis is None:
        return None
    axes = to_tuple_or_list(axis)
    return sorted((a % len(x.shape) for a in axes), reverse=True)


@when("<3.15")
@keeps("_any_in_turn")
def any(x, axis=None, keepdims=False):
    return _any_in_turn(x, _last_first(x, axis), keepdims)


@when("<3.15")
@keeps("_all_in_turn")
def all(x, axis=None, keepdims=False):
    return _all_in_turn(x, _last_first(x, axis), keepdims)


@when("<3.15")
def median(x, axis=None, keepdims=False):
    return quantile(x, 0.5, axis=axis, keepdims=keepdims)
