"""Masked tensors of what means missing, and out to tables of others."""

import numbers
import typing

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src.backend.common import foreign
from keras.src.backend.common import foreign_readers
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking.calls import tensor_of


def from_missing(x: typing.Any, missing: typing.Any = None) -> typing.Any:
    """See `MaskedTensor.from_missing`.

    Args:
        x: Tensor, array, nested list or table.
        missing: What means missing as well, or a list of it.
    """
    meant = _as_list(missing)
    # Those of NumPy may hold what its backend does not.
    is_array = isinstance(x, np.ndarray)
    if isinstance(x, KerasTensor) or (backend.is_tensor(x) and not is_array):
        return _of_tensor(x, meant)
    if foreign.is_known(type(x)):
        if not foreign.is_foreign(x):
            x = x.to_numpy()
        else:
            x = foreign.as_numpy(x, always=True)
    if isinstance(x, dict):
        return {name: _of_array(column, meant) for name, column in x.items()}
    return _of_array(x, meant)


def _as_list(missing):
    if missing is None:
        return []
    if isinstance(missing, (list, tuple, set, np.ndarray)):
        return list(missing)
    return [missing]


def _of_tensor(x, meant):
    hidden = ops.isnan(x)
    for value in meant:
        hidden = ops.logical_or(hidden, ops.equal(x, value))
    return backend.MaskedTensor(x, ops.logical_not(hidden))


def _of_array(x, meant):
    """A masked tensor of an array, or a `numpy.ma` array of strings."""
    hidden = np.ma.getmaskarray(x) if isinstance(x, np.ma.MaskedArray) else None
    # Of numbers and strings in one list NumPy would make strings.
    is_list = isinstance(x, (list, tuple))
    values = np.array(x, object) if is_list else np.ma.getdata(x)
    values, found = _without_missing(values)
    if hidden is not None:
        found = found | hidden
    for value in meant:
        found = found | (values == value)
    array = np.ma.MaskedArray(values, found)
    is_text = values.dtype.kind in "OSU"
    if is_text and backend.backend() != "tensorflow":
        return np.ma.MaskedArray(np.where(found, "", values), found)
    return tensor_of(array)


def _without_missing(values):
    """The values in a dtype of their own, and where NaN, NaT or None are."""
    kind = values.dtype.kind
    if kind in "Mm":
        values, hidden = foreign_readers.days(values)
        return values, np.zeros(
            values.shape, "bool"
        ) if hidden is None else hidden
    if kind in "fc":
        return values, np.isnan(values)
    if kind != "O":
        return values, np.zeros(values.shape, "bool")
    hidden = np.array([_means_missing(v) for v in values.flat], "bool")
    entries = [v for v, h in zip(values.flat, hidden) if not h]
    _check_entries(entries, values.shape)
    filled = np.array(entries) if entries else np.zeros(0, backend.floatx())
    if filled.dtype == "float64" and isinstance(entries[0], float):
        # As engines make of a list of Python's numbers.
        filled = filled.astype(backend.floatx())
    whole = np.zeros(hidden.shape, filled.dtype)
    whole[~hidden] = filled
    return whole.reshape(values.shape), hidden.reshape(values.shape)


def _check_entries(entries, shape):
    for kinds in ((bool, np.bool_, numbers.Number), (str, bytes)):
        if all(isinstance(entry, kinds) for entry in entries):
            return
    kinds = sorted({type(entry).__name__ for entry in entries})
    raise TypeError(
        "`from_missing` takes numbers or strings, not both in one array, and "
        f"what stands for missing ones. Received an array of shape {shape} "
        f"that holds {kinds}. For rows of unequal length write "
        "`keras.MaskedTensor.from_ragged(rows)`."
    )


def _means_missing(entry):
    if entry is None:
        return True
    unequal = entry != entry
    # That of `pandas.NA` is neither.
    return type(unequal).__name__ == "NAType" or (
        isinstance(unequal, (bool, np.bool_)) and bool(unequal)
    )


# Out.


def to_pandas(
    x: MaskedTensorBase,
    columns: typing.Any = None,
    index: typing.Any = None,
) -> typing.Any:
    """See `MaskedTensor.to_pandas`."""
    try:
        # Late: it may not be installed.
        import pandas
    except ImportError as error:
        raise ImportError(
            "`to_pandas()` takes pandas, which is not installed. Write `pip "
            "install pandas`, or `keras.ops.convert_to_numpy(x)`."
        ) from error
    array = _at_most_two_axes(x, "to_pandas")

    def column(values):
        hidden = np.ma.getmaskarray(values)
        data = np.ma.getdata(values)
        if data.dtype.kind in "OSU":
            texts = [None if h else _text(v) for v, h in zip(data, hidden)]
            return pandas.array(texts, dtype="string")
        make = {
            "b": pandas.arrays.BooleanArray,
            "f": pandas.arrays.FloatingArray,
        }.get(data.dtype.kind, pandas.arrays.IntegerArray)
        return make(np.ascontiguousarray(data), np.ascontiguousarray(hidden))

    if array.ndim == 1:
        return pandas.Series(column(array), index=index, name=columns)
    names = _names(array, columns, range(array.shape[1]), "to_pandas")
    arrays = [column(array[:, i]) for i in range(array.shape[1])]
    frame = pandas.DataFrame(dict(enumerate(arrays)), index=index)
    frame.columns = names
    return frame


def to_arrow(
    x: MaskedTensorBase, columns: typing.Sequence[str] | None = None
) -> typing.Any:
    """See `MaskedTensor.to_arrow`."""
    arrow = foreign_readers.pyarrow()
    if arrow is None:
        raise ImportError(
            "`to_arrow()` takes pyarrow, which is not installed. Write `pip "
            "install pyarrow`, or `keras.ops.convert_to_numpy(x)`."
        )
    array = _at_most_two_axes(x, "to_arrow")

    def column(values):
        data = np.ma.getdata(values)
        if data.dtype.kind in "OSU":
            data = np.array([_text(v) for v in data], object)
        return arrow.array(data, mask=np.ma.getmaskarray(values))

    if array.ndim == 1:
        return column(array)
    numbers = map(str, range(array.shape[1]))
    names = _names(array, columns, numbers, "to_arrow")
    return arrow.table(
        [column(array[:, i]) for i in range(array.shape[1])], names=names
    )


def _at_most_two_axes(x, name):
    """The `numpy.ma` array, in dtypes that tables have."""
    array = x.to_numpy()
    if not 1 <= array.ndim <= 2:
        raise ValueError(
            f"`{name}()` takes one or two axes, as a table has. Received a "
            f"masked tensor of shape {array.shape}. Reshape it with "
            "`keras.ops.reshape`."
        )
    if array.dtype.name in ("float16", "bfloat16"):
        array = array.astype("float32")
    return array


def _names(array, columns, default, name):
    names = list(default) if columns is None else list(columns)
    if len(names) != array.shape[1]:
        raise ValueError(
            f"`{name}()` takes a name for each column. Received {names} for "
            f"a masked tensor of shape {array.shape}."
        )
    return names


def _text(x):
    return x.decode() if isinstance(x, bytes) else str(x)
