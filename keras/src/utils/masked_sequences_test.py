"""Sequences of unequal length become masked tensors, and come back."""

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import ops
from keras.src import testing

ROWS = [[0, 7, 3], [], [5], [1, 2, 3, 4, 5]]


def filled(x):
    return backend.convert_to_numpy(ops.filled(x, -1))


class PadSequencesTest(testing.TestCase):
    @parameterized.product(
        padding=("pre", "post"),
        truncating=("pre", "post"),
        maxlen=(None, 2, 7),
    )
    def test_the_mask_says_what_is_there(self, padding, truncating, maxlen):
        options = {"padding": padding, "truncating": truncating}
        x = keras.utils.pad_sequences(ROWS, maxlen, masked=True, **options)
        # With a value that no sequence has, upstream's array tells padding.
        expected = keras.utils.pad_sequences(ROWS, maxlen, value=-1, **options)
        self.assertAllEqual(filled(x), expected)
        self.assertAllEqual(x.mask, expected != -1)
        self.assertEqual(backend.standardize_dtype(x.dtype), "int32")

    def test_steps_with_features(self):
        rows = [np.ones((n, 2), "float32") for n in (1, 3)]
        x = keras.utils.pad_sequences(rows, dtype="float32", masked=True)
        self.assertEqual(tuple(x.shape), (2, 3, 2))
        self.assertAllEqual(x.mask, [[0, 0, 1], [1, 1, 1]])

    def test_without_a_mask_it_is_an_array_as_ever(self):
        self.assertIsInstance(keras.utils.pad_sequences(ROWS), np.ndarray)
        same = keras.preprocessing.sequence.pad_sequences
        self.assertIs(same, keras.utils.pad_sequences)


class ToRaggedTest(testing.TestCase):
    def test_there_and_back(self):
        found = backend.MaskedTensor.from_ragged(ROWS[2:]).to_ragged()
        for row, expected in zip(found, ROWS[2:], strict=True):
            self.assertAllEqual(row, expected)

    @parameterized.parameters(1, 2, 3)
    def test_masks_of_each_rank(self, rank):
        rng = np.random.default_rng(rank)
        values = rng.normal(size=(4, 5, 3)).astype("float32")
        mask = rng.uniform(size=(4, 5)) < 0.5
        mask[0] = False
        if rank == 1:
            mask = np.broadcast_to(mask[:, :1], (4, 5))
        given = {1: mask[:, 0], 2: mask, 3: np.repeat(mask[..., None], 3, 2)}
        found = backend.MaskedTensor(values, given[rank]).to_ragged()
        for row, x, valid in zip(found, values, mask, strict=True):
            self.assertAllEqual(row, x[valid])
        self.assertEqual(found[0].shape, (0, 3))

    def test_what_has_no_steps_is_refused(self):
        for values, mask in (
            (np.ones(3), np.ones(3, bool)),
            (np.ones((1, 2, 2)), np.array([[[1, 0], [1, 1]]], bool)),
        ):
            x = backend.MaskedTensor(values.astype("float32"), mask)
            with self.assertRaisesRegex(ValueError, "steps of each row"):
                x.to_ragged()


class ShiftedTargetsTest(testing.TestCase):
    START, END = 8, 9

    @parameterized.parameters(None, 1, 3, 8)
    def test_each_id_and_the_end_count_once(self, maxlen):
        x, y, weights = keras.utils.shifted_targets(
            ROWS, self.START, self.END, maxlen
        )
        length = maxlen or 6
        self.assertEqual(y.shape, (4, length))
        self.assertAllEqual(x.mask, weights > 0)
        for row, inputs, targets, counts in zip(
            ROWS, filled(x), y, weights.astype(bool), strict=True
        ):
            said = [*row, self.END][:length]
            self.assertAllEqual(targets[counts], said)
            self.assertAllEqual(inputs[counts], [self.START, *said[:-1]])
            self.assertAllEqual(targets[~counts], 0 * targets[~counts])

    def test_of_masked_arrays(self):
        masked = backend.MaskedTensor.from_ragged([[4, 5], [6]])
        expected = keras.utils.shifted_targets([[4, 5], [6]], 1, 2)
        for given in (masked, ops.convert_to_numpy(masked)):
            found = keras.utils.shifted_targets(given, 1, 2)
            self.assertAllEqual(filled(found[0]), filled(expected[0]))
            self.assertAllEqual(found[1], expected[1])
            self.assertAllEqual(found[2], expected[2])

    def test_what_is_no_sequence_of_ids_is_refused(self):
        with self.assertRaisesRegex(ValueError, "one axis each"):
            keras.utils.shifted_targets([[[1, 2]]], 1, 2)
        with self.assertRaisesRegex(ValueError, "maxlen=0"):
            keras.utils.shifted_targets(ROWS, 1, 2, maxlen=0)

    @pytest.mark.requires_trainable_backend
    def test_a_decoder_learns_from_it(self):
        """The same whatever the padding is."""
        found = []
        for maxlen in (6, 11):
            x, y, weights = keras.utils.shifted_targets(ROWS, 8, 9, maxlen)
            keras.utils.set_random_seed(0)
            model = keras.Sequential(
                [
                    keras.layers.Embedding(10, 4),
                    keras.layers.GRU(5, return_sequences=True),
                    keras.layers.Dense(10),
                ]
            )
            loss = keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="mean_with_sample_weight"
            )
            model.compile("sgd", loss)
            found.append(
                model.fit(
                    x, y, sample_weight=weights, epochs=3, verbose=0
                ).history["loss"]
            )
        self.assertAllClose(found[0], found[1], atol=1e-5)
