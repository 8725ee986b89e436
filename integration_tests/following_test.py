"""Tests of following upstream: made-up releases, and the wrong way."""

import json
import os
import subprocess
import sys
import zipfile

import pytest

import pip_build
from patchset import audit
from patchset import compare
from patchset import following
from patchset import locks
from patchset import renaming
from patchset import tree
from patchset import when
from patchset.locks import Lock
from patchset.names import Names
from patchset.pieces import PatchError

M = "keras/src/m.py"
HEAD = "from keras.src import backend\nfrom keras.src import ops\n\n\n"
EMPTY = "keras/__init__.py", "keras/src/__init__.py"
PACKAGES = {
    **dict.fromkeys(EMPTY, ""),
    **{f"keras/{name}/__init__.py": "" for name in audit.COVERED_BY},
    "keras/src/ops/__init__.py": "from keras.src.ops.numpy import add\n",
    "keras/src/ops/numpy.py": "def add(x, y):\n    return x + y\n",
    "keras/src/backend/__init__.py": "from keras.src.backend.jax import *\n",
}
OLD = {
    **PACKAGES,
    "keras/src/backend/jax/__init__.py": "from keras.src.backend.jax import "
    "numpy\n",
    "keras/src/backend/jax/numpy.py": "def add(x, y):\n    return x + y\n",
}
NEW = {
    **PACKAGES,
    "keras/src/backend/jax/__init__.py": "from keras.src.backend.jax import "
    "ops\n",
    "keras/src/backend/jax/ops/__init__.py": "from keras.src.backend.jax.ops "
    "import numpy\n",
    "keras/src/backend/jax/ops/numpy.py": OLD["keras/src/backend/jax/numpy.py"],
}


def write_tree(root, files):
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


class Releases:
    """Two releases of upstream's, and an overlay over the first."""

    def __init__(self, root):
        self.root = root

    def examine(self, old, new, ours, accepted=None):
        old = write_tree(self.root / "old", {**OLD, **old})
        new = write_tree(self.root / "new", {**NEW, **new})
        write_tree(self.root / "overlay", ours)
        base = Lock("3.15.1", tests="wheel")
        composed = tree.plan(old, self.root / "overlay", base)
        base.definitions = tree.lock_of(composed.changes)
        base.files = composed.others
        other = accepted or Lock("3.16.0", tests="none")
        return following.examine(
            compare.Tree(old),
            base,
            compare.Tree(new),
            other,
            self.root / "overlay",
            audit.find_ruff(pip_build.VENV),
        )

    def states(self, old, new, ours=None):
        names = [n for n in ("f", "C") if f"{n}(" in old]
        ours = ours or {M: "".join(f"def {n}():\n    pass\n" for n in names)}
        found = self.examine({M: HEAD + old}, {M: HEAD + new}, ours).found
        return [(f.state, f.where) for f in found]


@pytest.fixture
def releases(tmp_path):
    return Releases(tmp_path)


F = "def f(x):\n    # Why.\n    return {}.add(x, 1)\n"


@pytest.mark.parametrize(
    "old, new, state",
    [
        (F.format("backend.numpy"), F.format("backend.numpy"), "same"),
        (
            F.format("backend.numpy"),
            F.format("backend.ops.numpy"),
            "renamed only",
        ),
        # The public function is still there: this goes past the door.
        (F.format("ops"), F.format("backend.ops.numpy"), "changed"),
        # The names of values are no names of Keras's.
        ("def f(x):\n    return x\n", "def f(x):\n    return y\n", "changed"),
        (
            "def f(x):\n    return x + 1\n",
            "def f(x):\n    return x + 2\n",
            "changed",
        ),
    ],
)
def test_what_became_of_a_definition(releases, old, new, state):
    assert releases.states(old, new) == [(state, f"{M}::f")]


def test_a_name_that_means_two_things_is_no_rename(releases):
    """Every place must be renamed alike, in the whole file."""
    old = F.format("backend.numpy")
    new = F.format("backend.ops.numpy")
    beside = "\n\ndef g(x):\n    return backend.numpy.add(x, 1)\n"
    found = releases.states(old + beside, new + beside)
    assert found == [("changed", f"{M}::f")]


def test_a_definition_that_moved_is_compared_where_it_is(releases):
    text = "def f(x):\n    return [x, x + 1, x + 2, x + 3]\n"
    there = "keras/src/ops/m.py"
    for moved, state in (
        (text, "moved"),
        (text.replace("3", "4"), "moved and changed"),
    ):
        found = releases.examine(
            {M: text},
            {M: "", there: moved},
            {M: "def f(x):\n    return x\n"},
        )
        (f,) = found.found
        assert (f.state, f.where) == (state, f"{there}::f")
        assert found.lock.moved == {M: there}
        assert found.status == 1


def test_what_is_nowhere_is_gone(releases):
    found = releases.examine(
        {M: "def f():\n    pass\n"},
        {M: ""},
        {M: "def f():\n    return 1\n"},
    )
    assert [(f.state, f.new) for f in found.found] == [("gone", "")]
    with pytest.raises(PatchError, match=r'Write `@when\("<3.16.0"\)` on the'):
        following.accept(following.rebased(found), found, [f"{M}::f"])


def test_what_the_overlay_leaves_there_is_not_compared(releases):
    found = releases.examine(
        {M: "def f():\n    pass\n"},
        {M: ""},
        {
            M: "from patchset.markers import when\n\n\n"
            '@when("<3.16")\ndef f():\n    return 1\n'
        },
    )
    assert found.found == [] and found.status == 0


CHANGED = {M: "def f(x):\n    return 1\n\n\ndef g():\n    return 2\n"}
CHANGES = {M: "def f(x, y=0):\n    return 1\n\n\ndef g():\n    return 3\n"}
OURS = {M: "def f(x):\n    return 5\n\n\ndef g():\n    return 6\n"}


def test_what_differs_is_open_until_it_is_accepted_by_name(releases, tmp_path):
    found = releases.examine(CHANGED, CHANGES, OURS)
    lock = following.rebased(found)
    assert lock.open == {f"{M}::f": "changed", f"{M}::g": "changed"}
    new, overlay = tmp_path / "new", tmp_path / "overlay"
    with pytest.raises(PatchError, match=r"m.py::f: open in locks/3.16.0.json"):
        tree.plan(new, overlay, lock)
    assert following.accept(lock, found, [], renamed=True) == []
    lines = following.accept(lock, found, [f"{M}::f"])
    assert lines == [f"{M}::f: changed, 1 lines more and 1 less"]
    with pytest.raises(PatchError, match=r"There is keras/src/m.py::g"):
        following.accept(lock, found, ["m.py::g"])
    following.accept(lock, found, [f"{M}::g"])
    assert not lock.open
    tree.plan(new, overlay, lock)
    again = releases.examine(CHANGED, CHANGES, OURS, accepted=lock)
    assert again.open == []
    # A parameter is still lacking.
    assert again.audited == {audit.LACKS: [f"{M}::f: y"]}
    following.accept(lock, again, [f"{M}::f"])


def test_a_second_rebase_keeps_what_was_accepted(releases):
    found = releases.examine(CHANGED, CHANGES, OURS)
    lock = following.rebased(found)
    following.accept(lock, found, [f"{M}::g"])
    again = releases.examine(CHANGED, CHANGES, OURS, accepted=lock)
    assert list(following.rebased(again).open) == [f"{M}::f"]


def test_show_has_the_old_text_the_new_and_ours(releases, tmp_path):
    found = releases.examine(CHANGED, CHANGES, OURS)
    text = following.show(found.found[1], tmp_path / "overlay", found.lock)
    assert "-    return 2\n+    return 3\n" in text
    assert text.endswith("overlay: keras/src/m.py::g\ndef g():\n    return 6\n")


def test_names_that_nothing_defines_and_that_are_gone(releases):
    found = releases.examine(
        {M: HEAD + "import math\n\n\ndef f(x):\n    return 1\n"},
        {M: HEAD + "def f(x):\n    return 1\n"},
        {
            M: "def f(x):\n    return math.pi\n",
            "keras/src/n.py": HEAD + "add = backend.numpy.add\n",
        },
    )
    assert found.audited[audit.UNDEFINED] == [f"{M}:8:12: `math`"]
    (gone,) = found.audited[audit.VANISHED]
    assert gone == (
        "keras.src.backend.numpy.add: 1 times, first in keras/src/n.py:5; now "
        "keras.src.backend.ops.numpy.add"
    )


LAYER = "keras/src/layers/l.py"
CALL = "class L:\n    def _merge(self, x):\n        return {}.add(x, 1)\n"
ADD = {
    "keras/ops/__init__.py": "from keras.src.ops.numpy import add as add\n",
    "keras/src/layers/__init__.py": "",
}


def test_layers_that_call_the_backend_are_found(releases):
    found = releases.examine(
        {**ADD, LAYER: HEAD + CALL.format("ops")},
        {**ADD, LAYER: HEAD + CALL.format("backend.ops.numpy")},
        {},
    )
    assert found.audited == {audit.PAST_THE_DOOR: [f"{LAYER}::L._merge: add"]}
    lock = following.rebased(found)
    following.accept(lock, found, [f"{LAYER}::L._merge"])
    assert lock.seen == [f"{LAYER}::L._merge"]


def test_new_public_names_want_a_row(releases):
    row = {"keras/src/masking/tables/numpy.py": 'RULES = {"known": 1}\n'}
    exports = "".join(
        f"from keras.src.ops.numpy import {n} as {n}\n"
        for n in ("known", "unknown")
    )
    found = releases.examine(
        {},
        {"keras/ops/__init__.py": exports},
        {
            **row,
            "keras/src/masking/__init__.py": "",
            "keras/src/masking/tables/__init__.py": "",
        },
    )
    assert found.audited == {audit.PUBLIC: ["keras.ops.unknown"]}


def test_what_upstream_has_now_is_to_be_dropped(releases):
    found = releases.examine(
        {M: "def f(x):\n    return 1\n"},
        {M: "def f(x):\n    return 2\n"},
        {M: "# Upstream forgot.\ndef f(x):\n    return 2\n"},
    )
    assert found.audited == {audit.EQUAL: [f"{M}::f"]}


def test_an_overlaid_file_that_vanished_becomes_no_new_one(releases, tmp_path):
    found = releases.examine({M: "x = 1\n"}, {}, {M: "x = 2\n"})
    (tmp_path / "new" / M).unlink(missing_ok=True)
    problem = f"{M}: the overlay changes this file, and Keras 3.16.0 has no"
    with pytest.raises(PatchError, match=problem):
        tree.plan(
            tmp_path / "new",
            tmp_path / "overlay",
            Lock("3.16.0", files=[M]),
        )
    assert found.audited[audit.DOES_NOT_COMPOSE][0].startswith(problem)


def test_a_locked_definition_that_nothing_changes_stops_the_build(tmp_path):
    write_tree(tmp_path / "up", {M: "def f():\n    pass\n", **OLD})
    write_tree(tmp_path / "over", {M: '"""Nothing."""\n'})
    with pytest.raises(PatchError, match="the overlay does not touch it"):
        tree.plan(
            tmp_path / "up",
            tmp_path / "over",
            Lock("3.15.1", definitions={f"{M}::f": "0"}),
        )


# One tree, several releases.

SELECTED = '''
"""Doc."""

from patchset.markers import when

if when("<3.16"):
    from keras.src import a
else:
    from keras.src import b as a


# Old.
@when("<3.16")
def f():
    return 1


# New.
@when(">=3.16")
def f():
    return 2


class C:
    @when(">=3.15,<3.16")
    def g(self):
        return 3
'''


@pytest.mark.parametrize(
    "version, kept, left",
    [
        ("3.14.1", ["import a", "# Old.", "return 1"], ["return 3", "New"]),
        ("3.15.1", ["import a", "return 1", "return 3"], ["return 2"]),
        ("3.16.0", ["import b as a", "# New.", "return 2"], ["Old", "when"]),
        # A nightly is of the release to come.
        ("3.16.0.dev2026102704", ["import b as a", "return 2"], ["return 1"]),
    ],
)
def test_a_release_gets_its_definitions(version, kept, left):
    text = when.select(SELECTED, M, version)
    assert all(part in text for part in kept)
    assert not any(part in text for part in left)
    assert text.count("\n") == SELECTED.count("\n")  # messages name lines
    compile(text.replace("class C:", "class C:\n    x = 1"), M, "exec")


def test_a_file_is_for_some_releases():
    text = '__when__ = "<3.16"\nx = 1\n'
    assert when.select(text, M, "3.15.1") == "\nx = 1\n"
    assert when.select(text, M, "3.16.0") is None


@pytest.mark.parametrize(
    "text, message",
    [
        ('@when("3.16")\ndef f(): pass\n', '"3.16" names no releases'),
        ("@when(3)\ndef f(): pass\n", "`when` takes one text"),
        ('if when("<3"):\n    def f(): pass\n', "Write `@when(...)` on a def"),
        ("__when__ = 3\n", "`when` takes one text"),
    ],
)
def test_a_wrong_when_is_named(text, message):
    with pytest.raises(PatchError) as caught:
        when.select(text, M, "3.15.1")
    assert f"{M}:1: " in str(caught.value) and message in str(caught.value)


def test_overlays_go_where_upstream_moved_its_files(tmp_path):
    there = "keras/src/ops/m.py"
    theirs = "class Trainer:\n    def f(self):\n        return 1\n"
    write_tree(tmp_path / "up", {**OLD, there: theirs})
    ours = "class JaxTrainer:\n    def f(self):\n        return b.x(JaxTrainer)"
    write_tree(tmp_path / "over", {M: ours + "\n"})
    lock = Lock(
        "3.16.0",
        moved={M: there},
        renamed={f"{M}::JaxTrainer": "Trainer", "b.x": "b.ops.x"},
    )
    composed = tree.plan(tmp_path / "up", tmp_path / "over", lock)
    assert "return b.ops.x(Trainer)" in composed.changed[there]
    assert [c.key for c in composed.changes] == [f"{M}::JaxTrainer.f"]
    assert not composed.new


def test_names_are_replaced_whole_and_all_at_once():
    names = {"a": "b", "b": "c", "m.x": "m.y.x", f"{M}::d": "e"}
    text, _ = renaming.renamed("a(b, m.x, o.m.x, ab, d)\n", M, names)
    assert text == "b(c, m.y.x, o.m.x, ab, e)\n"
    text, _ = renaming.renamed("d(b)\n", "keras/n.py", names)
    assert text == "d(c)\n"


def test_names_are_looked_up_without_importing():
    files = {
        **OLD,
        "keras/src/late.py": "def __getattr__(name):\n    return name\n",
        "keras/src/tried.py": "try:\n    import jax as j\nexcept E:\n"
        "    j = None\nx: int = 1\n",
    }
    names = Names(files.__getitem__, set(files))
    for known in (
        "keras.src.backend.numpy.add",
        "keras.src.backend.jax.numpy",
        "keras.src.late.anything",
        "keras.src.tried.j.whatever",
        "keras.src.tried.x",
        "numpy.add",
    ):
        assert names.exists(known), known
    for unknown in (
        "keras.src.backend.numpy.subtract",
        "keras.src.nowhere.x",
        "keras.src.tried.y",
    ):
        assert not names.exists(unknown), unknown


def test_a_lock_is_written_as_it_is_read(tmp_path):
    lock = Lock("3.16.0", open={"a::b": "changed"}, seen=["c"], files=["d"])
    locks.write(tmp_path, lock)
    assert locks.read(tmp_path, "3.16.0") == lock
    assert "moved" not in json.loads((tmp_path / "3.16.0.json").read_text())


def test_relocking_accepts_no_change_of_upstreams():
    default = Lock("3.15.1", definitions={"a": "1", "b": "1", "c": "1"})
    lock = Lock("3.16.0", definitions={"a": "1"}, open={"d": "changed"})
    found = {"a": "2", "b": "1", "c": "2", "d": "4", "e": "5"}
    following.relock(lock, found, default)
    assert lock.definitions == {"a": "1", "b": "1", "e": "5"}
    assert lock.open == {"c": "changed", "d": "changed"}


# The commands, the wrong way.


def command(*arguments):
    done = subprocess.run(
        [sys.executable, "pip_build.py", *arguments],
        cwd=pip_build.ROOT,
        env={**os.environ, "PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


def wheel(folder, name, files):
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return str(folder / name)


def test_what_cannot_be_told_is_status_two(tmp_path):
    (tmp_path / "keras-3.99-py3-none-any.whl").write_text("no archive")
    for name, message in (
        ("3.99.9", "keras 3.99.9 is not in"),
        ("99.dev1", "pip index versions keras-nightly --pre"),
        ("newest", "newest is no version of Keras"),
        ("nowhere.whl", "There is no wheel at nowhere.whl"),
        (wheel(tmp_path, "numpy-2-py3-none-any.whl", {}), "no wheel of Keras"),
        (
            wheel(tmp_path, "keras-2.1-py3-none-any.whl", {"keras/a.py": ""}),
            "holds no keras/src",
        ),
        (str(tmp_path / "keras-3.99-py3-none-any.whl"), "cannot be unzipped"),
    ):
        status, printed = command("--against", name)
        assert status == 2 and message in printed, (name, printed)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--for", "3.1.0"), "Keras 3.1.0 has no lock here; these have one"),
        (("--accept",), "Nothing takes all."),
        (("--rebase", "3.99.9"), "keras 3.99.9 is not in"),
    ],
)
def test_a_wrong_command_says_what_to_write(arguments, message):
    status, printed = command(*arguments)
    assert status == 1 and message in printed, printed


def test_the_default_release_composes_as_it_is():
    name = locks.read(pip_build.LOCKS, pip_build.DEFAULT).wheel
    cached = pip_build.CACHE / name
    if not cached.exists():
        pytest.skip("the release was installed, and no wheel downloaded")
    status, printed = command("--against", str(cached))
    assert status == 0 and "All composes as it is." in printed, printed
    assert "0  changed\n" in printed and "0  gone\n" in printed
