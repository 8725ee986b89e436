"""Runs the programs of this folder on the fork and upstream, and compares.

    python integration_tests/in_the_wild/run.py --backend torch
    python integration_tests/in_the_wild/run.py --backend jax NAME...

Prints what is wrong with each program, and exits with 1 if anything is.
"""

import argparse
import importlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

# Importing TensorFlow before PyTorch can crash the process.
try:
    import torch  # noqa: F401
except ImportError:
    pass

import numpy as np

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "build"
TREES = {"fork": BUILD, "upstream": BUILD / "upstream"}
MODULES = sorted(
    path.stem
    for path in HERE.glob("*.py")
    if path.stem not in ("__init__", "run", "wild", "in_the_wild_test")
)
# Rounding, of sums in another order.
CLOSE = {"rtol": 1e-3, "atol": 1e-4}


def programs():
    """Returns all programs by name. Imports Keras."""
    if str(HERE.parent) not in sys.path:
        sys.path.append(str(HERE.parent))
    for module in MODULES:
        importlib.import_module(f"{HERE.name}.{module}")
    return importlib.import_module(f"{HERE.name}.wild").PROGRAMS


def run_both(backend, names=()):
    """Runs programs on the fork and upstream, in a process each.

    Returns:
        `{"fork": {name: outcome}, "upstream": {name: outcome}}`, for outcomes
        see `run_one`.
    """
    with tempfile.TemporaryDirectory() as folder:
        started = {
            who: start(tree, backend, names, Path(folder, f"{who}.json"))
            for who, tree in TREES.items()
        }
        outcomes = {}
        for who, (process, file) in started.items():
            output, _ = process.communicate()
            if process.returncode:
                raise RuntimeError(f"On the {who}:\n{output[-4000:]}")
            outcomes[who] = json.loads(file.read_text())
    return outcomes


def start(tree, backend, names, file):
    env = os.environ | {
        "KERAS_BACKEND": backend,
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": str(tree),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_ENABLE_ONEDNN_OPTS": "0",
    }
    env.setdefault(
        "XLA_FLAGS",
        "--xla_backend_optimization_level=0 "
        "--xla_llvm_disable_expensive_passes=true",
    )
    command = [sys.executable, "-P", str(HERE / "run.py"), "--json", str(file)]
    process = subprocess.Popen(
        [*command, *names],
        cwd=file.parent,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return process, file


def run_one(program):
    """Runs a program with the Keras of this process.

    Returns:
        A dict with `results` (name: record), `right` (name: record), `warnings`
        (texts) and `error` (None, or the traceback).
    """
    import keras

    keras.utils.clear_session()
    # Not `set_random_seed`, which imports TensorFlow.
    random.seed(0)
    np.random.seed(0)
    keras.config.set_dtype_policy("float32")
    outcome = {"results": {}, "right": {}, "error": None}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            for name, *values in program.run():
                assert name not in outcome["results"], name
                for kind, value in zip(("results", "right"), values):
                    outcome[kind][name] = record(value)
        except Exception:
            outcome["error"] = traceback.format_exc()
    ignored = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
    outcome["warnings"] = sorted(
        {str(w.message) for w in caught if not issubclass(w.category, ignored)}
    )
    return outcome


def record(x):
    """A result as JSON can hold it; its mask is True where it is valid."""
    from in_the_wild.wild import FORK
    from keras import ops

    if x is None:
        return None
    mask = None
    if FORK and ops.is_masked(x):
        x, mask = x.values, np.asarray(ops.convert_to_numpy(x.mask))
        x = ops.convert_to_numpy(x)
    elif isinstance(x, np.ma.MaskedArray):
        x, mask = x.data, ~np.ma.getmaskarray(x)
    elif not isinstance(x, (np.ndarray, np.generic, str, tuple, int, float)):
        x = ops.convert_to_numpy(x)
    if isinstance(x, tuple):
        # A shape.
        x = [-1 if size is None else size for size in x]
    x = np.asarray(x)
    kind = str(x.dtype)
    if kind in ("bfloat16", "float16"):
        x = x.astype("float32")
    if mask is not None:
        mask = np.reshape(mask, mask.shape + (1,) * (x.ndim - mask.ndim))
        mask = np.broadcast_to(mask, x.shape).tolist()
    return {"values": x.tolist(), "dtype": kind, "mask": mask}


def faults(program, fork, upstream):
    """Returns what is wrong with a program, a text each."""
    if upstream["error"]:
        return [f"upstream does not run it:\n{upstream['error']}"]
    found = list(faults_upstream(program, upstream))
    if found:
        return found
    if program.refused:
        if not re.search(program.refused, fork["error"] or ""):
            return [f"no refusal that says so: {fork['error']}"]
    elif fork["error"]:
        return [f"upstream runs it, the fork does not:\n{fork['error']}"]
    found = []
    if fork["results"].keys() != upstream["results"].keys():
        if not program.refused:
            found.append("the results have other names upstream")
    for name in fork["results"]:
        what = (fork["results"][name], upstream["results"].get(name))
        right = (fork["right"].get(name), upstream["right"].get(name))
        reason = program.differs.get(name)
        found += [f"{name}: {x}" for x in compare(*what, *right, reason)]
    for name in program.differs.keys() - fork["results"].keys():
        found.append(f"`differs` names {name}, which is no result")
    return [*found, *false_warnings(program, fork, upstream)]


def faults_upstream(program, upstream):
    """Yields where upstream is not what the program says that it is."""
    for name, right in upstream["right"].items():
        why = apart(upstream["results"][name], right, masks=False)
        if name in program.differs and not why:
            reason = program.differs[name]
            yield f"{name}: upstream is right, and should not be: {reason}"
        if name not in program.differs and why:
            yield f"{name}: upstream is not right, {why}"


def compare(fork, upstream, right, right_upstream, reason):
    """Yields what is wrong with one result."""
    if right is not None and apart(right, right_upstream):
        # It has no padding, so both must agree.
        yield f"what is right depends on who is asked: {right} {right_upstream}"
    if right is None and reason:
        yield "differs, and what is right is not said"
    if right is not None and (why := apart(fork, right)):
        yield f"the fork is wrong, {why}"
    why = apart(fork, upstream, masks=False)
    if not reason and why:
        yield f"the fork and upstream differ, {why}"


def apart(found, expected, masks=True):
    """Returns how a record differs from another, or None.

    Values are compared where both are valid. With `masks`, the mask has to be
    the same, if the second one has a mask.
    """
    if found is None or expected is None:
        same = found is None and expected is None
        return None if same else f"{found} instead of {expected}"
    values, others = (np.array(x["values"]) for x in (found, expected))
    if values.shape != others.shape:
        return f"the shape is {values.shape} instead of {others.shape}"
    if found["dtype"] != expected["dtype"] and masks is False:
        return f"the dtype is {found['dtype']} instead of {expected['dtype']}"
    here, there = (
        np.ones(values.shape, bool)
        if x["mask"] is None
        else np.array(x["mask"])
        for x in (found, expected)
    )
    if masks and expected["mask"] is not None and (here != there).any():
        return f"the mask is {here.tolist()} instead of {there.tolist()}"
    both = here & there
    if values.size and not both.any():
        return "no entry is valid on both"
    values, others = values[both], others[both]
    if values.dtype.kind in "fc":
        same = np.allclose(values, others, **CLOSE, equal_nan=True)
    else:
        same = np.array_equal(values, others)
    return None if same else f"{values} instead of {others}"


def false_warnings(program, fork, upstream):
    """Yields what the fork warns of and upstream does not."""
    own = [
        text for text in fork["warnings"] if text not in upstream["warnings"]
    ]
    expected = program.warns
    if expected and not any(re.search(expected, text) for text in own):
        yield f"the fork does not warn of {expected!r}"
    for text in own:
        if not (expected and re.search(expected, text)):
            yield f"a warning that upstream does not give: {text}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="programs; all by default")
    parser.add_argument("--backend", default="torch")
    parser.add_argument(
        "--json",
        type=Path,
        help="run with the Keras that is on the path, and write the outcomes",
    )
    args = parser.parse_args()
    if args.json:
        known = programs()
        names = args.names or known
        outcomes = {name: run_one(known[name]) for name in names}
        args.json.write_text(json.dumps(outcomes))
        return 0
    outcomes = run_both(args.backend, args.names)
    # Only what the programs declare is asked for here.
    os.environ["KERAS_BACKEND"] = "numpy"
    sys.path.insert(0, str(BUILD))
    known, failed = programs(), 0
    for name, fork in outcomes["fork"].items():
        found = faults(known[name], fork, outcomes["upstream"][name])
        print("FAILED" if found else "ok", name, *found, sep="\n    ")
        failed += bool(found)
    print(f"{len(outcomes['fork'])} programs, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
