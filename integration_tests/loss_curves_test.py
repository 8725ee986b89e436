"""The same model, data and initial weights on the three backends that train.

They give the same losses, and so does each with more padding.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

REPO = pathlib.Path(__file__).resolve().parents[1]
BACKENDS = ("jax", "tensorflow", "torch")
SCRIPT = """
import json
import sys

import numpy as np
import keras

rng = np.random.default_rng(1337)
sizes = rng.integers(1, 7, 12)
rows = [rng.integers(1, 9, size) for size in sizes]
targets = [(row * 3 + np.arange(row.size)) % 5 for row in rows]

def curve(width):
    rng = np.random.default_rng(7)
    ids = keras.utils.pad_sequences(rows, width, padding="post")
    y = keras.utils.pad_sequences(targets, width, padding="post", masked=True)
    model = keras.Sequential(
        [
            keras.layers.Input((width,), dtype="int32"),
            keras.layers.Embedding(9, 4, mask_zero=True),
            keras.layers.LSTM(6, return_sequences=True),
            keras.layers.LayerNormalization(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )
    model.set_weights(
        [rng.normal(size=w.shape, scale=0.5) for w in model.get_weights()]
    )
    model.compile(
        keras.optimizers.SGD(1.0),
        keras.losses.SparseCategoricalCrossentropy(
            reduction="mean_with_sample_weight"
        ),
        weighted_metrics=["accuracy"],
    )
    history = model.fit(ids, y, 4, epochs=4, shuffle=False, verbose=0).history
    return [history["loss"], history["accuracy"]]

json.dump([curve(6), curve(9)], sys.stdout)
"""


def curves(backend):
    """Losses and accuracies of the epochs, for two widths of padding."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ
        | {
            "KERAS_BACKEND": backend,
            "PYTHONPATH": str(REPO / "build"),
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return np.array(json.loads(run.stdout))


@pytest.fixture(scope="module")
def found():
    return {backend: curves(backend) for backend in BACKENDS}


def test_backends_agree(found):
    for backend in BACKENDS[1:]:
        np.testing.assert_allclose(
            found[backend], found["jax"], rtol=1e-3, err_msg=backend
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_padding_changes_nothing(found, backend):
    narrow, wide = found[backend]
    np.testing.assert_allclose(wide, narrow, rtol=1e-3)
    # And it learns something.
    losses, accuracies = narrow
    assert losses[-1] < 0.9 * losses[0]
    assert np.all(np.isfinite(accuracies))
