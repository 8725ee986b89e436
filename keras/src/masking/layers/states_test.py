"""No layer learns of a step in which nothing is valid."""

import functools

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import random
from keras.src import testing
from keras.src import tree
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.cases.layers import CASES
from keras.src.testing.masked.cases.layers import FULL
from keras.src.testing.masked.cases.layers import IDS
from keras.src.testing.masked.cases.layers import STEPS
from keras.src.testing.masked.cases.layers import images
from keras.src.testing.masked.cases.layers import images_in_turn
from keras.src.testing.masked.testing_utils import Drawn
from keras.src.testing.masked.testing_utils import T

normalization = functools.partial(layers.BatchNormalization, momentum=0.75)
IMAGES = images_in_turn(1)[0].args[0]


def stateful(layer, **kwargs):
    return lambda: layer(3, stateful=True, **kwargs)


# Layers whose states a call changes: what makes them, and what they are
# called on.
STATES = {
    "BatchNormalization": [
        (normalization, STEPS),
        (normalization, FULL),
        (lambda: normalization(axis=1), T((2, 4, 6), 2)),
        (lambda: normalization(renorm=True), STEPS),
        (lambda: normalization(renorm=True), images(2, (4,))[0]),
    ],
    "Bidirectional": [
        (
            lambda: layers.Bidirectional(layers.GRU(3, stateful=True)),
            STEPS,
        )
    ],
    "ConvLSTM1D": [(stateful(layers.ConvLSTM1D, kernel_size=2), IMAGES)],
    "GRU": [(stateful(layers.GRU), STEPS)],
    "LSTM": [
        (stateful(layers.LSTM), STEPS),
        (stateful(layers.LSTM, unroll=True, go_backwards=True), FULL),
    ],
    "RNN": [
        (
            lambda: layers.RNN(
                [layers.GRUCell(2), layers.LSTMCell(3)], stateful=True
            ),
            STEPS,
        )
    ],
    "SimpleRNN": [(stateful(layers.SimpleRNN), STEPS)],
    "SpectralNormalization": [
        (lambda: layers.SpectralNormalization(layers.Dense(3)), STEPS),
        (lambda: layers.SpectralNormalization(layers.Embedding(9, 3)), IDS),
    ],
    "TimeDistributed": [
        (lambda: layers.TimeDistributed(normalization()), STEPS),
        (
            lambda: layers.TimeDistributed(normalization(renorm=True)),
            T((2, 3, 4, 2), 3),
        ),
    ],
}
NAMED_STATES = [
    (f"{name}_{i}", *case)
    for name, cases in STATES.items()
    for i, case in enumerate(cases)
]


def changing(layer):
    """The variables of a layer that a call may change, but those of draws.

    Of a draw there is one for each call, whatever the call is about.
    """
    found = [v for v in layer.non_trainable_variables if "seed" not in v.path]
    # States of recurrent layers are not among a layer's variables.
    held = tree.flatten(getattr(layer, "states", None))
    found += [v for v in held if v is not None]
    if isinstance(layer, layers.SpectralNormalization):
        found.append(layer.kernel)
    return list({id(v): v for v in found}.values())


def values_of(variables):
    return [u.array(v.value) for v in variables]


def drawn_of(operand, mask=None, seed=1):
    """The operand with entries; all valid, or with the mask."""
    drawn = u.draw(operand, seed=seed, share=2)
    return drawn if mask is None else Drawn(drawn.values, mask)


def with_masks(drawn):
    """The masked tensor, as the constructor makes it and with other things."""
    return [u.masked(drawn), u.masked(drawn, garbage=1)]


class Steps:
    """A layer in training whose states have been moved once.

    With a program of one step, where an engine compiles: it takes and gives
    the states on JAX.
    """

    def __init__(self, make, operand):
        self.layer = make()
        self.kwargs = {}
        if self.layer._call_has_training_arg:
            self.kwargs = {"training": True}
        self.eager(u.masked(drawn_of(operand)))
        self.variables = changing(self.layer)

    def eager(self, x):
        self.layer(x, **self.kwargs)

    def compiled(self, x):
        if backend.backend() == "jax":
            self._stateless(x)
        elif backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.function(self.eager)(x)
        else:
            self.eager(x)

    def _stateless(self, x):
        import jax

        variables = [*self.layer.variables, *self.variables]

        @jax.jit
        def step(values, x):
            pairs = [*zip(variables, values)]
            with backend.StatelessScope(pairs) as scope:
                self.layer(x, **self.kwargs)
            return [scope.get_current_value(v) for v in variables]

        values = step([v.value for v in variables], x)
        for v, value in zip(variables, values):
            v.assign(value)


class StatesTest(testing.TestCase):
    def assert_equal(self, found, expected):
        self.assertEqual(len(found), len(expected))
        for one, other in zip(found, expected):
            self.assertAllEqual(one, other)

    @parameterized.named_parameters(NAMED_STATES)
    def test_nothing_valid_changes_nothing(self, make, operand):
        steps = Steps(make, operand)
        before = values_of(steps.variables)
        self.assertTrue(before)
        mask = np.zeros(operand.shape[: operand.mask], "bool")
        for x in with_masks(drawn_of(operand, mask)):
            for run in (steps.eager, steps.compiled):
                run(x)
                self.assert_equal(values_of(steps.variables), before)
        # But one row is enough.
        mask[1] = True
        for seed, run in enumerate((steps.eager, steps.compiled), 2):
            run(u.masked(drawn_of(operand, mask, seed)))
            after = values_of(steps.variables)
            for one, other in zip(after, before):
                self.assertNotAllClose(one, other, atol=0, rtol=0)
            before = after

    def test_every_layer_with_states_is_here(self):
        """One that gets some is named here, before a user meets it."""
        if backend.backend() != "numpy":
            self.skipTest("The same layers on any backend.")
        found = {name for name, (case, *_) in CASES.items() if learns(case)}
        self.assertEqual(found - set(STATES), set())


def learns(case):
    """Whether a call in training changes anything but seeds."""
    layer = case.make()
    kwargs = {"training": True} if layer._call_has_training_arg else {}
    args = u.masked(u.draw(case.args, seed=1, share=0.6))
    layer(*args)
    before = values_of(changing(layer))
    layer(*args, **kwargs)
    pairs = zip(before, values_of(changing(layer)))
    return any((one != other).any() for one, other in pairs)


class BatchNormalizationTest(testing.TestCase):
    @parameterized.parameters(False, True)
    def test_a_feature_without_a_valid_entry_is_kept_by_itself(self, renorm):
        mask = np.ones((2, 6, 4), "bool")
        mask[..., 2] = False
        found, expected = (normalization(renorm=renorm) for _ in range(2))
        x = drawn_of(FULL, mask)
        found(u.masked(x), training=True)
        expected.build(x.values.shape)
        before = values_of(expected._learned())
        expected(x.values, training=True)
        for one, other, old in zip(
            values_of(found._learned()), values_of(expected._learned()), before
        ):
            other[2] = old[2]
            self.assertAllClose(one, other)

    @parameterized.parameters(False, True)
    def test_padded_frames_move_nothing(self, renorm):
        """Each frame is a step of the layer inside, also of unknown number."""
        clips = random.normal((4, 3, 2), seed=1) + 5
        learned = []
        for length in (3, 7):
            width = ((0, 0), (0, length - 3), (0, 0))
            mask = np.arange(length) < np.full((4, 1), 3)
            x = backend.MaskedTensor(ops.pad(clips, width), mask)
            layer = layers.TimeDistributed(normalization(renorm=renorm))
            for _ in range(2):
                layer(x, training=True)
            learned.append(values_of(layer.layer._learned()))
        for one, other in zip(*learned):
            self.assertAllClose(one, other)

    def test_inside_a_scope_of_its_own(self):
        """Nothing of a call in training is left behind."""
        layer = normalization()
        x = drawn_of(STEPS)
        layer(u.masked(x), training=True)
        with self.assertRaisesRegex(ValueError, "incompatible"):
            layer(backend.MaskedTensor(x.values[..., :3], x.mask))
        layer.moving_mean.assign(np.full(4, 2.0))
        self.assertAllEqual(u.array(layer.moving_mean.value), np.full(4, 2.0))


class LastOutputTest(testing.TestCase):
    @parameterized.parameters(
        *(
            (name, unroll)
            for name in ("LSTM", "GRU", "SimpleRNN", "RNN")
            for unroll in (False, True)
        )
    )
    def test_zeros_of_masked_steps_are_not_shown_last(self, name, unroll):
        mask = np.array([[1, 1, 0, 0, 1, 0]] * 2, "bool")
        x = u.masked(drawn_of(STEPS, mask))

        size = layers.LSTMCell(3) if name == "RNN" else 3
        layer = getattr(layers, name)(size, unroll=unroll)
        expected = layer(x)
        layer.zero_output_for_mask = True
        found = layer(x)
        self.assertAllClose(found, expected)
        self.assertGreater(np.abs(u.array(found)).min(), 0)
