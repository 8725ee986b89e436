"""Composes the fork when needed, and lets the tests import it as `keras`."""

import os
import re
import sys

import pytest

try:
    # Importing TensorFlow before PyTorch can crash the process.
    import torch  # noqa: F401
except ImportError:
    pass

ROOT = os.path.dirname(os.path.abspath(__file__))
sys.path.append(ROOT)

import pip_build  # noqa: E402
from patchset import tree  # noqa: E402

BUILD = str(pip_build.BUILD)
BACKEND = os.environ.setdefault("KERAS_BACKEND", "jax")

from integration_tests.upstream import faster  # noqa: E402

SEVERAL_DEVICES = "device_count" in os.environ.get("XLA_FLAGS", "")

# The overlay's tests run where they are composed to, and from nowhere else.
collect_ignore = ["keras", "build"]

# Upstream's tests say `from conftest import skip_if_backend`.
sys.modules["conftest"] = sys.modules[__name__]


def skip_if_backend(given_backend, reason):
    """Returns the mark that skips a test on one backend."""
    return pytest.mark.skipif(BACKEND == given_backend, reason=reason)


def pytest_configure(config):
    config.pluginmanager.register(faster)
    for marker in (
        "requires_trainable_backend: the backend must be able to train",
        "multi_device: needs several devices",
    ):
        config.addinivalue_line("markers", marker)
    try:
        pip_build.compose()
    except pip_build.PatchError as e:
        raise pytest.UsageError(str(e)) from None
    # Before the repository's root, whose `keras/` is no package by itself.
    sys.path.insert(0, BUILD)
    if config.args_source == pytest.Config.ArgsSource.INVOCATION_DIR:
        if os.path.samefile(config.invocation_params.dir, ROOT):
            config.args = _own_tests()
    config.args = [_composed(argument) for argument in config.args]


def _own_tests():
    """Returns what `pytest` alone runs: our tests, and those we changed."""
    overlay = [p for p in tree.files_of(ROOT) if p.endswith("_test.py")]
    return ["integration_tests", *(os.path.join(BUILD, p) for p in overlay)]


def _composed(argument):
    """Points `keras/src/x_test.py::Test` to the composed file."""
    path = os.path.relpath(os.path.abspath(argument), ROOT)
    if path.partition(os.sep)[0] == "keras":
        return os.path.join(BUILD, path)
    return argument


def pytest_collectstart():
    """Imports Keras before pytest imports a test file by its path.

    For a test in a package that is not imported yet, pytest runs the
    `__init__.py` of each package above it, and a second time those that the
    outermost one had imported: there would be two classes `Variable`.
    """
    import keras

    assert keras.__file__.startswith(BUILD), keras.__file__
    keras.config.disable_traceback_filtering()


# Of what is masked nothing may warn; where drawn numbers are compared with
# those of plain tensors, these do.
STRICT = re.compile(
    r"keras/src/(.+/)?masked_\w+_test\.py$|"
    r"keras/src/masking/(?!properties)(.+/)?\w+_test\.py$"
)
NOT_OURS = (
    # Upstream's NumPy backend says so of each gradient function.
    "ignore:`custom_gradient` for the numpy backend",
    # Its sigmoid of a large negative number is 0 by way of an infinity.
    "ignore:overflow encountered in exp",
    # JAX has no 64 bits unless it is asked for them, and casts by way of NumPy.
    "ignore:Explicitly requested dtype",
    "ignore:overflow encountered in cast",
    # PyTorch of what upstream asks of it, of a type that tests compare with,
    # and of functions that remember.
    "ignore:The use of `x.T` on tensors",
    "ignore:Tensor.T is deprecated",
    "ignore:Using torch.cross without",
    "ignore:The PyTorch API of MaskedTensors",
    "ignore:Dynamo detected a call to a `functools.lru_cache`",
    # Of what upstream writes to, in Keras 3.14.
    "ignore:Using a non-tuple sequence for multidimensional indexing",
    # Its compiler of tensors on which it goes on after a break.
    r"ignore:The \.grad attribute of a Tensor that is not a leaf",
    # Plain numbers: of 0, of too small ones, a row of zeros in half precision.
    "ignore:divide by zero encountered in",
    "ignore:invalid value encountered in arccosh",
    "ignore:invalid value encountered in multiply:RuntimeWarning:"
    "keras.src.ops.nn",
    # Upstream's losses, metrics and `corrcoef`, where nothing varies or counts.
    "ignore::RuntimeWarning:keras.src.losses.losses",
    "ignore::RuntimeWarning:keras.src.metrics.correlation_metrics",
    *(
        f"ignore:invalid value encountered in divide:RuntimeWarning:{module}"
        for module in (
            "keras.src.backend.numpy.nn",
            "keras.src.backend.numpy.numpy",
            "numpy.lib._function_base_impl",
        )
    ),
    # Two neighbours that are infinite, as in NumPy's own quantiles.
    "ignore:invalid value encountered in subtract:RuntimeWarning:"
    "keras.src.masking.rules.order",
    # What is asked for: an argument, three batches in steps of two, a list of
    # one input, a window, a setting.
    "ignore:You passed `rms_scaling=True`",
    "ignore:Your input ran out of data",
    "ignore:The structure of `inputs` doesn't match",
    # It comes before the error of a `call` that fails.
    "ignore:Layer '.*' looks like it has unbuilt state",
    "ignore:NOLA condition failed",
    "ignore:.* cannot take this masked tensor",
    'ignore:.* with `padding="same"` and strides',
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if STRICT.search(item.path.as_posix()):
            # Put in front: what comes after it, a test's own too, beats it.
            for line in (*NOT_OURS, "error"):
                item.add_marker(pytest.mark.filterwarnings(line), append=False)
        if "requires_trainable_backend" in item.keywords:
            if BACKEND in ("numpy", "openvino"):
                reason = f"the {BACKEND} backend cannot train"
                item.add_marker(pytest.mark.skip(reason=reason))
        if "multi_device" in item.keywords and not SEVERAL_DEVICES:
            item.add_marker(pytest.mark.skip(reason="needs several devices"))
