"""Arrays of other libraries that say which of their entries are missing.

The one place that knows these libraries: whatever comes in at a door becomes
an array of NumPy here, or a `numpy.ma` array whose mask is True where an entry
is missing. NumPy's own masked arrays are a row of the table, too. No library is
imported before one of its arrays is there.
"""

import dataclasses
import functools
import importlib.util
import sys
import types
import typing

import numpy as np

RAGGED = (
    "holds lists, which are ragged: `keras.MaskedTensor.from_ragged(column)` "
    "takes it"
)
ZONED = (
    "has a time zone, of which a number of days would say nothing: convert it "
    "to UTC and drop the zone"
)
DATED = (
    "holds points in time, not numbers: take the difference to a day, divided "
    "by a unit, or pass the column by itself, which gives days since 1970"
)
WIDE = "has integers of 128 bits, which NumPy has not: cast it to one of 64"
OTHER = "is neither numeric nor of strings or categories"


@dataclasses.dataclass
class Column:
    """What a reader finds, before anything is copied.

    Attributes:
        name: Its name in a table, or None.
        dtype: Its dtype, as its library writes it.
        kind: "number", "string" or "date"; "" for what is refused.
        parts: Function that gives the values, anything where one is missing,
            and an array that is True there, or None.
        is_nullable: Whether its dtype says that entries may be missing,
            so that it is masked whatever it holds.
        reason: Why it is refused.
    """

    name: typing.Any
    dtype: typing.Any
    kind: str
    parts: typing.Callable | None = None
    is_nullable: bool = False
    reason: str = OTHER


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
    return _reader_of(type(x)) is READERS["pandas", "Series"]


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
    missing = [i for i, row in enumerate(x) if row is None]
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
        if isinstance(found, Column) and found.reason == RAGGED:
            return rows_of(x)
    return as_numpy(x)


def _lists(x):
    """The lists of a column, as arrays that say what is missing."""
    array = getattr(x, "array", x)
    if hasattr(array, "__arrow_array__") and pyarrow():
        x = array.__arrow_array__()
    # Arrow's scalars have the list as an array, or None.
    return [getattr(row, "values", row) for row in x]


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


# How the entries of each library are read.


def _missing(hidden):
    """Where entries are missing, None if nowhere."""
    return hidden if hidden.any() else None


def days(times: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Days as numbers, of NumPy's dates (since 1970) or spans of time.

    Returns:
        Values, 0 for NaT, and an array that is True there, or None.
    """
    hidden = np.isnat(times)
    if times.dtype.kind == "M":
        times = times - np.datetime64(0, "D")
    values = np.where(hidden, 0, times / np.timedelta64(1, "D"))
    return values, _missing(hidden)


@functools.cache
def pyarrow() -> types.ModuleType | None:
    """The package, or None where it is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        return None
    # Late: not before there is something for it to do.
    import pyarrow

    return pyarrow


def _pandas_is_plain(x):
    """Whether NumPy's numeric dtypes are all that there is."""
    if not hasattr(x, "columns"):
        return isinstance(x.dtype, np.dtype) and x.dtype.kind in "biufc"
    if not all(isinstance(dtype, np.dtype) for dtype in x.dtypes):
        return False
    kinds = {dtype.kind for dtype in x.dtypes}
    return kinds <= set("iufc") or kinds == {"b"}


def _pandas_array(x):
    return _pandas_series(sys.modules["pandas"].Series(x, copy=False))


def _pandas_frame(x):
    columns = [x.iloc[:, i] for i in range(x.shape[1])]
    return [_pandas_series(c, n) for c, n in zip(columns, x.columns)]


def _pandas_series(x, name=None):
    dtype = x.dtype
    if isinstance(dtype, np.dtype):
        kind = {"M": "dates", "m": "dates", "O": "objects"}.get(dtype.kind)
        read = _PANDAS[kind or "numbers"]
    else:
        kind = type(dtype).__name__
        if hasattr(dtype, "numpy_dtype") and kind not in _PANDAS:
            kind = "masked"
        read = _PANDAS.get(kind)
    name = x.name if name is None else name
    return read(x, name) if read else Column(name, dtype, "")


def _pandas_numbers(x, name):
    return Column(name, x.dtype, "number", lambda: (x.to_numpy(), None))


def _pandas_masked(x, name):
    def parts():
        dtype, hidden = x.dtype.numpy_dtype, _missing(x.isna().to_numpy())
        if hidden is not None and pyarrow() and dtype.kind != "b":
            return _view(pyarrow().array(x.array)), hidden
        return x.to_numpy(dtype=dtype, na_value=0), hidden

    return Column(name, x.dtype, "number", parts, is_nullable=True)


def _pandas_strings(x, name):
    def parts():
        hidden = _missing(x.isna().to_numpy())
        values = x if hidden is None else x.fillna("")
        return values.to_numpy(dtype=object), hidden

    # The `str` that pandas chooses by itself has NaN where one is missing.
    nullable = x.dtype.na_value is sys.modules["pandas"].NA
    return Column(name, x.dtype, "string", parts, nullable)


def _pandas_categories(x, name):
    categories = _pandas_array(x.cat.categories)

    def parts():
        values, _ = categories.parts()
        codes = x.cat.codes.to_numpy()
        hidden = _missing(codes < 0)
        if not len(values):
            return np.zeros(len(codes), values.dtype), hidden
        return values[np.maximum(codes, 0)], hidden

    return Column(name, x.dtype, categories.kind, parts)


def _pandas_dates(x, name):
    def parts():
        return days(x.to_numpy())

    return Column(name, x.dtype, "date", parts, is_nullable=True)


def _pandas_objects(x, name):
    """Python's objects, if they are all numbers or all strings."""
    kind = sys.modules["pandas"].api.types.infer_dtype(x, skipna=True)
    nullable = {
        "boolean": "boolean",
        "integer": "Int64",
        "floating": "Float64",
        "mixed-integer-float": "Float64",
        "empty": "Float64",
    }
    if kind in nullable:
        found = _pandas_masked(x.astype(nullable[kind]), name)
    elif kind == "string":
        found = _pandas_strings(x.astype("string"), name)
    else:
        nested = (list, tuple, set, dict, np.ndarray)
        has_lists = any(isinstance(entry, nested) for entry in x)
        reason = RAGGED if has_lists else f"holds objects of kind {kind!r}"
        return Column(name, x.dtype, "", reason=reason)
    return dataclasses.replace(found, dtype=x.dtype, is_nullable=False)


def _pandas_arrow(x, name):
    return _arrow_array(
        pyarrow().chunked_array(x.array.__arrow_array__()), name
    )


_PANDAS = {
    "numbers": _pandas_numbers,
    "masked": _pandas_masked,
    "objects": _pandas_objects,
    "dates": _pandas_dates,
    "StringDtype": _pandas_strings,
    "CategoricalDtype": _pandas_categories,
    "ArrowDtype": _pandas_arrow,
    "SparseDtype": lambda x, name: _pandas_numbers(x.sparse.to_dense(), name),
    "DatetimeTZDtype": lambda x, name: Column(name, x.dtype, "", reason=ZONED),
}


def _arrow_table(x):
    return [_arrow_array(x.column(n), n) for n in x.schema.names]


def _arrow_array(x, name=None):
    if hasattr(x, "combine_chunks"):
        x = x.chunk(0) if x.num_chunks == 1 else x.combine_chunks()
    if hasattr(x, "storage"):
        x = x.storage
    dtype = x.type
    if hasattr(x, "dictionary_decode"):
        x = x.dictionary_decode()
    is_of = {
        kind: any(getattr(pyarrow().types, f"is_{test}")(x.type) for test in of)
        for kind, of in _ARROW.items()
    }
    kind = next((kind for kind, found in is_of.items() if found), "")
    zoned = kind == "date" and getattr(x.type, "tz", None)
    if zoned or kind in ("", "ragged"):
        reason = ZONED if zoned else RAGGED if kind else OTHER
        return Column(name, dtype, "", reason=reason)
    read = _ARROW_PARTS[kind]
    return Column(name, dtype, kind, lambda: read(x))


# Arrow's own tests of types, by what becomes of these.
_ARROW = {
    "number": ("boolean", "integer", "floating", "decimal", "null"),
    "string": ("string", "large_string", "string_view"),
    "date": ("timestamp", "date", "duration"),
    "ragged": ("list", "large_list", "list_view", "fixed_size_list"),
}


def _hidden_of(x):
    if not x.null_count:
        return None
    return x.is_null().to_numpy(zero_copy_only=False)


def _arrow_numbers(x):
    types, hidden = pyarrow().types, _hidden_of(x)
    if types.is_null(x.type):
        return np.zeros(len(x), "float32"), hidden
    if types.is_decimal(x.type):
        x = x.cast(pyarrow().float64())
    if types.is_boolean(x.type):
        values = x.fill_null(False).to_numpy(zero_copy_only=False)
        return values, hidden
    return _view(x), hidden


def _view(x):
    """The memory of an Arrow array of numbers, whatever is missing."""
    if not x.null_count:
        return x.to_numpy(zero_copy_only=False)
    buffers = [None, x.buffers()[1]]
    array = pyarrow().Array.from_buffers(x.type, len(x), buffers, 0, x.offset)
    return array.to_numpy(zero_copy_only=False)


def _arrow_strings(x):
    hidden = _hidden_of(x)
    x = x.cast(pyarrow().large_string()).fill_null("")
    return x.to_numpy(zero_copy_only=False), hidden


def _arrow_dates(x):
    return days(x.to_numpy(zero_copy_only=False))


_ARROW_PARTS = {
    "number": _arrow_numbers,
    "string": _arrow_strings,
    "date": _arrow_dates,
}


def _polars_frame(x):
    return [_polars_series(column) for column in x.get_columns()]


def _polars_series(x):
    name, dtype, polars = x.name or None, x.dtype, sys.modules["polars"]
    if dtype.is_integer() and str(dtype).endswith("128"):
        return Column(name, dtype, "", reason=WIDE)
    if dtype.is_numeric() or dtype in (polars.Boolean, polars.Null):
        return Column(name, dtype, "number", lambda: _polars_numbers(x))
    if dtype in (polars.String, polars.Categorical, polars.Enum):
        x = x.cast(polars.String)
        return Column(name, dtype, "string", lambda: _polars_parts(x, ""))
    if dtype in (polars.Date, polars.Datetime, polars.Duration):
        if getattr(dtype, "time_zone", None):
            return Column(name, dtype, "", reason=ZONED)
        return Column(name, dtype, "date", lambda: days(x.to_numpy()))
    reason = RAGGED if dtype in (polars.List, polars.Array) else OTHER
    return Column(name, dtype, "", reason=reason)


def _polars_numbers(x):
    polars = sys.modules["polars"]
    if x.dtype == polars.Null:
        return np.zeros(len(x), "float32"), np.ones(len(x), "bool")
    if x.dtype == polars.Boolean:
        return _polars_parts(x, False)
    if x.dtype.is_decimal():
        x = x.cast(polars.Float64)
    if x.null_count() and pyarrow():
        return _view(x.to_arrow()), x.is_null().to_numpy()
    return _polars_parts(x, 0)


def _polars_parts(x, value):
    if not x.null_count():
        return x.to_numpy(), None
    return x.fill_null(value).to_numpy(), x.is_null().to_numpy()


def _fill_values(x):
    """What stands for a missing value in a variable of xarray, by itself."""
    declared = {**x.encoding, **x.attrs}
    names = ("_FillValue", "missing_value")
    return [declared[name] for name in names if name in declared]


def _xarray_is_plain(x):
    # Not by `x.data`, which may be on disk.
    numeric = isinstance(x.dtype, np.dtype) and x.dtype.kind in "biufc"
    return numeric and not _fill_values(x)


def _xarray_variable(x):
    """Masked where its file has fill values, of which xarray makes NaN."""
    if not isinstance(x.dtype, np.dtype):
        return _pandas_array(x.data)
    values = x.to_numpy()
    name = getattr(x, "name", None)
    if values.dtype.kind in "Mm":
        return Column(name, x.dtype, "date", lambda: days(values), True)
    if values.dtype.kind in "OSU" and values.ndim == 1:
        return dataclasses.replace(_pandas_array(values), name=name)
    if values.dtype.kind not in "biufc":
        return Column(name, x.dtype, "")
    hidden = np.isnan(values) if values.dtype.kind in "fc" else False
    for value in _fill_values(x):
        hidden = hidden | (values == np.asarray(value))
    parts = values, np.broadcast_to(hidden, values.shape)
    return Column(name, x.dtype, "number", lambda: parts, True)


def _xarray_dataset(x):
    return {str(name): as_numpy(x[name]) for name in x.data_vars}


def _from_capsule(x):
    """Anything with Arrow's interface for other libraries."""
    arrow = pyarrow()
    if arrow is None:
        raise ImportError(
            f"Reading {type(x).__name__} takes `pyarrow`, which is not "
            "installed. Write `pip install pyarrow`, or pass a NumPy array."
        )
    if not hasattr(x, "__arrow_c_stream__"):
        array = arrow.array(x)
        if not arrow.types.is_struct(array.type):
            return _arrow_array(array)
        return _arrow_table(arrow.RecordBatch.from_struct_array(array))
    try:
        table = arrow.table(x)
    except (arrow.ArrowInvalid, TypeError, ValueError):
        return _arrow_array(arrow.chunked_array(x))
    return _arrow_table(table)


class Reader(typing.NamedTuple):
    """How the arrays of one type are read.

    Attributes:
        read: Function of an array that gives a `Column`, a list of them for a
            table, or what `as_numpy` returns.
        is_plain: Function of an array, whether engines read it as it is.
    """

    read: typing.Callable
    is_plain: typing.Callable = lambda x: False


_PANDAS_ARRAY = Reader(_pandas_array, _pandas_is_plain)
_ARROW_ARRAY = Reader(_arrow_array)
_ARROW_TABLE = Reader(_arrow_table)
_XARRAY = Reader(_xarray_variable, _xarray_is_plain)
# By the package that a type is from, and its name.
READERS = {
    ("numpy", "MaskedArray"): Reader(lambda x: x),
    ("pandas", "Series"): Reader(_pandas_series, _pandas_is_plain),
    ("pandas", "DataFrame"): Reader(_pandas_frame, _pandas_is_plain),
    ("pandas", "ExtensionArray"): _PANDAS_ARRAY,
    ("pandas", "Index"): _PANDAS_ARRAY,
    ("pyarrow", "Array"): _ARROW_ARRAY,
    ("pyarrow", "ChunkedArray"): _ARROW_ARRAY,
    ("pyarrow", "RecordBatch"): _ARROW_TABLE,
    ("pyarrow", "Table"): _ARROW_TABLE,
    ("polars", "Series"): Reader(_polars_series),
    ("polars", "DataFrame"): Reader(_polars_frame),
    ("polars", "LazyFrame"): Reader(lambda x: _polars_frame(x.collect())),
    ("xarray", "DataArray"): _XARRAY,
    ("xarray", "Variable"): _XARRAY,
    ("xarray", "Dataset"): Reader(_xarray_dataset),
}
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
        reader = next((READERS[k] for k in keys if k in READERS), None)
        if reader is None and any(hasattr(cls, name) for name in _CAPSULES):
            reader = Reader(_from_capsule)
        _found[cls] = reader
        return reader
