"""Runs every check of the repository, as `pip_build.py --test` asks for.

    python integration_tests/run_all.py [--backend jax]

Composes the fork, checks its lock, its style and its types, runs our own tests
on four backends, then upstream's tests of what we changed: on PyTorch what
trains, the center of it on JAX, too, on NumPy the rest. With `--backend`, what
runs on that one alone; the first three go with NumPy. The last line of the
output is `N passed, N failed, N skipped`.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

REPO = Path(__file__).resolve().parents[1]
sys.path.append(str(REPO))

import pip_build  # noqa: E402

UPSTREAM = pip_build.UPSTREAM
# Where the fork is composed to: not in `build` for an older release.
BUILD = pip_build.BUILD.relative_to(REPO).as_posix()
OTHER_BACKENDS = ("jax", "torch")
OWN_BACKENDS = ("numpy", "jax", "tensorflow", "torch")
# Most of what is compiled runs once: that takes longer than it could save.
XLA_FLAGS = (
    "--xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_parallel_codegen_split_count=1"
)
# Upstream's tests of these run always (some for what they found once), those of
# other modules when the overlay touches the module.
CENTRAL = (
    "layers/core",
    "layers/merging",
    "layers/preprocessing/index_lookup",
    "losses",
    "metrics",
    "models",
    "ops/function",
    "ops/operation",
    "ops/ops",
)
TRAIN_NOTHING = (
    "backend/common",
    "layers/merging",
    "layers/preprocessing/",
    "losses",
    "metrics",
    "ops/",
)

# What trains and is central, which JAX runs besides PyTorch.
ON_JAX = (
    "backend/jax/core",
    "backend/jax/trainer",
    "layers/core",
    "layers/layer",
    "models",
    "trainers/trainer",
)

console = Console()


def main():
    """Runs the steps one by one; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", choices=OWN_BACKENDS)
    only = parser.parse_args().backend
    rows = []
    # A generator, for some steps depend on what an earlier one composed.
    for name, backend, command in steps():
        if only not in (None, backend) and name != "compose":
            continue
        console.rule(name)
        started = time.monotonic()
        status, last_line = stream(command, backend)
        counts = count(status, last_line)
        rows.append((name, *counts, time.monotonic() - started))
        if name == "compose" and status:
            break
    print_table(rows)
    passed, failed, skipped = (sum(row[i] for row in rows) for i in (1, 2, 3))
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return int(failed > 0)


def steps():
    """Yields the name, the backend and the command of each step."""
    build = [sys.executable, "pip_build.py"]
    ruff = [sys.executable, "-m", "ruff"]
    yield "compose", "numpy", build
    yield "lock", "numpy", [*build, "--check"]
    yield "ruff check", "numpy", [*ruff, "check", "."]
    yield "ruff format", "numpy", [*ruff, "format", "--check", "."]
    if pip_build.RELEASE == pip_build.DEFAULT:
        yield "types", "numpy", [sys.executable, "-m", "mypy"]
    pytest = [sys.executable, "-m", "pytest", "-q", "-n", "2"]
    pytest += ["--dist", "worksteal"]
    if pip_build.RELEASE != pip_build.DEFAULT:
        # Its wheel ships no tests, and upstream's of the default differ.
        for backend in OTHER_BACKENDS:
            yield f"own tests, {backend}", backend, [*pytest, *overlay_tests()]
        return
    for backend in OWN_BACKENDS:
        tests = own_tests(backend)
        yield f"own tests, {backend}", backend, [*pytest, *tests]
    run = [sys.executable, "integration_tests/upstream/run.py", "--paths"]
    for backend, paths in upstream_paths().items():
        yield f"upstream's tests, {backend}", backend, [*run, *paths]


def own_tests(backend):
    """Returns the tests that upstream has no file of.

    Those that change an upstream file run with upstream's tests, and on
    TensorFlow, or NumPy, what trains. The builder's do not depend on the
    backend, and the guides train on PyTorch. Examples run on all.
    """
    guides = (
        "guide",
        "guide_ops",
        "guide_migrating",
        "guide_speaker",
        "composite_guide",
        "guide_tables",
        "guide_packed",
    )
    tests = ["integration_tests/examples_test.py"]
    if backend == "torch":
        tests += [f"integration_tests/{name}_test.py" for name in guides]
    if backend == "numpy":
        tests = ["integration_tests"]
    run_later = upstream_paths()["numpy"]
    if backend in ("jax", "torch"):
        run_later = changed_modules()
    for path in sorted((REPO / "keras").rglob("*_test.py")):
        name = path.relative_to(REPO / "keras").as_posix()
        module = name.removeprefix("src/").removesuffix("_test.py")
        is_of_upstream = (UPSTREAM / "keras" / name).exists()
        if not is_of_upstream or not any(
            f"{module}/".startswith(f"{later}/") for later in run_later
        ):
            tests.append(f"{BUILD}/keras/{name}")
    return tests


def overlay_tests():
    """Returns our own tests, as they are composed for another release."""
    files = sorted(path for path in (REPO / "keras").rglob("*_test.py"))
    names = [path.relative_to(REPO).as_posix() for path in files]
    return [
        f"{BUILD}/{name}" for name in names if (REPO / BUILD / name).exists()
    ]


def upstream_paths():
    """Returns which of upstream's tests run on which backend.

    Those that train nothing run on NumPy, which compiles nothing, the others
    on PyTorch, and what is central on JAX, too.
    """
    paths = [*CENTRAL, *changed_modules()]
    numpy = [path for path in paths if path.startswith(TRAIN_NOTHING)]
    others = [path for path in paths if path not in numpy]
    jax = [path for path in others if path in ON_JAX]
    return {"jax": jax, "torch": others, "numpy": numpy}


def changed_modules():
    """Returns the overlaid modules that have a test file upstream."""
    source = REPO / "keras" / "src"
    modules = {
        path.relative_to(source).as_posix().removesuffix(ending)
        for path in source.rglob("*.py")
        for ending in ("_test.py", ".py")
        if path.name.endswith(ending)
    }
    tests = UPSTREAM / "keras" / "src"
    return sorted(m for m in modules if (tests / f"{m}_test.py").exists())


def stream(command, backend):
    """Runs a command; returns its status and the last line it printed."""
    env = os.environ | {"KERAS_BACKEND": backend, "PYTHONUNBUFFERED": "1"}
    if backend == "jax":
        env.setdefault("XLA_FLAGS", XLA_FLAGS)
        # What one worker compiles, the other one need not.
        env |= {
            "JAX_COMPILATION_CACHE_DIR": str(REPO / "build" / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }
    process = subprocess.Popen(
        command,
        cwd=REPO,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    tail = b""
    # By the piece and not by the line: pytest shows its progress in dots.
    while piece := os.read(process.stdout.fileno(), 4096):
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        tail = (tail + piece)[-1000:]
    lines = tail.decode(errors="replace").strip().splitlines()
    return process.wait(), lines[-1] if lines else ""


def count(status, last_line):
    """Returns how many passed, failed and were skipped in one step.

    A step that counts nothing is one check, and a step that stops with an
    error has failed, whatever it counted.
    """
    found = {kind: int(n) for n, kind in re.findall(r"(\d+) (\w+)", last_line)}
    failed = found.get("failed", 0) + found.get("errors", found.get("error", 0))
    if status:
        failed = max(failed, 1)
    passed = found.get("passed", 0 if status else 1)
    return passed, failed, found.get("skipped", 0)


def print_table(rows):
    table = Table("step", title="all checks")
    for column in ("passed", "failed", "skipped", "seconds"):
        table.add_column(column, justify="right")
    for name, *counts, seconds in rows:
        style = "red" if counts[1] else None
        table.add_row(name, *map(str, counts), f"{seconds:.0f}", style=style)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
