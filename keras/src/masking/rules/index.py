"""Indexing: the part of the key that falls on the mask indexes it too."""

from keras.src import backend
from keras.src import ops
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.coverage import covers
from keras.src.masking.packing import packs
from keras.src.masking.rules import packed
from keras.src.masking.rules.layout import entry
from keras.src.ops.arguments import as_keys
from keras.src.ops.arguments import dtype_name


def _get_item(call, spec):
    x, key = call.args
    keys = as_keys(key)
    if not has_mask(x):
        (ids,) = _checked_keys(call, keys)
        return masks.covered(ids)
    _check_plain(call, keys)
    keys = _without_dots(keys, x)
    covered = _reach(keys, masks.covered(x))
    return covered + _added(_first(keys, covered))


@packs(packed.indexed)
@covers(_get_item)
def get_item(call: Call) -> AnyTensor:
    """The part of the key that falls on the mask indexes it too.

    The mask is raised to as many axes as arrays of the key reach: where these
    put their own axes depends on all that they stand for.
    """
    x, key = call.args
    keys = as_keys(key)
    if not isinstance(x, MaskedTensorBase):
        return _look_up(call, x, keys)
    _check_plain(call, keys)
    keys = _without_dots(keys, x)
    mask = masks.to_rank(x.mask, x.values, _reach(keys, len(x.mask.shape)))
    values = backend.masked_kernels.index(x.values, tuple(keys))
    mask = backend.masked_kernels.index(mask, _first(keys, len(mask.shape)))
    if not len(mask.shape):
        return entry(values, mask)
    return masks.wrap(values, mask)


def _check_plain(call, keys):
    if any(map(has_mask, keys)):
        raise call.refuse("The key of a masked tensor must be plain.")


def _added(keys):
    """How many axes more than before there are, by these indices."""
    ndim = sum(k is None for k in keys) - sum(map(_is_number, keys))
    arrays = list(filter(_is_array, keys))
    if not arrays:
        return ndim
    # All arrays together, and the numbers beside them, make these axes.
    made = max(1 if _kind(k) == "bool" else len(k.shape) for k in arrays)
    return ndim + made - sum(map(_axes, arrays))


def _reach(keys, covered):
    """How many axes a mask has to cover, to be indexed by a part of the key.

    Args:
        keys: The indices.
        covered: How many it covers.
    """
    own = _first(keys, covered)
    if all(map(_is_number, own)) or not any(map(_is_array, keys)):
        return covered
    # A number beside an array is one, too.
    basic = [k is None or isinstance(k, slice) for k in keys]
    last = len(keys) - basic[::-1].index(False)
    return max(covered, sum(map(_axes, keys[:last])))


def _is_array(k):
    return len(getattr(k, "shape", ())) > 0


def _is_number(k):
    return isinstance(k, int) or getattr(k, "shape", None) == ()


def _axes(k):
    """How many axes an index stands for."""
    if k is None or k is Ellipsis:
        return 0
    return len(k.shape) if _is_array(k) and _kind(k) == "bool" else 1


def _kind(k):
    """What an index is: "bool", "int", or something else."""
    if isinstance(k, int) and not isinstance(k, bool):
        return "int"
    dtype = dtype_name(k)
    if dtype == "bool" or isinstance(k, bool):
        return "bool" if _is_array(k) else "a boolean number"
    return "int" if dtype.startswith(("int", "uint")) else dtype


def _without_dots(keys, x):
    """The indices, with a slice for each axis that `...` stands for.

    Args:
        keys: The indices.
        x: The masked tensor that they are for.

    Raises:
        TypeError: If one of them is no index.
        IndexError: If they are too many.
    """
    for k in keys:
        is_basic = k is None or k is Ellipsis or isinstance(k, slice)
        if not is_basic and _kind(k) not in ("int", "bool"):
            raise TypeError(
                "A masked tensor is indexed by integers, slices, `...`, "
                "`None`, and arrays of integers or booleans. Received an "
                f"index of another kind ({_kind(k)}): {k!r}."
            )
    dots = [i for i, k in enumerate(keys) if k is Ellipsis]
    ndim = len(x.shape)
    named = sum(_axes(k) for k in keys if k is not Ellipsis)
    if len(dots) > 1 or named > ndim:
        problem = "one `...` at most" if len(dots) > 1 else f"{ndim} indices"
        raise IndexError(
            f"A masked tensor of shape {tuple(x.shape)} takes {problem}. "
            f"Received: {keys}."
        )
    if not dots:
        return keys
    i = dots[0]
    # Without an axis they still part two arrays, whose axes then go first.
    rest = [slice(None)] * (ndim - named) or [Ellipsis]
    return keys[:i] + rest + keys[i + 1 :]


def _first(keys, count):
    """The key for the first axes."""
    found, axes = [], 0
    for k in keys:
        if axes == count:
            break
        found.append(k)
        axes += _axes(k)
    return tuple(found)


def _look_up(call, x, keys):
    """A plain tensor with a masked integer key, which looks up 0."""
    (key,) = _checked_keys(call, keys)
    return ops.take(x, key, axis=0)


def _checked_keys(call, keys):
    """The masked integer key of a plain tensor, the only one there may be."""
    key, *others = keys
    if others:
        raise call.refuse(
            "Of several indices none may be masked; `keras.ops.take(x, key, "
            "axis)` takes a masked one along any axis."
        )
    if backend.standardize_dtype(key.dtype) == "bool":
        raise call.refuse(
            "A masked boolean key would select an unknown number of entries."
        )
    return keys
