"""A feature space of columns with holes masks each feature where it is one."""

import os

import numpy as np
import pandas as pd
import polars as pl
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import ops
from keras.src import saving
from keras.src import testing
from keras.src.utils.module_utils import tensorflow as tf

WHOLE = {
    "size": [1.0, 2.0, 3.0, 6.0],
    "count": [5, 7, 7, 5],
    "kind": ["x", "y", "y", "x"],
}
# Which entries are there.
THERE = {
    "size": [True, True, True, False],
    "count": [True, False, True, True],
    "kind": [False, True, True, True],
}
HOLES = {
    name: [x if there else None for x, there in zip(column, THERE[name])]
    for name, column in WHOLE.items()
}
SPACE = keras.utils.FeatureSpace
# The features and the cross, in the order of the result.
PARTS = ("count",), ("kind",), ("size",), ("count", "kind")


def make(output_mode="concat"):
    return SPACE(
        {
            "size": SPACE.float_normalized(),
            "count": SPACE.integer_categorical(num_oov_indices=0),
            "kind": SPACE.string_categorical(),
        },
        crosses=[SPACE.cross(("count", "kind"), crossing_dim=4)],
        output_mode=output_mode,
    )


SOURCES = {
    "pandas": lambda: pd.DataFrame(HOLES).convert_dtypes(),
    "polars": lambda: pl.DataFrame(HOLES),
    "dictionary": lambda: {
        "size": keras.MaskedTensor(WHOLE["size"], THERE["size"]),
        "count": pd.array(HOLES["count"], dtype="Int64"),
        "kind": np.ma.MaskedArray(WHOLE["kind"], np.invert(THERE["kind"])),
    },
}


class MaskedFeatureSpaceTest(testing.TestCase):
    @parameterized.parameters(*SOURCES)
    def test_what_is_there_is_encoded_as_ever(self, source):
        space = make()
        space.adapt(SOURCES[source]())
        layer = space.preprocessors["size"]
        self.assertAllClose(ops.reshape(layer.mean, (-1,)), [2.0])
        vocabulary = space.preprocessors["kind"].get_vocabulary()
        self.assertEqual(vocabulary, ["[UNK]", "y", "x"])
        wanted = ops.convert_to_numpy(space(WHOLE))
        found = space(SOURCES[source]())
        widths = {"count": 2, "kind": 3, "size": 1}
        cells = [
            np.repeat(
                np.all([THERE[part] for part in parts], 0)[:, None],
                widths[parts[0]] if len(parts) == 1 else 4,
                axis=1,
            )
            for parts in PARTS
        ]
        self.assertMaskedClose(found, wanted, np.concatenate(cells, 1))

    def test_by_name(self):
        space = make("dict")
        space.adapt(SOURCES["pandas"]())
        wanted, found = space(WHOLE), space(SOURCES["pandas"]())
        self.assertEqual(set(found), set(wanted))
        for name in THERE:
            values = ops.convert_to_numpy(wanted[name])
            there = np.broadcast_to(
                np.array(THERE[name])[:, None], values.shape
            )
            self.assertMaskedClose(found[name], values, there)
        self.assertAllEqual(
            ops.any(found["count_X_kind"].mask, 1), [False, False, True, True]
        )

    def test_a_whole_table_stays_plain(self):
        space = make()
        space.adapt(pd.DataFrame(WHOLE))
        found = space(pd.DataFrame(WHOLE))
        self.assertFalse(ops.is_masked(found))
        self.assertAllClose(found, space(WHOLE))

    def test_saved(self):
        space = make()
        space.adapt(SOURCES["pandas"]())
        path = os.path.join(self.get_temp_dir(), "space.keras")
        space.save(path)
        found = saving.load_model(path)(SOURCES["pandas"]())
        wanted = space(SOURCES["pandas"]())
        self.assertMaskedClose(
            found, ops.convert_to_numpy(wanted.values), wanted.mask
        )

    def test_plain_rows_in_a_pipeline(self):
        space = make()
        space.adapt(SOURCES["pandas"]())
        dataset = tf.data.Dataset.from_tensor_slices(WHOLE)
        wanted = ops.convert_to_numpy(space(WHOLE))
        (found,) = dataset.batch(4).map(space)
        self.assertAllClose(found.numpy(), wanted)
        self.assertAllClose([x.numpy() for x in dataset.map(space)], wanted)

    @parameterized.parameters(0, 3)
    def test_masked_rows_in_a_pipeline(self, batch):
        table = SOURCES["pandas"]()
        if backend.backend() != "tensorflow":
            pairs = {n: (WHOLE[n], THERE[n]) for n in ("size", "count")}
            dataset = tf.data.Dataset.from_tensor_slices(pairs)
            with self.assertRaisesRegex(NotImplementedError, "be a pair"):
                dataset.map(lambda x: keras.MaskedTensor(*x["size"]))
            return
        columns = {name: keras.MaskedTensor(table[name]) for name in HOLES}
        dataset = tf.data.Dataset.from_tensor_slices(columns)
        dataset = dataset.batch(batch) if batch else dataset
        space, other = make(), make()
        space.adapt(dataset)
        other.adapt(table)
        self.assertAllClose(
            space.preprocessors["size"].mean, other.preprocessors["size"].mean
        )
        found, wanted = list(dataset.map(space)), other(table)
        if batch:
            found = ops.concatenate(found, 0)
        else:
            found = ops.stack(found)
        self.assertMaskedClose(
            found, ops.convert_to_numpy(wanted.values), wanted.mask
        )

    def test_a_column_that_is_not_there(self):
        table = SOURCES["pandas"]()[["size", "kind"]]
        with self.assertRaisesRegex(ValueError, r"features \['count'\]"):
            make().adapt(table)
        space = make()
        space.adapt(SOURCES["pandas"]())
        with self.assertRaisesRegex(ValueError, r"features \['count'\]"):
            space(table)
