"""Outcomes of upstream's tests: reading, recording and comparing them."""

import json
from collections import Counter
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

# When one test reports more than once (a sub-test, a teardown), the
# outcome that stands further right is the one that counts.
RANK = ("skipped", "xfailed", "passed", "failed")
UNEXPLAINED = "to be explained"
# Why upstream fails on a plain machine, by a part of the error's first line.
REASONS = {
    "URL fetch failure": (
        "no network: the pretrained weights or the data set are downloaded"
    ),
    "jax2onnx": (
        "jax2onnx is left out: it takes orbax-checkpoint back to 0.11, and "
        "upstream's test does not skip without it"
    ),
    "fixture missing": "upstream's wheel ships the test without its data file",
}


@dataclass
class Outcome:
    """What became of one test."""

    id: str
    method: str
    outcome: str
    seconds: float
    why: str
    flaky: bool = False

    @property
    def file(self):
        return self.id.split("::")[0]

    @property
    def key(self):
        return self.file, self.method


def read(path, start=0):
    """Reads a file of JSON lines into a dict from test id to `Outcome`.

    A test that failed and then passed when it was run again alone counts as
    passed, and is marked flaky.
    """
    first, again = {}, {}
    for line in Path(path).read_bytes()[start:].decode().splitlines():
        if _is_end(line):
            continue
        row = json.loads(line)
        results = again if row.pop("rerun") else first
        row["method"] = row["method"] or _method_of(row["id"])
        _merge(results, Outcome(**row))
    for test_id, outcome in again.items():
        outcome.flaky = outcome.outcome != "failed"
        first[test_id] = outcome
    return first


def finished_chunks(path):
    """Returns the chunks that a run has finished."""
    return [row["chunk"] for row in _ends(path)]


def wall_seconds(path):
    """Returns how long the finished chunks of a run took together."""
    return sum(row["seconds"] for row in _ends(path))


def _ends(path):
    lines = Path(path).read_text().splitlines()
    return [json.loads(line) for line in lines if _is_end(line)]


def _is_end(line):
    return line.startswith('{"chunk"')


def drop_unfinished(path):
    """Drops what a killed run left of the chunk that it was at."""
    lines = Path(path).read_text().splitlines()
    while lines and not _is_end(lines[-1]):
        lines.pop()
    Path(path).write_text("".join(f"{line}\n" for line in lines))


def _method_of(test_id):
    """Returns `Class.method` of a test that died before it could tell."""
    return ".".join(test_id.split("::")[1:])


def _merge(results, outcome):
    known = results.get(outcome.id)
    if known is None:
        results[outcome.id] = outcome
        return
    outcome.seconds += known.seconds
    if RANK.index(outcome.outcome) >= RANK.index(known.outcome):
        results[outcome.id] = outcome
    else:
        known.seconds = outcome.seconds


def totals(outcomes):
    """Returns the number of tests by outcome, and their seconds."""
    count = Counter(o.outcome for o in outcomes)
    seconds = sum(o.seconds for o in outcomes)
    return {kind: count[kind] for kind in RANK} | {"seconds": round(seconds)}


def baseline_of(outcomes, facts, old=None):
    """Returns the baseline that these outcomes of pristine upstream make.

    Args:
        outcomes: iterable of `Outcome`.
        facts: dict, what was run and where.
        old: the baseline recorded before, if any: its reasons are kept.
    """
    reasons = {
        test: group["reason"]
        for group in (old or {}).get("failures", [])
        if group["reason"] != UNEXPLAINED
        for test in group["tests"]
    }
    groups, passed, skips = defaultdict(dict), defaultdict(Counter), Counter()
    for outcome in sorted(outcomes, key=lambda o: o.id):
        if outcome.outcome == "failed":
            reason = reasons.get(outcome.id) or _explain(outcome.why)
            groups[reason][outcome.id] = outcome.why
        elif outcome.outcome == "passed":
            passed[outcome.file][outcome.method] += 1
        else:
            skips[outcome.why] += 1
    return {
        **facts,
        "totals": totals(outcomes),
        "flaky": sorted(o.id for o in outcomes if o.flaky),
        "failures": [
            {"reason": reason, "tests": tests}
            for reason, tests in sorted(groups.items())
        ],
        "skips": dict(skips.most_common()),
        "passed": passed,
    }


def _explain(why):
    known = (reason for part, reason in REASONS.items() if part in why)
    return next(known, UNEXPLAINED)


def read_baseline(path):
    """Returns the recorded baseline, or None when there is none yet."""
    return json.loads(path.read_text()) if path.exists() else None


def known_failures(baseline):
    """Returns the ids of the tests that fail upstream."""
    groups = baseline["failures"] if baseline else []
    return {test_id for group in groups for test_id in group["tests"]}


def compare(outcomes, baseline, files, overlaid):
    """Compares the fork's outcomes with the baseline.

    Args:
        outcomes: list of `Outcome`.
        baseline: dict that `baseline_of` made.
        files: set of the test files that were run.
        overlaid: dict from `(file, method)` of upstream's tests that the
            overlay touches to "deleted" or another word. How many cases a
            replaced test has is the fork's own business.

    Returns:
        Three lists: the outcomes that fail though upstream's do not, one
        line for each method with fewer passing cases than upstream, and the
        ids that fail upstream and pass now.
    """
    known = known_failures(baseline)
    added = [o for o in outcomes if o.outcome == "failed" and o.id not in known]
    fixed = [o.id for o in outcomes if o.outcome == "passed" and o.id in known]
    # A failure is reported as one; it is not missing as well.
    there = Counter(
        o.key for o in outcomes if o.outcome in ("passed", "failed")
    )
    missing = []
    for file in sorted(files & baseline["passed"].keys()):
        for method, cases in baseline["passed"][file].items():
            if (file, method) in overlaid:
                cases = int(overlaid[file, method] != "deleted")
            ran = there[file, method]
            if ran < cases:
                missing.append(f"{file}::{method}: {ran} of {cases} ran")
    return added, missing, fixed
