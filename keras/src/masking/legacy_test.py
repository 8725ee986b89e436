"""Old layers keep working: what they give is what upstream gives.

`cases/old_layers.py` holds them. Pristine upstream runs it once, and what it
gives, and the models that it saves, are kept in `build/`.
"""

import functools
import hashlib
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import testing

SCRIPT = pathlib.Path(__file__).parent / "cases" / "old_layers.py"
BUILD = pathlib.Path(keras.__file__).parents[1]
UPSTREAM = BUILD / "upstream"


def _load_from_outside():
    """The old layers, as a module that is none of Keras's."""
    spec = importlib.util.spec_from_file_location("old_layers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


old = _load_from_outside()
trains = pytest.mark.requires_trainable_backend
NAMES = [
    name
    for name, case in old.CASES.items()
    if not case.reads or backend.backend() in ("torch", "tensorflow")
]
# They end or replace the mask of what they do not use up: what was under it
# is theirs to answer for.
ENDS_MASK = {"clears_mask", "no_flag_but_compute_mask", "lambda_mask_tensor"}
MASKED_NAMES = [
    name for name in NAMES if old.CASES[name].masked and name not in ENDS_MASK
]


@functools.cache
def recorded():
    """The folder of what upstream made of this version of the old layers."""
    folder = BUILD / "recorded_by_upstream"
    version = folder / hashlib.sha256(SCRIPT.read_bytes()).hexdigest()[:16]
    if version.exists():
        return version
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with tempfile.TemporaryDirectory(
        dir=folder, ignore_cleanup_errors=True
    ) as fresh:
        # PyTorch's tensors take attributes, which some of the layers read.
        env = {"KERAS_BACKEND": "torch", "PYTHONPATH": str(UPSTREAM)}
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", str(SCRIPT), fresh],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"Upstream fails: {done.stderr}")
        os.rename(fresh, version)
    return version


@functools.cache
def results():
    return dict(np.load(recorded() / "results.npz"))


def one_old(call=None, compute_mask=None, name="Old", flag=False):
    """The class of an old layer, a new one each time."""

    def __init__(self, **kwargs):
        layers.Layer.__init__(self, **kwargs)
        if flag:
            self.supports_masking = True

    members = {"__init__": __init__, "call": call or (lambda self, x: x)}
    if compute_mask is not None:
        members["compute_mask"] = compute_mask
    return type(name, (layers.Layer,), members)


@pytest.mark.skipif(not UPSTREAM.exists(), reason="needs pristine upstream")
class AsUpstreamTest(testing.TestCase):
    def assert_as_recorded(self, found, key, to_masks=None):
        expected = results()
        self.assertNotIn(f"{key}/{len(found)}", expected)
        for i, (y, mask) in enumerate(found):
            value = expected[f"{key}/{i}"]
            wanted = expected.get(f"{key}/{i}/mask")
            if to_masks is not None:
                wanted = to_masks(old.MASK)
            self.assertEqual(mask is None, wanted is None, f"{key}/{i}")
            y = backend.convert_to_numpy(y)
            if mask is not None:
                self.assertAllEqual(mask, wanted)
                y, value = y[wanted], value[wanted]
            self.assertAllClose(y, value, atol=1e-5, rtol=1e-5)

    @parameterized.named_parameters(zip(NAMES, NAMES))
    def test_eager(self, name):
        case = old.CASES[name]
        self.assert_as_recorded(
            old.results(old.eagerly(case)), f"{name}/eager", case.to_masks
        )

    @parameterized.named_parameters(zip(NAMES, NAMES))
    def test_in_a_graph(self, name):
        case = old.CASES[name]
        model = old.functional(case)
        # The graph tells beforehand where masks will be.
        told = [y._mask_spec is not None for y in model.outputs]
        found = old.results(model(list(case.arrays)))
        self.assertEqual(told, [mask is not None for _, mask in found])
        if case.to_masks is None:
            self.assertAllEqual(results()[f"{name}/symbolic"], told)
        self.assert_as_recorded(found, f"{name}/eager", case.to_masks)
