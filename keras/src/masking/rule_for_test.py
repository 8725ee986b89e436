"""`rule_for`: an operation from outside of Keras gets a rule for masks."""

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src.masking.refusals_test import compiled
from keras.src.masking.registry import rule_for
from keras.src.ops import masking as kmasking
from keras.src.ops import numpy as knp
from keras.src.testing.masked import testing_utils as u


class Reversed(keras.Operation):
    """Turns the time axis around, by functions that know no masks."""

    def __init__(self, scale=1.0, *, name=None):
        super().__init__(name=name)
        self.scale = scale

    def call(self, x, offset=0.0):
        return backend.numpy.flip(x, axis=1) * self.scale + offset


@rule_for(Reversed)
def reversed_rule(op, x, offset=0.0):
    """The mask is turned around as well."""
    values = op.call(x.values, offset)
    return keras.MaskedTensor(values, ops.flip(x.mask, axis=1))


class Unruled(Reversed):
    """Has no rule: those of a base do not count."""


class Count(keras.Operation):
    """The number of steps, as a plain tensor."""

    def call(self, x):
        return ops.sum(ops.ones_like(x[..., 0]), axis=1)


@rule_for(Count)
def count_rule(op, x):
    return ops.sum(ops.cast(x.mask, x.dtype), axis=1)


VALUES = np.arange(12, dtype="float32").reshape(2, 3, 2)
MASK = np.array([[True, True, False], [True, False, False]])


def x():
    return keras.MaskedTensor(VALUES, MASK)


class RuleForTest(testing.TestCase):
    def assert_reversed(self, result, scale=1.0, offset=0.0):
        self.assertTrue(ops.is_masked(result))
        self.assertAllEqual(result.mask, MASK[:, ::-1])
        expected = VALUES[:, ::-1] * scale + offset
        found = u.array(result.values)[MASK[:, ::-1]]
        self.assertAllClose(found, expected[MASK[:, ::-1]])

    def test_eagerly(self):
        self.assert_reversed(Reversed()(x()))
        self.assert_reversed(Reversed(2.0)(x(), offset=3.0), 2.0, 3.0)

    def test_plain_operands_need_no_rule(self):
        result = Reversed()(ops.convert_to_tensor(VALUES))
        self.assertAllClose(result, VALUES[:, ::-1])

    def test_a_numpy_masked_array_comes_as_a_masked_tensor(self):
        hidden = np.broadcast_to(~MASK[:, :, None], VALUES.shape)
        result = Reversed()(np.ma.MaskedArray(VALUES, hidden))
        mask = np.broadcast_to(MASK[:, ::-1, None], VALUES.shape)
        self.assertAllEqual(result.mask, mask)

    def test_symbolically(self):
        inputs = keras.Input((None, 2), mask_shape=(None,))
        outputs = Reversed()(inputs)
        self.assertEqual(outputs.shape, (None, None, 2))
        self.assertTrue(ops.is_masked(outputs))
        self.assertEqual(outputs.mask.shape, (None, None))
        counts = Count()(inputs)
        self.assertEqual(counts.shape, (None,))
        self.assertFalse(ops.is_masked(counts))

    def test_in_a_model(self):
        inputs = keras.Input((None, 2), mask_shape=(None,))
        outputs = Reversed(2.0)(inputs)
        # What follows sees the mask.
        mean = ops.mean(outputs, axis=1)
        model = keras.Model(inputs, [outputs, mean, Count()(inputs)])
        custom = {"Reversed": Reversed, "Count": Count}
        copy = keras.Model.from_config(model.get_config(), custom)
        for m in (model, copy):
            result, mean, counts = m(x())
            self.assert_reversed(result, 2.0)
            rows = [row[m].mean(0) * 2 for row, m in zip(VALUES, MASK)]
            self.assertAllClose(ops.filled(mean, 0), rows)
            self.assertFalse(ops.is_masked(counts))
            self.assertAllClose(counts, [2, 1])

    def test_inside_a_layer(self):
        class Wrapping(keras.Layer):
            def call(self, x):
                return Reversed()(x)

        self.assert_reversed(Wrapping()(x()))

    @pytest.mark.skipif(
        backend.backend() == "numpy", reason="NumPy does not compile"
    )
    def test_compiled(self):
        op = Reversed(2.0)
        self.assert_reversed(compiled(lambda x: op(x))(x()), 2.0)

    @pytest.mark.skipif(
        backend.backend() == "numpy", reason="NumPy has no gradients"
    )
    def test_its_gradient(self):
        op = Reversed(2.0)
        weights = ops.convert_to_tensor(VALUES)

        def loss(arrays):
            result = op(keras.MaskedTensor(arrays[0], MASK))
            return ops.sum(ops.filled(result, 0) * weights)

        garbage = np.where(MASK[:, :, None], VALUES, np.nan)
        (gradient,) = u.gradients(loss, [garbage.astype("float32")])
        expected = np.where(MASK[:, :, None], 2 * VALUES[:, ::-1], 0)
        self.assertAllClose(gradient, expected)

    def test_the_decorator_returns_the_rule(self):
        class Other(keras.Operation):
            pass

        def rule(op, x):
            return x

        self.assertIs(rule_for(Other)(rule), rule)

    def test_a_subclass_does_not_inherit_it(self):
        with self.assertRaises(TypeError):
            Unruled()(x())

    def test_an_own_subclass_of_an_operation_of_keras(self):
        """The operation itself keeps its rule, which operators follow."""

        class Doubled(knp.Add):
            pass

        @rule_for(Doubled)
        def rule(op, x, y):
            return keras.MaskedTensor(2 * x.values, x.mask)

        self.assertAllClose(Doubled()(x(), x()).values, 2 * x().values)
        for found in (ops.add(x(), x()), x() + x()):
            self.assertAllClose(found.values, 2 * x().values)
        with self.assertRaisesRegex(TypeError, "would not agree"):
            rule_for(knp.Add)(rule)

    def test_an_error_inside_says_which_call_it_was(self):
        class Failing(keras.Operation):
            pass

        @rule_for(Failing)
        def rule(op, x):
            raise KeyError("of the rule")

        with self.assertRaisesRegex(KeyError, "of the rule") as caught:
            Failing()(x())
        self.assertEqual(
            caught.exception.__notes__,
            ["In `Failing` of values of shape (2, 3, 2), mask of shape (2, 3)"],
        )

    @parameterized.named_parameters(
        ("function", lambda op, x: x, "rule_for\\(MyOperation\\)"),
        ("instance", Reversed(), "rule_for\\(MyOperation\\)"),
        ("class", dict, "Received: <class 'dict'>"),
        ("nothing", None, "Received: None"),
        ("layer", keras.layers.Dense, "layer class .*Dense.* needs no rule"),
        ("of_keras", knp.Add, "operation of your own.* Received: .*Add"),
        ("of_keras_too", kmasking.Filled, "operation of your own"),
    )
    def test_what_is_no_operation_is_refused(self, thing, text):
        with self.assertRaisesRegex(TypeError, text):
            rule_for(thing)
