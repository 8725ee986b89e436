"""Composes the fork on each release that has a lock, and trains with it."""

import itertools
import os
import subprocess
import sys

import pytest

import pip_build
from integration_tests import run_all
from patchset import locks

LOCKS = [locks.read(pip_build.LOCKS, v) for v in locks.known(pip_build.LOCKS)]
# One with something open is being followed, and does not compose yet.
OTHERS = [
    lock.version
    for lock in LOCKS
    if lock.version != pip_build.DEFAULT and not lock.open
]
ROOT = str(pip_build.ROOT)


def run(command, **env):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("version", OTHERS)
def test_a_release_composes_as_it_is_locked(version):
    printed = run(["pip_build.py", "--for", version, "--check"])
    count = len(locks.read(pip_build.LOCKS, version).definitions)
    assert f"{count} definitions as locked, nothing copied" in printed


# In turns: the engines differ less between two releases than releases do. The
# last release is to come, and these engines run none of its other tests.
@pytest.mark.parametrize(
    "version, backend",
    [
        *zip(OTHERS, itertools.cycle(["jax", "torch"])),
        *itertools.product(OTHERS[-1:], ["tensorflow", "numpy"]),
    ],
)
def test_a_masked_model_trains_on_a_release(version, backend):
    run(["pip_build.py", "--for", version])
    run(
        ["-P", "integration_tests/smoke.py", f"{version}+masked.1"],
        KERAS_BACKEND=backend,
        XLA_FLAGS=run_all.XLA_FLAGS,
        PYTHONPATH=str(pip_build.folder_of(version)),
    )
