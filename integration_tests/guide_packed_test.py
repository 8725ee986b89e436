"""Runs the guide to packed storage, small; it compares its curves itself."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

REPO = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = REPO / "guides" / "packed_storage.py"
BACKEND = os.environ["KERAS_BACKEND"]

# All of it runs somewhere; what compiles is tested by itself.
PARTS = {
    "jax": ["names"],
    "tensorflow": ["recipes"],
    "torch": ["names", "speakers", "recipes", "step"],
}


@pytest.mark.skipif(BACKEND == "numpy", reason="the NumPy backend cannot train")
def test_packed_trains_as_padded_does(tmp_path):
    arguments = ["--count=96", "--epochs=2", "--blocks=1", "--turns=1"]
    arguments += ["--shape", *"16 128 128".split(), "--json=numbers.json"]
    arguments += ["--parts", *PARTS[BACKEND]]
    path = [str(REPO / "build"), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    results = json.loads((tmp_path / "numbers.json").read_text())
    if "names" in results:
        losses = results["names"]["packed"][0]
        assert losses[-1] < losses[0]
    if "step" in results:
        first, *_, last = results["step"]["packed"]
        # A tenth of the steps costs less than all, whatever else is done.
        assert first[0] < 0.2 and first[1] < last[1]
