"""Old layers keep working: what they give is what upstream gives.

`old_layers.py` of the cases holds them. Pristine upstream runs it once, and
what it gives, and the models that it saves, are kept in `build/`.
"""

import contextlib
import copy
import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.masking.layers import telling
from keras.src.testing.masked import cases
from patchset.markers import when

SCRIPT = pathlib.Path(cases.__file__).parent / "old_layers.py"
BUILD = pathlib.Path(keras.__file__).parents[1]
UPSTREAM = BUILD / "upstream"


# The layers that lose their masks since 3.16, where they switch the flag off;
# and one that wrote into its input until 3.15, so that nothing before it could
# be trained on PyTorch.
FLAGLESS, WRITERS = [], []
if when(">=3.16"):
    FLAGLESS = ["RNN", "Bidirectional", "TimeDistributed"]
if when("<3.15"):
    WRITERS = ["GlobalAveragePooling1D"]
RUN = f"""
import runpy, sys
from keras import layers
for name in {FLAGLESS}:
    flag = property(lambda layer: True, lambda layer, value: None)
    getattr(layers, name).supports_masking = flag
for name in {WRITERS}:
    def call(self, x, mask=None, writes=getattr(layers, name).call):
        return writes(self, x + 0, mask)
    getattr(layers, name).call = call
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _load_from_outside():
    """The old layers, as a module that is none of Keras's."""
    spec = importlib.util.spec_from_file_location("old_layers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


old = _load_from_outside()
NAMES = [
    name
    for name, case in old.CASES.items()
    if not case.reads or backend.backend() in ("torch", "tensorflow")
]
# JAX and TensorFlow trace anew for each layer: loops over time are run for
# some layers only there, but where all are asked for.
IS_QUICK = backend.backend() in ("numpy", "torch")
ALL = IS_QUICK or os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
LOOPS = (
    "lstm",
    "encoder",
    "bidirectional",
    "cell",
    "sequential",
    "transformer",
)


def some(names, kept=("encoder",)):
    """The names, without most of the layers that are slow to trace."""
    if ALL:
        return names
    return [n for n in names if n in kept or not any(w in n for w in LOOPS)]


# They end or replace the mask of what they do not use up: what was under it
# is theirs to answer for.
ENDS_MASK = {"clears_mask", "no_flag_but_compute_mask", "lambda_mask_tensor"}
MASKED_NAMES = [
    name for name in NAMES if old.CASES[name].masked and name not in ENDS_MASK
]


TRAINED = old.TRAINED if ALL else ("pooling", "encoder")
SAVED = tuple(old.SAVED) if ALL else ("sequential", "lambda")
H5 = ("sequential", "of_models", "explicit") if ALL else ("sequential",)


def upstream_version():
    text = (UPSTREAM / "keras/src/version.py").read_text()
    return re.search(r'^__version__ = "(.+)"', text, re.MULTILINE)[1]


@functools.cache
def recorded():
    """The folder of what this upstream made of this version of old layers."""
    folder = BUILD / "recorded_by_upstream"
    digest = hashlib.sha256(RUN.encode() + SCRIPT.read_bytes())
    digest = digest.hexdigest()[:16]
    own = folder / f"{upstream_version()}-{digest}"
    if own.exists():
        return own
    folder.mkdir(exist_ok=True)
    for one in folder.iterdir():
        # What another worker is about to write is no leftover.
        if not one.name.startswith("tmp"):
            shutil.rmtree(one, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        dir=folder, ignore_cleanup_errors=True
    ) as fresh:
        # PyTorch's tensors take attributes, which some of the layers read.
        env = {"KERAS_BACKEND": "torch", "PYTHONPATH": str(UPSTREAM)}
        done = subprocess.run(
            [sys.executable, "-P", "-W", "ignore", "-c", RUN, SCRIPT, fresh],
            env={**os.environ, **env},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"Upstream fails: {done.stderr}")
        with contextlib.suppress(OSError):  # Another worker was first.
            os.rename(fresh, own)
    return own


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

    @parameterized.named_parameters(zip(some(NAMES), some(NAMES)))
    def test_call_and_graph(self, name):
        case = old.CASES[name]
        layer = old.made(case)
        xs = old.tensors(case)
        eager = old.results(case.run(layer, xs))
        self.assert_as_recorded(eager, name, case.to_masks)
        model = old.functional(case, layer)
        # The graph tells beforehand where masks will be.
        told = [y._mask_spec is not None for y in model.outputs]
        self.assertEqual(told, [mask is not None for _, mask in eager])
        self.assert_as_recorded(old.results(model(xs)), name, case.to_masks)

    @parameterized.named_parameters(zip(TRAINED, TRAINED))
    @pytest.mark.requires_trainable_backend
    def test_training(self, name):
        losses, weights = old.trained(name)
        self.assertAllClose(results()[f"{name}/losses"], losses, atol=1e-5)
        found = [(w, None) for w in weights]
        self.assert_as_recorded(found, f"{name}/trained")


class CompiledTest(testing.TestCase):
    @parameterized.parameters("halves", "swap", "embedding_compute_mask")
    def test_predict(self, name):
        """What `predict` gives is masked where a call is."""
        case = old.CASES[name]
        model = old.functional(case, case.make())
        expected = old.results(model(list(case.arrays)))
        found = keras.tree.flatten(model.predict(list(case.arrays), verbose=0))
        self.assertEqual(len(found), len(expected))
        for y, (values, mask) in zip(found, expected):
            mask = backend.convert_to_numpy(mask)
            values = backend.convert_to_numpy(values)
            self.assertIsInstance(y, np.ma.MaskedArray)
            hidden = np.repeat(~mask[..., None], y.shape[2], 2)
            self.assertAllEqual(y.mask, hidden)
            self.assertAllClose(y.data[mask], values[mask], atol=1e-5)


class NonInterferenceTest(testing.TestCase):
    @parameterized.named_parameters(
        zip(some(MASKED_NAMES, ()), some(MASKED_NAMES, ()))
    )
    def test_nothing_under_the_mask_matters(self, name):
        case = old.CASES[name]
        layer = old.made(case)

        def run(poison, garbage=0.0):
            xs = []
            for x in case.arrays:
                # A step is masked where it is 0 in the arrays.
                mask = (x != 0).any(-1)
                hidden = ~mask[..., None]
                y = backend.MaskedTensor(np.where(hidden, poison, x), mask)
                y = y + np.where(hidden, garbage, 0).astype("float32")
                xs.append(y)
            return old.results(case.call(layer, *xs))

        expected = run(0.0)
        for args in ((np.nan,), (0.0, 300.0), (0.0, -700.0)):
            for (y, mask), (z, _) in zip(run(*args), expected):
                y, z = map(backend.convert_to_numpy, (y, z))
                if mask is not None:
                    mask = backend.convert_to_numpy(mask)
                    y, z = y[mask], z[mask]
                self.assertAllClose(y, z, atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not UPSTREAM.exists(), reason="needs pristine upstream")
class SavedByUpstreamTest(testing.TestCase):
    def assert_as_recorded(self, model, name):
        _, arrays = old.SAVED[name]
        ((found, mask),) = old.results(model(list(arrays)))
        found = backend.convert_to_numpy(found)
        expected = results()[f"{name}/saved/0"]
        if mask is not None:
            mask = backend.convert_to_numpy(mask)
            found, expected = found[mask], expected[mask]
        self.assertAllClose(found, expected, atol=1e-5)

    @parameterized.named_parameters(zip(SAVED, SAVED))
    def test_model(self, name):
        path = str(recorded() / f"{name}.keras")
        model = keras.saving.load_model(path, safe_mode=False)
        self.assert_as_recorded(model, name)
        # And once more, as it is saved here.
        path = os.path.join(self.get_temp_dir(), "again.keras")
        model.save(path)
        model = keras.saving.load_model(path, safe_mode=False)
        self.assert_as_recorded(model, name)

    # Of the others, upstream cannot read its own: there are operations in
    # them, or a `Lambda`.
    @parameterized.named_parameters(zip(H5, H5))
    def test_h5(self, name):
        path = str(recorded() / f"{name}.h5")
        self.assert_as_recorded(keras.saving.load_model(path), name)

    @parameterized.named_parameters(zip(SAVED, SAVED))
    def test_weights(self, name):
        make, _ = old.SAVED[name]
        model = make()
        model.load_weights(str(recorded() / f"{name}.weights.h5"))
        self.assert_as_recorded(model, name)

    @parameterized.named_parameters(zip(SAVED, SAVED))
    def test_upstream_could_read_what_is_saved_here(self, name):
        """The same layers with the same configurations, and no new keys.

        Upstream passes on the masks that it computed as arguments, which are
        operations of its graph.
        """
        keras.utils.clear_session()
        model, _ = old.saved_model(name)
        theirs = json.loads((recorded() / f"{name}.json").read_text())
        ours = json.loads(model.to_json())
        ours, theirs = _layers_of(ours), _layers_of(theirs)
        self.assertEqual([x[0] for x in ours], [x[0] for x in theirs])
        for one, other in zip(ours, theirs):
            self.assertEqual(one, other)

    def test_a_function_of_a_mask_is_refused_in_safe_mode(self):
        layer = layers.Lambda(ops.tanh, mask=lambda x, mask: mask)
        config = keras.saving.serialize_keras_object(layer)
        again = copy.deepcopy(config)
        with self.assertRaisesRegex(ValueError, "safe_mode=False"):
            keras.saving.deserialize_keras_object(config)
        found = keras.saving.deserialize_keras_object(again, safe_mode=False)
        self.assertIs(found.mask(1, 2), 2)


def _layers_of(config):
    """The names and configurations of the layers, without what connects."""
    return [
        (
            layer["registered_name"] or layer["class_name"],
            _layers_of(layer)
            if "layers" in layer["config"]
            else _without_ids(layer["config"]),
        )
        for layer in config["config"]["layers"]
        if layer["module"] != "keras.src.ops.numpy"
    ]


def _without_ids(config):
    if isinstance(config, dict):
        return {
            key: _without_ids(value)
            for key, value in config.items()
            if key not in ("shared_object_id", "code", "name")
        }
    return config


class WarningsTest(testing.TestCase):
    X = backend.MaskedTensor(old.X, old.MASK)

    def caught(self, layer, *args, **kwargs):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            layer(*args, **kwargs)
        return [w for w in found if w.category is DeprecationWarning]

    def test_once_for_each_class_and_where_it_is_to_be_changed(self):
        def compute_mask(self, x, mask=None):
            return mask

        cls, other = one_old(compute_mask=compute_mask), one_old(flag=True)
        (found,) = self.caught(cls(), self.X)
        self.assertEqual(found.filename, __file__)
        self.assertEqual(found.lineno, compute_mask.__code__.co_firstlineno)
        self.assertEmpty(self.caught(cls(), self.X))
        self.assertLen(self.caught(other(), self.X), 1)

    def test_in_a_graph(self):
        (found,) = self.caught(
            one_old(flag=True)(), layers.Input((4, 3), mask_shape=(4,))
        )
        self.assertIn("`Old`", str(found.message))

    def test_it_names_what_is_used_and_what_to_write(self):
        def reads(self, x):
            return x * backend.cast(x._keras_mask, "float32")[..., None]

        def gets(self, x):
            mask = getattr(x, "_keras_mask", None)
            return x if mask is None else x * 1

        def compute_mask(self, x, mask=None):
            return mask

        flag, override = "sets `supports_masking`", "overrides `compute_mask`"
        attribute = "reads `_keras_mask`"
        every = {flag, override, attribute}
        for cls, uses in (
            (one_old(flag=True), {flag}),
            (one_old(compute_mask=compute_mask), {override}),
            (one_old(gets, compute_mask), {override, attribute}),
            (one_old(gets, compute_mask, flag=True), every),
        ):
            (found,) = self.caught(cls(), self.X)
            text = str(found.message)
            self.assertEqual({use for use in every if use in text}, uses)
            self.assertIn("def call(self, x):", text)
            self.assertEqual(
                "return keras.MaskedTensor(values, mask)" in text,
                override in uses,
            )
        self.assertTrue(telling.reads_attribute(reads))

    def test_none_without_a_mask(self):
        cls = one_old(flag=True)
        self.assertEmpty(self.caught(cls(), old.X))
        self.assertEmpty(self.caught(cls(), layers.Input((4, 3))))
        # Which does not use up the one that is due.
        self.assertLen(self.caught(cls(), self.X), 1)

    def test_none_for_layers_of_keras(self):
        for layer in (
            layers.Masking(),
            layers.LSTM(2),
            layers.TimeDistributed(layers.Dense(2)),
            layers.Bidirectional(layers.LSTM(2)),
            layers.Lambda(lambda x: x, mask=lambda x, mask: mask),
            models.Sequential([layers.Masking(), layers.Dense(2)]),
        ):
            self.assertEmpty(self.caught(layer, self.X), layer.name)

    def test_an_error_made_of_it_comes_each_time(self):
        cls = one_old(flag=True)
        for _ in range(2):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with pytest.raises(DeprecationWarning):
                    cls()(self.X)

    def shown(self, module, base_module=None):
        """What Python's default filters show of a class in a module."""
        old_one = one_old(flag=True)
        old_one.__module__ = base_module or module

        def compute_mask(self, x, mask=None):
            return mask

        cls = type(old_one)("Old", (old_one,), {})
        (cls if base_module is None else old_one).compute_mask = compute_mask
        cls.__module__ = module
        with warnings.catch_warnings(record=True) as found:
            warnings.resetwarnings()
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings(
                "default", category=DeprecationWarning, module="__main__"
            )
            cls()(self.X)
        return len(found)

    def test_only_its_author_sees_the_warning_of_a_package(self):
        self.assertEqual(self.shown("__main__"), 1)
        self.assertEqual(self.shown("package.layers"), 0)
        # The lines are those of the base.
        self.assertEqual(self.shown("__main__", "package.layers"), 0)

    def test_the_line_that_sets_the_flag(self):
        cls = one_old()
        layer = cls()
        layer.supports_masking = True
        line = sys._getframe().f_lineno - 1
        (found,) = self.caught(layer, self.X)
        self.assertEqual((found.filename, found.lineno), (__file__, line))


class WhereTheMaskEndsTest(testing.TestCase):
    X = backend.MaskedTensor(old.X, old.MASK)

    def on_both(self, layer):
        """What it makes of a masked tensor, and of a symbolic one."""
        return layer(self.X), layer(layers.Input((4, 3), mask_shape=(4,)))

    @parameterized.parameters(False, True)
    def test_a_mask_of_another_shape_is_refused(self, symbolic):
        def compute_mask(self, x, mask=None):
            return mask

        layer = one_old(lambda self, x: x[:, 1:], compute_mask)(name="culprit")
        x = layers.Input((4, 3), mask_shape=(4,)) if symbolic else self.X
        batch = None if symbolic else 2
        with self.assertRaises(ValueError) as info:
            layer(x)
        for words in (
            "`Old.compute_mask()` of layer 'culprit' returned a mask",
            f"of shape {(batch, 4)}",
            f"of shape {(batch, 3, 3)}",
            "or None to end it",
        ):
            self.assertIn(words, str(info.exception))

    def test_a_flag_alone_keeps_no_mask_of_axes_that_are_gone(self):
        cls = one_old(lambda self, x: ops.sum(x, axis=1), flag=True)
        for y in self.on_both(cls()):
            self.assertFalse(ops.is_masked(y))
            self.assertIsNone(ops.get_mask(y))

    def test_all_outputs_that_an_inherited_mask_fits_get_it(self):
        def call(self, x):
            state = ops.mean(x, axis=1)
            return {
                "a": ops.tanh(x),
                "b": ops.expand_dims(x, -1),
                "c": x[:, 1:],
                # Of as many units as there are steps.
                "d": ops.concatenate([state, state[:, :1]], axis=-1),
            }

        for y in self.on_both(one_old(call, flag=True)()):
            masked = [name for name in y if ops.is_masked(y[name])]
            self.assertEqual(masked, ["a", "b"])

    @parameterized.parameters("int32", "float32", "bool")
    def test_the_form_of_a_mask_comes_back(self, dtype):
        """Through layers of Keras, and whatever is known of the sizes."""
        seen = []

        def call(self, x, mask=None):
            seen.append(
                (tuple(mask.shape), backend.standardize_dtype(mask.dtype))
            )
            return x * ops.cast(mask, x.dtype)

        def compute_mask(self, x, mask=None):
            return ops.cast(x[..., -1:], dtype)

        first = one_old(compute_mask=compute_mask)()
        second = one_old(call, flag=True)()

        def run(x):
            return second(layers.Dropout(0.5)(layers.ReLU()(first(x))))

        y = run(old.NODES)
        self.assertEqual(seen.pop(), ((2, 3, 1), dtype))
        self.assertAllEqual(y.mask, old.NODES[..., -1] > 0)
        self.assertEqual(backend.standardize_dtype(y.dtype), "float32")
        x = layers.Input((None, 3))
        symbolic = run(x)
        self.assertEqual(symbolic._mask_spec.shape, (None, None))
        self.assertEqual(symbolic.shape, (None, None, 3))
        for shape, found in seen:
            self.assertEqual((len(shape), shape[-1], found), (3, 1, dtype))
        found = models.Model(x, symbolic)(old.NODES)
        self.assertAllClose(found.values, y.values)

    def test_compute_mask_counts_for_a_layer_that_returns_its_input(self):
        """Upstream takes the mask that is still on the tensor."""
        cls = one_old(compute_mask=lambda self, x, mask=None: None)
        for y in self.on_both(cls()):
            self.assertFalse(ops.is_masked(y))
        cls = one_old(
            compute_mask=lambda self, x, mask=None: ops.logical_not(mask)
        )
        eager, symbolic = self.on_both(cls())
        self.assertAllEqual(eager.mask, ~old.MASK)
        self.assertTrue(ops.is_masked(symbolic))

    def test_a_subclass_that_ends_the_mask_of_its_base(self):
        class Plain(layers.Embedding):
            def compute_mask(self, ids, mask=None):
                return None

        layer = Plain(5, 3, mask_zero=True)
        for ids in (old.IDS, layers.Input((4,), dtype="int32")):
            self.assertFalse(ops.is_masked(layer(ids)))

    def test_a_mask_that_is_masked_is_valid_where_both_are(self):
        x = layers.Masking()(old.X)
        mask = ops.not_equal(x[:, :, 0], old.X[0, 0, 0])
        wanted = old.MASK & (old.X[:, :, 0] != old.X[0, 0, 0])
        lstm = layers.LSTM(2, return_sequences=True)
        old_one = old.Centered()
        for layer in (lstm, old_one):
            found = layer(old.X, mask=mask)
            expected = layer(old.X, mask=ops.convert_to_tensor(wanted))
            values = backend.convert_to_numpy(expected.values)
            self.assertMaskedClose(found, values, wanted)
        pooling = layers.GlobalAveragePooling1D()
        self.assertAllClose(
            pooling(old.X, mask=mask),
            pooling(old.X, mask=ops.convert_to_tensor(wanted)),
        )

    def test_nothing_is_left_on_the_tensors(self):
        plain = self.X.values
        for make in (old.Tanh, old.Centered, old.ClearsMask, old.HangsMask):
            layer = make()
            y = layer(self.X)
            y = getattr(y, "values", y) if ops.is_masked(y) else y
            for x in (plain, y):
                self.assertIsNone(backend.get_keras_mask(x))
            self.assertAllEqual(self.X.mask, old.MASK)
