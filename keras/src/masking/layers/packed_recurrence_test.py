"""Recurrent layers on packed rows give what padded ones get."""

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.testing.masked.packed import FEATURES
from keras.src.testing.masked.packed import MASK
from keras.src.testing.masked.packed import VALUES
from keras.src.testing.masked.packed import SameResults
from keras.src.testing.masked.packed import counted
from keras.src.testing.masked.packed import hidden
from keras.src.testing.masked.packed import padded_and_packed
from keras.src.utils import set_random_seed

MaskedTensor = backend.MaskedTensor


class PackedRecurrenceTest(testing.TestCase, SameResults):
    @parameterized.product(
        kind=("LSTM", "GRU"), options=((), ("return_sequences",))
    )
    def test_recurrent_layers_go_over_valid_steps(self, kind, options):
        """On PyTorch; each row by itself, those without a step included."""
        if backend.backend() != "torch":
            self.skipTest("Others have no function for that.")
        set_random_seed(1)
        layer = getattr(layers, kind)(
            4, return_state=True, **dict.fromkeys(options, True)
        )
        x, y = padded_and_packed()
        count = len(layer(x)) - 1
        states = [np.float32(VALUES[:, i, :1] + [0, 1, 2, 3]) for i in range(2)]
        for given in (None, states[:count]):
            wanted = layer(x, initial_state=given)
            for packed in (y, hidden(x.packed(20))):
                with counted() as padded:
                    result = layer(packed, initial_state=given)
                self.assertEqual(padded, [])
                self.assert_same(result, wanted, 1e-6, str(given))

    def test_recurrent_layers_skip_steps_in_between(self):
        """Which stay where they are among the flat ones."""
        ids = np.array([[1, 0, 2, 3, 0, 0]] + [[2, 2, 0, 1, 3, 3]] * 3, "int32")
        embedding = layers.Embedding(4, FEATURES, mask_zero=True)
        for kind in ("LSTM", "GRU"):
            layer = getattr(layers, kind)(4, return_sequences=True)
            for one in (layer, layers.Bidirectional(layer)):
                x, y = MaskedTensor(ids, MASK), MaskedTensor(ids, MASK).packed()
                wanted = one(embedding(x))
                self.assert_same(one(embedding(y)), wanted, 1e-6, kind)

    @parameterized.product(
        kind=("LSTM", "GRU"),
        option=("go_backwards", "stateful", "dropout", "recurrent_dropout"),
        both=(False, True),
        sequences=(False, True),
    )
    def test_recurrent_layers_in_their_other_forms(
        self, kind, option, both, sequences
    ):
        """Twice each, for states and draws that the first call leaves."""
        given = {option: 0.5 if "dropout" in option else True}
        results = []
        for x in padded_and_packed():
            set_random_seed(1)
            layer = getattr(layers, kind)(
                4, return_sequences=sequences, return_state=True, **given
            )
            if both and option != "go_backwards":
                layer = layers.Bidirectional(layer)
            elif both:
                layer = layers.Bidirectional(
                    getattr(layers, kind)(4, return_sequences=sequences),
                    merge_mode="sum",
                )
            layer(x)
            with counted() as padded:
                found = [layer(x, training=True) for _ in range(2)]
            over_steps = x.is_packed and option != "recurrent_dropout"
            if backend.backend() == "torch" and over_steps:
                self.assertEqual(padded, [])
                first = tree.flatten(found[0])[0]
                self.assertEqual(ops.is_masked(first), sequences)
                if sequences:
                    self.assertTrue(first.is_packed)
            results.append(found)
        self.assert_same(*results, 1e-6, "")

    @parameterized.product(
        kind=("LSTM", "GRU"),
        options=(
            {},
            {"go_backwards": True},
            {"dropout": 0.5},
            {"stateful": True},
        ),
        capacity=(None, 3),
    )
    def test_recurrent_layers_of_no_step(self, kind, options, capacity):
        x = MaskedTensor(VALUES, np.zeros_like(MASK))
        for sequences in (False, True):
            layer = getattr(layers, kind)(
                4, return_sequences=sequences, **options
            )
            plain = getattr(layers, kind)(4, return_sequences=sequences)
            for one in (layer, layers.Bidirectional(plain)):
                wanted = one(x, training=True)
                result = one(x.packed(capacity), training=True)
                self.assert_same(result, wanted, 1e-6, "")

    @parameterized.parameters(
        ("GRU", {"reset_after": False}),
        ("LSTM", {"activation": "relu"}),
        ("GRU", {"recurrent_activation": "hard_sigmoid"}),
    )
    def test_recurrent_layers_of_unusual_forms(self, kind, options):
        """Which the engine's function has not: they get padded tensors."""
        results = []
        for x in padded_and_packed():
            set_random_seed(1)
            layer = getattr(layers, kind)(4, return_sequences=True, **options)
            both = layers.Bidirectional(
                getattr(layers, kind)(4, go_backwards=True),
                backward_layer=getattr(layers, kind)(4, **options),
            )
            results.append([one(x, training=True) for one in (layer, both)])
        self.assert_same(*results, 1e-6, "")

    @parameterized.parameters("concat", "sum", "ave", "mul", None)
    def test_both_directions(self, merge_mode):
        for kind in ("LSTM", "GRU"):
            set_random_seed(1)
            layer = layers.Bidirectional(
                getattr(layers, kind)(4, return_sequences=True),
                merge_mode=merge_mode,
            )
            x, y = padded_and_packed()
            result = layer(y)
            self.assert_same(result, layer(x), 1e-6, "")
            if backend.backend() == "torch":
                self.assertTrue(tree.flatten(result)[0].is_packed)

    def test_a_stateful_layer_wants_its_batches(self):
        layer = layers.LSTM(4, stateful=True)
        x, y = padded_and_packed()
        layer(y)
        with self.assertRaisesRegex(ValueError, "batch size"):
            layer(y[:2])

    @parameterized.parameters(
        lambda kind: getattr(layers, kind)(4, return_sequences=True),
        lambda kind: layers.Bidirectional(getattr(layers, kind)(4)),
        lambda kind: layers.Bidirectional(
            getattr(layers, kind)(4, return_sequences=True)
        ),
        lambda kind: getattr(layers, kind)(4, stateful=True),
    )
    def test_gradients_of_recurrent_layers(self, make):
        if backend.backend() != "torch":
            self.skipTest("Others have no function for that.")
        for kind in ("LSTM", "GRU"):
            set_random_seed(1)
            layer = make(kind)
            slopes = []
            for x in padded_and_packed():
                layer(x)
                layer.zero_grad()
                if getattr(layer, "stateful", False):
                    layer.reset_state()
                ops.sum(ops.square(layer(x))).backward()
                slopes.append([v.value.grad for v in layer.trainable_variables])
            for one, other in zip(*slopes):
                self.assertAllClose(one, other, 1e-5)
