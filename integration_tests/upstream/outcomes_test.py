"""Tests of how outcomes are read and compared with the baseline."""

import json
import os
import sys

import pytest

# The runner is a script: its modules lie beside it, in no package.
sys.path.append(os.path.dirname(__file__))

import outcomes as oc  # noqa: E402

FILE = "keras/src/losses/loss_test.py"


def _row(name, outcome="passed", rerun=False, method=None):
    return {
        "id": f"{FILE}::LossTest::{name}",
        "method": method or f"LossTest.{name}",
        "outcome": outcome,
        "seconds": 1.0,
        "rerun": rerun,
        "why": "" if outcome == "passed" else "because",
    }


def _read(tmp_path, *rows):
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(oc.read(path).values())


def _compare(upstream, fork, overlaid=None):
    baseline = oc.baseline_of(upstream, {})
    return oc.compare(fork, baseline, {FILE}, overlaid or {})


def test_a_failing_teardown_fails_the_test(tmp_path):
    (outcome,) = _read(tmp_path, _row("test_a"), _row("test_a", "failed"))
    assert (outcome.outcome, outcome.seconds) == ("failed", 2.0)


def test_a_skipped_subtest_does_not_hide_a_pass(tmp_path):
    (outcome,) = _read(tmp_path, _row("test_a"), _row("test_a", "skipped"))
    assert outcome.outcome == "passed"


@pytest.mark.parametrize("again", ["passed", "failed"])
def test_a_rerun_decides_and_tells_flaky_from_broken(tmp_path, again):
    rows = _row("test_a", "failed"), _row("test_a", again, rerun=True)
    (outcome,) = _read(tmp_path, *rows)
    assert outcome.outcome == again
    assert outcome.flaky == (again == "passed")


def test_a_killed_run_goes_on_after_its_last_finished_chunk(tmp_path):
    end = {"chunk": [[FILE], 1], "seconds": 5}
    assert len(_read(tmp_path, _row("test_a"), end, _row("test_b"))) == 2
    path = tmp_path / "results.jsonl"
    assert oc.finished_chunks(path) == [[[FILE], 1]]
    assert oc.wall_seconds(path) == 5
    oc.drop_unfinished(path)
    assert [o.method for o in oc.read(path).values()] == ["LossTest.test_a"]


def test_a_new_failure_is_added_and_not_missing(tmp_path):
    upstream = _read(tmp_path, _row("test_a"))
    fork = _read(tmp_path, _row("test_a", "failed"))
    added, missing, fixed = _compare(upstream, fork)
    assert [o.id for o in added] == [f"{FILE}::LossTest::test_a"]
    assert not missing and not fixed


def test_what_fails_upstream_may_fail_or_pass(tmp_path):
    broken = _read(tmp_path, _row("test_a", "failed"))
    works = _read(tmp_path, _row("test_a"))
    assert _compare(broken, broken) == ([], [], [])
    assert _compare(broken, works) == ([], [], [works[0].id])


@pytest.mark.parametrize("outcome", ["skipped", None])
def test_a_test_that_vanishes_or_is_skipped_is_named(tmp_path, outcome):
    upstream = _read(tmp_path, _row("test_a"), _row("test_b"))
    rows = [_row("test_a")]
    if outcome:
        rows.append(_row("test_b", outcome))
    _, missing, _ = _compare(upstream, _read(tmp_path, *rows))
    assert missing == [f"{FILE}::LossTest.test_b: 0 of 1 ran"]


def test_a_lost_case_is_missed_unless_the_test_is_overlaid(tmp_path):
    cases = [_row(f"test_a{n}", method="LossTest.test_a") for n in range(3)]
    upstream, fork = _read(tmp_path, *cases), _read(tmp_path, *cases[:2])
    _, missing, _ = _compare(upstream, fork)
    assert missing == [f"{FILE}::LossTest.test_a: 2 of 3 ran"]
    touched = {(FILE, "LossTest.test_a"): "replaced"}
    assert _compare(upstream, fork, touched) == ([], [], [])


def test_only_a_deleted_test_may_be_gone_altogether(tmp_path):
    upstream = _read(tmp_path, _row("test_a"))
    touched = {(FILE, "LossTest.test_a"): "replaced"}
    _, missing, _ = _compare(upstream, [], touched)
    assert missing == [f"{FILE}::LossTest.test_a: 0 of 1 ran"]
    touched = {(FILE, "LossTest.test_a"): "deleted"}
    assert _compare(upstream, [], touched) == ([], [], [])


def test_a_reason_is_found_in_the_error(tmp_path):
    row = _row("test_a", "failed") | {"why": "URL fetch failure on x"}
    (group,) = oc.baseline_of(_read(tmp_path, row), {})["failures"]
    assert group["reason"].startswith("no network")


def test_a_file_that_was_not_run_misses_nothing(tmp_path):
    baseline = oc.baseline_of(_read(tmp_path, _row("test_a")), {})
    assert oc.compare([], baseline, set(), {}) == ([], [], [])


def test_recording_again_keeps_the_reasons(tmp_path):
    first = _read(tmp_path, _row("test_a", "failed"))
    old = oc.baseline_of(first, {})
    assert old["failures"][0]["reason"] == oc.UNEXPLAINED
    old["failures"][0]["reason"] = "no network"
    rows = _row("test_a", "failed"), _row("test_b", "failed")
    new = oc.baseline_of(_read(tmp_path, *rows), {}, old)
    reasons = [group["reason"] for group in new["failures"]]
    assert reasons == ["no network", oc.UNEXPLAINED]
