"""Pytest plugin that runs upstream's tests outside upstream's repository.

The wheel ships the tests but not the `conftest.py` they rely on. This plugin
stands in for it, and appends every outcome to a file of JSON lines.
"""

import inspect
import json
import os
import re
import sys
from pathlib import Path

import pytest

try:
    # Importing tensorflow before torch can crash the process.
    import torch  # noqa: F401
except ImportError:
    pass

BACKEND = os.environ["KERAS_BACKEND"]
TREE = os.environ["UPSTREAM_TREE"]
TESTS_PER_CACHE = 300
RERUN = os.environ["UPSTREAM_RERUN"]
# The ids to run again; all tests of the files when there are none.
ONLY = set(Path(RERUN).read_text().splitlines()) if RERUN else None
SEVERAL_DEVICES = "device_count" in os.environ.get("XLA_FLAGS", "")

_tests_done = 0

# Upstream's tests say `from conftest import skip_if_backend`.
sys.modules["conftest"] = sys.modules[__name__]


def skip_if_backend(given_backend, reason):
    """Returns the mark that skips a test on one backend."""
    return pytest.mark.skipif(BACKEND == given_backend, reason=reason)


def pytest_configure(config):
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(os.environ["UPSTREAM_RESULTS"]))


def pytest_collection_modifyitems(items):
    _check_tree()
    for item in items:
        # Parameters only lengthen the name of a method; the baseline counts
        # by the method as it is written in the source.
        method = inspect.unwrap(item.function).__name__
        owner = f"{item.cls.__name__}." if item.cls else ""
        item.user_properties.append(("method", owner + method))
        if "requires_trainable_backend" in item.keywords:
            cannot_train = BACKEND in ("numpy", "openvino")
            reason = f"the {BACKEND} backend cannot train"
            item.add_marker(pytest.mark.skipif(cannot_train, reason=reason))
        if "multi_device" in item.keywords and not SEVERAL_DEVICES:
            item.add_marker(pytest.mark.skip("needs several devices"))
    if ONLY:
        items[:] = [item for item in items if _id(item) in ONLY]


def _id(item_or_report):
    """Returns the test's id without addresses, which differ in each run."""
    return re.sub(r"0x[0-9a-f]{6,}", "0x", item_or_report.nodeid)


def pytest_runtest_teardown(nextitem):
    """Frees compiled functions now and then: JAX keeps all it ever made."""
    global _tests_done
    _tests_done += 1
    if _tests_done % TESTS_PER_CACHE == 0 and "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


def _check_tree():
    """Stops the run when `keras` is not the tree under test."""
    keras = sys.modules.get("keras")
    if keras and not os.path.realpath(keras.__file__).startswith(TREE):
        pytest.exit(
            f"The tests of {TREE} import another keras, {keras.__file__}. "
            "Start them with integration_tests/upstream/run.py.",
            returncode=3,
        )


class Recorder:
    """Appends one line for each outcome, so that a killed run loses none."""

    def __init__(self, path):
        self._path = path

    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            method = dict(report.user_properties).get("method")
            self._append(report, _outcome(report), method, report.duration)

    def pytest_collectreport(self, report):
        if report.outcome != "passed":
            self._append(report, report.outcome, None, 0.0)

    def _append(self, report, outcome, method, seconds):
        line = {
            "id": _id(report),
            "method": method,
            "outcome": outcome,
            "seconds": round(seconds, 3),
            "rerun": bool(RERUN),
            "why": "" if outcome == "passed" else _why(report),
        }
        with open(self._path, "a") as file:
            file.write(json.dumps(line) + "\n")


def _outcome(report):
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "passed"
    return report.outcome


def _why(report):
    """Returns the reason of a skip, or the first line of an error."""
    if hasattr(report, "wasxfail"):
        return report.wasxfail
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash else str(report.longrepr)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # A message of pytest's own (an import error) ends with what went wrong.
    first = 0 if crash else -1
    return lines[first][:300] if lines else ""
