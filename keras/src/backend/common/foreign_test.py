"""Columns and tables of other libraries become masked tensors at every door.

What is there is compared with plain lists, by the entries that are there.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import xarray as xr
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import testing
from keras.src.backend.common import foreign
from keras.src.backend.common import foreign_readers

ON_TENSORFLOW = backend.backend() == "tensorflow"
INTS, FLOATS = [1, None, 3, 4], [0.5, None, -1.5, 2.0]
BOOLS, TEXTS = [True, None, False, True], ["a", None, "c", "a"]


class Capsule:
    """Anything with Arrow's interface, of an array or of a table."""

    def __init__(self, array):
        self._array = array

    def __arrow_c_stream__(self, requested_schema=None):
        return self._array.__arrow_c_stream__(requested_schema)


class ArrayCapsule(Capsule):
    __arrow_c_stream__ = None

    def __arrow_c_array__(self, requested_schema=None):
        return self._array.__arrow_c_array__(requested_schema)


del ArrayCapsule.__arrow_c_stream__


def pandas_of(dtype):
    return lambda entries: pd.Series(entries, dtype=dtype)


def chunked(entries):
    whole = pa.array(entries)
    return pa.chunked_array([whole[:2], whole[2:]])


# By name, what makes a column of a list with None, and whether it is masked
# where nothing is missing.
MAKERS = {
    "arrow": (pa.array, False),
    "arrow_chunks": (chunked, False),
    "capsule": (lambda x: Capsule(pa.chunked_array([x])), False),
    "pandas_objects": (pandas_of(object), False),
    "polars": (pl.Series, False),
}
NUMBERS = {
    **{name: (*row, (INTS, FLOATS, BOOLS)) for name, row in MAKERS.items()},
    "pandas_int": (pandas_of("Int64"), True, (INTS,)),
    "pandas_small": (pandas_of("UInt8"), True, (INTS,)),
    "pandas_float": (pandas_of("Float64"), True, (FLOATS,)),
    "pandas_bool": (pandas_of("boolean"), True, (BOOLS,)),
    "pandas_arrow": (pandas_of("float64[pyarrow]"), False, (FLOATS,)),
    "pandas_array": (lambda x: pd.array(x, dtype="Int64"), True, (INTS,)),
    "pandas_index": (lambda x: pd.Index(x, dtype="Int64"), True, (INTS,)),
    "pandas_categories": (
        lambda x: pd.Series(x, dtype="Int64").astype("category"),
        False,
        (INTS,),
    ),
    "arrow_dictionary": (
        lambda x: pa.array(x).dictionary_encode(),
        False,
        (INTS,),
    ),
    "arrow_slice": (
        lambda x: pa.array([7, None, *x, 9])[2:-1],
        False,
        (INTS, FLOATS),
    ),
    "arrow_decimals": (
        lambda x: pa.array(x).cast(pa.decimal128(6, 2)),
        False,
        (FLOATS,),
    ),
}
STRINGS = {
    **MAKERS,
    "pandas_string": (pandas_of("string"), True),
    "pandas_str": (pandas_of("str"), False),
    "pandas_categories": (pandas_of("category"), False),
    "pandas_arrow": (
        lambda x: pd.Series(x, dtype=pd.ArrowDtype(pa.string())),
        False,
    ),
    "polars_categories": (lambda x: pl.Series(x, dtype=pl.Categorical), False),
    "arrow_dictionary": (lambda x: pa.array(x).dictionary_encode(), False),
    "arrow_view": (lambda x: pa.array(x, pa.string_view()), False),
}
CASES = [
    (name, make, nullable, entries)
    for name, (make, nullable, lists) in NUMBERS.items()
    for entries in lists
]


class WithoutArrow:
    """Within it, pyarrow is not installed, as far as Keras knows."""

    def __enter__(self):
        self._found, foreign_readers.pyarrow = (
            foreign_readers.pyarrow,
            lambda: None,
        )

    def __exit__(self, *_):
        foreign_readers.pyarrow = self._found


class ForeignTest(testing.TestCase):
    def assert_holds(self, x, entries, kind=None):
        """Valid where there is an entry, which it has there; 0 elsewhere."""
        entries = np.array(entries, object)
        there = np.array([e is not None for e in entries.flat], "bool")
        there = there.reshape(entries.shape)
        self.assertIsInstance(x, keras.MaskedTensor)
        self.assertAllEqual(x.mask, there)
        values = backend.convert_to_numpy(x.values)
        self.assertEqual(values.shape, entries.shape)
        self.assertAllClose(values[there], entries[there].astype("float64"))
        self.assertAllEqual(values[~there], np.zeros((~there).sum()))
        if kind is not None:
            self.assertEqual(np.dtype(values.dtype).kind in "iu", kind == "i")

    @parameterized.named_parameters(
        (f"{name}_{i}", *case) for i, (name, *case) in enumerate(CASES)
    )
    def test_columns_of_numbers(self, make, nullable, entries):
        x = make(entries)
        wanted = "i" if entries is INTS else None
        self.assert_holds(ops.convert_to_tensor(x), entries, wanted)
        self.assert_holds(keras.MaskedTensor(x), entries)
        if entries is BOOLS:
            self.assertDType(ops.convert_to_tensor(x), "bool")
        else:
            doubled = [None if e is None else 2 * e for e in entries]
            self.assert_holds(ops.add(x, x), doubled)
        whole = [e for e in entries if e is not None]
        plain = ops.convert_to_tensor(make(whole))
        self.assertEqual(ops.is_masked(plain), nullable)
        values = plain.values if nullable else plain
        self.assertAllClose(values, np.array(whole))
        self.assert_holds(keras.MaskedTensor(make(whole)), whole)

    @parameterized.parameters("pandas_int", "pandas_bool", "polars")
    def test_without_pyarrow(self, name):
        make, _, lists = NUMBERS[name]
        with WithoutArrow():
            for entries in lists:
                self.assert_holds(ops.convert_to_tensor(make(entries)), entries)

    @parameterized.parameters(*STRINGS)
    def test_columns_of_strings(self, name):
        make, nullable = STRINGS[name]
        array = foreign.as_numpy(make(TEXTS))
        self.assertEqual(array.tolist(), TEXTS)
        whole = foreign.as_numpy(make(["a", "c"]))
        masked = isinstance(whole, np.ma.MaskedArray)
        self.assertEqual((masked, list(whole)), (nullable, ["a", "c"]))
        layer = layers.StringLookup(vocabulary=["a", "c"])
        self.assert_holds(layer(make(TEXTS)), [1, None, 2, 1])
        if ON_TENSORFLOW:
            x = ops.convert_to_tensor(make(TEXTS))
            self.assertAllEqual(x.mask, [True, False, True, True])
            self.assertEqual(x.values.numpy().tolist(), [b"a", b"", b"c", b"a"])
        else:
            with self.assertRaisesRegex(TypeError, "StringLookup"):
                ops.convert_to_tensor(make(TEXTS))

    @parameterized.parameters(
        (lambda x: pd.Series(pd.to_datetime(x)),),
        (lambda x: pa.array(pd.to_datetime(x)),),
        (lambda x: pl.Series(pd.to_datetime(x)),),
    )
    def test_dates_are_days(self, make):
        x = make(["1970-01-02T00:00", None, "1970-01-11T12:00"])
        self.assert_holds(ops.convert_to_tensor(x), [1.0, None, 10.5])
        spans = pd.Series(pd.to_timedelta([36, None], unit="h"))
        self.assert_holds(ops.convert_to_tensor(spans), [1.5, None])

    def test_xarray_by_its_fill_value(self):
        x = xr.DataArray([[1.0, np.nan]], attrs={"_FillValue": -9.0})
        self.assert_holds(ops.convert_to_tensor(x), [[1.0, None]])
        x = xr.DataArray([[1, -9]], attrs={"missing_value": -9}).variable
        self.assert_holds(ops.convert_to_tensor(x), [[1, None]], "i")
        packed = {"_FillValue": np.int16(-9), "scale_factor": 0.5}
        x = xr.Dataset({"a": ("x", np.array([1, -9], "int16"), packed)})
        x = xr.decode_cf(x)["a"]
        self.assert_holds(ops.convert_to_tensor(x), [0.5, None])
        x = xr.DataArray(pd.array([1, None], dtype="Int64"))
        self.assert_holds(ops.convert_to_tensor(x), [1, None])
        self.assertFalse(
            ops.is_masked(ops.convert_to_tensor(xr.DataArray([1])))
        )
        x = foreign.as_numpy(xr.Dataset({"u": x, "v": ("x", [1.0])}))
        self.assertEqual(list(x), ["u", "v"])

    def test_xarray_of_objects(self):
        x = xr.DataArray(np.array(INTS, object), name="n")
        self.assert_holds(ops.convert_to_tensor(x), INTS, "i")
        layer = layers.StringLookup(vocabulary=["a", "c"])
        for x in (np.array(TEXTS, object), np.array(["a", "c"])):
            found = layer(xr.DataArray(x))
            indices = ops.convert_to_numpy(found).tolist()
            self.assertEqual(indices, {4: [1, None, 2, 1], 2: [1, 2]}[len(x)])

    def test_nan_in_plain_floats_stays(self):
        x = ops.convert_to_tensor(pd.Series([1.0, np.nan]))
        self.assertFalse(ops.is_masked(x))
        self.assertAllClose(x, [1.0, np.nan])
        frame = pd.DataFrame({"a": [1.0], "b": pd.array([2], dtype="Int64")})
        frame["c"] = np.nan
        self.assertAllClose(
            ops.convert_to_tensor(frame).values, [[1.0, 2.0, np.nan]]
        )

    @parameterized.parameters(
        (lambda x: pd.DataFrame(x).convert_dtypes(),),
        (lambda x: pd.DataFrame(x).convert_dtypes(dtype_backend="pyarrow"),),
        (pa.table,),
        (lambda x: pa.RecordBatch.from_pydict(x),),
        (pl.DataFrame,),
        (pl.LazyFrame,),
        (lambda x: Capsule(pa.table(x)),),
        (lambda x: ArrayCapsule(pa.RecordBatch.from_pydict(x)),),
    )
    def test_tables(self, make):
        numbers = {"a": INTS, "b": FLOATS, "c": BOOLS}
        rows = [list(row) for row in zip(INTS, FLOATS, BOOLS)]
        self.assert_holds(ops.convert_to_tensor(make(numbers)), rows)
        found = foreign.as_numpy(make({"a": INTS, "t": TEXTS}))
        self.assertEqual(list(found), ["a", "t"])
        self.assertEqual(found["a"].tolist(), [[x] for x in INTS])
        self.assertEqual(found["t"].tolist(), [[x] for x in TEXTS])
        self.assertEqual(
            list(foreign.as_columns(make(numbers))), ["a", "b", "c"]
        )

    def test_what_is_no_number_is_refused_by_column(self):
        when = pd.to_datetime(["2020-01-01", None])
        x = pd.DataFrame({"a": [1, 2], "when": when, "tags": [[1], [2, 3]]})
        with self.assertRaisesRegex(
            TypeError,
            r"Column `when` \(of dtype datetime64\[\w+\]\) holds points in time"
            r".*Column `tags` \(of dtype object\) holds lists, which are ragged"
            r".*leave out the columns \['when', 'tags'\]",
        ):
            ops.convert_to_tensor(x)
        for x, wanted in (
            (pd.Series([[1], None], name="tags"), "`tags`.*from_ragged"),
            (pa.array([[1], None, [2, 3]]), "array.*list.*from_ragged"),
            (pl.Series("tags", [[1], [2, 3]]), "`tags`.*from_ragged"),
            (pd.Series(when, name="w").dt.tz_localize("UTC"), "`w`.*time zone"),
            (pa.array(when.tz_localize("UTC")), "time zone"),
            (pl.Series("w", when.tz_localize("UTC")), "`w`.*time zone"),
            (pd.Series(pd.period_range("2020", periods=2)), "neither numeric"),
            (pd.Series([1, "a"], name="m", dtype=object), "`m`.*mixed"),
            (pa.array([{"a": 1}]), "neither numeric"),
            (pl.Series("n", [1, None], pl.Int128), "`n`.*128 bits"),
            (xr.DataArray([["a"]], name="x"), "`x`.*neither numeric"),
        ):
            with self.assertRaisesRegex(TypeError, wanted):
                ops.convert_to_tensor(x)

    @parameterized.parameters(
        (pa.array,),
        (lambda x: pa.chunked_array([x[:1], x[1:]]),),
        (pl.Series,),
        (pd.Series,),
        (pandas_of(pd.ArrowDtype(pa.list_(pa.int64()))),),
    )
    def test_columns_of_lists_are_ragged(self, make):
        x = make([[1, 2, 3], [], [4]])
        rows = [[1, 2, 3], [None] * 3, [4, None, None]]
        self.assert_holds(keras.MaskedTensor.from_ragged(x), rows)
        self.assert_holds(
            keras.utils.pad_sequences(x, masked=True, padding="post"), rows
        )
        for call in (
            keras.MaskedTensor.from_ragged,
            keras.utils.pad_sequences,
        ):
            with self.assertRaisesRegex(ValueError, r"rows \[1\] are missing"):
                call(make([[1, 2], None, [3]]))
        for nothing in (None, np.nan, pd.NA):
            with self.assertRaisesRegex(ValueError, r"rows \[1\] are missing"):
                keras.MaskedTensor.from_ragged(pd.Series([[1], nothing]))

    def test_missing_entries_of_ragged_rows(self):
        rows = [[1, None, 3], [None]]
        wanted = [[1, None, 3], [None, None, None]]
        of_arrow = pa.array(rows)
        for x in (
            of_arrow,
            pl.Series(rows),
            pd.Series(rows, dtype=pd.ArrowDtype(of_arrow.type)),
            [pd.array(row, dtype="Int64") for row in rows],
            [np.ma.MaskedArray([1, 2, 3], [0, 1, 0]), np.ma.masked_all(1)],
        ):
            self.assert_holds(keras.MaskedTensor.from_ragged(x), wanted)
            found = keras.utils.pad_sequences(x, masked=True, padding="post")
            self.assert_holds(found, wanted)
            with self.assertRaisesRegex(ValueError, "in 2 of 2 .*masked=True"):
                keras.utils.pad_sequences(x)
        documents = pa.array([[[1, None], [2]], [[3]]])
        x = keras.MaskedTensor.from_ragged(documents, ragged_rank=2)
        self.assert_holds(
            x, [[[1, None], [2, None]], [[3, None], [None, None]]]
        )

    def test_missing_features_of_the_steps_of_ragged_rows(self):
        rows = [
            np.ma.MaskedArray([[1, 2], [3, 4]], [[0, 1], [0, 0]]),
            np.array([[5, 6]]),
        ]
        x = keras.MaskedTensor.from_ragged(rows)
        wanted = [[[1, None], [3, 4]], [[5, 6], [None, None]]]
        self.assert_holds(x, wanted)
        # Without such, a mask is one of steps.
        rows = [row.data for row in rows[:1]] + rows[1:]
        x = keras.MaskedTensor.from_ragged(rows)
        self.assertEqual(tuple(x.mask.shape), (2, 2))

    def test_out_to_numpy(self):
        for make in (
            pa.array,
            pl.Series,
            pandas_of("Int64"),
            pandas_of(object),
        ):
            found = ops.convert_to_numpy(make(INTS))
            self.assertEqual(found.tolist(), INTS)
            self.assertEqual(found.dtype.kind, "i")

    def test_classes(self):
        for x in (pa.array([0, None, 2]), pd.DataFrame({"a": [0, None, 2]})):
            x = x.astype("Int64") if hasattr(x, "astype") else x
            found = keras.utils.to_categorical(x)
            there = np.array([True, False, True])
            self.assertMaskedClose(found, np.eye(3), there)
        whole = keras.utils.to_categorical(pl.Series([1, 0]), 2)
        self.assertAllClose(whole, [[0, 1], [1, 0]])

    def test_columns_of_one_name_are_refused(self):
        x = pd.DataFrame([[1, "a"], [2, None]], columns=["x", "x"])
        with self.assertRaisesRegex(ValueError, r"same name: \['x'\]"):
            layers.Dense(1)(x)

    def test_a_table_of_several_kinds_is_no_tensor(self):
        x = pd.DataFrame({"a": [1, 2], "t": ["a", None]})
        with self.assertRaisesRegex(TypeError, r"\['a', 't'\].*from_missing"):
            ops.convert_to_tensor(x)

    def test_a_column_without_one_value(self):
        for x in (pa.nulls(2), pl.Series([None, None]), pd.Series([None] * 2)):
            self.assert_holds(ops.convert_to_tensor(x), [None, None])

    def test_a_mask_beside_that_of_the_column(self):
        x = pd.array(INTS, dtype="Int64")
        mask = pa.array([True, True, True, False])
        self.assert_holds(keras.MaskedTensor(x, mask), [1, None, 3, None])
        x = keras.MaskedTensor(np.ones((4, 2)), pl.Series([True, False] * 2))
        self.assertAllEqual(x.mask, [True, False, True, False])
        with self.assertRaisesRegex(ValueError, r"\(4,\) and a mask.*\(5,\)"):
            keras.MaskedTensor(pa.array(INTS), pa.array([True] * 5))
        with self.assertRaisesRegex(ValueError, "1 of 2, in a BooleanArray"):
            keras.MaskedTensor([1, 2], pd.array([True, None], dtype="boolean"))

    @parameterized.parameters("int64", "float32", "bool")
    def test_what_is_given_is_not_written_to(self, dtype):
        data, there = np.ones(3, dtype), np.array([True, False, True])
        x = keras.MaskedTensor(data, there)
        if dtype == "int64":
            x = ops.convert_to_tensor(pd.arrays.IntegerArray(data, ~there))
        self.assertAllEqual(x.values, [1, 0, 1])
        self.assertAllEqual(data, [1, 1, 1])

    @pytest.mark.skipif(
        backend.backend() != "torch", reason="Others say nothing of memory."
    )
    def test_values_are_copied_once(self):
        # Late: it may be missing.
        from torch.profiler import profile

        x = pd.arrays.FloatingArray(np.ones(2**16), np.arange(2**16) % 2 == 0)
        ops.convert_to_tensor(x[:2])
        with profile(profile_memory=True) as seen:
            ops.convert_to_tensor(x)
        # NumPy has made the copy; the engine adds two masks.
        added = [event.self_cpu_memory_usage for event in seen.events()]
        self.assertLess(sum(n for n in added if n > 0), 3 * 2**16)

    def test_a_plain_array_says_nothing(self):
        for x in (np.ones(2), [1.0, 2.0], pd.Series([1.0, np.nan])):
            with self.assertRaisesRegex(TypeError, "from_missing"):
                keras.MaskedTensor(x)

    def test_operands_of_every_kind(self):
        x, y = pd.array(INTS, dtype="Int64"), pl.Series(FLOATS)
        total = [1.5, None, 1.5, 6.0]
        self.assert_holds(ops.add(x, y), total)
        self.assert_holds(keras.MaskedTensor(x) + y, total)
        self.assert_holds(keras.Variable(np.ones(4)) * x, INTS)
        self.assertAllClose(ops.add(np.ones(2), pa.array([1, 2])), [2, 3])
        self.assert_holds(ops.concatenate([x, pa.array([1])]), [*INTS, 1])
        spec = layers.Input((4,)) + x
        self.assertEqual(spec._mask_spec.shape, (None, 4))
        with self.assertRaisesRegex(TypeError, "Variable.assign"):
            keras.Variable(np.ones(4)).assign(x)

    @pytest.mark.skipif(
        backend.backend() != "numpy", reason="It is the same on any backend."
    )
    def test_nothing_is_imported_for_plain_arrays(self):
        script = (
            "import sys, numpy, keras; keras.ops.exp(numpy.ones(2)); "
            "keras.layers.Dense(1)(numpy.ones((2, 2))); "
            "print('polars' in sys.modules, 'xarray' in sys.modules)"
        )
        run = [sys.executable, "-c", script]
        root = str(pathlib.Path(keras.__file__).parents[1])
        found = subprocess.run(
            run,
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": root},
        )
        self.assertEqual(found.stdout.split(), ["False", "False"])
