"""The mask of the output is the right one, where that is least obvious.

The oracle is the same layer without padding: on the valid steps of one row,
put side by side in a batch of one.
"""

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.cases.layers import CASES

NAME = backend.backend()
# JAX compiles anew for each number of valid steps.
ROWS = (0, 1, 2) if NAME != "jax" else (1,)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5, 4)).astype("float32")
# No step at the end, at the beginning, in the middle, and none at all.
STEPS = np.array(
    [[1, 1, 1, 0, 0], [0, 0, 1, 1, 1], [1, 0, 0, 1, 1], [0, 0, 0, 0, 0]], bool
)


def masked(values=X, mask=STEPS, seed=1):
    """A masked tensor with garbage under the mask."""
    return u.garbled(
        backend.MaskedTensor(values, mask), u.Drawn(values, mask), seed
    )


def cells():
    return [layers.GRUCell(2), layers.LSTMCell(3)]


RECURRENT = {
    "lstm_backwards": lambda: layers.LSTM(
        3, go_backwards=True, return_sequences=True, return_state=True
    ),
    "gru_backwards": lambda: layers.GRU(3, go_backwards=True),
    "stacked": lambda: layers.RNN(
        cells(), return_sequences=True, return_state=True
    ),
    "stacked_backwards": lambda: layers.RNN(
        cells(), return_sequences=True, go_backwards=True
    ),
    "bidirectional": lambda: layers.Bidirectional(
        layers.LSTM(3, return_sequences=True, return_state=True)
    ),
    "bidirectional_last": lambda: layers.Bidirectional(
        layers.GRU(3, return_state=True), merge_mode="sum"
    ),
    "bidirectional_halves": lambda: layers.Bidirectional(
        layers.SimpleRNN(3, return_sequences=True, return_state=True),
        merge_mode=None,
    ),
    "bidirectional_stacked": lambda: layers.Bidirectional(
        layers.RNN(cells(), return_sequences=True)
    ),
    "bidirectional_of_a_backward_layer": lambda: layers.Bidirectional(
        layers.GRU(3, return_sequences=True, go_backwards=True),
        backward_layer=layers.GRU(3, return_sequences=True),
    ),
}
STATES = {
    "lstm_backwards": 2,
    "bidirectional": 4,
    "bidirectional_halves": 2,
}


class RecurrentTest(testing.TestCase):
    def assert_as_alone(self, layer, x, mask, states=None):
        kwargs = {} if states is None else {"initial_state": states}
        outputs = tree.flatten(layer(x, **kwargs))
        values = u.array(x.values)
        for row in ROWS:
            if states is not None:
                kwargs = {"initial_state": [s[row : row + 1] for s in states]}
            alone = tree.flatten(layer(values[row][mask[row]][None], **kwargs))
            for found, expected in zip(outputs, alone, strict=True):
                expected = u.array(expected)[0]
                if not ops.is_masked(found):
                    self.assertAllClose(found[row], expected, atol=1e-5)
                    continue
                valid = u.array(found.mask)[row]
                self.assertAllClose(
                    u.array(found.values)[row][valid], expected, atol=1e-5
                )
        return outputs

    @parameterized.parameters(*RECURRENT)
    def test_masked_steps_are_as_if_they_were_not_there(self, name):
        layer = RECURRENT[name]()
        outputs = self.assert_as_alone(layer, masked(), STEPS)
        backwards = name.endswith("backwards") or "backward_layer" in name
        sequences = [y for y in outputs if ops.is_masked(y)]
        for y in sequences:
            self.assertAllEqual(y.mask, STEPS[:, ::-1] if backwards else STEPS)
        count = {"gru_backwards": 0, "bidirectional_last": 0}.get(name, 1)
        count = 2 if name == "bidirectional_halves" else count
        self.assertEqual(len(sequences), count)

    @parameterized.parameters(*STATES)
    def test_with_states_to_begin_with(self, name):
        layer = RECURRENT[name]()
        states = [
            np.full((4, 3), 0.1 * i, "float32") + X[:, 0, :3]
            for i in range(STATES[name])
        ]
        outputs = self.assert_as_alone(layer, masked(), STEPS, states)
        # The last row has no step: its states are as they were.
        for state, found in zip(states[::-1], outputs[::-1]):
            self.assertAllClose(found[3], state[3])


class Several(layers.Layer):
    def call(self, x):
        return {
            "double": x * 2,
            "mean": ops.mean(x, axis=1),
            "same": x,
            "plain": ops.sum(ops.sum(x, axis=1), axis=0),
            "pair": [x[:, 1:], ops.flip(x, axis=1)],
        }


class Unchanged(layers.Layer):
    def call(self, x):
        return x


class Strips(layers.Layer):
    def call(self, x):
        return ops.filled(x, 7.0)


class First(layers.Layer):
    """Masks all but the first valid step of a row."""

    def call(self, x):
        count = ops.cumsum(ops.cast(x.mask, "int32"), axis=1)
        return backend.MaskedTensor(
            x.values, ops.logical_and(x.mask, count == 1)
        )


class OwnLayersTest(testing.TestCase):
    def both_ways(self, layer):
        """The results of a call, and of one in a model."""
        x = masked()
        yield layer(x)
        inputs = layers.Input((5, 4), mask_shape=(5,))
        yield models.Model(inputs, layer(inputs))(x)

    def test_several_outputs_have_a_mask_each(self):
        for found in self.both_ways(Several()):
            some = STEPS.any(1)
            wanted = {
                "double": (2 * X, STEPS),
                "same": (X, STEPS),
                "mean": (
                    np.stack([x[m].mean(0) for x, m in zip(X[:3], STEPS)]),
                    some,
                ),
            }
            for key, (values, mask) in wanted.items():
                self.assertAllEqual(found[key].mask, mask)
                self.assertAllClose(
                    u.array(found[key].values)[mask],
                    values if key == "mean" else values[mask],
                )
            self.assertAllClose(found["plain"], X[STEPS].sum(0), atol=1e-5)
            tail, turned = found["pair"]
            self.assertAllEqual(tail.mask, STEPS[:, 1:])
            self.assertAllEqual(turned.mask, STEPS[:, ::-1])

    def test_an_input_that_is_returned_unchanged(self):
        x = masked()
        y = Unchanged()(x)
        self.assertAllEqual(y.mask, STEPS)
        self.assertAllEqual(u.array(y.values), u.array(x.values))
        for y in self.both_ways(Unchanged()):
            self.assertAllEqual(y.mask, STEPS)

    def test_a_mask_that_is_stripped_does_not_come_back(self):
        pool = layers.GlobalAveragePooling1D()
        filled = np.where(STEPS[..., None], X, 7)
        for y in self.both_ways(Strips()):
            self.assertFalse(ops.is_masked(y))
            self.assertAllClose(pool(y), filled.mean(1), atol=1e-5)

    def test_a_mask_that_is_changed_is_that_of_what_follows(self):
        pool = layers.GlobalAveragePooling1D()
        first = STEPS & (STEPS.cumsum(1) == 1)
        wanted = np.where(first[..., None], X, 0).sum(1)
        for y in self.both_ways(First()):
            self.assertAllEqual(y.mask, first)
            self.assertAllClose(pool(y), wanted)

    @parameterized.parameters(
        ("Add", np.add),
        ("Subtract", np.subtract),
        ("Multiply", np.multiply),
        ("Maximum", np.maximum),
        ("Minimum", np.minimum),
        ("Average", lambda x, y: (x + y) / 2),
    )
    def test_merged_with_an_operand_of_another_rank(self, name, merge):
        layer = getattr(layers, name)()
        rows = np.array([True, False, True, True])
        y = X[:, 0]
        values = merge(X, y[:, None])
        for other, mask in (
            (y, STEPS),
            (masked(y, rows), STEPS & rows[:, None]),
        ):
            found = layer([masked(), other])
            self.assertAllEqual(found.mask, mask)
            self.assertAllClose(u.array(found.values)[mask], values[mask])
        found = layer([X, masked(y, rows)])
        mask = u.over_all_axes(rows, (4, 5))
        self.assertAllEqual(
            u.over_all_axes(found.mask, X.shape), u.over_all_axes(mask, X.shape)
        )
        self.assertAllClose(u.array(found.values)[rows], values[rows])


KEYS = RNG.normal(size=(4, 6, 4)).astype("float32")
SEEN = np.array(
    [
        [1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 0, 1],
        [0, 1, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ],
    bool,
)
EXPLICIT = RNG.uniform(size=(4, 2, 5, 6)) < 0.7
# All heads see a key or none does.
EXPLICIT[:, 1] = EXPLICIT[:, 0]
MULTI_HEAD = {
    "multi_head": lambda: layers.MultiHeadAttention(
        2, 3, bias_initializer="ones"
    ),
    "grouped_query": lambda: layers.GroupedQueryAttention(
        3, 2, 1, bias_initializer="ones"
    ),
}


class AttentionTest(testing.TestCase):
    @parameterized.product(
        name=tuple(MULTI_HEAD), rank=(0, 2, 3, 4), causal=(False, True)
    )
    def test_padding_causal_and_explicit_masks_together(
        self, name, rank, causal
    ):
        layer = MULTI_HEAD[name]()
        explicit = {
            0: None,
            2: EXPLICIT[0, 0],
            3: EXPLICIT[:, 0],
            4: EXPLICIT,
        }[rank]
        found = layer(
            masked(),
            masked(KEYS, SEEN),
            attention_mask=explicit,
            use_causal_mask=causal,
        )
        self.assertAllEqual(found.mask, STEPS)
        values = u.array(found.values)
        self.assertTrue(np.isfinite(values).all())
        allowed = np.ones((4, 5, 6), bool)
        if explicit is not None:
            allowed &= explicit[:, 0] if rank == 4 else explicit
        if causal:
            allowed &= np.tri(5, 6, dtype=bool)
        sees_one = (allowed & SEEN[:, None]).any(-1)
        # A query that sees nothing has nothing to average.
        nothing = STEPS & ~sees_one
        self.assertAllClose(
            values[nothing], np.ones_like(values[nothing]), atol=1e-5
        )
        for row in ROWS:
            valid = STEPS[row] & sees_one[row]
            if not valid.any():
                continue
            alone = layer(
                X[row][valid][None],
                KEYS[row][SEEN[row]][None],
                attention_mask=allowed[row][valid][:, SEEN[row]][None],
            )
            self.assertAllClose(values[row][valid], alone[0], atol=1e-5)

    def test_heads_that_see_different_keys(self):
        explicit = RNG.uniform(size=(4, 2, 5, 6)) < 0.5
        explicit[..., 1] = True
        explicit[1, :, :, 2] = True
        layer = MULTI_HEAD["multi_head"]()
        values = u.array(
            layer(masked(), masked(KEYS, SEEN), attention_mask=explicit).values
        )
        for row in (0, 1, 2):
            alone = layer(
                X[row][STEPS[row]][None],
                KEYS[row][SEEN[row]][None],
                attention_mask=explicit[row][:, STEPS[row]][:, :, SEEN[row]][
                    None
                ],
            )
            self.assertAllClose(values[row][STEPS[row]], alone[0], atol=1e-5)

    @parameterized.product(
        make=(
            layers.Attention,
            layers.AdditiveAttention,
            lambda: layers.Attention(score_mode="concat", use_scale=True),
        ),
        causal=(False, True),
        has_key=(False, True),
    )
    @pytest.mark.filterwarnings("ignore:You are using a softmax")
    def test_attention_of_lists(self, make, causal, has_key):
        layer = make()
        other = np.roll(SEEN, 1, axis=1) | SEEN
        args = [masked(), masked(KEYS, other if has_key else SEEN)]
        if has_key:
            args.append(masked(KEYS * 2, SEEN, seed=2))
        found = layer(args, use_causal_mask=causal)
        self.assertAllEqual(found.mask, STEPS)
        values = u.array(found.values)
        allowed = np.tri(5, 6, dtype=bool) if causal else np.ones((5, 6), bool)
        for row in range(4):
            for step in np.flatnonzero(STEPS[row]):
                keys = SEEN[row] & allowed[step]
                if not keys.any():
                    self.assertAllEqual(values[row, step], np.zeros(4))
                    continue
                if NAME == "jax" and row:
                    continue
                own = [X[row, step][None, None], KEYS[row][keys][None]]
                if has_key:
                    own.append(2 * own[1])
                self.assertAllClose(
                    values[row, step], layer(own)[0, 0], atol=1e-5
                )


class ByAxisTest(testing.TestCase):
    @parameterized.parameters(
        *((rank, over) for rank in (2, 3, 4, 5) for over in range(1, rank + 1))
    )
    def test_batch_normalization_of_any_rank(self, rank, over):
        shape = (4, 3, 2, 2, 2)[: rank - 1] + (3,)
        values = RNG.normal(size=shape).astype("float32")
        mask = RNG.uniform(size=shape[:over]) < 0.6
        mask.flat[:3] = True
        layer = layers.BatchNormalization(momentum=0.5)
        found = layer(masked(values, mask), training=True)
        valid = u.over_all_axes(mask, shape)
        self.assertAllEqual(u.over_all_axes(found.mask, shape), valid)
        for channel in range(3):
            own = values[..., channel][valid[..., channel]]
            mean, variance = (own.mean(), own.var()) if len(own) else (0, 0)
            scaled = (own - mean) / np.sqrt(variance + 1e-3)
            self.assertAllClose(
                u.array(found.values)[..., channel][valid[..., channel]],
                scaled,
                atol=1e-4,
            )
            self.assertAllClose(layer.moving_mean[channel], mean / 2, atol=1e-5)
            self.assertAllClose(
                layer.moving_variance[channel], (1 + variance) / 2, atol=1e-5
            )

    @parameterized.product(
        axis=(-1, 0, 1, (1, 2), (0, 2)), kind=("steps", "full", "explicit")
    )
    def test_softmax_over_any_axis(self, axis, kind):
        mask = {
            "steps": STEPS,
            "full": RNG.uniform(size=X.shape) < 0.6,
            # From the last axis on, as the scores of attention have it.
            "explicit": RNG.uniform(size=(1, 5, 4)) < 0.6,
        }[kind]
        layer = layers.Softmax(axis=axis)
        if kind == "explicit":
            # Else there is a mean over all: upstream's way for plain tensors.
            mask[0, 0], mask[0, :, 0] = True, True
            found = layer(X, mask=mask)
            self.assertFalse(ops.is_masked(found))
            valid = np.broadcast_to(mask, X.shape)
            values = u.array(found)
        else:
            found = layer(masked(mask=mask))
            self.assertAllEqual(found.mask, mask)
            valid = u.over_all_axes(mask, X.shape)
            values = u.array(found.values)
        weights = np.where(valid, np.exp(X), 0)
        sums = weights.sum(axis, keepdims=True)
        wanted = weights / np.where(sums == 0, 1, sums)
        self.assertAllClose(values[valid], wanted[valid], atol=1e-5)

    @parameterized.parameters(
        lambda: layers.GlobalAveragePooling1D(),
        lambda: layers.LSTM(2),
        lambda: layers.Bidirectional(layers.SimpleRNN(2)),
    )
    def test_a_segment_is_valid_when_any_of_its_steps_is(self, make):
        segments = RNG.normal(size=(2, 4, 5, 4)).astype("float32")
        mask = np.stack([STEPS, STEPS[::-1]])
        layer = layers.TimeDistributed(make())
        found = layer(masked(segments, mask))
        self.assertAllEqual(found.mask, mask.any(-1))
        for row, segment in ((0, 0), (0, 1), (1, 1)):
            own = segments[row, segment][mask[row, segment]]
            self.assertAllClose(
                found.values[row, segment], layer.layer(own[None])[0], atol=1e-5
            )

    def test_steps_inside_of_segments_stay_masked(self):
        segments = RNG.normal(size=(2, 4, 5, 4)).astype("float32")
        mask = np.stack([STEPS, STEPS[::-1]])
        layer = layers.TimeDistributed(layers.Dense(2))
        found = layer(masked(segments, mask))
        self.assertAllEqual(found.mask, mask)
        self.assertAllClose(
            u.array(found.values)[mask], layer.layer(segments[mask]), atol=1e-5
        )
        # And a layer that keeps the order of the steps above it.
        pooled = layers.TimeDistributed(layers.GlobalMaxPooling1D())(found)
        last = layers.GlobalMaxPooling1D()(pooled)
        wanted = u.array(layer.layer(segments))
        wanted = np.where(mask[..., None], wanted, -np.inf).max((1, 2))
        self.assertAllClose(last, wanted, atol=1e-5)


FEW = ("Attention", "Dense", "MultiHeadAttention", "Softmax", "Dropout")


class CallersTensorsTest(testing.TestCase):
    @parameterized.parameters(
        *(CASES if NAME in ("numpy", "torch") else FEW),
    )
    def test_masks_that_are_hung_on_the_callers_tensors_stay(self, name):
        """Upstream's attention takes them off."""
        case = CASES[name][0]
        drawn = u.draw(case.args, 1, 0.6)
        args = u.plain(drawn)
        hung = []
        for x, own in zip(tree.flatten(args), u.leaves(drawn)):
            if own.mask is not None:
                mask = backend.convert_to_tensor(own.mask)
                backend.set_keras_mask(x, mask)
                hung.append((x, mask, own))
        case.make()(*args)
        for x, mask, own in hung:
            self.assertIs(backend.get_keras_mask(x), mask)
            self.assertAllEqual(mask, own.mask)
            self.assertAllEqual(x, own.values)
