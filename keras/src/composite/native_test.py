"""Composite tensors in what engines have of their own.

They are compiled, branched on, looped over, differentiated, exported and
batched as the nest of their parts would be, and keep their type.
"""

import copy
import io
import operator
import pickle
from unittest import mock

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src.backend.common import keras_tensor


class Interval(keras.CompositeTensor):
    low: keras.KerasTensor
    high: keras.KerasTensor
    closed: str = "both"

    shape = property(lambda self: self.low.shape)
    dtype = property(lambda self: self.low.dtype)


@keras.rule_for(ops.add, Interval)
def add(x1, x2):
    if not isinstance(x1, Interval):
        x1, x2 = x2, x1
    low, high = (x2.low, x2.high) if isinstance(x2, Interval) else (x2, x2)
    return Interval(x1.low + low, x1.high + high, x1.closed)


@keras.rule_for(ops.negative, Interval)
def negative(x):
    return Interval(-x.high, -x.low, x.closed)


class Graph(keras.CompositeTensor):
    nodes: keras.MaskedTensor
    edges: keras.KerasTensor
    weights: keras.KerasTensor | None = None
    directed: bool = True


class Box(keras.CompositeTensor):
    interval: Interval
    ids: keras.KerasTensor


class Wrapped(keras.CompositeTensor):
    """A tensor that each binary operator wraps again."""

    content: keras.KerasTensor

    shape = property(lambda self: self.content.shape)
    dtype = property(lambda self: self.content.dtype)


OPERATORS = {
    "add": "add",
    "sub": "subtract",
    "mul": "multiply",
    "truediv": "divide",
    "floordiv": "floor_divide",
    "mod": "mod",
    "pow": "power",
    "matmul": "matmul",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "eq": "equal",
    "ne": "not_equal",
}
OF_INTEGERS = {
    "and_": "bitwise_and",
    "or_": "bitwise_or",
    "xor": "bitwise_xor",
    "lshift": "left_shift",
    "rshift": "right_shift",
}


def _wrap(function):
    @keras.rule_for(function, Wrapped)
    def rule(*operands):
        return Wrapped(function(*(getattr(x, "content", x) for x in operands)))


for _name in (OPERATORS | OF_INTEGERS).values():
    _wrap(getattr(ops, _name))


def interval(rows=4, closed="both"):
    low = np.arange(rows, dtype="float32") - 1.5
    return Interval(low, low + 2.0, closed)


def arrays(rows=4):
    """The parts of `graph(rows)`."""
    rng = np.random.default_rng(0)
    mask = rng.uniform(size=(rows, 3)) < 0.6
    return {
        "values": rng.normal(size=(rows, 3, 2)).astype("float32")
        * mask[..., None],
        "mask": mask,
        "edges": rng.integers(0, 3, (rows, 5, 2)).astype("int32"),
        "weights": rng.normal(size=(rows, 5)).astype("float32"),
    }


def graph(rows=4, weights=True, directed=True):
    x = arrays(rows)
    nodes = keras.MaskedTensor(x["values"], x["mask"])
    return Graph(nodes, x["edges"], x["weights"] if weights else None, directed)


def doubled(x):
    return Graph(x.nodes * 2.0, x.edges, x.weights, x.directed)


class NativeTestCase(testing.TestCase):
    def assert_interval(self, found, low, high, closed="both"):
        self.assertIsInstance(found, Interval)
        self.assertAllClose(found.low, low)
        self.assertAllClose(found.high, high)
        self.assertEqual(found.closed, closed)

    def assert_graph(self, found, factor=1.0, rows=slice(None), size=4):
        """That it is these rows of `graph(size)`, times a factor."""
        x = arrays(size)
        self.assertIsInstance(found, Graph)
        self.assertIsInstance(found.nodes, keras.MaskedTensor)
        self.assertAllEqual(found.nodes.mask, x["mask"][rows])
        mask = x["mask"][rows]
        self.assertAllClose(
            ops.convert_to_numpy(found.nodes.values)[mask],
            factor * x["values"][rows][mask],
        )
        self.assertAllEqual(found.edges, x["edges"][rows])
        self.assertAllClose(found.weights, x["weights"][rows])
        self.assertIs(found.directed, True)


def _tracing(function, traces):
    """A function that writes down that it was traced."""

    def run(x):
        traces.append(None)
        return function(x)

    return run


def compiled(function):
    """A function as the engine compiles it, or itself where none does."""
    if backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)
    if backend.backend() == "torch":
        import torch

        return torch.compile(function, backend="aot_eager", fullgraph=True)
    return function


class EveryEngineTest(NativeTestCase):
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


@pytest.mark.skipif(backend.backend() != "jax", reason="of JAX")
class JaxTest(NativeTestCase):
    def test_jit_traces_once_for_a_static_and_a_shape(self):
        import jax

        for make, other in (
            (interval, interval(closed="left")),
            (graph, graph(directed=False)),
        ):
            traces = []
            run = jax.jit(_tracing(lambda x: x, traces))
            counts = []
            for x in (make(), make(), other, other, make(3), make(3), other):
                found = run(x)
                counts.append(len(traces))
                self.assertIsInstance(found, type(x))
                for name in x._statics:
                    self.assertEqual(getattr(found, name), getattr(x, name))
            self.assertEqual(counts, [1, 1, 2, 2, 3, 3, 3])

    def test_jit_keeps_masked_parts_and_a_missing_one(self):
        import jax

        self.assert_graph(jax.jit(doubled)(graph()), 2.0)
        self.assertIsNone(jax.jit(doubled)(graph(weights=False)).weights)

    def test_gradients_are_of_the_type(self):
        import jax

        gradient = jax.grad(lambda x: (x.high * x.high + 3 * x.low).sum())(
            interval()
        )
        self.assert_interval(gradient, np.full(4, 3), 2 * np.arange(4) + 1)
        gradient = jax.grad(
            lambda x: ops.sum(ops.filled(x.nodes * x.nodes, 0)), allow_int=True
        )(graph())
        self.assertIsInstance(gradient, Graph)
        self.assertAllClose(gradient.nodes.values, 2 * arrays()["values"])
        self.assertAllClose(gradient.weights, np.zeros((4, 5)))
        self.assertEqual(gradient.edges.dtype, jax.dtypes.float0)

    def test_vmap(self):
        import jax

        found = jax.vmap(lambda x, y: x + y)(interval(), np.ones(4, "float32"))
        self.assert_interval(found, np.arange(4) - 0.5, np.arange(4) + 1.5)
        self.assert_graph(jax.vmap(doubled)(graph()), 2.0)

    def test_scan_carries_one_and_goes_over_another(self):
        import jax

        last, before = jax.lax.scan(
            lambda carry, x: (carry + x, carry), Interval(0.0, 0.0), interval()
        )
        low = np.arange(4) - 1.5
        self.assert_interval(last, low.sum(), (low + 2).sum())
        sums = np.cumsum([0, *low[:-1]]), np.cumsum([0, *(low + 2)[:-1]])
        self.assert_interval(before, *sums)
        _, rows = jax.lax.scan(
            lambda carry, x: (carry, doubled(x)), 0.0, graph()
        )
        self.assert_graph(rows, 2.0)

    def test_cond_and_a_static_that_differs(self):
        import jax

        for decision in (True, False):
            found = jax.lax.cond(decision, lambda x: x, doubled, graph())
            self.assert_graph(found, 1.0 if decision else 2.0)
        with self.assertRaisesRegex(TypeError, "Interval.*left"):
            jax.lax.cond(
                True,
                lambda x: x,
                lambda x: x.replace(closed="left"),
                interval(),
            )

    def test_while_and_fori_loops(self):
        import jax

        found = jax.lax.fori_loop(0, 3, lambda _, x: doubled(x), graph())
        self.assert_graph(found, 8.0)
        found = jax.lax.while_loop(
            lambda x: x.low[0] < 5, lambda x: x + 1.0, interval()
        )
        self.assert_interval(found, np.arange(4) + 5.5, np.arange(4) + 7.5)

    def test_keys_of_a_tree_are_names_of_fields(self):
        import jax

        leaves, _ = jax.tree_util.tree_flatten_with_path(graph())
        keys = [jax.tree_util.keystr(path) for path, _ in leaves]
        self.assertEqual(
            keys, [".nodes.values", ".nodes.mask", ".edges", ".weights"]
        )
        found = jax.tree.map(lambda x, y: x + y, interval(), interval())
        self.assert_interval(found, 2 * np.arange(4) - 3, 2 * np.arange(4) + 1)

    def test_export_round_trip(self):
        import jax

        for x, run in ((graph(), doubled), (interval(), lambda x: x + 1.0)):
            exported = jax.export.export(jax.jit(run))(x)
            read = jax.export.deserialize(exported.serialize())
            found = read.call(x)
            if isinstance(x, Graph):
                self.assert_graph(found, 2.0)
            else:
                self.assert_interval(found, x.low + 1, x.high + 1)
        with self.assertRaisesRegex(ValueError, "left"):
            read.call(interval(closed="left"))

    def test_functions_of_jax_name_the_type(self):
        import jax
        import jax.numpy as jnp

        for function in (
            jnp.sin,
            jnp.sum,
            lambda x: jnp.add(x, 1),
            lambda x: jnp.stack([x, x]),
            jax.nn.relu,
            jax.lax.sin,
            jnp.asarray,
        ):
            for x in (interval(), graph()):
                for run in (function, jax.jit(function)):
                    with self.assertRaisesRegex(TypeError, type(x).__name__):
                        run(x)


@pytest.mark.skipif(backend.backend() != "tensorflow", reason="of TensorFlow")
class TensorFlowTest(NativeTestCase):
    # Traces after each of: an equal one, another static, and other shapes.
    TRACES = {
        "plain": ({}, [1, 1, 2, 2, 3, 4, 5]),
        "jit_compile": ({"jit_compile": True}, [1, 1, 2, 2, 3, 4, 5]),
        "reduce_retracing": (
            {"reduce_retracing": True},
            [1, 1, 2, 2, 3, 3, 3],
        ),
    }

    @parameterized.named_parameters((k, *v) for k, v in TRACES.items())
    def test_function_traces_as_for_tensors(self, options, expected):
        import tensorflow as tf

        for make, other in (
            (interval, interval(closed="left")),
            (graph, graph(directed=False)),
        ):
            traces = []

            function = doubled if make is graph else lambda x: x + 1.0
            run = tf.function(
                _tracing(function, traces), autograph=False, **options
            )
            counts = []
            for x in (make(), make(), other, other, make(3), make(2), make(5)):
                found = run(x)
                counts.append(len(traces))
            self.assertEqual(counts, expected)
            if make is graph:
                self.assert_graph(found, 2.0, size=5)
            else:
                self.assert_interval(found, x.low + 1, x.high + 1)

    def test_traces_of_a_missing_part(self):
        import tensorflow as tf

        traces = []
        run = tf.function(
            _tracing(lambda x: x, traces),
            reduce_retracing=True,
            autograph=False,
        )
        run(graph())
        self.assertIsNone(run(graph(weights=False)).weights)
        self.assert_graph(run(graph()))
        self.assertEqual(len(traces), 2)

    def test_signature_from_the_spec_of_a_value(self):
        import tensorflow as tf

        def of(x, function):
            return tf.function(
                function,
                input_signature=[tf.type_spec_from_value(x)],
                autograph=False,
            )

        self.assert_graph(of(graph(), doubled)(graph()), 2.0)
        run = of(interval(), lambda x: x + 1.0)
        self.assert_interval(
            run(interval()), np.arange(4) - 0.5, np.arange(4) + 1.5
        )
        # A trace of another static would give a wrong result in silence.
        for wrong in (interval(closed="left"), interval(3), interval().low):
            with self.assertRaises(TypeError):
                run(wrong)

    def test_cond_and_while_loop(self):
        import tensorflow as tf

        @tf.function
        def choose(decision, x):
            return tf.cond(decision, lambda: x, lambda: doubled(x))

        @tf.function
        def loop(x):
            return tf.while_loop(
                lambda i, _: i < 3, lambda i, x: (i + 1, doubled(x)), (0, x)
            )[1]

        @tf.function
        def python(decision, x):
            if decision:
                x = -x
            for _ in tf.range(3):
                x = x + 1.0
            return x

        for decision in (True, False):
            found = choose(tf.constant(decision), graph())
            self.assert_graph(found, 1.0 if decision else 2.0)
        self.assert_graph(loop(graph()), 8.0)
        low = np.arange(4) - 1.5
        found = python(tf.constant(True), interval())
        self.assert_interval(found, 3 - (low + 2), 3 - low)
        found = python(tf.constant(False), interval())
        self.assert_interval(found, low + 3, low + 5)

    def test_branches_that_differ_in_a_static_or_a_part(self):
        import tensorflow as tf

        for x, other in (
            (interval(), interval(closed="left")),
            (graph(), graph(weights=False)),
        ):
            with self.assertRaisesRegex(TypeError, "same nested structure"):
                tf.function(
                    lambda p, x=x, y=other: tf.cond(p, lambda: x, lambda: y)
                )(tf.constant(True))

    def test_nests(self):
        import tensorflow as tf

        x = graph()
        self.assertEqual(tf.nest.flatten(x), [x])
        parts = tf.nest.flatten(x, expand_composites=True)
        self.assertEqual(
            [p.shape.as_list() for p in parts],
            [[4, 3, 2], [4, 3], [4, 5, 2], [4, 5]],
        )
        found = tf.nest.pack_sequence_as(x, parts, expand_composites=True)
        self.assert_graph(found)
        found = tf.nest.map_structure(
            lambda x: x + x, interval(), expand_composites=True
        )
        self.assert_interval(found, 2 * np.arange(4) - 3, 2 * np.arange(4) + 1)

    def test_nests_of_symbolic_and_of_numpy_parts(self):
        import tensorflow as tf

        x = Graph(keras.Input((3, 2)), keras.Input((5, 2), dtype="int32"))
        found = tf.nest.map_structure(lambda x: x, x, expand_composites=True)
        self.assertIs(found.nodes, x.nodes)
        self.assertIs(found.edges, x.edges)
        self.assertEqual(x._type_spec.edges.dtype, tf.int32)
        self.assertIn("(None, 3, 2)", repr(x._type_spec))

        made = _of_numpy()
        self.assertEqual(made._type_spec, graph()._type_spec)
        self.assert_graph(tf.function(doubled, autograph=False)(made), 2.0)
        rows = tf.data.Dataset.from_tensor_slices(made).batch(3)
        self.assert_graph(next(iter(rows)), rows=slice(3))

    def test_data(self):
        import tensorflow as tf

        rows = tf.data.Dataset.from_tensor_slices(graph())
        self.assertEqual(rows.element_spec.nodes.shape, [3, 2])
        self.assertEqual(rows.element_spec.nodes.mask.shape, [3])
        batches = list(rows.batch(3).map(doubled).prefetch(1))
        self.assertEqual(len(batches), 2)
        self.assert_graph(batches[0], 2.0, slice(3))
        self.assert_graph(batches[1], 2.0, slice(3, 4))
        one = list(rows.batch(3).unbatch())[2]
        self.assertEqual(one.edges.shape, [5, 2])
        self.assert_graph(
            next(iter(rows.batch(1, drop_remainder=True).rebatch(4)))
        )
        self.assert_graph(next(iter(rows.cache().concatenate(rows).batch(4))))
        pairs = tf.data.Dataset.zip(rows, tf.data.Dataset.range(4)).batch(2)
        x, y = list(pairs)[1]
        self.assert_graph(x, rows=slice(2, 4))
        self.assertAllEqual(y, [2, 3])
        made = tf.data.Dataset.from_generator(
            lambda: iter([interval(), interval()]),
            output_signature=interval()._type_spec,
        )
        x = np.stack([np.arange(4) - 1.5] * 2)
        self.assert_interval(next(iter(made.batch(2))), x, x + 2)

    def test_data_of_ragged_parts(self):
        import tensorflow as tf

        ragged = tf.ragged.constant([[1.0, 2.0], [3.0]])
        rows = tf.data.Dataset.from_tensor_slices(Graph(ragged, [1, 2]))
        found = next(iter(rows.batch(2)))
        self.assertEqual(found.nodes.to_list(), [[1.0, 2.0], [3.0]])

    def test_data_that_take_tensors_only_say_what_to_write(self):
        import tensorflow as tf

        rows = tf.data.Dataset.from_tensor_slices(interval())
        for run in (
            lambda: rows.window(2),
            lambda: rows.reduce(interval(), lambda x, _: x),
        ):
            with self.assertRaisesRegex(NotImplementedError, "x.low, x.high"):
                run()
        with self.assertRaisesRegex(TypeError, "CompositeSpec.Interval"):
            rows.padded_batch(2, padded_shapes=[None])
        # As the first message says.
        rows = tf.data.Dataset.from_generator(
            lambda: iter([[1.0], [2.0, 3.0]]),
            output_signature=tf.TensorSpec([None]),
        )
        batches = rows.map(lambda x: (x, x + 1)).padded_batch(2)
        found = next(iter(batches.map(Interval)))
        self.assert_interval(found, [[1, 0], [2, 3]], [[2, 0], [3, 4]])

    def test_gradients_are_of_the_type(self):
        import tensorflow as tf

        def gradient(x, loss):
            with tf.GradientTape() as tape:
                tape.watch(x)
                result = loss(x)
            return tape.gradient(result, x)

        for wrap in (lambda f: f, tf.function):
            found = wrap(
                lambda x: gradient(x, lambda x: tf.reduce_sum(x.high**2))
            )(interval())
            self.assert_interval(found, np.zeros(4), 2 * np.arange(4) + 1)
            found = wrap(
                lambda x: gradient(
                    x, lambda x: ops.sum(ops.filled(x.nodes * x.nodes, 0))
                )
            )(graph())
            x = arrays()
            self.assertAllClose(found.nodes.values, 2 * x["values"])
            self.assertAllEqual(found.nodes.mask, x["mask"])
            self.assertAllEqual(found.edges, x["edges"])
            self.assertAllClose(found.weights, np.zeros((4, 5)))
            found = wrap(
                lambda x: gradient(x, lambda x: tf.reduce_sum(x.interval.low))
            )(Box(interval(), [1, 2]))
            self.assert_interval(found.interval, np.ones(4), np.zeros(4))
        self.assertIsNone(gradient(interval(), lambda _: tf.constant(1.0)))

    def test_gradients_of_what_parts_are_made_of(self):
        import tensorflow as tf

        low = tf.Variable([1.0, 2.0])
        with tf.GradientTape() as tape:
            x = Interval(low * 3, low) + 1.0
            loss = tf.reduce_sum(x.low * x.low)
        self.assertAllClose(tape.gradient(loss, low), [24.0, 42.0])

    def test_functions_of_tensorflow_name_the_type(self):
        import tensorflow as tf

        for x in (interval(), graph()):
            self.assertFalse(tf.is_tensor(x))
            self.assertFalse(backend.is_tensor(x))
            for function in (
                tf.convert_to_tensor,
                tf.sin,
                tf.reduce_sum,
                tf.shape,
                lambda x: tf.add(x, 1.0),
                lambda x: tf.add(1.0, x),
                lambda x: tf.cast(x, "int32"),
                tf.Variable,
            ):
                for run in (function, tf.function(function, autograph=False)):
                    with self.assertRaisesRegex(
                        keras.UnsupportedTypeError, type(x).__name__
                    ):
                        run(x)

    def test_specs(self):
        import tensorflow as tf

        spec = tf.type_spec_from_value(graph())
        for other in (
            pickle.loads(pickle.dumps(spec)),
            copy.copy(spec),
            copy.deepcopy(spec),
            tf.type_spec_from_value(graph()),
        ):
            self.assertEqual(other, spec)
            self.assertEqual(hash(other), hash(spec))
        for x in (graph(3), graph(weights=False), graph(directed=False)):
            self.assertNotEqual(x._type_spec, spec)
            self.assertFalse(spec.is_compatible_with(x))
        self.assertTrue(spec.is_compatible_with(graph()))
        self.assertEqual(spec.edges, tf.TensorSpec([4, 5, 2], tf.int32))
        self.assertIs(spec.directed, True)
        self.assertIsNone(graph(weights=False)._type_spec.weights)
        for name in ("shape", "dtype", "other"):
            self.assertFalse(hasattr(spec, name))
        self.assertEqual(interval()._type_spec.shape, [4])
        self.assertEqual(interval()._type_spec.dtype, tf.float32)
        self.assertEqual(
            repr(interval()._type_spec),
            "CompositeSpec(Interval, "
            "low=TensorSpec(shape=(4,), dtype=tf.float32, name=None), "
            "high=TensorSpec(shape=(4,), dtype=tf.float32, name=None), "
            "closed='both')",
        )

    def test_saved_models_and_data(self):
        import tensorflow as tf

        module, path = tf.Module(), self.get_temp_dir()
        module.run = tf.function(
            doubled, input_signature=[graph()._type_spec], autograph=False
        )
        tf.saved_model.save(module, path)
        run = tf.saved_model.load(path).run
        self.assert_graph(run(graph()), 2.0)
        with self.assertRaisesRegex(TypeError, "directed=True"):
            run(graph(directed=False))

        path = self.get_temp_dir()
        tf.data.Dataset.from_tensor_slices(graph()).save(path)
        read = tf.data.Dataset.load(path)
        self.assert_graph(next(iter(read.batch(4))))


def _of_numpy():
    """A graph of arrays, as `predict` puts them into what it returns."""
    x = arrays()
    made = copy.copy(graph())
    made.__dict__.update(
        nodes=keras.MaskedTensor._wrap(x["values"], x["mask"]),
        edges=x["edges"],
        weights=x["weights"],
    )
    return made


@pytest.mark.skipif(backend.backend() != "torch", reason="of PyTorch")
class TorchTest(NativeTestCase):
    def setUp(self):
        import torch

        super().setUp()
        torch._dynamo.reset()

    def test_a_type_that_is_first_seen_while_compiling(self):
        import torch

        bias = torch.nn.Parameter(torch.ones(4))
        known = keras_tensor._PLAIN_LEAVES - {torch.Tensor, torch.nn.Parameter}

        def negative(x):
            zeros = ops.zeros_like(ops.convert_to_tensor(bias))
            return ops.negative(Interval(x.low + zeros, x.high))

        run = torch.compile(negative, backend="eager")
        with mock.patch.object(keras_tensor, "_PLAIN_LEAVES", known):
            self.assertAllClose(run(interval()).high, -interval().low)
        # The compiler guards what is known, and must not see it change.
        self.assertNotIn(torch.nn.Parameter, known)

    def test_compiles_once_for_a_static_and_as_tensors_for_shapes(self):
        import torch
        from torch._dynamo.testing import CompileCounter

        def counts(function, values):
            torch._dynamo.reset()
            counter = CompileCounter()
            run = torch.compile(function, backend=counter, fullgraph=True)
            found = []
            for x in values:
                run(x)
                found.append(counter.frame_count)
            return found

        of_tensors = counts(
            lambda x: x * 2.0, [torch.ones(n) for n in (4, 4, 3, 2, 5)]
        )
        for make, run in ((interval, lambda x: x + 1.0), (graph, doubled)):
            found = counts(run, [make(n) for n in (4, 4, 3, 2, 5)])
            self.assertEqual(found, of_tensors)
        values = [interval(), interval(closed="left"), interval()]
        self.assertEqual(counts(lambda x: x + 1.0, values), [1, 2, 2])

    def test_compiled_keeps_masked_parts(self):
        self.assert_graph(compiled(doubled)(graph()), 2.0)

    def test_matrix_products_by_an_operator_are_not_swapped(self):
        """PyTorch's compiler gives `x @ tensor` as if it were `tensor @ x`."""
        import torch

        a = np.array([[5, 3], [2, 7]], "float32")
        b = torch.tensor([[2.0, 2.0], [3.0, 1.0]])
        # It goes back to Python, or says so where it may not.
        run = torch.compile(lambda x, y: x @ y, backend="aot_eager")
        self.assertAllClose(run(Wrapped(a), b).content, a @ b.numpy())
        self.assertAllClose(run(b, Wrapped(a)).content, b.numpy() @ a)
        with self.assertRaises(torch._dynamo.exc.Unsupported):
            compiled(lambda x, y: x @ y)(Wrapped(a), b)
        found = compiled(lambda x, y: ops.matmul(x, y))(Wrapped(a), b)
        self.assertAllClose(found.content, a @ b.numpy())

    def test_gradients(self):
        import torch

        for run in (lambda f: f, compiled):
            low = torch.tensor([1.0, 2.0], requires_grad=True)
            x = run(lambda low: Interval(low, low * 2) + low)(low)
            torch.sum(x.high * x.high).backward()
            self.assertAllClose(low.grad, 18 * low.detach())
        gradient = torch.func.grad(lambda x: (x.high * x.high).sum())(
            interval()
        )
        self.assert_interval(gradient, np.zeros(4), 2 * np.arange(4) + 1)
        found = torch.vmap(lambda x: x + 1.0)(interval())
        self.assert_interval(found, np.arange(4) - 0.5, np.arange(4) + 1.5)
        low = torch.tensor([1.0, 2.0], requires_grad=True)
        x = torch.utils.checkpoint.checkpoint(
            lambda x: x + 1.0, Interval(low, low), use_reentrant=False
        )
        torch.sum(x.low * x.low).backward()
        self.assertAllClose(low.grad, [4.0, 6.0])

    def test_a_function_with_a_gradient_of_its_own(self):
        """It would be given a constant, and lose the gradient in silence."""
        import torch

        class Doubled(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2.0

            @staticmethod
            def backward(ctx, gradient):
                return gradient * 2.0

        for x in (interval(), graph()):
            with self.assertRaisesRegex(
                keras.UnsupportedTypeError, "Doubled.apply.*gradient"
            ):
                Doubled.apply(x)
        self.assertAllClose(Doubled.apply(torch.ones(3)), [2.0] * 3)
        found = compiled(lambda x: Doubled.apply(x))(torch.ones(3))
        self.assertAllClose(found, [2.0] * 3)

    def test_export_is_saved_and_loaded(self):
        import torch

        class Module(torch.nn.Module):
            def forward(self, x, y):
                return x + y, Box(x, y)

        x, y = interval(), torch.ones(4)
        program = torch.export.export(Module(), (x, y))
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        loaded = torch.export.load(file).module()
        total, box = loaded(x, y)
        self.assert_interval(total, np.arange(4) - 0.5, np.arange(4) + 1.5)
        self.assert_interval(box.interval, x.low, x.high)
        self.assertAllClose(box.ids, y)
        with self.assertRaisesRegex(Exception, "left"):
            loaded(interval(closed="left"), y)

    def test_export_of_a_structure(self):
        import torch

        class Module(torch.nn.Module):
            def forward(self, x):
                return Graph(x.nodes * 2.0, x.edges, x.weights, x.directed)

        # Of masked nodes.
        found = torch.export.export(Module(), (graph(),)).module()(graph())
        self.assert_graph(found, 2.0)
        nodes = torch.ones((4, 3, 2))
        x = Graph(nodes, arrays()["edges"], None, False)
        found = torch.export.export(Module(), (x,)).module()(x)
        self.assertIsInstance(found, Graph)
        self.assertAllClose(found.nodes, 2 * nodes)
        self.assertIsNone(found.weights)
        self.assertIs(found.directed, False)

    def test_files_of_weights_only(self):
        import torch

        file = io.BytesIO()
        torch.save({"x": interval(closed="left")}, file)
        file.seek(0)
        found = torch.load(file, weights_only=True)["x"]
        self.assert_interval(
            found, np.arange(4) - 1.5, np.arange(4) + 0.5, "left"
        )

    def test_functions_of_torch_name_the_type(self):
        import torch

        for x in (interval(), graph()):
            self.assertFalse(torch.is_tensor(x))
            for name, run in (
                ("torch.add", lambda x: torch.add(x, 1, alpha=2)),
                ("torch.atan2", lambda x: torch.atan2(torch.ones(4), x)),
                ("torch.add_", lambda x: torch.ones(4).add_(x)),
                ("torch.sin", torch.sin),
                ("torch.sum", lambda x: torch.sum(x, dim=0)),
                ("torch.stack", lambda x: torch.stack([x, x])),
                ("torch.relu", torch.nn.functional.relu),
                ("torch.copy_", lambda x: torch.ones(4).copy_(x)),
            ):
                with self.assertRaisesRegex(
                    keras.UnsupportedTypeError,
                    rf"`{name}`.*`{type(x).__name__}`.*`x\.",
                ):
                    run(x)

    def test_a_data_loader_batches_the_parts(self):
        import torch
        from torch.utils.data import DataLoader

        rows = [
            (
                Graph(
                    keras.MaskedTensor(x["values"][i], x["mask"][i]),
                    x["edges"][i],
                    x["weights"][i],
                ),
                i,
            )
            for x in (arrays(),)
            for i in range(4)
        ]
        for workers in (0, 1):
            loader = DataLoader(rows, batch_size=3, num_workers=workers)
            batches = list(loader)
            self.assert_graph(batches[0][0], rows=slice(3))
            self.assert_graph(batches[1][0], rows=slice(3, 4))
            self.assertAllEqual(batches[1][1], [3])
            self.assertIsInstance(batches[0][0].edges, torch.Tensor)

    def test_a_batch_of_two_types_is_none(self):
        from torch.utils.data import default_collate

        for other in (interval(closed="left"), Wrapped([1.0])):
            with self.assertRaisesRegex(TypeError, "of one type"):
                default_collate([interval(), other])
        with self.assertRaisesRegex(TypeError, "the same parts"):
            default_collate([graph(), graph(weights=False)])
        with self.assertRaisesRegex(RuntimeError, "equal size"):
            default_collate([interval(), interval(3)])
