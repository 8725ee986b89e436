"""What is saved here without masked inputs, unpatched Keras reads.

The other way round, see `keras/src/masking/layers/old_layers_test.py`.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import keras
from keras import layers
from keras import ops

UPSTREAM = pathlib.Path(keras.__file__).parents[1] / "upstream"
IDS = np.array([[3, 1, 2, 0], [4, 0, 0, 0], [1, 2, 3, 4]])
X = np.random.default_rng(0).normal(size=(3, 4, 2)).astype("float32")
X[IDS == 0] = 0
# Runs with unpatched Keras: loads each file, and writes what it gives.
READ = """
import pathlib, sys
import numpy as np
import keras
assert not hasattr(keras, "MaskedTensor"), keras.__file__
folder = pathlib.Path(sys.argv[1])
inputs = dict(np.load(folder / "inputs.npz"))
found = {}
for path in sorted(folder.glob("*.keras")) + sorted(folder.glob("*.h5")):
    if path.name.endswith(".weights.h5"):
        model = keras.models.load_model(folder / f"{path.name[:-11]}.keras")
        model.set_weights([0 * w for w in model.get_weights()])
        model.load_weights(path)
    else:
        model = keras.models.load_model(path)
    y = model(inputs[path.name.partition(".")[0]])
    found[path.name] = keras.ops.convert_to_numpy(y)
np.savez(folder / "found.npz", **found)
"""


def tagger():
    """Embedded ids, two ways joined, with a result for each step."""
    ids = keras.Input((None,), dtype="int32")
    h = layers.Embedding(5, 4, mask_zero=True)(ids)
    h = layers.Add()([h, layers.LSTM(4, return_sequences=True)(h)])
    return keras.Model(ids, layers.Dense(2)(h))


def classifier():
    steps = [layers.Masking(), layers.Bidirectional(layers.GRU(3))]
    return keras.Sequential([keras.Input((None, 2)), *steps, layers.Dense(2)])


def plain():
    """No mask anywhere, but operations."""
    x = keras.Input((4, 2))
    return keras.Model(x, ops.mean(layers.Dense(3)(x) * 2.0, axis=1))


MODELS = {"tagger": (tagger, IDS), "classifier": (classifier, X)}
MODELS["plain"] = plain, X


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What is given here and there, by the name of the file."""
    folder = tmp_path_factory.mktemp("saved")
    expected = {}
    for name, (make, x) in MODELS.items():
        keras.utils.clear_session()
        model = make()
        expected[name] = model(x)
        model.save(folder / f"{name}.keras")
        model.save_weights(folder / f"{name}.weights.h5")
        if name != "plain":
            model.save(folder / f"{name}.h5")
    np.savez(folder / "inputs.npz", **{k: x for k, (_, x) in MODELS.items()})
    run = subprocess.run(
        [sys.executable, "-P", "-W", "ignore", "-c", READ, str(folder)],
        env=os.environ | {"PYTHONPATH": str(UPSTREAM)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return expected, dict(np.load(folder / "found.npz"))


@pytest.mark.skipif(not UPSTREAM.exists(), reason="needs pristine upstream")
@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        (name, suffix)
        for name in MODELS
        for suffix in ("keras", "h5", "weights.h5")
        # Unpatched Keras finds no operations in this format.
        if (name, suffix) != ("plain", "h5")
    ],
)
def test_upstream_gives_the_same(found, name, suffix):
    expected, theirs = found
    ours, theirs = expected[name], theirs[f"{name}.{suffix}"]
    assert keras.ops.is_masked(ours) == (name == "tagger")
    ours = keras.ops.convert_to_numpy(ours)
    if name == "tagger":
        ours, theirs = ours[IDS != 0].data, theirs[IDS != 0]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
