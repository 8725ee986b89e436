"""Arguments as callers write them: integers of NumPy, keys of an index."""

import typing

import numpy as np

from keras.src import backend


def with_integers(x: typing.Any) -> typing.Any:
    """An argument with integers for those of NumPy, as axes and sizes are."""
    if isinstance(x, np.integer):
        return int(x)
    if type(x) in (list, tuple):
        return type(x)(map(with_integers, x))
    return x


def as_keys(key: typing.Any) -> list:
    """The indices that a key consists of; a list of numbers is an array."""
    if isinstance(key, list) and not any(
        k is None or k is Ellipsis or isinstance(k, slice) for k in key
    ):
        key = (key,)
    keys = key if isinstance(key, (tuple, list)) else (key,)
    return list(map(_as_index, keys))


def is_basic(keys: typing.Iterable) -> bool:
    """Whether there are no tensors or arrays among the indices."""
    return not any(hasattr(k, "shape") for k in keys)


# PyTorch takes bytes for booleans, and no other short integers.
_SHORT = ("int8", "int16", "uint8", "uint16")


def _as_index(k):
    if isinstance(k, list):
        k = np.asarray(k) if k else np.zeros(0, "int32")
        return k.astype("int32") if k.dtype == "int64" else k
    if isinstance(k, np.integer):
        return int(k)
    is_plain = backend.is_tensor(k) or isinstance(k, np.ndarray)
    if is_plain and dtype_name(k) in _SHORT:
        return backend.cast(k, "int32")
    return k


def dtype_name(k: typing.Any) -> str:
    """The dtype of a tensor or an array, else the name of its type."""
    dtype = getattr(k, "dtype", None)
    if dtype is None or getattr(dtype, "kind", None) in ("O", "S", "U"):
        return type(k).__name__
    return backend.standardize_dtype(dtype)
