"""What rules are given, in which order they are asked, and what they return."""

import inspect
from unittest import mock

import numpy as np
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src.composite import rules
from keras.src.masking.door_test import IDS
from keras.src.masking.door_test import M
from keras.src.masking.door_test import V
from keras.src.ops import numpy as knp
from keras.src.testing.masked import testing_utils as u


class Interval(keras.CompositeTensor):
    """Two bounds, of one shape."""

    low: keras.KerasTensor
    high: keras.KerasTensor
    shape = property(lambda self: self.low.shape)
    dtype = property(lambda self: self.low.dtype)


class Narrow(Interval):
    """A subclass, which has the rules of its base."""


class Pair(keras.CompositeTensor):
    left: keras.KerasTensor
    right: keras.KerasTensor | None = None
    unit: str = "m"


LOW, HIGH = M, M + 1.0


def interval():
    return Interval(LOW, HIGH)


class Doubled(keras.Operation):
    """An operation of a user's own, of ops that have rules."""

    def __init__(self, factor=2.0, *, name=None):
        super().__init__(name=name)
        self.factor = factor

    def call(self, x, offset=0.0):
        return ops.multiply(x, self.factor) + offset

    def compute_output_spec(self, x, offset=0.0):
        return backend.KerasTensor(x.shape, x.dtype)


class RulesTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.dict(rules._RULES))

    def spy(self, function, *types_, answer="the result"):
        """Gives types a rule, and the list of the calls of that rule."""
        asked = []

        @keras.rule_for(function, *types_)
        def rule(*args, **kwargs):
            asked.append((args, kwargs))
            return answer

        return asked


class RuleForTest(RulesTest):
    def test_it_gives_the_rule_back(self):
        def rule(x):
            return x

        self.assertIs(keras.rule_for(ops.negative, Pair)(rule), rule)

    @parameterized.named_parameters(
        ("own_function", lambda x: x, Pair, "needs no rule"),
        ("not_callable", "add", Pair, "takes a function of Keras"),
        ("of_numpy", np.add, Pair, "takes a function of Keras"),
        ("layer", keras.layers.Dense, Pair, "takes no layers"),
        ("their_operation", knp.Add, Pair, r"Give `keras.ops.add`"),
        ("no_class", ops.add, "Pair", "no class"),
        ("base", ops.add, keras.CompositeTensor, "the base of all"),
        ("other_class", ops.add, int, "no subclass of it"),
        ("masked", ops.add, keras.MaskedTensor, "operators would not agree"),
    )
    def test_what_it_does_not_take(self, function, type_, text):
        with self.assertRaisesRegex(TypeError, text):
            keras.rule_for(function, type_)
        self.assertNotIn((function, type_), rules._RULES)

    def test_no_type(self):
        with self.assertRaisesRegex(TypeError, r"rule_for\(keras.ops.add, My"):
            keras.rule_for(ops.add)

    def test_several_types_at_once(self):
        asked = self.spy(ops.negative, Interval, Pair)
        for x in (interval(), Pair(V)):
            self.assertEqual(ops.negative(x), "the result")
        self.assertLen(asked, 2)

    def test_the_last_rule_counts(self):
        first = self.spy(ops.negative, Pair)
        second = self.spy(ops.negative, Pair, answer="another")
        self.assertEqual(ops.negative(Pair(V)), "another")
        self.assertEqual((len(first), len(second)), (0, 1))

    def test_a_rule_computes(self):
        @keras.rule_for(ops.negative, Interval)
        def negative(x):
            return Interval(-x.high, -x.low)

        @keras.rule_for(ops.add, Interval)
        def add(x1, x2):
            if isinstance(x1, Interval) and isinstance(x2, Interval):
                return Interval(x1.low + x2.low, x1.high + x2.high)
            return keras.composite.parts(ops.add, x1, x2)

        result = 1.0 + interval() + (-interval())
        self.assertIsInstance(result, Interval)
        self.assertAllClose(result.low, 1.0 + LOW - HIGH)
        self.assertAllClose(result.high, 1.0 + HIGH - LOW)

    def test_a_rule_for_masked_tensors(self):
        class Own(Doubled):
            pass

        @keras.rule_for(Own, keras.MaskedTensor)
        def rule(op, x):
            return keras.MaskedTensor(x.values * op.factor, x.mask)

        mask = np.array([True, False, True])
        result = Own(3.0)(keras.MaskedTensor(V, mask))
        self.assertAllEqual(result.mask, mask)
        self.assertAllClose(u.array(result.values)[mask], 3.0 * V[mask])


class OrderTest(RulesTest):
    def test_from_left_to_right(self):
        self.spy(ops.add, Interval, answer="interval")
        self.spy(ops.add, Pair, answer="pair")
        self.assertEqual(ops.add(interval(), Pair(V)), "interval")
        self.assertEqual(ops.add(Pair(V), interval()), "pair")

    def test_the_more_derived_type_first(self):
        self.spy(ops.add, Interval, answer="base")
        self.spy(ops.add, Narrow, answer="derived")
        narrow = Narrow(LOW, HIGH)
        self.assertEqual(ops.add(interval(), narrow), "derived")
        self.assertEqual(ops.add(narrow, interval()), "derived")
        self.assertEqual(ops.add(interval(), interval()), "base")
        # One between them does not change it.
        self.spy(ops.concatenate, Interval, answer="base")
        self.spy(ops.concatenate, Narrow, answer="derived")
        self.spy(ops.concatenate, Pair, answer="pair")
        xs = [interval(), Pair(V), narrow]
        self.assertEqual(ops.concatenate(xs), "derived")

    def test_a_type_is_asked_once(self):
        asked = self.spy(ops.add, Interval, answer=NotImplemented)
        with self.assertRaises(keras.UnsupportedTypeError):
            ops.add(interval(), interval())
        self.assertLen(asked, 1)

    def test_not_implemented_passes_on(self):
        first = self.spy(ops.add, Interval, answer=NotImplemented)
        self.spy(ops.add, Pair)
        x, y = interval(), Pair(V)
        self.assertEqual(ops.add(x, y), "the result")
        (args, kwargs) = first[0]
        self.assertIs(args[0], x)
        self.assertIs(args[1], y)

    def test_what_is_said_where_none_of_them_answers(self):
        self.spy(ops.add, Interval, Pair, answer=NotImplemented)
        with self.assertRaises(keras.UnsupportedTypeError) as caught:
            ops.add(interval(), Pair(V))
        for text in (
            "`keras.ops.add` has rules for `Interval`, `Pair`",
            "`NotImplemented`",
            "operand 0: Interval(",
            "operand 1: Pair(",
        ):
            self.assertIn(text, str(caught.exception))

    def test_a_subclass_has_the_rules_of_its_bases(self):
        asked = self.spy(ops.negative, Interval)
        self.assertEqual(ops.negative(Narrow(LOW, HIGH)), "the result")
        self.assertIsInstance(asked[0][0][0], Narrow)

    def test_an_error_of_a_rule_is_its_own(self):
        @keras.rule_for(ops.negative, Pair)
        def rule(x):
            raise KeyError("mine")

        with self.assertRaisesRegex(KeyError, "mine"):
            ops.negative(Pair(V))


class ErrorTest(RulesTest):
    def test_it_says_what_to_write(self):
        with self.assertRaises(keras.UnsupportedTypeError) as caught:
            ops.matmul(M, Pair(V))
        self.assertIsInstance(caught.exception, TypeError)
        for text in (
            "`keras.ops.matmul` has no rule for `Pair`",
            "operand 1: Pair(left=<shape=(3,), dtype=float32>",
            "@keras.rule_for(keras.ops.matmul, Pair)\ndef matmul(x1, x2):",
            "`x.left`, `x.right`",
        ):
            self.assertIn(text, str(caught.exception))

    def test_what_it_says_to_write_can_be_pasted(self):
        with self.assertRaises(keras.UnsupportedTypeError) as caught:
            ops.sum(Pair(V), axis=0)
        text = str(caught.exception)
        code = text[text.index("@keras") : text.index("or call")]
        names = {"keras": keras, "Pair": Pair}
        exec(code.replace("...", "return 'pasted'"), names)
        self.assertEqual(ops.sum(Pair(V), axis=0), "pasted")


class ArgumentsTest(RulesTest):
    @parameterized.named_parameters(
        ("by_position", lambda x: ops.sum(x, 1), {"axis": 1}),
        ("by_name", lambda x: ops.sum(x=x, axis=1), {"axis": 1}),
        ("defaults", lambda x: ops.sum(x, None, False), {}),
        ("some", lambda x: ops.sum(x, keepdims=True), {"keepdims": True}),
        ("a_tuple", lambda x: ops.sum(x, (0, 1)), {"axis": (0, 1)}),
    )
    def test_statics_come_by_name(self, call, expected):
        asked = self.spy(ops.sum, Pair)
        x = Pair(V)
        self.assertEqual(call(x), "the result")
        (args, kwargs) = asked[0]
        self.assertIs(args[0], x)
        self.assertEqual((len(args), kwargs), (1, expected))

    @parameterized.named_parameters(
        ("concatenate", "concatenate"), ("stack", "stack")
    )
    def test_lists_come_as_lists(self, name):
        function = getattr(ops, name)
        asked = self.spy(function, Pair)
        x = Pair(V)
        for nest in ([x, V, x], (V, x)):
            function(nest, axis=1)
            (args, kwargs) = asked.pop()
            self.assertIs(type(args[0]), type(nest))
            for found, expected in zip(args[0], nest, strict=True):
                self.assertIs(found, expected)
            self.assertEqual(kwargs, {"axis": 1})

    @parameterized.named_parameters(
        ("where", lambda x: ops.where(M > 0, x, 0.0), "where", 1),
        ("full_like", lambda x: ops.full_like(M, x), "full_like", 1),
        ("take", lambda x: ops.take(M, x, axis=0), "take", 1),
        ("meshgrid", lambda x: ops.meshgrid(V, x), "meshgrid", 1),
    )
    def test_an_operand_that_is_not_the_first(self, call, name, place):
        asked = self.spy(getattr(ops, name), Pair)
        x = Pair(V)
        self.assertEqual(call(x), "the result")
        self.assertIs(asked[0][0][place], x)

    def test_a_key_comes_as_it_is(self):
        asked = self.spy(ops.get_item, Interval)
        x = interval()
        for key in (0, slice(1, None), (..., None, 2), IDS):
            self.assertEqual(x[key], "the result")
            (args, kwargs) = asked.pop()
            self.assertIs(args[1], key)

    def test_a_random_draw(self):
        asked = self.spy(keras.random.dropout, Pair)
        keras.random.dropout(Pair(V), 0.5, seed=3)
        (args, kwargs) = asked[0]
        self.assertIsInstance(args[0], Pair)
        self.assertEqual((args[1:], kwargs), ((0.5,), {"seed": 3}))


class OneUnderTwoNamesTest(RulesTest):
    @parameterized.named_parameters(
        ("abs", "absolute", "abs"),
        ("bitwise_not", "bitwise_invert", "bitwise_not"),
        ("conj", "conjugate", "conj"),
        ("divide", "divide", "true_divide"),
        ("left_shift", "left_shift", "bitwise_left_shift"),
        ("right_shift", "right_shift", "bitwise_right_shift"),
    )
    def test_a_rule_of_either_is_that_of_both(self, one, other):
        for ruled, called in ((one, other), (other, one), (one, one)):
            with mock.patch.dict(rules._RULES):
                self.spy(getattr(ops, ruled), Interval)
                function = getattr(ops, called)
                is_binary = "x2" in inspect.signature(function).parameters
                is_binary |= "y" in inspect.signature(function).parameters
                args = [interval()] * (1 + is_binary)
                self.assertEqual(function(*args), "the result")

    def test_the_operators_of_both(self):
        self.spy(ops.divide, Interval, answer="divided")
        self.spy(ops.abs, Interval, answer="positive")
        self.assertEqual(interval() / 2.0, "divided")
        self.assertEqual(2.0 / interval(), "divided")
        self.assertEqual(abs(interval()), "positive")

    def test_own_rules_of_each(self):
        self.spy(ops.divide, Interval, answer="divide")
        self.spy(ops.true_divide, Interval, answer="true_divide")
        self.assertEqual(ops.divide(interval(), 2.0), "divide")
        self.assertEqual(interval() / 2.0, "true_divide")


class ActivationsTest(RulesTest):
    @parameterized.named_parameters(
        (name, name)
        for name in ("relu", "softmax", "gelu", "tanh", "sigmoid", "silu")
    )
    def test_the_rule_of_the_op_of_its_name(self, name):
        self.spy(getattr(ops, name), Interval)
        function = keras.activations.get(name)
        self.assertEqual(function(interval()), "the result")

    def test_its_arguments(self):
        asked = self.spy(keras.activations.relu, Interval)
        keras.activations.relu(interval(), max_value=6.0)
        self.assertEqual(asked[0][1], {"max_value": 6.0})

    def test_a_rule_of_its_own(self):
        self.spy(ops.relu, Interval, answer="of the op")
        self.spy(keras.activations.relu, Interval, answer="its own")
        self.assertEqual(keras.activations.relu(interval()), "its own")
        self.assertEqual(ops.relu(interval()), "of the op")

    def test_without_any(self):
        with self.assertRaisesRegex(keras.UnsupportedTypeError, "relu"):
            keras.activations.relu(interval())


class OperationsTest(RulesTest):
    def use_parts(self, *functions):
        for function in functions:

            @keras.rule_for(function, Interval)
            def rule(*args, function=function, **kwargs):
                return keras.composite.parts(function, *args, **kwargs)

    def inputs(self):
        return Interval(keras.Input((3,)), keras.Input((3,)))

    def test_without_a_rule_its_ops_have_theirs(self):
        self.use_parts(ops.multiply, ops.add)
        result = Doubled()(interval(), offset=1.0)
        self.assertAllClose(result.low, 2.0 * LOW + 1.0)
        self.assertAllClose(result.high, 2.0 * HIGH + 1.0)

    def test_without_a_rule_for_its_ops(self):
        with self.assertRaisesRegex(
            keras.UnsupportedTypeError, "`keras.ops.multiply`"
        ):
            Doubled()(interval())

    def test_its_rule_is_given_the_operation_first(self):
        asked = self.spy(Doubled, Interval)
        op, x = Doubled(3.0), interval()
        self.assertEqual(op(x, offset=1.0), "the result")
        (args, kwargs) = asked[0]
        self.assertIs(args[0], op)
        self.assertIs(args[1], x)
        self.assertEqual(kwargs, {"offset": 1.0})

    def test_not_implemented_by_its_only_rule(self):
        self.spy(Doubled, Interval, answer=NotImplemented)
        with self.assertRaisesRegex(
            keras.UnsupportedTypeError, "`Doubled` has rules for `Interval`"
        ):
            Doubled()(interval())

    def test_in_a_model_without_a_rule(self):
        self.use_parts(ops.multiply, ops.add)
        inputs = self.inputs()
        outputs = Doubled()(inputs)
        self.assertIsInstance(outputs, Interval)
        self.assertEqual(outputs.low.shape, (None, 3))
        result = keras.Model(inputs, outputs)(interval())
        self.assertIsInstance(result, Interval)
        self.assertAllClose(result.high, 2.0 * HIGH)

    def test_in_a_model_with_a_rule(self):
        @keras.rule_for(Doubled, Interval)
        def rule(op, x):
            return Interval(x.low * op.factor, x.high * op.factor)

        inputs = self.inputs()
        outputs = Doubled(3.0)(inputs)
        self.assertIsInstance(outputs, Interval)
        result = keras.Model(inputs, outputs)(interval())
        self.assertAllClose(result.low, 3.0 * LOW)
        self.assertAllClose(result.high, 3.0 * HIGH)

    def test_functions_in_a_model(self):
        """A rule may change the type, and give what is plain."""
        self.use_parts(ops.multiply)

        @keras.rule_for(ops.max, Interval)
        def rule(x, axis=None, keepdims=False, initial=None):
            return ops.max(x.high, axis, keepdims)

        inputs = self.inputs()
        outputs = ops.max(inputs * 2.0, axis=1)
        self.assertEqual(outputs.shape, (None,))
        result = keras.Model(inputs, outputs)(interval())
        self.assertAllClose(result, (2.0 * HIGH).max(1))


def two_rows():
    """A structure with two rows to walk over."""
    return Pair(M[:2], 2.0 * M[:2])


class CarriedTest(RulesTest):
    """Functions of functions take composite tensors as nests."""

    def setUp(self):
        super().setUp()

        @keras.rule_for(ops.add, Pair)
        def add(x1, x2):
            return keras.composite.parts(ops.add, x1, x2)

    def assert_pair(self, x, left, right):
        self.assertIsInstance(x, Pair)
        self.assertEqual(x.unit, "m")
        self.assertAllClose(x.left, left)
        self.assertAllClose(x.right, right)

    def plus_one(self, x):
        return ops.add(x, 1.0)

    def test_map(self):
        found = ops.map(self.plus_one, two_rows())
        self.assert_pair(found, M[:2] + 1.0, 2.0 * M[:2] + 1.0)

    def test_vectorized_map(self):
        found = ops.vectorized_map(self.plus_one, two_rows())
        self.assert_pair(found, M[:2] + 1.0, 2.0 * M[:2] + 1.0)

    def test_scan(self):
        start = Pair(np.zeros(3, "float32"), np.ones(3, "float32"))
        end, steps = ops.scan(
            lambda carry, x: (ops.add(carry, x), x), start, two_rows()
        )
        total = M[:2].sum(0)
        self.assert_pair(end, total, 2.0 * total + 1.0)
        self.assert_pair(steps, M[:2], 2.0 * M[:2])

    def test_associative_scan(self):
        found = ops.associative_scan(ops.add, two_rows())
        total = np.cumsum(M[:2], 0)
        self.assert_pair(found, total, 2.0 * total)

    def test_cond(self):
        for predicate in (True, False):
            found = ops.cond(
                backend.convert_to_tensor(predicate),
                two_rows,
                lambda: ops.add(two_rows(), 1.0),
            )
            more = 0.0 if predicate else 1.0
            self.assert_pair(found, M[:2] + more, 2.0 * M[:2] + more)

    def test_switch(self):
        branches = [lambda x: x, self.plus_one]
        for index in (0, 1):
            found = ops.switch(index, branches, two_rows())
            self.assert_pair(found, M[:2] + index, 2.0 * M[:2] + index)

    def test_fori_loop(self):
        found = ops.fori_loop(0, 3, lambda i, x: self.plus_one(x), two_rows())
        self.assert_pair(found, M[:2] + 3.0, 2.0 * M[:2] + 3.0)

    def test_while_loop(self):
        (found,) = ops.while_loop(
            lambda x: ops.all(x.left < 2.0),
            lambda x: (self.plus_one(x),),
            (two_rows(),),
        )
        count = int(np.ceil(2.0 - M[:2].max()))
        self.assert_pair(found, M[:2] + count, 2.0 * M[:2] + count)

    def test_a_masked_part_stays_masked(self):
        mask = np.array([[True, False, True], [True, True, False]])
        x = Pair(keras.MaskedTensor(M[:2], mask), M[:2])
        for found in (
            ops.map(self.plus_one, x),
            ops.fori_loop(0, 1, lambda i, x: self.plus_one(x), x),
        ):
            self.assertIsInstance(found, Pair)
            self.assertAllEqual(found.left.mask, mask)
            values = u.array(found.left.values)
            self.assertAllClose(values[mask], M[:2][mask] + 1.0)

    def test_derivatives(self):
        if backend.backend() == "numpy":
            self.skipTest("NumPy has no derivatives.")
        tangent = Pair(M[:2] + 3.0, M[:2])
        found, slope = ops.jvp(self.plus_one, (two_rows(),), (tangent,))
        self.assert_pair(found, M[:2] + 1.0, 2.0 * M[:2] + 1.0)
        self.assert_pair(slope, M[:2] + 3.0, M[:2])


class ToDenseTest(RulesTest):
    def setUp(self):
        super().setUp()

        class Scaled(keras.CompositeTensor):
            values: keras.KerasTensor
            scale: float = 2.0

            def to_dense(self):
                return self.values * self.scale

        self.type = Scaled

    def test_functions_are_given_the_dense_tensor(self):
        x = self.type(M)
        self.assertAllClose(ops.matmul(x, M), 2.0 * M @ M)
        self.assertAllClose(ops.sum(x, axis=1), (2.0 * M).sum(1))
        both = ops.concatenate([x, M], axis=1)
        self.assertAllClose(both, np.concatenate([2.0 * M, M], 1))

    def test_a_rule_comes_first(self):
        self.spy(ops.sum, self.type)
        self.assertEqual(ops.sum(self.type(M)), "the result")

    def test_where_another_type_has_none(self):
        with self.assertRaises(keras.UnsupportedTypeError):
            ops.add(self.type(M), interval())

    def test_it_is_traced(self):
        inputs = self.type(keras.Input((3,)))
        outputs = ops.sum(inputs, axis=1)
        self.assertEqual(outputs.shape, (None,))
        result = keras.Model(inputs, outputs)(self.type(M))
        self.assertAllClose(result, (2.0 * M).sum(1))


class PartsTest(testing.TestCase):
    def test_part_by_part(self):
        x = Pair(V, 2.0 * V, unit="km")
        result = keras.composite.parts(ops.multiply, x, 3.0)
        self.assertAllClose(result.left, 3.0 * V)
        self.assertAllClose(result.right, 6.0 * V)
        self.assertEqual(result.unit, "km")

    def test_of_two(self):
        result = keras.composite.parts(
            ops.subtract, Pair(V, V), Pair(2.0 * V, 3.0 * V)
        )
        self.assertAllClose(result.left, -V)
        self.assertAllClose(result.right, -2.0 * V)

    def test_the_composite_need_not_be_first(self):
        result = keras.composite.parts(ops.subtract, 1.0, Pair(V))
        self.assertAllClose(result.left, 1.0 - V)
        self.assertIsNone(result.right)

    def test_arguments_by_name(self):
        result = keras.composite.parts(ops.sum, interval(), axis=0)
        self.assertIsInstance(result, Interval)
        self.assertAllClose(result.high, HIGH.sum(0))

    def test_a_masked_part_stays_masked(self):
        mask = np.array([True, False, True])
        x = Pair(keras.MaskedTensor(V, mask))
        result = keras.composite.parts(ops.multiply, x, 2.0)
        self.assertAllEqual(result.left.mask, mask)

    def test_of_nothing_composite(self):
        with self.assertRaisesRegex(TypeError, "a composite tensor among"):
            keras.composite.parts(ops.add, V, V)

    @parameterized.named_parameters(
        ("type", lambda: Interval(V, V)),
        ("static", lambda: Pair(V, V, unit="km")),
        ("missing_part", lambda: Pair(V)),
    )
    def test_two_that_differ(self, other):
        with self.assertRaisesRegex(TypeError, "of one type whose static"):
            keras.composite.parts(ops.add, Pair(V, V), other())
