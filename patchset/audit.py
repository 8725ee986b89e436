"""Finds what else would break if the overlay met another release.

All of it is read from sources. What is wrong with the default release already
is not told again.
"""

import ast
import collections
import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from patchset import names
from patchset import tree
from patchset.compare import tokens_of
from patchset.pieces import DEFINITIONS
from patchset.pieces import PatchError
from patchset.pieces import parse

# What is looked for, in the order in which it is told.
DOES_NOT_COMPOSE = "does not compose"
LACKS = "our signatures lack a parameter"
UNDEFINED = "composed files use names that nothing defines"
VANISHED = "our files use names of Keras's that are gone"
IN_TESTS = "our tests use names of Keras's that are gone"
EQUAL = "upstream's definitions are now ours: drop these"
PUBLIC = "new public names without a row or a case"
WITHDRAWN = "public names with a row that are not there: it is left out"
PAST_THE_DOOR = "layers of upstream's call the backend, past the door"
NOT_HELD = "overlaid tests that this wheel does not hold: left out"
KINDS = (
    *(DOES_NOT_COMPOSE, LACKS, UNDEFINED, VANISHED, EQUAL, PUBLIC),
    *(PAST_THE_DOOR, IN_TESTS, WITHDRAWN, NOT_HELD),
)
# Not in the way of anything.
HARMLESS = (IN_TESTS, WITHDRAWN, NOT_HELD)
# What somebody may have looked at and found harmless.
ACCEPTABLE = (LACKS, PUBLIC, PAST_THE_DOOR)

OF_LOSSES = (
    "keras/src/testing/masked/cases",
    "keras/src/masking/training/padding.py",
    "keras/src/masking/training/weighing.py",
)
# Where rows and cases stand for what the public packages hold.
COVERED_BY = {
    "ops": "keras/src/masking/tables",
    "ops/image": "keras/src/masking/tables",
    "ops/linalg": "keras/src/masking/tables",
    "ops/nn": "keras/src/masking/tables",
    "random": "keras/src/masking/tables",
    "layers": "keras/src/testing/masked/cases",
    "losses": OF_LOSSES,
    "metrics": OF_LOSSES,
}
# Methods of a layer that get no tensors of the user's.
BESIDE_CALL = re.compile(
    r"__init__|build|get_|set_|from_config|add_|compute_|"
    r"save|load|_?quantize$|adapt|_init"
)


@dataclasses.dataclass
class Side:
    """A release with the overlay in it: upstream's tree, composed texts."""

    upstream: object  # a `compare.Tree`
    composed: tree.Composed
    lock: object

    def __post_init__(self):
        self.texts = {**self.composed.new, **self.composed.changed}
        self.names = names.Names(
            self.read, {*self.upstream.files, *self.composed.new}
        )

    def read(self, path):
        return self.texts.get(path) or self.upstream.read(path)

    def overlay(self, root):
        """Yields (path in the tree, text) of the overlay's files."""
        for path in tree.files_of(root):
            text, _ = tree.overlay_text(root, path, self.lock)
            target = self.lock.moved.get(path, path)
            if text and target in self.texts:
                yield target, text


def audit(base, other, root, ruff):
    """Returns {kind: messages} of what would break, without empty kinds.

    Args:
        base: `Side` of the default release.
        other: `Side` of the release that is looked at.
        root: The directory that holds the overlay's `keras/`.
        ruff: The command that runs ruff, or None.
    """
    found = collections.defaultdict(list)
    found[DOES_NOT_COMPOSE] = other.composed.problems
    found[LACKS] = list(lacking_parameters(base.composed, other.composed))
    if ruff:
        found[UNDEFINED] = list(undefined_names(other, ruff))
    found[VANISHED], found[IN_TESTS] = vanished_names(base, other, root)
    found[EQUAL] = list(equal_definitions(base.composed, other.composed))
    found[PUBLIC] = list(uncovered_names(base, other, root))
    found[WITHDRAWN] = list(withdrawn_names(base, other, root))
    found[PAST_THE_DOOR] = list(calls_past_the_door(base, other))
    for kind in ACCEPTABLE:
        seen = other.lock.seen
        found[kind] = [m for m in found[kind] if subject(m) not in seen]
    return {kind: found[kind] for kind in KINDS if found[kind]}


def subject(message):
    """Returns what a message is about, by which it can be accepted."""
    return message.partition(": ")[0]


def find_ruff(venv):
    """Returns the command that runs ruff, here or in `.venv`, or None."""
    for path in (shutil.which("ruff"), venv / "bin/ruff"):
        if path and pathlib.Path(path).exists():
            return [str(path)]
    probe = [sys.executable, "-m", "ruff"]
    works = subprocess.run([*probe, "--version"], capture_output=True)
    return None if works.returncode else probe


def lacking_parameters(base, other):
    """Yields the parameters that upstream's definitions gained."""
    before = {
        change.key: _parameters(change.upstream) for change in base.changes
    }
    for change in other.changes:
        theirs, ours = map(_parameters, (change.upstream, change.overlay))
        if None in (theirs, ours) or "*" in ours or "**" in ours:
            continue
        old = before.get(change.key) or ()
        lacks = [p for p in theirs if p not in ours and p not in old]
        if lacks:
            yield f"{change.key}: {', '.join(lacks)}"


def _parameters(text):
    node = _definition(text)
    if not isinstance(node, ast.FunctionDef):
        return None
    a = node.args
    found = [arg.arg for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs]]
    return [*found, *["*"] * bool(a.vararg), *["**"] * bool(a.kwarg)]


def _definition(text):
    """Returns the function or class in the text of a definition."""
    try:
        body = ast.parse("if True:\n" + _indented(text)).body[0].body
    except SyntaxError:
        return None
    return next((n for n in body if isinstance(n, DEFINITIONS)), None)


def _indented(text):
    lines = text.split("\n")
    first = next((line for line in lines if line.strip()), "")
    if first.startswith(" "):
        return text
    return "\n".join(f" {line}" if line else "" for line in lines)


def undefined_names(other, ruff):
    """Yields what ruff's F821 finds in the files that we change or add."""
    with tempfile.TemporaryDirectory() as folder:
        for path, text in other.texts.items():
            file = pathlib.Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        command = [*ruff, "check", "--isolated", "--select", "F821"]
        command += ["--output-format", "concise", "--no-cache", "keras"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True
        )
    if done.returncode not in (0, 1):
        raise PatchError(f"ruff failed: {done.stderr.strip()[:300]}")
    for line in done.stdout.splitlines():
        if ": F821 " in line:
            yield line.replace(" F821 Undefined name", "")


def vanished_names(base, other, root):
    """Returns the names of Keras's that are gone: in sources, in tests."""
    where = collections.defaultdict(list)
    for path, text in other.overlay(root):
        for name, lines in _uses(other, path, text).items():
            if not other.names.exists(name):
                where[name] += [f"{path}:{line}" for line in lines]
    used = set()
    if where:
        for path, text in base.overlay(root):
            used.update(_uses(base, path, text))
    where = {
        name: places
        for name, places in where.items()
        if name not in used or base.names.exists(name)
    }
    sources, tests = [], []
    for name, places in sorted(where.items()):
        first = [p for p in places if not _is_of_tests(p)]
        (sources if first else tests).append(
            f"{name}: {len(places)} times, first in {(first or places)[0]}"
            + _suggestion(name, other)
        )
    return sources, tests


def _is_of_tests(place):
    return "_test.py:" in place or place.startswith("keras/src/testing/")


def _uses(side, path, text):
    """Returns {"keras.src.x.y": lines} of what a file of ours uses."""
    module = parse(text, path)
    imports = side.names.imports(path)
    found = collections.defaultdict(list)
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.startswith("keras"):
                for alias in node.names:
                    found[f"{node.module}.{alias.name}"].append(node.lineno)
    for node, name in names.chains(module):
        first, _, rest = name.partition(".")
        for target in imports.get(first, ()):
            if target.startswith("keras."):
                found[f"{target}.{rest}"].append(node.lineno)
    return found


def _suggestion(name, other):
    """Returns where a name that is gone went, if one place is likely."""
    last = name.rpartition(".")[2]
    tries = [
        f"keras.src.backend.common.{last}",
        name.replace("keras.src.backend.", "keras.src.backend.ops."),
    ]
    for engine in ("jax", "numpy", "tensorflow", "torch"):
        folder = f"keras.src.backend.{engine}."
        tries.append(name.replace(folder, f"{folder}ops."))
    found = [t for t in tries if t != name and other.names.exists(t)]
    return f"; now {found[0]}" if found else ""


def equal_definitions(base, other):
    """Yields what of ours upstream has now, to the last token."""
    before = {c.key for c in base.changes if _is_equal(c)}
    for change in other.changes:
        if change.key not in before and _is_equal(change):
            yield change.key


def _is_equal(change):
    if change.kind != "replaced" or change.name.endswith("__"):
        return False
    return tokens_of(change.upstream) == tokens_of(change.overlay)


def public_names(side, package):
    """Returns the names that `keras.PACKAGE` exports."""
    path = f"keras/{package}/__init__.py"
    return {
        alias.asname or alias.name
        for node in parse(side.read(path), path).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def uncovered_names(base, other, root):
    for package, folder in COVERED_BY.items():
        text = _text_of(root, folder, other.lock)
        gained = public_names(other, package) - public_names(base, package)
        for name in sorted(gained):
            if not re.search(rf"\b{name}\b", text):
                yield f"keras.{package}.{name}".replace("/", ".")


def withdrawn_names(base, other, root):
    for package, folder in COVERED_BY.items():
        text = _text_of(root, folder, other.lock)
        lost = public_names(base, package) - public_names(other, package)
        for name in sorted(lost):
            if re.search(rf"\b{name}\b", text):
                yield f"keras.{package}.{name}".replace("/", ".")


def _text_of(root, folder, lock):
    paths = (p for p in tree.files_of(root) if p.startswith(folder))
    texts = (tree.overlay_text(root, p, lock)[0] for p in paths)
    return "\n".join(text for text in texts if text)


def calls_past_the_door(base, other):
    """Yields the backend's functions that layers began to call.

    In any method that may see tensors, not in `call` alone: `Add` does it in
    what the `call` of its base class calls.
    """
    for path in sorted(other.upstream.files):
        if not path.startswith("keras/src/layers/"):
            continue
        if path.endswith("_test.py") or "backend." not in other.read(path):
            continue
        before = {}
        if path in base.upstream.files:
            before = _raw_calls(base, path)
        for method, calls in _raw_calls(other, path).items():
            fresh = sorted(calls - before.get(method, set()))
            if fresh:
                yield f"{path}::{method}: {', '.join(fresh)}"


def _raw_calls(side, path):
    """Returns {"Class.method": functions of the backend that it calls}."""
    imports = side.names.imports(path)
    operations = public_names(side, "ops")
    found = collections.defaultdict(set)
    for owner in parse(side.read(path), path).body:
        for method in getattr(owner, "body", ()):
            if not isinstance(owner, ast.ClassDef):
                break
            if not isinstance(method, ast.FunctionDef):
                continue
            if BESIDE_CALL.match(method.name):
                continue
            called = {
                n.func for n in ast.walk(method) if isinstance(n, ast.Call)
            }
            for node, name in names.chains(method):
                root = imports.get(name.partition(".")[0], ("",))[-1]
                last = name.rpartition(".")[2]
                if node in called and last in operations:
                    if root.startswith("keras.src.backend"):
                        found[f"{owner.name}.{method.name}"].add(last)
    return found
