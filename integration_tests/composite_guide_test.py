"""The guide to composite tensors, and what others write with theirs."""

import ast
import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import keras
from keras import layers
from keras import ops

REPO = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = REPO / "guides" / "composite_tensors.py"
BACKEND = keras.backend.backend()
TRAINS = BACKEND in ("jax", "tensorflow", "torch")
trains = pytest.mark.skipif(
    not TRAINS, reason=f"the {BACKEND} backend cannot train"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("guide")


@pytest.fixture(scope="module")
def run(folder):
    """The run of the guide, with the composed fork, elsewhere."""
    path = [str(REPO / "build"), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = subprocess.run(
        [sys.executable, str(SCRIPT), "--json=numbers.json"],
        cwd=folder,
        # It trains for long enough to be worth compiling well.
        env=os.environ
        | {
            "PYTHONPATH": os.pathsep.join(path),
            "XLA_FLAGS": "",
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    run.numbers = json.loads((folder / "numbers.json").read_text())
    return run


@pytest.fixture(scope="module")
def guide():
    """The guide as a module."""
    spec = importlib.util.spec_from_file_location("composite_guide", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_bounds_hold_at_random_points(run):
    for curves in run.numbers["intervals"].values():
        sure, right = np.array(curves["certified"]), curves["attacked"]
        assert len(sure) == 9
        assert np.all(sure <= right)
        # Nothing is uncertain in a box that is a point.
        assert sure[0] == right[0]


@trains
def test_boxes_teach_what_points_do_not(run):
    found = run.numbers["intervals"]
    points, boxes = (found[name]["certified"] for name in ("points", "boxes"))
    at = 5  # radius 0.05
    assert points[0] > 0.95 and boxes[0] > 0.9
    assert points[at] < 0.05 and boxes[at] > 0.75


def test_the_order_of_atoms_padding_and_files_change_nothing(run):
    changes = run.numbers["graphs"]["changes"]
    assert len(changes) == 3
    assert max(changes.values()) < 0.01


@trains
def test_bonds_say_more_than_counts(run):
    found = run.numbers["graphs"]
    assert found["molecules"] > 1200
    assert found["network"] < 0.7 * found["counts"] < found["mean"]


def test_int8_is_as_good_and_a_quarter_as_large(run):
    found = run.numbers["quantized"]
    assert abs(found["accuracy"] - found["accuracy in int8"]) < 0.01
    assert found["bytes"] == 4 * (64 * 64 + 64 * 64 + 64 * 10)
    scales = 4 * (64 + 64 + 10)
    assert found["bytes in int8"] == found["bytes"] // 4 + scales


def test_errors_are_shown(run):
    assert "`keras.ops.sin` has no rule for `Interval`" in run.stdout
    assert "@keras.rule_for(keras.ops.sin, Interval)" in run.stdout
    assert "`add` of something in m and something in s" in run.stdout


def test_picture_is_drawn(run, folder):
    picture = (folder / "certified_accuracy.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5_000


TYPES = {
    "Interval": {"ends", "negative", "subtract", "multiply", "matmul"},
    "Graph": {"Messages"},
    "Quantized": {"quantize", "quantized_matmul", "quantized_relu"},
    "Quantity": {
        "value_of",
        "unit_of",
        "written",
        "with_unit",
        "of_one_unit",
        "of_any_units",
        "RULES",
    },
}


@pytest.mark.parametrize("name", TYPES)
def test_a_type_with_its_rules_is_less_than_60_lines(name):
    lines = 0
    for node in ast.parse(SCRIPT.read_text()).body:
        targets = [getattr(x, "id", "") for x in getattr(node, "targets", ())]
        names = {getattr(node, "name", ""), *targets}
        if names & {name, *TYPES[name]}:
            first = min(x.lineno for x in (node, *decorators(node)))
            lines += node.end_lineno - first + 1
        # A loop that gives it rules.
        elif isinstance(node, ast.For) and f", {name})" in ast.unparse(node):
            lines += node.end_lineno - node.lineno + 1
    assert 5 < lines < 60


def decorators(node):
    return getattr(node, "decorator_list", ())


def test_molecules_are_read_as_they_are_written(guide):
    # Acetic acid, and benzene with chlorine at it.
    atoms, bonds = guide.parse("CC(=O)O")
    assert [list(guide.ELEMENTS)[i] for i in atoms[:, :-1].argmax(1)] == [
        *"CCOO"
    ]
    assert atoms[:, -1].tolist() == [3, 0, 0, 1]
    wanted = np.zeros((4, 4))
    for one, other, order in ((0, 1, 1), (1, 2, 2), (1, 3, 1)):
        wanted[one, other] = wanted[other, one] = order
    assert bonds.tolist() == wanted.tolist()
    atoms, bonds = guide.parse("C1=CC=C(C=C1)Cl")
    assert atoms[:, -1].tolist() == [1, 1, 1, 0, 1, 1, 0]
    assert bonds.sum(axis=1).tolist() == [3, 3, 3, 4, 3, 3, 1]
    assert guide.parse("[Na+].[Cl-]") is None


def test_products_of_intervals_hold_all_products(guide):
    rng = np.random.default_rng(0)
    a, b = np.sort(rng.normal(size=(2, 2, 500)).astype("float32"), axis=1)
    found = guide.Interval(*a) * guide.Interval(*b)
    for share in rng.uniform(size=(50, 2, 1)):
        x, y = (low + s * (high - low) for s, (low, high) in zip(share, (a, b)))
        assert np.all(guide.array(found.low) <= x * y + 1e-5)
        assert np.all(guide.array(found.high) >= x * y - 1e-5)


# The example of TensorFlow's guide to extension types, as it is written here:
# nodes of a network hand work on to those that have less.


@keras.saving.register_keras_serializable("composite_guide_test")
class Network(keras.CompositeTensor):
    work: keras.KerasTensor  # (..., nodes), what is left to do
    bandwidth: keras.KerasTensor  # (..., nodes, nodes)

    def __check__(self):
        if tuple(self.bandwidth.shape)[:-1] != tuple(self.work.shape):
            raise ValueError(f"They do not fit together: {self!r}.")


def balanced(network):
    gap = ops.expand_dims(network.work, -1) - ops.expand_dims(network.work, -2)
    moved = ops.clip(-gap / 4, -network.bandwidth, network.bandwidth)
    return network.replace(work=network.work + ops.sum(moved, axis=-1))


@keras.saving.register_keras_serializable("composite_guide_test")
class Balance(layers.Layer):
    def call(self, network):
        return balanced(network)


def balanced_by_hand(work, bandwidth):
    """The same with loops, for one network."""
    result = np.array(work)
    for i in range(len(work)):
        for j in range(len(work)):
            moved = (work[j] - work[i]) / 4
            limit = bandwidth[i, j]
            result[i] += min(max(moved, -limit), limit)
    return result


def networks(count=6, nodes=4):
    rng = np.random.default_rng(0)
    work = rng.uniform(0, 12, (count, nodes)).astype("float32")
    bandwidth = rng.integers(0, 3, (count, nodes, nodes)).astype("float32")
    return Network(work, bandwidth + np.swapaxes(bandwidth, 1, 2))


def by_hand(network):
    work, bandwidth = map(
        ops.convert_to_numpy, (network.work, network.bandwidth)
    )
    return np.stack([balanced_by_hand(*x) for x in zip(work, bandwidth)])


def network_model():
    network = Network(
        work=keras.Input((None,), name="work"),
        bandwidth=keras.Input((None, None), name="bandwidth"),
    )
    return keras.Model(network, Balance()(network))


def test_work_is_balanced_and_none_is_lost():
    batch = networks()
    found = ops.convert_to_numpy(Balance()(batch).work)
    np.testing.assert_allclose(found, by_hand(batch), rtol=1e-5, atol=1e-5)
    total = ops.convert_to_numpy(batch.work).sum(axis=1)
    np.testing.assert_allclose(found.sum(axis=1), total, rtol=1e-5)
    assert not np.allclose(found, ops.convert_to_numpy(batch.work))


def test_a_network_alone_is_balanced_as_in_a_batch():
    batch = networks()
    alone = Network(batch.work[2], batch.bandwidth[2])
    found = ops.convert_to_numpy(balanced(alone).work)
    np.testing.assert_allclose(found, by_hand(batch)[2], rtol=1e-5, atol=1e-5)


def test_a_model_of_networks_predicts_networks():
    batch = networks()
    model = network_model()
    found = model(batch)
    assert isinstance(found, Network)
    wanted = by_hand(batch)
    np.testing.assert_allclose(
        ops.convert_to_numpy(found.work), wanted, rtol=1e-5, atol=1e-5
    )
    # Six networks in batches of four, the last of which is not full.
    found = model.predict(batch, batch_size=4, verbose=0)
    assert isinstance(found, Network)
    np.testing.assert_allclose(found.work, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(
        found.bandwidth, ops.convert_to_numpy(batch.bandwidth)
    )


def test_a_model_of_networks_is_saved_and_loaded(tmp_path):
    model = network_model()
    model.save(tmp_path / "networks.keras")
    loaded = keras.saving.load_model(tmp_path / "networks.keras")
    found = loaded(networks())
    assert isinstance(found, Network)
    np.testing.assert_allclose(
        ops.convert_to_numpy(found.work), by_hand(networks()), rtol=1e-5
    )


@trains
def test_a_model_of_networks_is_trained():
    batch = networks()
    network = Network(work=keras.Input((4,)), bandwidth=keras.Input((4, 4)))
    h = Balance()(network)
    h = h.replace(work=layers.Dense(4)(h.work))
    model = keras.Model(network, layers.Dense(1)(Balance()(h).work))
    model.compile("sgd", "mse")
    before = [ops.convert_to_numpy(w) for w in model.weights]
    model.fit(batch, np.ones((6, 1)), batch_size=4, epochs=2, verbose=0)
    for old, new in zip(before, model.weights, strict=True):
        assert not np.allclose(old, ops.convert_to_numpy(new))


def test_a_network_that_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="do not fit together"):
        Network(np.ones((2, 3)), np.ones((2, 3, 4))[:, :2])


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow alone")
def test_datasets_and_maps_of_tensorflow_take_networks():
    import tensorflow as tf

    batch = networks()
    dataset = tf.data.Dataset.from_tensor_slices(batch)
    alone = list(dataset)
    assert len(alone) == 6 and isinstance(alone[0], Network)
    assert tuple(alone[0].work.shape) == (4,)
    found = tf.map_fn(balanced, batch)
    np.testing.assert_allclose(found.work, by_hand(batch), rtol=1e-5, atol=1e-5)
    spec = tf.type_spec_from_value(batch)
    compiled = tf.function(balanced, input_signature=[spec])
    np.testing.assert_allclose(
        compiled(batch).work, by_hand(batch), rtol=1e-5, atol=1e-5
    )


@pytest.mark.skipif(BACKEND != "jax", reason="of JAX alone")
def test_maps_and_compiled_functions_of_jax_take_networks():
    import jax

    batch = networks()
    for function in (jax.jit(balanced), jax.vmap(balanced)):
        found = function(batch)
        assert isinstance(found, Network)
        np.testing.assert_allclose(
            found.work, by_hand(batch), rtol=1e-5, atol=1e-5
        )
