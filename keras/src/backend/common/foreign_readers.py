"""How the entries of other libraries' arrays are read, and what is missing.

No library is imported before one of its arrays is there.
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
        # Where one is missing the code is -1, which is a place as well.
        return values[codes], hidden

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
    return {str(name): x[name] for name in x.data_vars}


def from_capsule(x: typing.Any) -> Column | list[Column]:
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
            table, a dictionary of arrays to be read, or an array of NumPy.
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
