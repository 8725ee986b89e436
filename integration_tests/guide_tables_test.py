"""The guide to tables with holes runs, small, and says what it should."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

REPO = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = REPO / "guides" / "tables_with_holes.py"
BACKEND = os.environ["KERAS_BACKEND"]
pytestmark = pytest.mark.skipif(
    BACKEND not in ("jax", "tensorflow", "torch"),
    reason=f"the {BACKEND} backend cannot train",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("guide")


@pytest.fixture(scope="module")
def run(folder):
    """The quick run of the guide, with the composed fork, elsewhere."""
    path = [str(REPO / "build"), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--json=numbers.json"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    run.numbers = json.loads((folder / "numbers.json").read_text())
    return run


def test_rows_without_one_entry_have_no_prediction(run):
    assert run.numbers["rows without a prediction"] == 2
    assert "<NA>" in run.stdout


def test_every_way_learns_something(run):
    for title, chance in (("penguins", 0.45), ("boiling points", 0.26)):
        found = run.numbers[title]
        assert len(found) == 5
        for way, of_way in found.items():
            if way != "drop rows":
                assert all(a > chance for a in sum(of_way.values(), [])), way


def test_no_substance_has_every_property(run):
    of_way = run.numbers["boiling points"]["drop rows"]
    assert np.isnan(sum(of_way.values(), [])).all()


def test_two_targets_are_learned_of_rows_with_one(run):
    found = run.numbers["two targets"]
    assert len(found) == 2
    assert found["each label that is there"]["species"] > 0.7


def test_picture_is_drawn(run, folder):
    picture = (folder / "tables_with_holes.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5_000
