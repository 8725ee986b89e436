"""What run.py prints: the table by area, and the differences."""

import os
import platform
from importlib.metadata import version

import outcomes as oc
from rich.table import Table

PACKAGES = ("numpy", "jax", "tensorflow-cpu", "torch")
COLUMNS = ("passed", "failed", "skipped", "overlaid", "seconds", "baseline")


def print_table(console, title, outcomes, overlaid, baseline):
    """Prints the outcomes by area, beside what passes upstream."""
    table = Table(title=title)
    table.add_column("area", overflow="fold")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    areas = {}
    for outcome in outcomes:
        areas.setdefault(_area_of(outcome.file), []).append(outcome)
    for area, rows in sorted(areas.items()):
        table.add_row(area, *_cells(rows, overlaid, baseline))
    table.add_section()
    table.add_row("all", *_cells(outcomes, overlaid, baseline), style="bold")
    console.print(table)


def _area_of(file):
    return "/".join(file.split("/")[2:-1]) or "."


def _cells(outcomes, overlaid, baseline):
    count = oc.totals(outcomes)
    upstream = "-"
    if baseline:
        files = {o.file for o in outcomes}
        cases = [baseline["passed"].get(file, {}).values() for file in files]
        upstream = str(sum(map(sum, cases)))
    return (
        str(count["passed"]),
        str(count["failed"]),
        str(count["skipped"] + count["xfailed"]),
        str(sum(o.key in overlaid for o in outcomes)),
        str(count["seconds"]),
        upstream,
    )


def judge(console, outcomes, baseline, files, overlaid):
    """Prints what differs from the baseline; returns the exit status.

    A test that fails, or is gone, fails the run; one that upstream fails too
    does not.
    """
    for outcome in outcomes:
        if outcome.flaky:
            console.print(f"flaky: {outcome.id}", markup=False, soft_wrap=True)
    if baseline is None:
        console.print("There is no baseline yet: upstream counts as faultless.")
        baseline = {"failures": [], "passed": {}}
    added, missing, fixed = oc.compare(outcomes, baseline, files, overlaid)
    for outcome in added:
        line = f"fails here, not upstream: {outcome.id}\n    {outcome.why}"
        console.print(line, style="red", markup=False, soft_wrap=True)
    for line in missing:
        console.print(
            f"gone or skipped: {line}",
            style="red",
            markup=False,
            soft_wrap=True,
        )
    for test_id in fixed:
        console.print(
            f"fails upstream, passes here: {test_id}",
            markup=False,
            soft_wrap=True,
        )
    shared = oc.known_failures(baseline) & {
        o.id for o in outcomes if o.outcome == "failed"
    }
    console.print(f"{len(shared)} fail upstream too, {len(fixed)} no more.")
    count = oc.totals(outcomes)
    failed = len(added) + len(missing)
    # The last line is for programs: what fails upstream too is no failure.
    print(
        f"{count['passed']} passed, {failed} failed, "
        f"{count['skipped'] + count['xfailed']} skipped"
    )
    return int(failed > 0)


def facts(backend, workers, wall_seconds):
    """Returns what was run, and on what."""
    return {
        "upstream": "keras 3.15.1",
        "backend": backend,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "machine": f"{os.cpu_count()} cores, no accelerator",
        "workers": workers,
        "wall_seconds": wall_seconds,
    }
