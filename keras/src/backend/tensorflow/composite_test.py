"""Composite tensors as TensorFlow takes its own."""

import copy
import pickle

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import ops
from keras.src.testing.composites import Box
from keras.src.testing.composites import CompositeTestCase
from keras.src.testing.composites import Graph
from keras.src.testing.composites import Interval
from keras.src.testing.composites import arrays
from keras.src.testing.composites import doubled
from keras.src.testing.composites import graph
from keras.src.testing.composites import interval
from keras.src.testing.composites import tracing


@pytest.mark.skipif(backend.backend() != "tensorflow", reason="of TensorFlow")
class TensorFlowTest(CompositeTestCase):
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
                tracing(function, traces), autograph=False, **options
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
            tracing(lambda x: x, traces),
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
