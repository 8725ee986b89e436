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


@pytest.mark.skipif(BACKEND == "numpy", reason="the NumPy backend cannot train")
def test_packed_trains_as_padded_does(tmp_path):
    arguments = ["--count=96", "--epochs=2", "--turns=1", "--json=numbers.json"]
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
    losses = results["fit"]["packed"][0]
    assert losses[-1] < losses[0]
    # A tenth of the steps costs less than all, whatever else the machine does.
    shares = sorted(map(float, results["step"]))
    assert results["step"][str(shares[0])] < results["step"][str(shares[-1])]
