"""Other people's programs run on the fork as they run upstream.

See `wild.py` for what a program is, and `run.py` for how they are compared. All
run on one engine, whatever the backend of this process.
"""

import json
import os
import sys

import pytest
from filelock import FileLock

sys.path.append(os.path.dirname(os.path.dirname(__file__)))

from in_the_wild import run  # noqa: E402

ENGINE = "torch"
PROGRAMS = run.programs()


@pytest.fixture(scope="session")
def outcomes(request, tmp_path_factory):
    """What the programs that are tested give on the fork and upstream.

    The processes of one pytest share it: who comes first runs them.
    """
    names = [
        item.callspec.params["name"]
        for item in request.session.items
        if getattr(item, "originalname", "") == "test_program_runs_as_upstream"
    ]
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    file = folder / "in_the_wild.json"
    with FileLock(f"{file}.lock"):
        if not file.exists():
            file.write_text(json.dumps(run.run_both(ENGINE, names)))
    return json.loads(file.read_text())


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_runs_as_upstream(name, outcomes):
    fork, upstream = (outcomes[who][name] for who in ("fork", "upstream"))
    found = run.faults(PROGRAMS[name], fork, upstream)
    assert not found, "\n".join(found)


def test_there_are_forty_programs():
    assert len(PROGRAMS) >= 40
    for name, program in PROGRAMS.items():
        assert program.run.__doc__, f"{name} does not say what it is."
