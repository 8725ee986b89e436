"""Composite types to test with: two bounds, a graph, and one in another."""

import numpy as np

import keras
from keras.src import backend
from keras.src import ops
from keras.src import testing

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


class CompositeTestCase(testing.TestCase):
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


def tracing(function, traces):
    """A function that writes down that it was traced."""

    def run(x):
        traces.append(None)
        return function(x)

    return run


def compiled(function):
    """A function as the engine compiles it, or itself where none does."""
    if backend.backend() == "jax":
        # Late: only the engine that runs is imported.
        import jax

        return jax.jit(function)
    if backend.backend() == "tensorflow":
        # Late: only the engine that runs is imported.
        import tensorflow as tf

        return tf.function(function, autograph=False)
    if backend.backend() == "torch":
        # Late: only the engine that runs is imported.
        import torch

        return torch.compile(function, backend="aot_eager", fullgraph=True)
    return function
