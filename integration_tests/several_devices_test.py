"""Masked models on several devices give what they give on one.

Each engine runs in processes of its own, since devices are made when a process
starts. JAX and `MirroredStrategy` take the loss of a batch over all devices,
and PyTorch the mean of the losses of equal parts, so that it does not matter
where the valid steps and the known targets lie: one of eight devices has
nothing valid, and of two one has the long series, or, on PyTorch, no target
that is known.
"""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

REPO = Path(__file__).resolve().parents[1]
QUICK = (
    "--xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true"
)


def outcome(engine, devices):
    names = {"jax": "jax", "tf": "tensorflow", "torch": "torch"}
    backend = names[engine.partition("_")[0]]
    script = REPO / "integration_tests" / "several_devices.py"
    command = [sys.executable, "-P", script, engine, str(devices)]
    done = run(command, backend)
    if done.returncode != 0 and "Timeout (" in done.stderr:
        # Threads of PyTorch's waited for each other, as once in many runs.
        warnings.warn(done.stderr[-4000:], stacklevel=1)
        done = run(command, backend)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def run(command, backend):
    return subprocess.run(
        command,
        env=os.environ
        | {
            "KERAS_BACKEND": backend,
            "PYTHONPATH": str(REPO / "build"),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "XLA_FLAGS": QUICK,
        },
        capture_output=True,
        text=True,
        # Its processes end by themselves before, and say where they wait.
        timeout=400,
    )


@pytest.fixture(scope="module")
def of_one_device():
    return outcome("jax_data", 1)


@pytest.mark.parametrize(
    "engine, devices",
    [("jax_data", 8), ("jax_model", 8), ("tf_mirrored", 2), ("torch_ddp", 2)],
)
def test_several_devices_give_what_one_gives(engine, devices, of_one_device):
    found = outcome(engine, devices)
    # A loop of one's own, as PyTorch's needs, reports the losses it likes.
    scores = {"mae"} if engine == "torch_ddp" else set()
    assert found.keys() == of_one_device.keys() - scores
    assert found["mask"] == of_one_device["mask"]
    for name in found:
        expected = of_one_device[name]
        pairs = zip(found[name], expected, strict=True)
        for one, other in pairs:
            assert np.isfinite(other).all(), name
            np.testing.assert_allclose(one, other, 1e-4, 1e-4, err_msg=name)


def test_the_series_are_of_unequal_length(of_one_device):
    masked = np.array(of_one_device["mask"])[..., 0]
    assert sorted({*masked.sum(1).tolist()}) == [0, 5, 6]
