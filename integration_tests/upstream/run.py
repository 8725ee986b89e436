"""Runs upstream's own tests on the composed tree, or on pristine upstream.

    python integration_tests/upstream/run.py --backend jax
    python integration_tests/upstream/run.py --backend torch --paths losses
    python integration_tests/upstream/run.py --backend jax --baseline --record

Exits with status 1 when a test fails that passes upstream, or when one is
gone. `baseline_<backend>.json` holds what upstream does on a plain CPU
machine, with the reason for each group of failures.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[1]
sys.path.append(str(REPO))

import outcomes as oc  # noqa: E402
import report  # noqa: E402
from rich.console import Console  # noqa: E402

import pip_build  # noqa: E402

# Workers only grow (compiled functions stay cached), so each chunk of this
# many bytes of test source gets fresh ones.
CHUNK_BYTES = 500_000
# What upstream's downloads fail with; there is no use in trying again.
NO_NETWORK = "URL fetch failure"
# scikit-learn writes addresses into the names of its checks, so that two
# workers never agree on what there is to run.
ONE_WORKER = "keras/src/wrappers/sklearn_test.py"
# The devices into which JAX splits the CPU for the tests that need several.
DEVICES = 8

console = Console()


def main():
    args = parse_args()
    tree = args.tree or composed(args.baseline)
    files = select_files(tree, args.paths)
    side = "baseline" if args.baseline else "fork"
    name = f"upstream_{side}_{args.backend}.jsonl"
    results = (args.results or pip_build.BUILD / name).resolve()
    if not args.report:
        with tempfile.TemporaryDirectory() as copy:
            # Composing anew in the middle of a run would mix two versions.
            shutil.copytree(tree / "keras", Path(copy, "keras"))
            run_files(Path(copy).resolve(), files, args, results)
    seconds = oc.wall_seconds(results)
    outcomes = [o for o in oc.read(results).values() if o.file in files]
    baseline_path = HERE / f"baseline_{args.backend}.json"
    baseline = oc.read_baseline(baseline_path)
    overlaid = {} if args.baseline else overlaid_tests()
    title = f"upstream's tests, {side} on {args.backend}"
    report.print_table(console, title, outcomes, overlaid, baseline)
    console.print(f"{len(files)} files in {seconds} s, results in {results}")
    if args.record:
        done = oc.finished_chunks(results)
        if any(c not in done for c in split(tree, files, args.backend)):
            sys.exit(f"{results} holds half a run; finish it with --resume.")
        facts = report.facts(args.backend, args.n, seconds)
        recorded = oc.baseline_of(outcomes, facts, baseline)
        baseline_path.write_text(json.dumps(recorded, indent=1) + "\n")
        console.print(f"Recorded {baseline_path}")
        return 0
    if not args.baseline:
        # A whole file can be gone as well.
        files |= select_files(pip_build.UPSTREAM, args.paths)
    return report.judge(console, outcomes, baseline, files, overlaid)


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--backend",
        default=os.environ.get("KERAS_BACKEND", "tensorflow"),
        choices=("numpy", "jax", "tensorflow", "torch", "openvino"),
    )
    parser.add_argument(
        "--paths",
        nargs="+",
        help="folders or modules under keras/src, such as losses or "
        "ops/operation; all of them by default",
    )
    parser.add_argument("-n", type=int, default=2, help="worker processes")
    parser.add_argument(
        "--baseline", action="store_true", help="run pristine upstream"
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="write the outcome into the baseline file; keeps the reasons "
        "that stand there",
    )
    parser.add_argument(
        "--tree", type=Path, help="folder that holds the keras/ to test"
    )
    parser.add_argument("--results", type=Path, help="file of JSON lines")
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume",
        action="store_true",
        help="leave out the chunks that a killed run had finished",
    )
    again.add_argument(
        "--report",
        action="store_true",
        help="run nothing, report on the results that are there",
    )
    args = parser.parse_args()
    if args.record and not args.baseline:
        parser.error("--record needs --baseline")
    return args


def composed(pristine):
    """Returns the folder of the fork's `keras/`, or of upstream's."""
    pip_build.compose()
    return pip_build.UPSTREAM if pristine else pip_build.BUILD


def select_files(tree, paths):
    """Returns the test files under `paths`, relative to the tree."""
    source = tree / "keras" / "src"
    if not source.is_dir():
        sys.exit(f"There is no keras/src in {tree}: --tree must hold one.")
    files = set()
    for path in paths or ["."]:
        path = path.removesuffix(".py").removesuffix("_test")
        found = sorted((source / path).rglob("*_test.py"))
        beside = source / f"{path}_test.py"
        found += [beside] if beside.exists() else []
        if not found:
            sys.exit(f"No test file for --paths {path} in {source}.")
        files |= {file.relative_to(tree).as_posix() for file in found}
    return files


def run_files(tree, files, args, results):
    """Runs the files in chunks, and what fails a second time, alone."""
    done = []
    if args.resume and results.exists():
        oc.drop_unfinished(results)
        done = oc.finished_chunks(results)
    else:
        results.parent.mkdir(parents=True, exist_ok=True)
        results.write_text("")
    known = ()
    if not args.baseline:
        baseline = oc.read_baseline(HERE / f"baseline_{args.backend}.json")
        known = oc.known_failures(baseline)
    chunks = split(tree, files, args.backend)
    for number, (chunk, devices) in enumerate(chunks, 1):
        if [chunk, devices] in done:
            continue
        console.rule(f"chunk {number} of {len(chunks)}, {len(chunk)} files")
        before, started = results.stat().st_size, time.monotonic()
        start_pytest(tree, chunk, results, args, devices)
        failed = [
            outcome
            for outcome in oc.read(results, before).values()
            if outcome.outcome == "failed"
            and outcome.id not in known
            and NO_NETWORK not in outcome.why
        ]
        if any(outcome.file not in chunk for outcome in failed):
            sys.exit("pytest ran no tests of this chunk; see its output above.")
        if failed:
            console.rule(f"{len(failed)} failures again, alone")
            again = sorted({outcome.file for outcome in failed})
            only = [outcome.id for outcome in failed]
            start_pytest(tree, again, results, args, devices, only)
        seconds = round(time.monotonic() - started)
        end = {"chunk": [chunk, devices], "seconds": seconds}
        with open(results, "a") as file:
            file.write(json.dumps(end) + "\n")


def overlaid_tests():
    """Returns what the overlay does to upstream's tests, by file and name."""
    changes = pip_build.plan().changes
    return {
        (change.path, change.name): change.kind
        for change in changes
        if change.path.endswith("_test.py")
    }


def split(tree, files, backend):
    """Returns chunks `[files, number of devices]` of about the same size."""
    sizes = {file: (tree / file).stat().st_size for file in files}
    count = math.ceil(sum(sizes.values()) / CHUNK_BYTES)
    chunks = [[] for _ in range(count)]
    for file in sorted(files, key=lambda f: (-sizes[f], f)):
        min(chunks, key=lambda c: sum(sizes[f] for f in c)).append(file)
    result = [[sorted({*chunk} - {ONE_WORKER}), 1] for chunk in chunks]
    result += [[[ONE_WORKER], 1]] if ONE_WORKER in files else []
    if backend == "jax":
        # Only JAX can split a CPU into devices.
        several = [f for f in files if "multi_device" in (tree / f).read_text()]
        result += [[sorted(several), DEVICES]] if several else []
    return [part for part in result if part[0]]


def start_pytest(tree, files, results, args, devices, only=()):
    """Runs test files in fresh processes, from an empty folder.

    With `only`, the ids of tests, it runs these, in one process.
    """
    workers = 1 if only or ONE_WORKER in files else args.n
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-P", "-m", "pytest"]
        command += [tree / file for file in files]
        command += ["-c", HERE / "upstream.ini", f"--rootdir={tree}"]
        command += ["-p", "upstream_plugin", "-p", "faster"]
        command += ["-p", "no:cacheprovider"]
        command += ["--noconftest", "--continue-on-collection-errors", "-q"]
        command += ["--tb=short" if only else "--tb=no"]
        command += ["-n", str(workers), "--dist", "worksteal"]
        command += ["--disable-warnings", "-o", f"cache_dir={scratch}"]
        if devices > 1:
            command += ["-m", "multi_device"]
        env = environment(tree, results, args.backend, scratch)
        env["OMP_NUM_THREADS"] = str(max(1, os.cpu_count() // workers))
        env["UPSTREAM_RERUN"] = ""
        if only:
            # Too many for a command line, some with odd characters.
            listed = Path(scratch, "only.txt")
            listed.write_text("\n".join(only))
            env["UPSTREAM_RERUN"] = str(listed)
        if devices > 1:
            flag = "--xla_force_host_platform_device_count"
            env["XLA_FLAGS"] = f"{flag}={devices}"
        status = subprocess.run(command, cwd=scratch, env=env).returncode
    if status not in (0, 1, 5):
        sys.exit(f"pytest stopped with status {status}; see its output above.")


def environment(tree, results, backend, scratch):
    """Returns the variables under which `keras` is the tree under test."""
    return os.environ | {
        "KERAS_BACKEND": backend,
        "KERAS_HOME": scratch,
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": f"{tree}{os.pathsep}{HERE}",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "UPSTREAM_RESULTS": str(results),
        "UPSTREAM_TREE": str(tree),
    }


if __name__ == "__main__":
    sys.exit(main())
