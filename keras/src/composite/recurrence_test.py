"""Recurrent layers on composite sequences and states, beside plain NumPy."""

import itertools

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.composite import recurrence
from keras.src.testing.masked import testing_utils as u

BATCH, TIME, FEATURES, UNITS = 4, 5, 3, 2
LENGTHS = np.array([2, 5, 0, 4])
MASK = np.arange(TIME) < LENGTHS[:, None]


class Interval(keras.CompositeTensor):
    low: keras.KerasTensor
    high: keras.KerasTensor
    shape = property(lambda self: self.low.shape)
    dtype = property(lambda self: self.low.dtype)


class Track(keras.CompositeTensor):
    """A structure: places, and a number for each step."""

    places: keras.KerasTensor
    speed: keras.KerasTensor


class Boxed(keras.CompositeTensor):
    """As its values, by rules."""

    values: keras.KerasTensor
    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.values.dtype)


def _boxed_rule(function):
    def rule(*args, **kwargs):
        args = [x.values if isinstance(x, Boxed) else x for x in args]
        result = function(*args, **kwargs)
        if isinstance(result, (list, tuple)):
            return [Boxed(x) for x in result]
        return Boxed(result)

    return rule


@keras.rule_for(ops.cast, Boxed)
def _cast(x, dtype):
    return Boxed(ops.cast(x.values, dtype))


for _function in (
    ops.matmul,
    ops.add,
    ops.subtract,
    ops.multiply,
    ops.split,
    ops.tanh,
    ops.sigmoid,
    ops.get_item,
    ops.flip,
):
    keras.rule_for(_function, Boxed)(_boxed_rule(_function))


@keras.rule_for(ops.concatenate, Boxed)
def _concatenate(xs, axis=0):
    return Boxed(ops.concatenate([x.values for x in xs], axis))


@keras.saving.register_keras_serializable("recurrence_test")
class IntervalCell(layers.Layer):
    """A linear layer's bounds, added to those of half the last state."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = self.output_size = units

    def build(self, shape):
        self.kernel = self.add_weight((shape[-1], self.units), "normal")

    def get_initial_state(self, batch_size):
        zeros = ops.zeros((batch_size, self.units))
        return [Interval(zeros, zeros)]

    def call(self, x, states):
        middle = ops.matmul((x.low + x.high) / 2, self.kernel)
        radius = ops.matmul((x.high - x.low) / 2, ops.abs(self.kernel))
        (last,) = states
        y = Interval(
            middle - radius + last.low / 2, middle + radius + last.high / 2
        )
        return y, [y]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("recurrence_test")
class BoxedCell(layers.SimpleRNNCell):
    def get_initial_state(self, batch_size=None):
        return [Boxed(ops.zeros((batch_size, self.units)))]


def _row(kernel, low, high):
    """The bounds after each step of one row without padding, by NumPy."""
    found = [(np.zeros(UNITS), np.zeros(UNITS))]
    for a, b in zip(low, high):
        middle = (a + b) / 2 @ kernel
        radius = (b - a) / 2 @ abs(kernel)
        last = found[-1]
        found.append(
            (middle - radius + last[0] / 2, middle + radius + last[1] / 2)
        )
    return [np.stack(x) for x in zip(*found[1:])] if found[1:] else [None] * 2


def _data(seed=0):
    rng = np.random.default_rng(seed)
    low = rng.normal(size=(BATCH, TIME, FEATURES)).astype("float32")
    return low, low + rng.random(low.shape, "float32")


def _numpy(x):
    return np.asarray(ops.convert_to_numpy(x))


class CompositeRNNTest(testing.TestCase):
    def _poisoned(self, kind):
        """The sequences, and the `mask` to give with them."""
        low, high = _data()
        poison = np.where(MASK[..., None], 0, np.nan).astype("float32")
        if kind == "plain":
            return Interval(low, high), {}
        if kind == "by name":
            return Interval(low + poison, high - poison), {"mask": MASK}
        masked = backend.MaskedTensor._wrap(
            backend.convert_to_tensor(low + poison),
            backend.convert_to_tensor(MASK),
        )
        return Interval(masked, high), {}

    @parameterized.parameters(
        *itertools.product(
            ("plain", "by name", "in a part"), (False, True), (False, True)
        )
    )
    def test_each_row_is_as_alone(self, kind, go_backwards, unroll):
        layer = layers.RNN(
            IntervalCell(UNITS),
            return_sequences=True,
            return_state=True,
            go_backwards=go_backwards,
            unroll=unroll,
        )
        sequences, kwargs = self._poisoned(kind)
        outputs, state = layer(sequences, **kwargs)
        self.assertIsInstance(outputs, Interval)
        kernel = _numpy(layer.cell.kernel)
        low, high = _data()
        steps = np.full(BATCH, TIME) if kind == "plain" else LENGTHS
        for i, n in enumerate(steps):
            order = slice(None, None, -1 if go_backwards else None)
            row = _row(kernel, low[i, :n][order], high[i, :n][order])
            where = slice(TIME - n, None) if go_backwards else slice(n)
            for name, expected in zip(("low", "high"), row):
                part = getattr(outputs, name)
                last = _numpy(getattr(state, name))[i]
                if kind != "plain":
                    self.assertEqual(int(_numpy(part.mask)[i].sum()), n)
                    part = part.values
                if n == 0:
                    self.assertAllClose(last, np.zeros(UNITS))
                    continue
                self.assertAllClose(_numpy(part)[i, where], expected)
                self.assertAllClose(last, expected[-1])

    @parameterized.parameters(False, True)
    def test_the_last_output_is_of_the_last_valid_step(self, unroll):
        layer = layers.RNN(IntervalCell(UNITS), unroll=unroll)
        sequences, kwargs = self._poisoned("by name")
        y = layer(sequences, **kwargs)
        low, high = _data()
        for i, n in enumerate(LENGTHS):
            if n:
                row = _row(_numpy(layer.cell.kernel), low[i, :n], high[i, :n])
                self.assertAllClose(_numpy(y.high)[i], row[1][-1])

    def test_zero_output_for_mask(self):
        layer = layers.RNN(
            IntervalCell(UNITS),
            return_sequences=True,
            zero_output_for_mask=True,
        )
        sequences, kwargs = self._poisoned("by name")
        values = _numpy(layer(sequences, **kwargs).low.values)
        self.assertAllClose(values[~MASK], np.zeros_like(values[~MASK]))

    def test_states_that_are_given(self):
        layer = layers.RNN(IntervalCell(UNITS), return_state=True)
        low, high = _data()
        first, second = (
            Interval(low[:, :2], high[:, :2]),
            Interval(low[:, 2:], high[:, 2:]),
        )
        _, state = layer(first)
        y, _ = layer(second, initial_state=[state])
        whole, _ = layer(Interval(low, high))
        self.assertAllClose(_numpy(y.low), _numpy(whole.low))
        # One state need be in no list.
        y, _ = layer(second, initial_state=state)
        self.assertAllClose(_numpy(y.low), _numpy(whole.low))

    def test_stateful(self):
        layer = layers.RNN(IntervalCell(UNITS), stateful=True)
        low, high = _data()
        layer(Interval(low[:, :2], high[:, :2]))
        y = layer(Interval(low[:, 2:], high[:, 2:]))
        layer.reset_state()
        whole = layer(Interval(low, high))
        self.assertAllClose(_numpy(y.low), _numpy(whole.low))

    def test_a_stack_of_cells(self):
        cells = [IntervalCell(6), IntervalCell(UNITS)]
        stack = layers.RNN(
            layers.StackedRNNCells(cells),
            return_sequences=True,
            return_state=True,
        )
        sequences, kwargs = self._poisoned("in a part")
        y, *states = stack(sequences, **kwargs)
        self.assertLen(states, 2)
        between = layers.RNN(cells[0], return_sequences=True)(sequences)
        expected = layers.RNN(cells[1], return_sequences=True)(between)
        self.assertAllClose(_numpy(y.low.values), _numpy(expected.low.values))
        alone = layers.RNN(layers.StackedRNNCells(cells[:1]))(sequences)
        self.assertAllClose(
            _numpy(alone.low), _numpy(layers.RNN(cells[0])(sequences).low)
        )

    @pytest.mark.skipif(backend.backend() == "numpy", reason="has no gradients")
    def test_slopes_do_not_depend_on_what_is_masked(self):
        factor = []

        class Cell(IntervalCell):
            def call(self, x, states):
                return super().call(x.replace(high=x.high * factor[0]), states)

        layer = layers.RNN(Cell(UNITS))
        low, high = _data()
        factor[:] = [1.0]
        layer(Interval(low, high))

        def number(arrays):
            factor[:] = arrays[2:]
            # The mask of one part is that of the steps, of the other too.
            low = backend.MaskedTensor(arrays[0], MASK)
            y = layer(Interval(low, arrays[1]))
            return ops.sum(ops.square(y.low)) + ops.sum(y.high)

        ones = np.ones(FEATURES, "float32")
        clean = u.gradients(number, [low, high, ones])
        poisoned = np.where(MASK[..., None], high, np.nan).astype("float32")
        found = u.gradients(number, [low, poisoned, ones])
        for one, other in zip(found, clean):
            self.assertAllClose(_numpy(one), _numpy(other))
        self.assertAllClose(_numpy(found[1])[~MASK], 0 * low[~MASK])

    def test_a_stack_of_one_cell_with_two_states(self):
        low, _ = _data()
        cell = layers.LSTMCell(UNITS)
        stack = layers.RNN(layers.StackedRNNCells([cell]), return_state=True)
        zeros = Boxed(np.zeros((BATCH, UNITS), "float32"))
        y, states = stack(Boxed(low), initial_state=[[zeros, zeros]])
        expected, *of_cell = layers.RNN(cell, return_state=True)(low)
        self.assertAllClose(_numpy(y.values), _numpy(expected))
        for one, other in zip(states, of_cell):
            self.assertAllClose(_numpy(one.values), _numpy(other))

    def test_a_structure(self):
        shapes = []

        class Cell(layers.Layer):
            state_size = 2

            def build(self, shape):
                shapes.append((shape.places, shape.speed))

            def call(self, x, states):
                y = states[0] + x.places * x.speed[:, None]
                return y, [y]

        rng = np.random.default_rng(0)
        places = rng.normal(size=(BATCH, TIME, 2)).astype("float32")
        speed = rng.normal(size=(BATCH, TIME)).astype("float32")
        layer = layers.RNN(Cell(), return_sequences=True)
        y = layer(Track(places, speed), mask=MASK)
        self.assertEqual(shapes, [((BATCH, 2), (BATCH,))])
        expected = np.cumsum(places * speed[..., None] * MASK[..., None], 1)
        self.assertAllClose(_numpy(y.values)[MASK], expected[MASK])

    def test_plain_sequences_with_composite_states(self):
        class Cell(IntervalCell):
            def call(self, x, states):
                y, states = super().call(Interval(x, x), states)
                return y.low, states

        layer = layers.RNN(Cell(UNITS), return_state=True)
        low, _ = _data()
        y, state = layer(low)
        expected = _row(_numpy(layer.cell.kernel), low[0], low[0])[0][-1]
        self.assertAllClose(_numpy(y)[0], expected)
        self.assertIsInstance(state, Interval)
        y, state = layer(layers.Input((None, FEATURES)))
        self.assertEqual(y.shape, (None, UNITS))
        self.assertIsInstance(state, Interval)

    @parameterized.parameters(layers.LSTM, layers.SimpleRNN)
    def test_layers_of_keras_by_rules(self, cls):
        count = 2 if cls is layers.LSTM else 1
        layer = cls(UNITS, return_sequences=True)
        low, _ = _data()
        zeros = np.zeros((BATCH, UNITS), "float32")
        expected = layer(low, mask=MASK)
        y = layer(Boxed(low), initial_state=[Boxed(zeros)] * count, mask=MASK)
        self.assertAllClose(
            _numpy(y.values.values)[MASK], _numpy(expected.values)[MASK]
        )

    def test_in_both_directions_by_rules(self):
        layer = layers.Bidirectional(
            layers.RNN(BoxedCell(UNITS), return_sequences=True)
        )
        low, _ = _data()
        y = layer(Boxed(low))
        zeros = np.zeros((BATCH, UNITS), "float32")
        expected = layer(low, initial_state=[zeros, zeros])
        self.assertAllClose(_numpy(y.values), _numpy(expected))

    @parameterized.parameters(layers.LSTM, layers.GRU)
    def test_layers_of_keras_in_both_directions(self, cls):
        # The kernels that fuse both directions are not for other types.
        layer = layers.Bidirectional(cls(UNITS))
        low, _ = _data()
        zeros = np.zeros((BATCH, UNITS), "float32")
        count = 4 if cls is layers.LSTM else 2
        y = layer(Boxed(low), initial_state=[Boxed(zeros)] * count)
        self.assertAllClose(_numpy(y.values), _numpy(layer(low)))

    def test_states_that_change_their_type(self):
        with self.assertRaisesRegex(
            TypeError, r"shape=\D*4, 2.*gave back .*Boxed.*initial_state="
        ):
            layers.SimpleRNN(UNITS)(Boxed(_data()[0]))

    def test_a_cell_is_asked_once_for_its_states(self):
        asked = []

        class Cell(layers.SimpleRNNCell):
            def get_initial_state(self, batch_size=None):
                asked.append(batch_size)
                return super().get_initial_state(batch_size)

        layer = layers.RNN(Cell(UNITS))
        layer(_data()[0])
        layer(_data()[0], mask=MASK)
        self.assertEqual(asked, [BATCH] * 2)

    def test_unrolling_an_unknown_length(self):
        layer = layers.RNN(IntervalCell(UNITS), unroll=True)
        x = layers.Input((None, FEATURES))
        if backend.backend() in recurrence._IN_PYTHON:
            # It is known whenever the layer runs.
            self.assertEqual(layer(Interval(x, x)).shape, (None, UNITS))
            return
        with self.assertRaisesRegex(ValueError, "unknown length"):
            layer(Interval(x, x))

    def test_it_is_one_loop_of_the_backend(self):
        # A long sequence is not written out where the engine has loops.
        if backend.backend() in recurrence._IN_PYTHON:
            self.skipTest("The loops of this backend are Python's.")
        layer = layers.RNN(IntervalCell(UNITS))
        calls = []
        plain = layer.cell.call

        def counted(*args, **kwargs):
            calls.append(1)
            return plain(*args, **kwargs)

        layer.cell.call = counted
        x = layers.Input((100, FEATURES))
        layer(Interval(x, x))
        self.assertLess(len(calls), 10)


@pytest.mark.requires_trainable_backend
class TrainingTest(testing.TestCase):
    def _model(self):
        x = Interval(
            layers.Input((None, FEATURES), mask_shape=(None,)),
            layers.Input((None, FEATURES)),
        )
        y = layers.RNN(IntervalCell(UNITS), return_sequences=True)(x)
        self.assertEqual(y.low.mask.shape, (None, None))
        y = layers.RNN(IntervalCell(UNITS))(y)
        self.assertEqual(y.shape, (None, UNITS))
        return models.Model(x, layers.Dense(1)(y.high - y.low))

    def _inputs(self, poison):
        low, high = _data()
        low = np.where(MASK[..., None], low, poison).astype("float32")
        return Interval(keras.MaskedTensor(low, MASK), high)

    def test_training_does_not_depend_on_padding(self):
        model = self._model()
        model.compile("sgd", "mse")
        start = model.get_weights()
        found = []
        for poison in (0.0, np.nan):
            model.set_weights(start)
            inputs = self._inputs(poison)
            model.fit(inputs, np.ones((BATCH, 1)), shuffle=False, verbose=0)
            found.append(model.get_weights())
            self.assertEqual(model.predict(inputs, verbose=0).shape, (BATCH, 1))
        for a, b in zip(*found):
            self.assertAllClose(a, b)
            self.assertTrue(np.isfinite(a).all())
        self.assertNotAllClose(found[0][0], start[0])

    def test_files(self):
        model = self._model()
        path = f"{self.get_temp_dir()}/model.keras"
        model.save(path)
        again = keras.saving.load_model(
            path, custom_objects={"Interval": Interval}
        )
        inputs = self._inputs(0.0)
        self.assertAllClose(
            again.predict(inputs, verbose=0), model.predict(inputs, verbose=0)
        )
