"""Preprocessing layers learn of the entries of columns that are there."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from absl.testing import parameterized

from keras.src import layers
from keras.src import ops
from keras.src import testing

NUMBERS, CODES, TEXTS = [1.0, None, 3.0, 8.0], [1, None, 3, 3], list("a_bb")
TEXTS[1] = None
MAKERS = {
    "pandas": lambda x: pd.Series(x, dtype=object).convert_dtypes(),
    "objects": lambda x: pd.Series(x, dtype=object),
    "arrow": pa.array,
    "polars": pl.Series,
}


def batches(column):
    """The second one has nothing to be missing."""
    for start in (0, 2):
        if hasattr(column, "iloc"):
            yield column.iloc[start : start + 2]
        else:
            yield column[start : start + 2]


@parameterized.product(
    source=tuple(MAKERS), of=(lambda x: x, batches, lambda x: [*batches(x)])
)
class ForeignAdaptTest(testing.TestCase):
    def adapted(self, layer, column, source, of):
        layer.adapt(of(MAKERS[source](column)))
        return layer

    def test_normalization(self, source, of):
        layer = layers.Normalization(axis=None)
        self.adapted(layer, NUMBERS, source, of)
        self.assertAllClose(layer.mean, 4)
        self.assertAllClose(layer.variance, 26 / 3)

    def test_discretization(self, source, of):
        found, wanted = (layers.Discretization(num_bins=3) for _ in range(2))
        self.adapted(found, NUMBERS, source, of)
        wanted.adapt(np.array([1.0, 3.0, 8.0]))
        self.assertAllClose(found.bin_boundaries, wanted.bin_boundaries)

    def test_integers(self, source, of):
        layer = self.adapted(layers.IntegerLookup(), CODES, source, of)
        self.assertEqual(layer.get_vocabulary(), [-1, 3, 1])
        indices = layer(MAKERS[source](CODES))
        self.assertMaskedClose(indices, [2, 0, 1, 1], [True, False, True, True])

    def test_strings(self, source, of):
        layer = self.adapted(layers.StringLookup(), TEXTS, source, of)
        self.assertEqual(layer.get_vocabulary(), ["[UNK]", "b", "a"])
        indices = layer(MAKERS[source](TEXTS))
        self.assertMaskedClose(indices, [2, 0, 1, 1], [True, False, True, True])

    def test_texts(self, source, of):
        texts = ["a b", None, "b", "b"]
        layer = self.adapted(layers.TextVectorization(), texts, source, of)
        self.assertEqual(layer.get_vocabulary(), ["", "[UNK]", "b", "a"])


class NothingToLearnTest(testing.TestCase):
    @parameterized.parameters(
        (lambda: layers.IntegerLookup(), "Int64"),
        (lambda: layers.StringLookup(), "string"),
        (lambda: layers.TextVectorization(), "string"),
        (lambda: layers.Discretization(num_bins=3), "Float64"),
        (lambda: layers.Normalization(axis=None), "Float64"),
        (lambda: layers.Normalization(axis=None), "boolean"),
    )
    def test_a_column_without_one_value(self, make, dtype):
        layer = make()
        with self.assertWarnsRegex(UserWarning, "no valid entry at all"):
            layer.adapt(pd.Series([None, None], dtype=dtype))
        if isinstance(layer, layers.Normalization):
            self.assertAllClose(layer.mean, 0)
            self.assertAllClose(layer.variance, 1)

    @parameterized.parameters(
        (lambda: layers.Normalization(),),
        (lambda: layers.Discretization(num_bins=3),),
        (lambda: layers.StringLookup(),),
        (lambda: layers.Fill(),),
    )
    def test_columns_of_several_kinds(self, make):
        x = pd.DataFrame({"a": NUMBERS, "t": TEXTS})
        for data in (x, iter([x])):
            with self.assertRaisesRegex(
                TypeError, r"one kind.*\['a', 't'\].*FeatureSpace"
            ):
                make().adapt(data)

    def test_layers_without_weights(self):
        x = MAKERS["polars"](CODES)
        there = np.array([True, False, True, True])
        for layer, wanted in (
            (layers.Rescaling(2.0), [2, 0, 6, 6]),
            (layers.Discretization(bin_boundaries=[2.0]), [0, 0, 1, 1]),
            (layers.CategoryEncoding(4, "one_hot"), np.eye(4)[[1, 0, 3, 3]]),
            (layers.Embedding(4, 2, "ones"), np.ones((4, 2))),
        ):
            self.assertMaskedClose(layer(x), wanted, there)
        for layer, given in (
            (layers.Hashing(50), x),
            (layers.HashedCrossing(50), (x, MAKERS["arrow"](TEXTS))),
        ):
            whole = [1, 1, 3, 3], ["a", "a", "b", "b"]
            is_pair = isinstance(given, tuple)
            plain = (
                tuple(map(np.array, whole)) if is_pair else np.array(whole[0])
            )
            wanted = ops.convert_to_numpy(layer(plain))
            self.assertMaskedClose(layer(given), wanted, there)
