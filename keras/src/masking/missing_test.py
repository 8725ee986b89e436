"""What means missing becomes a mask, and masked tensors become tables."""

import numpy as np
import pandas as pd
import pyarrow as pa
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import testing

NAN = float("nan")
HELD = [[1.0, -9.0], [0.0, 4.0]]
THERE = np.array([[True, False], [False, True]])


class FromMissingTest(testing.TestCase):
    @parameterized.parameters(
        ([[1.0, NAN], [NAN, 4.0]], None),
        ([[1.0, None], [None, 4.0]], None),
        ([[1, None], [None, 4]], None),
        (np.array([[1.0, NAN], [None, 4.0]], object), None),
        (np.array([[1.0, -9.0], [NAN, 4.0]]), -9),
        (np.array([[1, -9], [-8, 4]]), [-9, -8]),
        (pd.DataFrame([[1.0, NAN], [NAN, 4.0]]), None),
        (pd.DataFrame([[1, pd.NA], [pd.NA, 4]], dtype="Int64"), None),
        (pd.DataFrame([[1, pd.NA], [-9, 4]], dtype="Int64"), -9),
        (np.ma.MaskedArray([[1, 2], [NAN, 4]], [[0, 1], [0, 0]]), None),
        (
            np.array([["1970-01-02", "NaT"], ["NaT", "1970-01-05"]], "M8[s]"),
            None,
        ),
        (np.array([[1, "NaT"], ["NaT", 4]], "m8[D]"), None),
    )
    def test_what_is_masked(self, x, missing):
        for given in (x, pa.table(x)) if isinstance(x, pd.DataFrame) else (x,):
            found = keras.MaskedTensor.from_missing(given, missing)
            self.assertAllEqual(found.mask, THERE)
            self.assertAllClose(found.values, [[1, 0], [0, 4]])

    def test_tensors_and_graphs(self):
        x = ops.convert_to_tensor([[1.0, NAN], [-9.0, 4.0]])
        found = keras.MaskedTensor.from_missing(x, -9)
        self.assertAllEqual(found.mask, THERE)
        self.assertAllClose(found.values, [[1, 0], [0, 4]])
        inputs = layers.Input((2,))
        outputs = keras.MaskedTensor.from_missing(inputs, -9)
        self.assertEqual(outputs._mask_spec.shape, (None, 2))
        found = keras.Model(inputs, outputs)(x)
        self.assertAllEqual(found.mask, THERE)

    def test_integers_and_booleans_stay_what_they_are(self):
        from_missing = keras.MaskedTensor.from_missing
        self.assertIn(
            "int", backend.standardize_dtype(from_missing([1, None]).dtype)
        )
        self.assertDType(from_missing([True, None]), "bool")
        self.assertDType(from_missing([0.5, None]), backend.floatx())
        self.assertAllEqual(from_missing([None, None]).mask, [False, False])

    def test_strings_and_tables_of_several_kinds(self):
        frame = pd.DataFrame({"a": [1.0, NAN], "t": ["x", "?"]})
        found = keras.MaskedTensor.from_missing(frame, "?")
        self.assertAllEqual(found["a"].mask, [[True], [False]])
        text = found["t"]
        if backend.backend() != "tensorflow":
            self.assertEqual(text.tolist(), [["x"], [None]])
        layer = layers.StringLookup(vocabulary=["x"])
        self.assertAllEqual(layer(text).mask, [[True], [False]])

    @parameterized.parameters(
        ([[1], [2, 3]], r"\(2,\).*\['list'\].*from_ragged"),
        ([1, "a", None], r"not both.*\['int', 'str'\]"),
        ([1, object()], r"numbers or strings"),
    )
    def test_what_is_neither_is_refused(self, x, wanted):
        with self.assertRaisesRegex(TypeError, wanted):
            keras.MaskedTensor.from_missing(x)


class OutTest(testing.TestCase):
    @parameterized.parameters(
        ("float32", "Float32", pa.float32()),
        ("float16", "Float32", pa.float32()),
        ("int32", "Int32", pa.int32()),
        ("uint8", "UInt8", pa.uint8()),
        ("bool", "boolean", pa.bool_()),
    )
    def test_dtypes(self, dtype, in_pandas, in_arrow):
        x = keras.MaskedTensor(ops.cast([1, 0, 1], dtype), [True, False, True])
        series = x.to_pandas("name")
        self.assertEqual((series.dtype, series.name), (in_pandas, "name"))
        self.assertEqual(series.isna().tolist(), [False, True, False])
        self.assertEqual(series.dropna().tolist(), [1, 1])
        array = x.to_arrow()
        self.assertEqual(array.type, in_arrow)
        self.assertEqual(array.to_pylist(), [1, None, 1])

    def test_tables_go_out_and_come_back(self):
        x = keras.MaskedTensor(HELD, THERE)
        frame = x.to_pandas(["a", "b"], index=["u", "v"])
        self.assertEqual(list(frame.columns), ["a", "b"])
        self.assertEqual(frame.loc["u", "a"], 1)
        self.assertEqual(x.to_arrow().column_names, ["0", "1"])
        for table in (frame, x.to_arrow(["a", "b"])):
            back = keras.MaskedTensor(table)
            self.assertMaskedClose(back, HELD, THERE)

    def test_a_mask_over_rows(self):
        x = keras.MaskedTensor(HELD, [True, False])
        self.assertEqual(
            x.to_pandas().isna().to_numpy().tolist(), [[0, 0], [1, 1]]
        )

    def test_predictions_in_a_table(self):
        model = keras.Sequential([layers.Dense(2)])
        found = model.predict(
            pd.DataFrame({"a": [1, None]}, dtype="Int64"), verbose=0
        )
        frame = keras.MaskedTensor(found).to_pandas(["u", "v"])
        self.assertEqual(frame["u"].isna().tolist(), [False, True])

    def test_what_no_table_holds_is_refused(self):
        x = keras.MaskedTensor(HELD, THERE)
        for go in (x.to_pandas, x.to_arrow):
            with self.assertRaisesRegex(ValueError, r"\['a'\].*\(2, 2\)"):
                go(["a"])
        x = keras.MaskedTensor(np.ones((2, 2, 2)), THERE)
        for go in (x.to_pandas, x.to_arrow):
            with self.assertRaisesRegex(ValueError, r"\(2, 2, 2\)"):
                go()
