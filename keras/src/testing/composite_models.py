"""A message-passing network on graphs, in each way of writing models."""

import numpy as np

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src.backend import CompositeTensor
from keras.src.backend import MaskedTensor
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.composite.rules import rule_for
from keras.src.saving import object_registration

ROWS, NODES, FEATURES = 22, 5, 3
CAN_TRAIN = backend.backend() != "numpy"


@object_registration.register_keras_serializable("composite_models")
class Graph(CompositeTensor):
    nodes: MaskedTensor
    links: KerasTensor
    kinds: KerasTensor
    name: str = "graph"


@object_registration.register_keras_serializable("composite_models")
class Interval(CompositeTensor):
    low: KerasTensor
    high: KerasTensor
    closed: tuple = (True, True)
    shape = property(lambda self: self.low.shape)
    dtype = property(lambda self: self.low.dtype)


@rule_for(ops.add, Interval)
def add(x1, x2):
    return x1.replace(low=x1.low + x2, high=x1.high + x2)


@rule_for(ops.matmul, Interval)
def matmul(x1, x2):
    middle, radius = (x1.low + x1.high) / 2, (x1.high - x1.low) / 2
    middle = ops.matmul(middle, x2)
    radius = ops.matmul(radius, ops.abs(x2))
    return x1.replace(low=middle - radius, high=middle + radius)


@object_registration.register_keras_serializable("composite_models")
class Pass(layers.Layer):
    """A round of messages: each node adds what its links bring."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.seen = []

    def build(self, input_shape):
        self.seen.append(input_shape)
        shape = (input_shape.nodes[-1], self.units)
        self.kernel = self.add_weight(shape=shape)

    def call(self, graph):
        nodes = ops.matmul(graph.nodes, self.kernel)
        around = ops.matmul(graph.links, ops.filled(nodes, 0))
        return graph.replace(nodes=nodes + around)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@object_registration.register_keras_serializable("composite_models")
class Pool(layers.Layer):
    def call(self, graph):
        return ops.mean(graph.nodes, axis=1)


@object_registration.register_keras_serializable("composite_models")
class Middle(layers.Layer):
    def call(self, x):
        return (x.low + x.high) / 2


def arrays():
    rng = np.random.default_rng(0)
    mask = np.arange(NODES) < rng.integers(1, NODES + 1, (ROWS, 1))
    nodes = rng.normal(size=(ROWS, NODES, FEATURES)).astype("float32")
    links = rng.random((ROWS, NODES, NODES)).astype("float32")
    links *= mask[:, None]
    kinds = rng.integers(0, 9, (ROWS, NODES))
    targets = rng.normal(size=(ROWS, 1)).astype("float32")
    return nodes, mask, links, kinds, targets


def graphs(rows=slice(None), hidden=0.0):
    nodes, mask, links, kinds, _ = arrays()
    nodes = np.where(mask[..., None], nodes, np.float32(hidden))
    return Graph(
        MaskedTensor(nodes[rows], mask[rows]), links[rows], kinds[rows]
    )


def graph_input():
    return Graph(
        layers.Input((NODES, FEATURES), mask_shape=True, name="nodes"),
        layers.Input((NODES, NODES), name="links"),
        layers.Input((NODES,), name="kinds", dtype="int32"),
    )


def functional():
    x = graph_input()
    return models.Model(x, layers.Dense(1)(Pool()(Pass(2)(Pass(4)(x)))))


class Subclassed(models.Model):
    def __init__(self):
        super().__init__()
        self.parts = [Pass(4), Pass(2), Pool(), layers.Dense(1)]

    def call(self, x):
        for layer in self.parts:
            x = layer(x)
        return x


def sequential():
    return models.Sequential([Pass(4), Pass(2), Pool(), layers.Dense(1)])


MODELS = {
    "functional": functional,
    "subclassed": Subclassed,
    "sequential": sequential,
}


def by_hand(weights):
    """What these models compute, row by row, of the nodes that are there."""
    first, second, kernel, bias = weights
    nodes, mask, links, _, _ = arrays()
    rows = []
    for x, valid, link in zip(nodes, mask, links):
        x, link = x[valid], link[valid][:, valid]
        for w in (first, second):
            x = x @ w
            x = x + link @ x
        rows.append(x.mean(0) @ kernel + bias)
    return np.array(rows)


def weights_of(model):
    return [backend.convert_to_numpy(w) for w in model.weights]


def with_weights(model):
    """The model, built, with weights that are the same for all models."""
    model(graphs())
    rng = np.random.default_rng(1)
    model.set_weights(
        [rng.normal(size=w.shape, scale=0.3) for w in model.weights]
    )
    return model
