"""Composite tensors as each engine takes its own: operators, and compiled."""

import operator

import numpy as np
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import ops
from keras.src.testing.composites import OF_INTEGERS
from keras.src.testing.composites import OPERATORS
from keras.src.testing.composites import Box
from keras.src.testing.composites import CompositeTestCase
from keras.src.testing.composites import Interval
from keras.src.testing.composites import Wrapped
from keras.src.testing.composites import arrays
from keras.src.testing.composites import compiled
from keras.src.testing.composites import graph
from keras.src.testing.composites import interval


class EveryEngineTest(CompositeTestCase):
    @parameterized.product(
        operators=(OPERATORS, OF_INTEGERS), compiles=(False, True)
    )
    def test_operators_with_a_plain_tensor_on_either_side(
        self, operators, compiles
    ):
        names = set(operators)
        if compiles and backend.backend() == "torch":
            # It does not tell the sides of this one apart.
            names.discard("matmul")
        functions = [getattr(operator, name) for name in sorted(names)]
        dtype = "float32" if operators is OPERATORS else "int32"
        a = np.array([[5, 3], [2, 7]], dtype)
        b = np.array([[2, 2], [3, 1]], dtype)

        def run(tensor, x):
            return [
                y.content
                for f in functions
                for y in (f(tensor, x), f(x, tensor))
            ]

        found = (compiled(run) if compiles else run)(
            ops.convert_to_tensor(a), Wrapped(b)
        )
        expected = [y for f in functions for y in (f(a, b), f(b, a))]
        self.assertEqual(len(found), len(expected))
        for one, other in zip(found, expected):
            self.assertAllClose(one, other)

    def test_a_structure_is_equal_to_no_plain_tensor(self):
        x = graph()
        tensor = ops.ones((4,))
        self.assertIs(tensor == x, False)
        self.assertIs(tensor != x, True)
        for run in (operator.lt, operator.add):
            with self.assertRaisesRegex(TypeError, "`Graph`"):
                run(tensor, x)

    def test_a_class_that_is_defined_again(self):
        """As in a notebook: both are whole types, the older one too."""

        def define():
            class Pair(keras.CompositeTensor):
                left: keras.KerasTensor
                right: keras.KerasTensor

            return Pair

        for pair in (define(), define()):
            found = compiled(lambda x: type(x)(x.right, x.left))(
                pair([1.0], [2.0])
            )
            self.assertIsInstance(found, pair)
            self.assertAllClose(found.left, [2.0])

    def test_compiled_with_a_missing_part_and_one_that_is_there(self):
        def weigh(x):
            return ops.sum(x.edges) if x.weights is None else ops.sum(x.weights)

        run = compiled(weigh)
        self.assertAllClose(run(graph()), arrays()["weights"].sum(), atol=1e-5)
        found = run(graph(weights=False))
        self.assertAllEqual(found, arrays()["edges"].sum())

    def test_compiled_that_makes_one_inside(self):
        def surround(x):
            return Interval(x - 1.0, x + 1.0, "left")

        found = compiled(surround)(ops.convert_to_tensor([1.0, 2.0]))
        self.assert_interval(found, [0.0, 1.0], [2.0, 3.0], "left")

    def test_what_is_of_another_kind_is_named(self):
        x = interval(2)

        def other(x):
            return x.replace(closed="left")

        words = "`closed` of `Interval` was 'both' first, then 'left'"
        for run in (
            lambda: ops.while_loop(lambda x: True, other, (x,), 1),
            lambda: ops.fori_loop(0, 2, lambda _, x: other(x), x),
            lambda: ops.scan(lambda x, y: (other(x), y), x, np.zeros(2)),
        ):
            with self.assertRaisesRegex(ValueError, words):
                run()
        if backend.backend() in ("jax", "tensorflow"):
            # The others run one branch.
            with self.assertRaisesRegex(ValueError, words):
                compiled(
                    lambda x: ops.cond(
                        ops.sum(x.low) > 0, lambda: x, lambda: other(x)
                    )
                )(x)

    def test_compiled_with_rules(self):
        found = compiled(lambda x: ops.add(-x, 1.0) + x)(interval())
        x = np.arange(4) - 1.5
        self.assert_interval(found, 1 - (x + 2) + x, 1 - x + (x + 2))

    def test_compiled_with_one_in_another(self):
        found = compiled(lambda x: Box(x.interval + 1.0, x.ids))(
            Box(interval(), [1, 2, 3, 4])
        )
        self.assertIsInstance(found, Box)
        self.assert_interval(
            found.interval, np.arange(4) - 0.5, np.arange(4) + 1.5
        )
        self.assertAllEqual(found.ids, [1, 2, 3, 4])
