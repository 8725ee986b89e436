"""Runs the guide on series of unequal length, small, and checks its numbers."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

REPO = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = REPO / "guides" / "speaker_identification.py"
BACKEND = os.environ["KERAS_BACKEND"]
# What the archive says of the data set.
TEST_SERIES = [31, 35, 88, 44, 29, 24, 40, 50, 29]
trains = pytest.mark.skipif(
    BACKEND not in ("jax", "tensorflow", "torch"),
    reason=f"the {BACKEND} backend cannot train",
)
# All three take minutes. Each is run on one backend, the others' layers have
# tests of their own.
MODEL = {
    "jax": "convolutions",
    "tensorflow": "LSTM",
    "torch": "Transformer",
}.get(BACKEND)


def run_guide(folder, *arguments):
    """Runs the guide with the composed fork, outside of the repository."""
    path = [str(REPO / "build"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
    )


def load():
    """The guide as a module."""
    spec = importlib.util.spec_from_file_location("speakers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("guide")


@pytest.fixture(scope="module")
def results(folder):
    arguments = "--epochs=6", "--padded-epochs=1", "--json=numbers.json"
    run = run_guide(folder, f"--models={MODEL}", *arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads((folder / "numbers.json").read_text())


@pytest.fixture
def found(results):
    """The numbers of the model."""
    (name,) = results["models"]
    assert name == MODEL
    return results["models"][name]


def test_series_are_read_as_they_are_written():
    guide = load()
    part = guide.parse("# words\n@data\n1,2.5:3,-4:2\n5:6:9\n")
    assert part.speakers.tolist() == [1, 8]
    assert [x.tolist() for x in part.series] == [[[1, 3], [2.5, -4]], [[5, 6]]]
    assert part.lengths.tolist() == [2, 1]
    x = guide.pad(part, length=3)
    mask = [[True, True, False], [True, False, False]]
    assert np.asarray(x.mask).tolist() == mask


@trains
def test_data_is_all_there(results):
    train, test = results["data"]["train"], results["data"]["test"]
    assert (train["series"], test["series"]) == (270, 370)
    assert train["of each speaker"] == 9 * [30]
    assert test["of each speaker"] == TEST_SERIES
    assert (test["shortest"], test["longest"]) == (7, 29)


@trains
def test_padded_length_changes_nothing(found):
    for padded in found["padded"].values():
        assert padded["difference"] < 1e-4
        assert padded["accuracy"] == found["accuracy"]
    assert abs(found["reported"] - found["accuracy"]) < 1e-6
    # The padding would matter very much.
    assert found["padded"]["200"]["without mask"] < 0.5 < found["accuracy"]
    for curve in found["losses"].values():
        np.testing.assert_allclose(curve, found["losses"]["29"], atol=1e-4)
    assert set(found["losses"]) == set(found["padded"]) == {"29", "64", "200"}


@trains
def test_predictions_come_back(found):
    assert found["reloaded"]["saved"] < 1e-5
    assert found["reloaded"]["exported"] < 1e-4


@trains
def test_counts_add_up(found):
    matrix = np.array(found["confusion"])
    assert matrix.sum(axis=1).tolist() == TEST_SERIES
    right = np.trace(matrix)
    assert abs(right / 370 - found["accuracy"]) < 1e-6
    groups = found["by length"].values()
    assert sum(group["series"] for group in groups) == 370
    of_groups = sum(group["series"] * group["accuracy"] for group in groups)
    assert abs(of_groups - right) < 1e-6


@trains
def test_model_learns(found):
    assert found["accuracy"] > 0.85
    masked, before = found["layers with mask"]
    assert masked == before >= 4


@trains
def test_picture_is_drawn(results, folder):
    picture = (folder / "speaker_confusion.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000


@pytest.mark.skipif(BACKEND != "numpy", reason="the others can train")
def test_backend_that_cannot_train_is_refused_in_one_line(tmp_path):
    run = run_guide(tmp_path)
    assert run.returncode == 1
    assert len(run.stderr.strip().splitlines()) == 1
    assert "set KERAS_BACKEND to jax, tensorflow or torch" in run.stderr
