"""In the manner of libraries for graphs: padded nodes, adjacency, pooling."""

import numpy as np

import keras
from in_the_wild.wild import array
from in_the_wild.wild import give_weights
from in_the_wild.wild import mask_of
from in_the_wild.wild import masked
from in_the_wild.wild import predict
from in_the_wild.wild import program
from in_the_wild.wild import series
from in_the_wild.wild import valid
from keras import layers
from keras import ops

NODES = 4, 3, 1
LARGEST = 5


def graphs():
    """Features of nodes, with the mark of a real node last, and adjacency."""
    x = series(NODES, LARGEST, 3, seed=1)
    there = valid(NODES, LARGEST)
    x = np.concatenate([x, there[..., None]], -1).astype("float32")
    a = np.random.default_rng(2).random((3, LARGEST, LARGEST)) < 0.6
    a = (a | a.transpose(0, 2, 1)) & there[:, None] & there[:, :, None]
    return x, a.astype("float32")


def small_graphs():
    """The same, each graph alone and without padding."""
    for x, a, n in zip(*graphs(), NODES):
        yield x[None, :n], a[None, :n, :n]


class GraphMasking(layers.Layer):
    """Cuts the mark off, and makes it the mask: floats, `(batch, nodes, 1)`."""

    def compute_mask(self, inputs, mask=None):
        x = inputs[0] if isinstance(inputs, list) else inputs
        return x[..., -1:]

    def call(self, inputs):
        if isinstance(inputs, list):
            return [inputs[0][..., :-1], *inputs[1:]]
        return inputs[..., :-1]


class Propagation(layers.Layer):
    """Dense features, gathered along the edges; padding is 0 afterwards."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width
        self.supports_masking = True

    def build(self, input_shape):
        shape = (input_shape[0][-1], self.width)
        self.kernel = self.add_weight(shape=shape, name="kernel")
        self.bias = self.add_weight(shape=(self.width,), name="bias")

    def call(self, inputs, mask=None):
        x, a = inputs
        x = ops.matmul(a, ops.matmul(x, self.kernel)) + self.bias
        if mask is not None and mask[0] is not None:
            x = x * mask[0]
        return ops.relu(x)

    def compute_output_shape(self, input_shape):
        return (*input_shape[0][:-1], self.width)

    def compute_mask(self, inputs, mask=None):
        # What a library of graphs does: one output, the mask of the nodes.
        return mask[0] if isinstance(mask, (list, tuple)) else mask


def network(pooling, nodes=LARGEST):
    x_in, a_in = keras.Input((nodes, 4)), keras.Input((nodes, nodes))
    x = GraphMasking()(x_in)
    x = Propagation(4)([x, a_in])
    x = Propagation(4)([x, a_in])
    return give_weights(keras.Model([x_in, a_in], pooling(x)))


def alone(pooling):
    return np.stack(
        [
            array(network(pooling, x.shape[1])([x, a]))[0]
            for x, a in small_graphs()
        ]
    )


class GlobalSum(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        return ops.sum(inputs, axis=-2)

    def compute_mask(self, inputs, mask=None):
        return None


@program()
def graphs_summed():
    """Masked graph convolutions and a sum over the nodes."""
    yield "summed", predict(network(GlobalSum()), graphs()), alone(GlobalSum())


class AttentionSum(layers.Layer):
    """Gates for the nodes, then a sum. It asks for its mask."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.features = layers.Dense(width)
        self.gate = layers.Dense(width, activation="sigmoid")
        self.supports_masking = True

    def call(self, inputs, mask=None):
        x = self.features(inputs) * self.gate(inputs)
        if mask is not None:
            x = x * ops.cast(mask, x.dtype)
        return ops.sum(x, axis=-2)

    def compute_mask(self, inputs, mask=None):
        return None


@program()
def graphs_gated():
    """A pooling that multiplies by the `(batch, nodes, 1)` mask it gets."""
    found = predict(network(AttentionSum(3)), graphs())
    yield "pooled", found, alone(AttentionSum(3))


@program()
def mask_of_a_graph_is_seen():
    """What `compute_mask` returned is what the next layer is given."""
    x, _ = graphs()
    seen = []

    class Looks(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.supports_masking = True

        def call(self, inputs, mask=None):
            seen.append(mask)
            return inputs * 2.0

    Looks()(GraphMasking()(x))
    yield "as it was made", array(seen[-1]), x[..., -1:]


class GraphModel(keras.Model):
    """A subclassed model that trains on batches of graphs."""

    def __init__(self):
        super().__init__()
        self.masking = GraphMasking()
        self.conv1 = Propagation(4)
        self.conv2 = Propagation(4)
        self.pool = GlobalSum()
        self.dense = layers.Dense(1)

    def call(self, inputs):
        x, a = inputs
        x = self.masking(x)
        x = self.conv1([x, a])
        x = self.conv2([x, a])
        return self.dense(self.pool(x))


@program()
def graphs_trained():
    """One step of training of a subclassed model, from a generator."""
    model = GraphModel()
    x, a = graphs()
    model([x, a])
    give_weights(model)
    model.compile(keras.optimizers.SGD(0.01), "mse")
    y = np.array([[1.0], [2.0], [3.0]], "float32")

    def batches():
        while True:
            yield (x, a), y

    loss = model.fit(batches(), steps_per_epoch=1, verbose=0).history["loss"]
    yield "loss", np.float32(loss[0])
    yield "kernel", model.conv1.kernel
    yield "prediction", predict(model, (x, a))


@program()
def nodes_sorted():
    """Sort pooling: the two best nodes of each graph, by `top_k`."""
    x = GraphMasking()(graphs()[0])

    def pool(x):
        _, best = ops.top_k(x[..., -1] + 5.0, 2)
        return ops.take_along_axis(x, ops.expand_dims(best, -1), axis=1)

    found = array(pool(x))
    nodes = [x[0, :, :-1] for x, _ in small_graphs()]
    expected = [n[np.argsort(-n[:, -1])[:2]] for n in nodes]
    # The last graph has a single node.
    yield "best", found[:2], np.stack(expected[:2])
    yield "of one", found[2, :1], expected[2]


@program(
    differs={
        "coarse": "Upstream's `+ 1` puts a number on nodes that are not there, "
        "and the pooling sums over them."
    }
)
def graphs_coarsened():
    """Nodes put into clusters by products with a transposed softmax."""
    kernel = np.random.default_rng(5).normal(size=(3, 2)).astype("float32")

    def coarsen(x):
        x = x + 1.0
        s = ops.softmax(ops.matmul(x, kernel), axis=-1)
        return ops.matmul(ops.transpose(s, (0, 2, 1)), x)

    x = layers.Masking()(graphs()[0][..., :-1])
    expected = []
    for x1, _ in small_graphs():
        x1 = x1[0, :, :-1] + 1
        e = np.exp(x1 @ kernel)
        expected.append((e / e.sum(-1, keepdims=True)).T @ x1)
    yield "coarse", coarsen(x), np.stack(expected)


@program()
def edges_of_a_batch():
    """Pairs of nodes by broadcasting, as edge networks build them."""
    x = layers.Masking()(graphs()[0][..., :-1])
    pairs = ops.expand_dims(x, 2) - ops.expand_dims(x, 1)
    there = valid(NODES, LARGEST)
    x = array(x)
    expected = x[:, :, None] - x[:, None]
    there = there[:, :, None] & there[:, None]
    yield "pairs", masked(array(pairs), there), masked(expected, there)
    mask = mask_of(GraphMasking()(graphs()[0]))
    yield "nodes", np.squeeze(mask, -1) > 0 if mask.ndim > 2 else mask > 0
