"""The guide to tables with holes runs, small, and says what it should."""

import importlib.util
import os
import pathlib

import numpy as np
import pytest

REPO = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = REPO / "guides" / "tables_with_holes.py"
BACKEND = os.environ["KERAS_BACKEND"]
pytestmark = pytest.mark.skipif(
    BACKEND not in ("jax", "tensorflow", "torch"),
    reason=f"the {BACKEND} backend cannot train",
)
# What is quick where nothing is compiled.
on_torch = pytest.mark.skipif(BACKEND != "torch", reason="It is the same there")


@pytest.fixture(scope="module")
def guide():
    spec = importlib.util.spec_from_file_location("guide", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if BACKEND != "torch":
        # Each way is compiled. One has masks all along; their end, by `Fill`,
        # is in the model of two targets.
        way = "masks into a Transformer"
        module.WAYS = {way: module.WAYS[way]}
    return module


@pytest.fixture(scope="module")
def numbers(guide):
    return guide.main(["--quick"])


def test_rows_without_one_entry_have_no_prediction(numbers):
    assert numbers["rows without a prediction"] == 2


def test_every_way_learns_something(guide, numbers):
    found = numbers["penguins"]
    assert list(found) == list(guide.WAYS)
    for way, of_way in found.items():
        assert of_way[0.2][0] > 0.5, way


def test_two_targets_are_learned_of_rows_with_one(numbers):
    found = numbers["two targets"]
    assert list(found) == ["each label that is there", "rows with both"]
    assert found["each label that is there"]["species"][0] > 0.7


@on_torch
def test_no_substance_has_every_property(guide, tmp_path):
    found = guide.compare(guide.substances, 20, 128, seeds=1, shares=(0.2, 0.5))
    for way, of_way in found.items():
        if way == "drop rows":
            assert np.isnan(sum(of_way.values(), [])).all()
        else:
            assert min(sum(of_way.values(), [])) > 0.3, way
    guide.draw({"substances": found, "again": found}, tmp_path / "picture.png")
    picture = (tmp_path / "picture.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and len(picture) > 5_000
