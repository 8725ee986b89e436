"""Composite tensors as JAX takes its own."""

import numpy as np
import pytest

from keras.src import backend
from keras.src import ops
from keras.src.testing.composites import CompositeTestCase
from keras.src.testing.composites import Graph
from keras.src.testing.composites import Interval
from keras.src.testing.composites import arrays
from keras.src.testing.composites import doubled
from keras.src.testing.composites import graph
from keras.src.testing.composites import interval
from keras.src.testing.composites import tracing


@pytest.mark.skipif(backend.backend() != "jax", reason="of JAX")
class JaxTest(CompositeTestCase):
    def test_jit_traces_once_for_a_static_and_a_shape(self):
        import jax

        for make, other in (
            (interval, interval(closed="left")),
            (graph, graph(directed=False)),
        ):
            traces = []
            run = jax.jit(tracing(lambda x: x, traces))
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
