"""Arrays of other libraries that say which of their entries are missing.

Whatever comes in at a door becomes an array of NumPy here, or a `numpy.ma`
array whose mask is True where an entry is missing. NumPy's own masked arrays
are a row of the table, too.
"""

import typing

import numpy as np

from keras.src.backend.common import foreign_readers as readers
from keras.src.backend.common.foreign_readers import Column

DATED = (
    "holds points in time, not numbers: take the difference to a day, divided "
    "by a unit, or pass the column by itself, which gives days since 1970"
)


def is_foreign(x: typing.Any) -> bool:
    """Whether `x` is for `as_numpy` to convert, and for no engine.

    Args:
        x: Anything. Those of pandas and xarray whose dtypes are NumPy's own,
            numeric ones, are not.
    """
    reader = _reader_of(type(x))
    return reader is not None and not reader.is_plain(x)


def is_known(cls: type) -> bool:
    """Whether the table has a row for this type."""
    return _reader_of(cls) is not None


def is_column(x: typing.Any) -> bool:
    """Whether `x` is a Series of pandas, of which adapters make a matrix."""
    return _reader_of(type(x)) is readers.READERS["pandas", "Series"]


def as_numpy(x: typing.Any, always: bool = False) -> typing.Any:
    """The entries of a foreign array, and which are missing, in NumPy's terms.

    Args:
        x: Anything; what is not foreign is returned as it is.
        always: Whether columns that could hold missing entries are masked
            where they hold none, as batches have to be.

    Returns:
        A `numpy.ma` array, a NumPy array where nothing is or can be missing,
        or a dictionary of such arrays of shape `(rows, 1)` by the names of
        columns, for a table of numbers and strings. A table of either alone
        has the shape `(rows, columns)`.

    Raises:
        TypeError: If something in it is neither a number nor a string, with
            the names of the columns.
    """
    if not is_foreign(x):
        return x
    found = _reader_of(type(x)).read(x)
    if isinstance(found, Column):
        _check([found])
        return _array(found, always)
    if isinstance(found, dict):
        return {name: as_numpy(y, always) for name, y in found.items()}
    if not isinstance(found, list):
        return found
    _check_table(found)
    if len({column.kind for column in found}) > 1:
        return _by_name(found, always)
    return _matrix(found, always)


def as_columns(x: typing.Any, always: bool = False) -> typing.Any:
    """As `as_numpy`, with a dictionary for any table."""
    found = _reader_of(type(x))
    found = found and found.read(x)
    if not isinstance(found, list):
        return as_numpy(x, always)
    _check_table(found)
    return _by_name(found, always)


def rows_of(x: typing.Iterable) -> list:
    """The rows of a column of lists, as arrays of NumPy or of `numpy.ma`.

    Args:
        x: Column of lists; or a list of rows, each an array of any library.

    Raises:
        ValueError: If a row is missing.
    """
    if is_known(type(x)) and not isinstance(x, np.ma.MaskedArray):
        x = _lists(x)
    x = list(x)
    missing = [i for i, row in enumerate(x) if _is_nothing(row)]
    if missing:
        raise ValueError(
            f"The rows {missing} are missing as a whole, and a ragged list has "
            "no mask for them: it would be that of an empty row. Leave them "
            "out, or put empty lists there."
        )
    return [_row(row) for row in x]


def _row(x):
    """A row of a ragged list, or a list of rows if it holds lists itself."""
    if is_known(type(x)) and not isinstance(x, np.ma.MaskedArray):
        found = _reader_of(type(x)).read(x)
        if isinstance(found, Column) and found.reason == readers.RAGGED:
            return rows_of(x)
    return as_numpy(x)


def _lists(x):
    """The lists of a column, as arrays that say what is missing."""
    array = getattr(x, "array", x)
    if hasattr(array, "__arrow_array__") and readers.pyarrow():
        x = array.__arrow_array__()
    # Arrow's scalars have the list as an array, or None.
    return [row.values if hasattr(row, "as_py") else row for row in x]


def _is_nothing(row):
    """Whether a list is missing: None, NaN or pandas' NA stand for one."""
    is_nan = isinstance(row, float) and np.isnan(row)
    return row is None or is_nan or type(row).__name__ == "NAType"


def _check_table(columns):
    for column in columns:
        if column.kind == "date":
            column.kind, column.reason = "", DATED
    _check(columns)
    names = [str(column.name) for column in columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(
            f"Several columns of a table have the same name: {twice}. Their "
            "order alone would tell them apart. Rename them."
        )


def _check(columns):
    refused = [column for column in columns if not column.kind]
    if not refused:
        return
    named = [c.name for c in refused if c.name is not None]
    texts = [
        ("The array" if c.name is None else f"Column `{c.name}`")
        + f" (of dtype {c.dtype}) {c.reason}."
        for c in refused
    ]
    if named and len(columns) > len(refused):
        texts.append(f"Or leave out the columns {named}.")
    raise TypeError("No tensor can be made of this. " + " ".join(texts))


def _by_name(columns, always):
    return {str(c.name): _array(c, always)[:, None] for c in columns}


def _array(column, always):
    values, hidden = column.parts()
    if hidden is None:
        if not (column.is_nullable or always):
            return values
        hidden = np.zeros(values.shape, "bool")
    return np.ma.MaskedArray(values, hidden)


def _matrix(columns, always):
    """The columns beside each other, in the smallest dtype that holds all."""
    parts = [column.parts() for column in columns]
    shape = (len(parts[0][0]) if parts else 0, len(parts))
    dtypes = [values.dtype for values, _ in parts]
    dtype = np.result_type(*dtypes) if dtypes else np.dtype("float32")
    # Column by column in memory, as they come and as pandas has them.
    values = np.empty(shape, dtype, order="F")
    hidden = np.zeros(shape, "bool", order="F")
    for i, (own, missing) in enumerate(parts):
        values[:, i] = own
        if missing is not None:
            hidden[:, i] = missing
    masked = always or any(c.is_nullable for c in columns)
    if not masked and all(missing is None for _, missing in parts):
        return values
    return np.ma.MaskedArray(values, hidden)


_CAPSULES = ("__arrow_c_stream__", "__arrow_c_array__")

# Of types that were seen, None for those of no library here.
_found = {}


def _reader_of(cls):
    try:
        return _found[cls]
    except KeyError:
        keys = [
            (b.__module__.partition(".")[0], b.__name__) for b in cls.__mro__
        ]
        reader = next(
            (readers.READERS[k] for k in keys if k in readers.READERS), None
        )
        if reader is None and any(hasattr(cls, name) for name in _CAPSULES):
            reader = readers.Reader(readers.from_capsule)
        _found[cls] = reader
        return reader
