"""The guide to migrating layers: what it runs, and what it claims."""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest

import keras
from keras import layers
from keras import ops
from keras import tree
from keras.src.testing.masked import testing_utils

REPO = pathlib.Path(__file__).resolve().parents[1]
SCRIPT = REPO / "guides" / "migrating_layers.py"
BACKEND = keras.backend.backend()
# Upstream takes as long again, so two backends have to do.
WITH_UPSTREAM = BACKEND in ("numpy", "torch")


def load():
    """The guide as a module."""
    spec = importlib.util.spec_from_file_location("migrating_layers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


guide = load()
every_pattern = pytest.mark.parametrize("name", guide.PATTERNS)
every_layer_for_both = pytest.mark.parametrize("make", guide.FOR_BOTH)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The run of the guide, with its `folder` and its `numbers`."""
    folder = tmp_path_factory.mktemp("guide")
    arguments = ["--json=numbers.json", "--picture=model.png"]
    if not WITH_UPSTREAM:
        arguments.append("--no-upstream")
    run = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPO / "build"), "COLUMNS": "100"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    run.folder = folder
    run.numbers = json.loads((folder / "numbers.json").read_text())
    return run


def test_new_and_old_agree_here_and_upstream(run):
    found = run.numbers["differences"]
    names = set(guide.PATTERNS)
    if WITH_UPSTREAM:
        names |= {make.__name__ for make in guide.FOR_BOTH}
        assert all(len(found[name]) == 2 for name in guide.PATTERNS)
    assert set(found) == names
    assert max(max(differences) for differences in found.values()) <= 1e-6


def test_without_weights_padding_counts_here(run):
    found = run.numbers["fork"]["scores"]["no weights"]
    assert found["accuracy"] > found["true accuracy"] + 0.1
    assert abs(found["hits"] - found["accuracy"]) < 1e-5
    if BACKEND != "numpy":
        # The table of the guide, within what the backends differ by.
        assert abs(found["accuracy"] - 0.936) < 0.02
        assert abs(found["true accuracy"] - 0.777) < 0.03


def test_with_weights_what_is_reported_is_true(run):
    found = run.numbers["fork"]["scores"]["weights"]
    assert abs(found["loss"] - found["true loss"]) < 1e-4
    for name in ("accuracy", "hits"):
        assert abs(found[name] - found["true accuracy"]) < 1e-5
    if BACKEND != "numpy":
        assert abs(found["accuracy"] - 0.777) < 0.02


@pytest.mark.skipif(not WITH_UPSTREAM, reason="two backends are enough")
def test_upstream_needs_no_weights_where_the_mask_survives(run):
    for found in run.numbers["upstream"]["scores"].values():
        for name in ("accuracy", "hits"):
            assert abs(found[name] - found["true accuracy"]) < 1e-5


def test_each_old_class_is_warned_of_once(run):
    heard = run.numbers["fork"]["warnings"]
    deprecated = {
        text.split("`")[1]
        for text, category in heard.items()
        if category == "DeprecationWarning"
    }
    old = {name for name in vars(guide) if name.startswith("Old")}
    # A metric, and a layer that hangs a mask on what it returns.
    assert deprecated == old - {"OldHits", "OldSetter"}
    (text,) = (t for t, kind in heard.items() if kind == "UserWarning")
    assert "sample_weight_from_mask" in text


def test_the_masks_are_shown(run):
    for text in (
        "- (ends)",  # the summary
        "(2, 12): 8 of 24 valid",  # explain_mask
        "Functions of the backend do not know masks",
    ):
        assert text in run.stdout
    # A machine without graphviz draws nothing, and says so.
    drawn = (run.folder / "model.png").exists()
    assert drawn != ("You must install" in run.stdout)


@every_pattern
def test_what_lies_under_a_mask_reaches_nothing_new(name):
    pattern = guide.PATTERNS[name]
    assert_clean(pattern.after(), pattern.inputs())


@every_layer_for_both
def test_what_lies_under_a_mask_reaches_no_layer_for_both(make):
    assert_clean(make(), guide.embedded())


def assert_clean(layer, inputs):
    """Garbage under the masks of the inputs changes no valid output."""
    expected = outputs_of(layer, inputs)
    found = outputs_of(layer, tree.map_structure(with_garbage, inputs))
    assert guide.difference(found, expected) <= 1e-5
    assert all(np.all(np.isfinite(values)) for values, _ in found)


def outputs_of(layer, inputs):
    return guide.run(lambda: layer, lambda: inputs)


def with_garbage(x):
    if not ops.is_masked(x):
        return x
    rng = np.random.default_rng(3)
    garbage = rng.uniform(-500, 500, tuple(x.shape)).astype("float32")
    mask = testing_utils.array(x.mask)[..., None]
    return x + np.where(mask, 0, garbage).astype("float32")


@pytest.mark.skipif(BACKEND == "numpy", reason="NumPy has no gradients")
@pytest.mark.parametrize(
    "name", ["mask=None, by type", "q_mask=None, v_mask=None"]
)
def test_its_gradient_does_not_see_nan(name):
    pattern = guide.PATTERNS[name]
    layer = pattern.after()
    masks = [testing_utils.array(x.mask) for x in pattern.inputs()]
    arrays = [testing_utils.array(x.values) for x in pattern.inputs()]

    def loss(values):
        return ops.sum(
            ops.square(
                ops.filled(layer(*map(keras.MaskedTensor, values, masks)))
            )
        )

    expected = testing_utils.gradients(loss, arrays)
    poisoned = [
        np.where(mask[..., None], x, np.nan).astype("float32")
        for x, mask in zip(arrays, masks)
    ]
    found = testing_utils.gradients(loss, poisoned)
    for own, wanted, mask in zip(found, expected, masks):
        own, wanted = map(testing_utils.array, (own, wanted))
        np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-6)
        assert np.any(own[mask])
        assert not np.any(own[~mask])


@every_pattern
def test_a_graph_knows_the_masks_of_a_call(name):
    pattern = guide.PATTERNS[name]
    inputs = pattern.inputs()
    specs = pattern.after()(*tree.map_structure(symbol_like, inputs))
    outputs = pattern.after()(*inputs)
    for spec, x in zip(tree.flatten(specs), tree.flatten(outputs), strict=True):
        assert tuple(spec.shape) == tuple(x.shape)
        assert ops.is_masked(spec) == ops.is_masked(x)
        if ops.is_masked(x):
            assert tuple(spec.mask.shape) == tuple(x.mask.shape)


def symbol_like(x):
    mask_shape = None
    if ops.is_masked(x):
        mask_shape = tuple(x.mask.shape)[1:]
    return keras.Input(batch_shape=tuple(x.shape), mask_shape=mask_shape)


def test_two_that_differ_are_told_apart():
    values, mask = np.ones((1, 2)), np.array([[True, False]])
    assert guide.difference([(values, mask)], [(values * 3, mask)]) == 2
    for other in (None, ~mask):
        with pytest.raises(AssertionError):
            guide.difference([(values, mask)], [(values, other)])


def test_the_checklist_finds_old_classes():
    class Old(guide.OldGate):
        pass

    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Layer class", DeprecationWarning)
        with pytest.raises(DeprecationWarning, match="`Old`"):
            Old()(guide.steps())
        guide.Gate()(guide.steps())


def test_flatten_keeps_a_mask_that_upstream_loses():
    model = keras.Sequential(
        [layers.Embedding(5, 2, mask_zero=True), layers.Flatten()]
    )
    found = model.predict(np.array([[1, 0]]), verbose=0)
    np.testing.assert_array_equal(
        np.ma.getmaskarray(found), [[False, False, True, True]]
    )


def test_without_unpatched_keras_it_says_what_to_do(tmp_path):
    options = argparse.Namespace(upstream=tmp_path)
    with pytest.raises(
        SystemExit, match="pip install --no-deps --target plain"
    ):
        guide.find_upstream(options)
