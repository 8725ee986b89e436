"""Runs the guide as the demo does, small, and checks the numbers it writes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

REPO = pathlib.Path(__file__).resolve().parents[1]
BACKEND = os.environ["KERAS_BACKEND"]
trains = pytest.mark.skipif(
    BACKEND not in ("jax", "tensorflow", "torch"),
    reason=f"the {BACKEND} backend cannot train",
)


def run_guide(folder, *arguments):
    """Runs the guide with the composed fork, outside of the repository."""
    return subprocess.run(
        [sys.executable, str(REPO / "guides/masked_tensors.py"), *arguments],
        cwd=folder,
        # It trains for long enough to be worth compiling well.
        env=os.environ | {"PYTHONPATH": str(REPO / "build"), "XLA_FLAGS": ""},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("guide")


@pytest.fixture(scope="module")
def results(folder):
    arguments = "--names=2000", "--epochs=5", "--json=numbers.json"
    run = run_guide(folder, *arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads((folder / "numbers.json").read_text())


@trains
def test_reported_accuracy_is_the_true_one(results):
    for who in ("fork", "upstream"):
        for pair in results[who]["with weights"].values():
            assert abs(pair["reported"] - pair["true"]) <= 1e-6
            assert 0.15 < pair["true"] < 0.5


@trains
def test_padding_counts_without_weights_and_the_fork_says_so(results):
    fork = results["fork"]
    pair = fork["without weights"]["40"]
    assert pair["reported"] > pair["true"] + 0.3
    assert "sample_weight_from_mask" in fork["warning"]
    assert "weighted_metrics" in fork["warning"]


@trains
def test_padded_length_changes_no_more_than_rounding_does(results):
    fork = results["fork"]
    for name, limit in (("loss", 1e-5), ("predictions", 1e-3)):
        assert fork["length"][name]["difference"] < limit
    assert fork["losses"]["16"][0] > fork["losses"]["16"][-1]


@trains
def test_side_of_padding_matters_to_upstream_only(results):
    fork, upstream = results["fork"]["side"], results["upstream"]["side"]
    assert fork["difference"] < 1e-4
    assert abs(fork["left"] - fork["right"]) <= 1e-3
    assert upstream["difference"] > 0.1


@trains
def test_attack_gains_on_upstream_only(results):
    for found in results["fork"]["attack"].values():
        assert found["attacked"] <= found["reported"]
        assert abs(found["attacked"] - found["attacked, true"]) <= 1e-6
    (found,) = results["upstream"]["attack"].values()
    assert found["attacked"] > found["attacked, true"] + 0.1


@trains
def test_mask_reaches_the_last_stage_on_the_fork(results):
    def lost(who):
        stages = results[who]["stages"].values()
        return [stage["mask"] is None for stage in stages]

    assert not any(lost("fork"))
    assert lost("upstream") == [False] + 6 * [True]


@trains
def test_picture_is_drawn(results, folder):
    picture = (folder / "masked_tensors.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 20_000


@pytest.mark.skipif(BACKEND != "torch", reason="one backend is enough")
def test_without_unpatched_keras_the_guide_says_what_to_do(tmp_path):
    run = run_guide(tmp_path, "--names=2000", "--upstream=nowhere")
    assert run.returncode != 0
    assert "pip install --no-deps --target plain keras==" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.skipif(BACKEND != "numpy", reason="the others can train")
def test_backend_that_cannot_train_is_refused_in_one_line(tmp_path):
    run = run_guide(tmp_path)
    assert run.returncode == 1
    assert len(run.stderr.strip().splitlines()) == 1
    assert "set KERAS_BACKEND to jax, tensorflow or torch" in run.stderr
