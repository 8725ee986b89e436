"""Recurrent layers skip masked steps, with any cell, state and wrapper."""

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing

MASK = np.array([[0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 0, 0]], bool)


class Totals(layers.Layer):
    """Twice the sum so far; the states are of rank 1, 2 and 3.

    The first one counts steps: it is not the output.
    """

    state_size = [1, 2, 2]
    output_size = 2

    def build(self, shape):
        pass

    def get_initial_state(self, batch_size):
        return [ops.zeros((batch_size,) + s) for s in ((), (2,), (1, 2))]

    def call(self, x, states):
        count, total, images = states
        # A tuple, where the states were a list.
        return 2 * (total + x), (count + 1, total + x, images + x[:, None])


class ListedTotals(Totals):
    """With states in the form in which they were given.

    `StackedRNNCells` hands them on as they are, and JAX's loops ask for that.
    """

    def call(self, x, states):
        output, states = super().call(x, states)
        return output, [*states]


def sequences(shape, mask=MASK, poison=np.nan):
    values = np.random.default_rng(0).normal(size=shape).astype("float32")
    hidden = ~mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
    return backend.MaskedTensor(np.where(hidden, poison, values), mask)


def valid_steps(x, row):
    """The valid steps of a row alone, in a batch of one."""
    return backend.convert_to_numpy(x.values)[row][MASK[row]][None]


def filters(rank, **kwargs):
    layer = getattr(layers, f"ConvLSTM{rank}D")
    return layer(2, 3, padding="same", **kwargs)


class ConvLSTMTest(testing.TestCase):
    @parameterized.product(
        rank=(1, 2, 3),
        options=(
            {},
            {"return_sequences": True, "return_state": True},
            {"return_sequences": True, "go_backwards": True},
        ),
    )
    def test_masked_steps_are_as_if_they_were_not_there(self, rank, options):
        layer = filters(rank, **options)
        x = sequences((3, 4) + (4,) * rank + (2,))
        found = layer(x)
        outputs = found[0] if "return_state" in options else found
        mask = MASK[:, ::-1] if "go_backwards" in options else MASK
        for row in (0, 1):
            alone = layer(valid_steps(x, row))
            if "return_state" in options:
                for state, expected in zip(found[1:], alone[1:]):
                    self.assertAllClose(state[row], expected[0], atol=1e-6)
                alone = alone[0]
            if "return_sequences" not in options:
                self.assertAllClose(outputs[row], alone[0], atol=1e-6)
                continue
            values = backend.convert_to_numpy(outputs.values)
            self.assertAllClose(values[row][mask[row]], alone[0], atol=1e-6)
        if "return_sequences" in options:
            self.assertAllEqual(outputs.mask, mask)
        else:
            self.assertAllEqual(outputs[2], np.zeros((4,) * rank + (2,)))

    def test_a_step_counts_if_any_pixel_does(self):
        pixels = np.random.default_rng(1).uniform(size=(3, 4, 5, 5)) < 0.4
        pixels &= MASK[..., None, None]
        layer = filters(2, return_sequences=True)
        x = sequences((3, 4, 5, 5, 2), pixels)
        found = layer(x)
        steps = pixels.any((2, 3))
        self.assertAllEqual(found.mask, steps)
        expected = layer(backend.MaskedTensor(ops.filled(x), steps))
        self.assertAllClose(found.values, expected.values)

    def test_in_a_graph(self):
        inputs = layers.Input((None, 5, 2), mask_shape=(None,))
        outputs = filters(1, return_sequences=True)(inputs)
        self.assertEqual(outputs._mask_spec.shape, (None, None))
        model = models.Model(inputs, outputs)
        self.assertAllEqual(model(sequences((3, 4, 5, 2))).mask, MASK)

    def test_state_goes_from_batch_to_batch(self):
        x = sequences((3, 4, 5, 2))
        layer = filters(1, stateful=True)
        layer(x[:, :2])
        whole = filters(1)
        whole.build(x.shape)
        whole.set_weights(layer.get_weights()[:3])
        self.assertAllClose(layer(x[:, 2:]), whole(x), atol=1e-6)


class CustomCellTest(testing.TestCase):
    X = np.arange(1, 9, dtype="float32").reshape(1, 4, 2)
    VALID = np.array([[False, True, False, True]])

    def run_layer(self, **kwargs):
        x = np.where(self.VALID[..., None], self.X, np.nan)
        layer = layers.RNN(
            Totals(), return_sequences=True, return_state=True, **kwargs
        )
        return layer(backend.MaskedTensor(x, self.VALID))

    @parameterized.product(unroll=(False, True))
    def test_outputs_are_repeated_and_states_kept(self, unroll):
        outputs, count, total, images = self.run_layer(unroll=unroll)
        self.assertAllClose(
            outputs.values, [[[0, 0], [6, 8], [6, 8], [20, 24]]]
        )
        self.assertAllEqual(outputs.mask, self.VALID)
        self.assertAllClose(count, [2])
        self.assertAllClose(total, [[10, 12]])
        self.assertAllClose(images, [[[10, 12]]])

    @parameterized.product(unroll=(False, True))
    def test_outputs_that_are_masked_are_0(self, unroll):
        outputs, *_ = self.run_layer(zero_output_for_mask=True, unroll=unroll)
        self.assertAllClose(
            outputs.values, [[[0, 0], [6, 8], [0, 0], [20, 24]]]
        )

    @parameterized.product(unroll=(False, True))
    def test_backwards(self, unroll):
        outputs, count, *_ = self.run_layer(go_backwards=True, unroll=unroll)
        self.assertAllClose(
            outputs.values, [[[14, 16], [14, 16], [20, 24], [20, 24]]]
        )
        self.assertAllEqual(outputs.mask, self.VALID[:, ::-1])
        self.assertAllClose(count, [2])

    def test_a_row_without_a_valid_step_gives_the_initial_state(self):
        layer = layers.LSTM(2, return_state=True)
        states = [np.full((3, 2), n, "float32") for n in (0.25, 0.5)]
        x = sequences((3, 4, 2))
        output, h, c = layer(x, initial_state=states)
        for found, expected in ((output, 0.25), (h, 0.25), (c, 0.5)):
            self.assertAllClose(found[2], np.full(2, expected))

    def test_stacked_cells(self):
        cells = [layers.LSTMCell(3), layers.GRUCell(2), ListedTotals()]
        layer = layers.RNN(cells, return_sequences=True)
        x = sequences((3, 4, 5))
        found = layer(x)
        self.assertAllEqual(found.mask, MASK)
        values = backend.convert_to_numpy(found.values)
        for row in (0, 1):
            alone = layer(valid_steps(x, row))[0]
            self.assertAllClose(values[row][MASK[row]], alone, atol=1e-6)

    def test_stateful(self):
        layer = layers.RNN(Totals(), stateful=True)
        ones = np.ones((3, 4, 2), "float32")
        x = backend.MaskedTensor(ones, MASK)
        for batches in (1, 2):
            counts = batches * MASK.sum(1)[:, None]
            # Nothing was shown yet where no step of this batch is valid.
            expected = np.where(MASK.any(1)[:, None], 2.0 * counts, 0)
            self.assertAllClose(layer(x), expected * np.ones((1, 2)))
            self.assertAllClose(layer.states[0], counts[:, 0])


class WrappersTest(testing.TestCase):
    def test_bidirectional_returns_both_halves_masked(self):
        layer = layers.Bidirectional(
            layers.SimpleRNN(2, return_sequences=True), merge_mode=None
        )
        x = sequences((3, 4, 2))
        ahead, back = layer(x)
        forward, backward = layer.forward_layer, layer.backward_layer
        for half, one in ((ahead, forward), (back, backward)):
            self.assertAllEqual(half.mask, MASK)
            values = backend.convert_to_numpy(half.values)
            for row in (0, 1):
                alone = backend.convert_to_numpy(one(valid_steps(x, row)))[0]
                if one is backward:
                    alone = alone[::-1]
                self.assertAllClose(values[row][MASK[row]], alone, atol=1e-6)

    @parameterized.parameters("concat", "sum", None)
    def test_bidirectional_with_initial_states(self, merge_mode):
        layer = layers.Bidirectional(layers.SimpleRNN(2), merge_mode=merge_mode)
        x = sequences((3, 4, 2))
        states = [np.full((3, 2), n, "float32") for n in (0.25, -0.5)]
        found = layer(x, initial_state=states)
        halves = [
            one(x, initial_state=[state])
            for one, state in zip(
                (layer.forward_layer, layer.backward_layer), states
            )
        ]
        for half, state in zip(halves, states):
            self.assertAllClose(half[2], state[2])
        merged = {
            "concat": lambda: [ops.concatenate(halves, axis=-1)],
            "sum": lambda: [halves[0] + halves[1]],
            None: lambda: halves,
        }[merge_mode]()
        for one, expected in zip(
            found if merge_mode is None else [found], merged
        ):
            self.assertFalse(ops.is_masked(one))
            self.assertAllClose(one, expected)

    def test_time_distributed_over_masks_inside_steps(self):
        words = np.array([[[1, 1, 0], [0, 0, 0], [0, 1, 0]]], bool)
        numbers = np.arange(18, dtype="float32").reshape(1, 3, 3, 2)
        x = backend.MaskedTensor(
            np.where(words[..., None], numbers, 1e30), words
        )
        layer = layers.TimeDistributed(layers.RNN(Totals()))
        found = layer(x)
        self.assertAllEqual(found.mask, [[True, False, True]])
        self.assertAllClose(found.values, [[[4, 8], [0, 0], [28, 30]]])

    @parameterized.product(
        layer=("LSTM", "GRU"),
        sequences_are=("plain", "rows", "steps", "explicit"),
    )
    def test_rows_that_have_no_state_to_begin_with(self, layer, sequences_are):
        rows = np.array([True, False, True])
        x = np.random.default_rng(1).normal(size=(3, 4, 2)).astype("float32")
        encoder = getattr(layers, layer)(2, return_state=True)
        decoder = getattr(layers, layer)(2, return_sequences=True)
        last, *states = encoder(backend.MaskedTensor(x, rows))
        for state in (last, *states):
            self.assertAllEqual(state.mask, rows)
        mask, own, kwargs = MASK, x, {}
        if sequences_are == "plain":
            mask = np.ones_like(MASK)
        elif sequences_are == "rows":
            own = backend.MaskedTensor(x, [True, True, False])
            mask = np.array([[True], [True], [False]]) & np.ones_like(MASK)
        elif sequences_are == "steps":
            own = backend.MaskedTensor(x, MASK)
        else:
            kwargs = {"mask": ops.convert_to_tensor(MASK)}
        found = decoder(own, initial_state=states, **kwargs)
        wanted = mask & rows[:, None]
        self.assertAllEqual(found.mask, wanted)
        plain = decoder(
            backend.MaskedTensor(x, mask),
            initial_state=[ops.filled(s, 0) for s in states],
        )
        found, plain = map(ops.convert_to_numpy, (found, plain))
        self.assertAllClose(found.data[wanted], plain.data[wanted])

    def test_a_graph_whose_first_states_are_masked(self):
        x = layers.Input((4, 2), mask_shape=())
        _, *states = layers.LSTM(2, return_state=True)(x)
        y = layers.Input((4, 2))
        outputs = layers.LSTM(2)(y, initial_state=states)
        self.assertEqual(outputs._mask_spec.shape, (None,))
        rows = np.array([True, False, True])
        zeros = ops.zeros((3, 4, 2))
        found = models.Model([x, y], outputs)(
            [backend.MaskedTensor(zeros, rows), zeros]
        )
        self.assertAllEqual(found.mask, rows)
