"""Models of composite tensors on several devices give what they give on one.

A structure with a masked part, and an array-like type that the model returns.
Each engine runs in processes of its own, since devices are made when a process
starts:

    KERAS_BACKEND=jax python integration_tests/composite_devices_test.py \
        jax_data 8 graph
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[1]
ROWS, NODES, EDGES, FEATURES, BATCH = 24, 5, 6, 3, 8
EPOCHS = 2
KINDS = ("graph", "interval")
RATE = 0.1


def types_and_models():
    """The types and what makes their models, where Keras may be imported."""
    import keras
    from keras import ops

    class Graph(keras.CompositeTensor):
        nodes: keras.MaskedTensor
        edges: keras.KerasTensor
        weights: keras.KerasTensor | None = None
        directed: bool = True

    class Interval(keras.CompositeTensor):
        low: keras.KerasTensor
        high: keras.KerasTensor
        closed: str = "both"

        shape = property(lambda self: self.low.shape)
        dtype = property(lambda self: self.low.dtype)

    @keras.rule_for(ops.matmul, Interval)
    def matmul(x1, x2):
        positive, negative = ops.relu(x2), -ops.relu(-x2)
        low = ops.matmul(x1.low, positive) + ops.matmul(x1.high, negative)
        high = ops.matmul(x1.high, positive) + ops.matmul(x1.low, negative)
        return Interval(low, high, x1.closed)

    @keras.rule_for(ops.add, Interval)
    def add(x1, x2):
        return Interval(x1.low + x2, x1.high + x2, x1.closed)

    @keras.rule_for(ops.tanh, Interval)
    def tanh(x):
        return Interval(ops.tanh(x.low), ops.tanh(x.high), x.closed)

    class Messages(keras.layers.Layer):
        """What the senders of edges hold is added to what receivers hold."""

        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(4, activation="tanh")

        def build(self, shapes):
            self.dense.build(shapes.nodes)

        def call(self, x):
            nodes = self.dense(x.nodes)
            senders, receivers = (
                ops.one_hot(x.edges[..., i], NODES) for i in (0, 1)
            )
            sent = ops.matmul(senders, ops.filled(nodes, 0))
            sent = sent * x.weights[..., None]
            received = ops.matmul(ops.swapaxes(receivers, 1, 2), sent)
            return nodes + received

    def of_graphs():
        inputs = Graph(
            keras.Input((NODES, FEATURES)),
            keras.Input((EDGES, 2), dtype="int32"),
            keras.Input((EDGES,)),
        )
        nodes = Messages()(inputs)
        pooled = keras.layers.Lambda(
            lambda x: ops.mean(x, axis=1), output_shape=(4,)
        )(nodes)
        return keras.Model(inputs, keras.layers.Dense(1)(pooled)), mse

    def of_intervals():
        inputs = Interval(keras.Input((FEATURES,)), keras.Input((FEATURES,)))
        hidden = keras.layers.Dense(4, activation="tanh")(inputs)
        outputs = keras.layers.Dense(1)(hidden)
        return keras.Model(inputs, outputs), squares

    def mse(y, x):
        return keras.losses.mean_squared_error(y, ops.filled(x, 0))

    def squares(y, x):
        errors = ops.square(x.low - y) + ops.square(x.high - y)
        return ops.mean(errors, axis=-1)

    return {
        "graph": (Graph, of_graphs),
        "interval": (Interval, of_intervals),
    }


def data(kind, type_):
    """Rows of a type, and targets. Graphs are of unequal size.

    Where a batch is cut in two, one device gets the large graphs and the other
    the small ones. What is masked is NaN.
    """
    import keras

    rng = np.random.default_rng(0)
    y = rng.normal(size=(ROWS, 1)).astype("float32")
    if kind == "interval":
        low = rng.normal(size=(ROWS, FEATURES)).astype("float32")
        width = rng.uniform(size=(ROWS, FEATURES)).astype("float32")
        return type_(low, low + width), y
    sizes = np.where(np.arange(ROWS) % BATCH < BATCH // 2, NODES, 2)
    mask = np.arange(NODES) < sizes[:, None]
    values = rng.normal(size=(ROWS, NODES, FEATURES)).astype("float32")
    values[~mask] = np.nan
    edges = rng.integers(0, 2**20, (ROWS, EDGES, 2)) % sizes[:, None, None]
    weights = rng.uniform(size=(ROWS, EDGES)).astype("float32")
    nodes = keras.MaskedTensor(values, mask)
    return type_(nodes, edges.astype("int32"), weights), y


def model(make):
    import keras

    made, loss = make()
    rng = np.random.default_rng(1)
    made.set_weights([rng.normal(size=w.shape) for w in made.get_weights()])
    made.compile(keras.optimizers.SGD(RATE), loss)
    return made, loss


def train_and_ask(kind):
    type_, make = types_and_models()[kind]
    x, y = data(kind, type_)
    made, _ = model(make)
    history = made.fit(x, y, BATCH, EPOCHS, verbose=0, shuffle=False).history
    return {**history, **ask(made, x, y)}


def ask(made, x, y):
    found = made.predict(x, BATCH, verbose=0)
    parts = (found,) if isinstance(found, np.ndarray) else vars(found).values()
    return {
        "evaluate": [made.evaluate(x, y, BATCH, verbose=0)],
        "weights": [w.tolist() for w in made.get_weights()],
        "predict": [
            part if isinstance(part, str) else part.tolist() for part in parts
        ],
        "type": [type(found).__name__],
    }


def jax_data(devices, kind):
    import keras

    devices = keras.distribution.list_devices()[:devices]
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=devices)
    )
    return train_and_ask(kind)


def tf_mirrored(devices, kind):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(
        cpu, [tf.config.LogicalDeviceConfiguration()] * devices
    )
    names = [f"CPU:{i}" for i in range(devices)]
    with tf.distribute.MirroredStrategy(names).scope():
        return train_and_ask(kind)


def row(x, i):
    """One row of a composite tensor, its masked part too."""
    from keras import tree

    return tree.map_structure(lambda part: part[i], x)


def torch_ddp(devices, kind):
    """Each process has its rows of each batch, as PyTorch's sampler deals."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(
            _torch_process, (devices, kind, folder), nprocs=devices
        )
        return json.loads(Path(folder, "outcome.json").read_text())


def _torch_process(rank, devices, kind, folder):
    import torch
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    from keras import ops

    distributed.init_process_group(
        "gloo", f"file://{folder}/store", rank=rank, world_size=devices
    )
    type_, make = types_and_models()[kind]
    x, y = data(kind, type_)
    made, loss_of = model(make)
    parallel = DistributedDataParallel(made)
    optimizer = torch.optim.SGD(made.parameters(), RATE)
    rows = [(row(x, i), y[i]) for i in range(ROWS)]
    sampler = torch.utils.data.DistributedSampler(rows, shuffle=False)
    loader = torch.utils.data.DataLoader(
        rows, BATCH // devices, sampler=sampler
    )
    losses = []
    for _ in range(EPOCHS):
        total = 0
        for x_batch, y_batch in loader:
            optimizer.zero_grad()
            found = parallel(x_batch)
            loss = ops.mean(loss_of(y_batch, found))
            loss.backward()
            optimizer.step()
            distributed.all_reduce(loss.detach_())
            total += loss.item() / devices
        losses.append(total / len(loader))
    if rank == 0:
        outcome = json.dumps({"loss": losses, **ask(made, x, y)})
        Path(folder, "outcome.json").write_text(outcome)
    # A group that goes while a thread of it still lets go of a tensor of Python
    # waits for that thread, which waits for the interpreter.
    distributed.barrier()
    distributed.destroy_process_group()


ENGINES = {f.__name__: f for f in (jax_data, tf_mirrored, torch_ddp)}


def outcome(engine, devices, kind):
    names = {"jax": "jax", "tf": "tensorflow", "torch": "torch"}
    done = subprocess.run(
        [sys.executable, "-P", __file__, engine, str(devices), kind],
        env=os.environ
        | {
            "KERAS_BACKEND": names[engine.partition("_")[0]],
            "PYTHONPATH": str(REPO / "build"),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "XLA_FLAGS": "--xla_backend_optimization_level=0 "
            "--xla_llvm_disable_expensive_passes=true "
            "--xla_force_host_platform_device_count=8",
        },
        capture_output=True,
        text=True,
        # Processes that wait for each other for ever are not waited for.
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def of_one_device():
    return {kind: outcome("jax_data", 1, kind) for kind in KINDS}


@pytest.mark.parametrize(
    "engine, devices, kind",
    [
        ("jax_data", 8, "graph"),
        ("jax_data", 8, "interval"),
        ("tf_mirrored", 2, "graph"),
        ("tf_mirrored", 2, "interval"),
        ("torch_ddp", 2, "graph"),
        ("torch_ddp", 2, "interval"),
    ],
)
def test_several_devices_give_what_one_gives(
    engine, devices, kind, of_one_device
):
    expected = of_one_device[kind]
    found = outcome(engine, devices, kind)
    assert found.keys() == expected.keys()
    assert found["type"] == expected["type"]
    assert expected["loss"][1] < expected["loss"][0]
    for name in ("loss", "evaluate", "weights", "predict"):
        for one, other in zip(found[name], expected[name], strict=True):
            if isinstance(other, str):
                assert one == other
                continue
            assert np.isfinite(other).all(), name
            np.testing.assert_allclose(one, other, 1e-4, 1e-4, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_the_types(kind, of_one_device):
    expected = of_one_device[kind]
    parts = [np.shape(part) for part in expected["predict"]]
    if kind == "graph":
        # Of a mean over nodes, of which there may be none.
        assert expected["type"] == ["MaskedArray"]
        assert parts == [(ROWS, 1)]
    else:
        assert expected["type"] == ["Interval"]
        assert parts == [(ROWS, 1), (ROWS, 1), ()]


if __name__ == "__main__":
    engine, devices, kind = sys.argv[1:]
    print(json.dumps(ENGINES[engine](int(devices), kind)))
