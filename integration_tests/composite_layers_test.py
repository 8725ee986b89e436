"""The table of the rules that layers ask for, against the code."""

import importlib.util
import pathlib
import re

import pytest

from keras.src import backend
from keras.src.testing.masked.cases import layers

pytestmark = pytest.mark.skipif(
    backend.backend() != "numpy",
    reason="Layers call other functions on other engines.",
)

GUIDES = pathlib.Path(__file__).resolve().parents[1] / "guides"
FILE = GUIDES / "composite_layers.md"


def render():
    """What `guides/composite_layers.py` would write."""
    spec = importlib.util.spec_from_file_location(
        "composite_layers", GUIDES / "composite_layers.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.render()


def test_the_table_is_not_stale():
    if FILE.read_text("utf-8") != render():
        raise AssertionError(
            "Layers call other functions than guides/composite_layers.md says. "
            "Run `python guides/composite_layers.py` and commit what it writes."
        )


def test_each_layer_with_a_case_is_in_it():
    written = re.findall(r"^\| `(\w+)` \|", FILE.read_text("utf-8"), re.M)
    assert len(written) == len(set(written))
    # Wrappers' cases are of other classes.
    assert {*written} <= {*layers.CASES}
    assert len(written) > 0.9 * len(layers.CASES)


def test_it_says_what_is_known_of_some():
    text = FILE.read_text("utf-8")
    assert "| `Dense` | `matmul`, `add`, `softmax` |" in text
    assert "| `Flatten` | `reshape` |" in text
