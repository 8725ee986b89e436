"""Follows upstream to another release: looks, and takes over by name."""

import collections
import dataclasses
import difflib
import hashlib
import pathlib
import re
import shutil
import zipfile

from patchset import audit
from patchset import compare
from patchset import locks
from patchset import renaming
from patchset import tree
from patchset import upstream
from patchset import when
from patchset.pieces import PatchError
from patchset.splice import definition_of

WHEEL_NAME = re.compile(r"(keras|keras_nightly)-([^-]+)-.*\.whl$")


def relock(lock, found, default):
    """Writes into a lock what the overlay changes now.

    What was locked stays as it was: upstream's changes are accepted by name
    alone. What is new here is open if upstream's text is not that of the
    default release, which somebody saw as he wrote the overlay.

    Args:
        lock: The `Lock`, which is changed.
        found: {definition: hash} of what the overlay changes.
        default: The `Lock` of the default release.
    """
    locked, opened = {}, {}
    for key, value in found.items():
        known = default.definitions.get(key, value)
        if key in lock.open:
            opened[key] = lock.open[key]
        elif key in lock.definitions or known == value:
            locked[key] = lock.definitions.get(key, value)
        else:
            opened[key] = compare.CHANGED
    lock.definitions, lock.open = locked, opened


def open_wheel(name, folder, cache):
    """Unpacks another release, given its version or its wheel.

    Args:
        name: A version, or the path of a wheel.
        folder: The directory that gets `keras/`.
        cache: The directory where downloaded wheels are kept.

    Returns:
        A `Lock` that says which release it is, and holds no more.
    """
    if name.endswith(".whl"):
        wheel = pathlib.Path(name)
        if not wheel.is_file():
            raise PatchError(
                f"There is no wheel at {wheel}. Correct the path, or name a "
                "version to have its wheel downloaded."
            )
    else:
        wheel = upstream.fetch(name, cache)
    named = WHEEL_NAME.match(wheel.name)
    if not named:
        raise PatchError(
            f"{wheel} is no wheel of Keras: its name begins with neither "
            "keras- nor keras_nightly-. Name one that pip downloaded."
        )
    try:
        with zipfile.ZipFile(wheel) as archive:
            inside = [n for n in archive.namelist() if n.startswith("keras/")]
            archive.extractall(folder, inside)
    except zipfile.BadZipFile:
        raise PatchError(
            f"{wheel} is no wheel: it cannot be unzipped. Download it anew."
        ) from None
    if "keras/src/backend/__init__.py" not in inside:
        raise PatchError(
            f"{wheel} holds no keras/src: it is no wheel of Keras 3. Name "
            "one of 3.13 or later."
        )
    has_tests = any(n.endswith("_test.py") for n in inside)
    return locks.Lock(
        named[2],
        distribution=named[1].replace("_", "-"),
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        tree_sha256=tree.tree_hash(folder),
        tests="wheel" if has_tests else "none",
    )


def add_tests(source, folder):
    """Copies upstream's tests from a checkout of it beside its sources."""
    tests = sorted(pathlib.Path(source).glob("keras/src/**/*_test.py"))
    if not tests:
        raise PatchError(
            f"There is no keras/src/**/*_test.py in {source}. Name the folder "
            "that holds upstream's keras/, as its repository does."
        )
    for test in tests:
        copy = pathlib.Path(folder, test.relative_to(source))
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(test, copy)


@dataclasses.dataclass
class Comparison:
    """What another release makes of the overlay."""

    lock: locks.Lock  # with which the overlay was tried on it
    found: list  # a `compare.Found` for each definition
    accepted: set  # definitions that a lock of that release accepts
    audited: dict  # {kind: messages}
    untold: list  # what could not be looked at, and why
    others: list  # files of upstream's of which no definition is touched

    @property
    def open(self):
        return [f for f in self.found if is_open(f, self.accepted)]

    @property
    def broken(self):
        return [kind for kind in self.audited if kind not in audit.HARMLESS]

    @property
    def status(self):
        return 1 if self.open or self.broken else 2 if self.untold else 0


def is_open(found, accepted):
    return found.state != compare.SAME and found.key not in accepted


def examine(base, base_lock, other, lock, root, ruff):
    """Compares the default release with another one; changes nothing.

    Args:
        base: `Tree` of the default release.
        base_lock: Its `Lock`.
        other: `Tree` of the other one.
        lock: `Lock` of the other one, with what is accepted, or empty.
        root: The directory that holds the overlay's `keras/`.
        ruff: The command that runs ruff, or None.
    """
    missing = compare.tests_missing(base_lock, other)
    here = tree.attempt_plan(base.root, root, base_lock.unlocked())
    left = _not_for(lock, here, root)
    skip = {k for k in base_lock.definitions if _file(k) in missing} | left
    found = list(compare.compare(base, other, base_lock, skip))
    trial = trial_lock(lock, found, base_lock, missing)
    there = tree.attempt_plan(other.root, root, trial.unlocked())
    sides = audit.Side(base, here, base_lock), audit.Side(other, there, trial)
    audited = audit.audit(*sides, root, ruff)
    # What is gone, or elsewhere, is told as such.
    absent = [f"--show {f.key}" for f in found if f.where != f.key]
    in_the_way = [
        problem
        for problem in audited.pop(audit.DOES_NOT_COMPOSE, ())
        if not problem.endswith(tuple(absent))
    ]
    if in_the_way:
        audited[audit.DOES_NOT_COMPOSE] = in_the_way
    if missing:
        audited[audit.NOT_HELD] = missing
    untold = [] if ruff else ["undefined names: ruff is not installed"]
    accepted = {
        f.key
        for f in found
        if f.new and lock.definitions.get(f.key) == tree.definition_hash(f.new)
    }
    touched = {_file(change.key) for change in there.changes}
    others = [
        path
        for path in trial.files
        if path not in touched and tree.overlay_text(root, path, trial)[0]
    ]
    return Comparison(trial, found, accepted, audited, untold, others)


def _file(key):
    return key.partition("::")[0]


def _not_for(lock, here, root):
    """Returns the definitions that the overlay does not change there."""
    wanted = {
        path: tree.overlay_text(root, path, locks.Lock(lock.version))[0]
        for path in {_file(change.key) for change in here.changes}
    }
    left = set()
    for change in here.changes:
        text = wanted[_file(change.key)]
        name = change.name.removesuffix(".__bases__")
        name = name.removesuffix(".__decorators__")
        if text is None:
            left.add(change.key)
        elif change.kind != "deleted":
            if not definition_of(text, change.path, name):
                left.add(change.key)
    return left


def trial_lock(lock, found, base_lock, missing):
    """Returns a lock with the moves that were found, to try them."""
    moved, renamed = dict(lock.moved), dict(lock.renamed)
    for f in found:
        path, _, name = f.key.partition("::")
        there, _, new = f.where.partition("::")
        if there and there != path:
            moved.setdefault(path, there)
        owner, new_owner = name.partition(".")[0], new.partition(".")[0]
        if new_owner and owner != new_owner:
            renamed.setdefault(f"{path}::{owner}", new_owner)
    files = [p for p in base_lock.overlaid() if p not in missing]
    files = sorted({*files, *missing})
    return dataclasses.replace(lock, moved=moved, renamed=renamed, files=files)


# What is printed.


def summary(comparison, version, seconds, verbose=False):
    """Yields the lines of `--against`."""
    lock = comparison.lock
    counts = collections.Counter(f.state for f in comparison.found)
    yield f"{lock.distribution} {lock.version} against {version}"
    yield ""
    for state in compare.STATES:
        accepted = sum(
            f.state == state and f.key in comparison.accepted
            for f in comparison.found
        )
        note = ""
        if accepted and state != compare.SAME:
            note = f"  ({accepted} accepted in {lock.file})"
        yield f"{counts[state]:6}  {state}{note}"
    yield ""
    for kind in audit.KINDS:
        messages = comparison.audited.get(kind, ())
        if messages:
            yield f"{len(messages):6}  {kind}"
            if verbose:
                yield from (f"          {m}" for m in messages)
    yield from (f"        not looked at: {text}" for text in comparison.untold)
    if verbose:
        yield from _details(comparison)
    yield ""
    yield _verdict(comparison) + f" ({seconds:.1f} s)"


def _details(comparison):
    for state in compare.STATES[1:]:
        found = [f for f in comparison.found if f.state == state]
        if found:
            yield f"\n{state}:"
        for f in found:
            where = f" -> {f.where}" if f.where not in ("", f.key) else ""
            done = "" if is_open(f, comparison.accepted) else " (accepted)"
            yield f"    {f.key}{where}{done}"
            yield from (f"        {a} -> {b}" for a, b in f.renames.items())


def _verdict(comparison):
    version = comparison.lock.version
    if comparison.status == 0:
        return "All composes as it is."
    if comparison.status == 2:
        return "Nothing was found, but not everything could be looked at."
    broken = comparison.broken
    others = sum(len(comparison.audited[kind]) for kind in broken)
    return (
        f"Open: {len(comparison.open)} definitions, {others} other places.\n"
        "By name: -v. One beside ours: python pip_build.py --for "
        f"{version} --show KEY. To begin: --rebase {version}"
    )


def show(found, root, lock):
    """Returns upstream's old and new text as a diff, and ours."""
    where = f" -> {found.where}" if found.where not in ("", found.key) else ""
    parts = [f"# ---- {found.state}: {found.key}{where}\n"]
    diff = difflib.unified_diff(
        found.old.splitlines(keepends=True),
        found.new.splitlines(keepends=True),
        "upstream, as it was locked",
        f"upstream, {lock.version}",
        n=1000,
    )
    parts.append("".join(diff) or found.old)
    path, _, name = found.key.partition("::")
    text, back = tree.overlay_text(root, path, lock)
    names = {old: new for new, old in back.items()}
    ours = text and definition_of(text, path, renaming.back(name, names))
    ours = ours or "# The overlay changes nothing here.\n"
    parts.append(f"\n# ---- overlay: {found.key}\n{ours}")
    return "".join(parts)


def rebased(comparison):
    """Returns the lock of a release, with all that differs marked open."""
    lock = dataclasses.replace(
        comparison.lock, definitions={}, open={}, files=comparison.others
    )
    for f in comparison.found:
        if is_open(f, comparison.accepted):
            lock.open[f.key] = f.state
        else:
            lock.definitions[f.key] = tree.definition_hash(f.new)
    return lock


def accept(lock, comparison, keys, renamed=False):
    """Takes definitions over into a lock, by name.

    Args:
        lock: The `Lock`, which is changed.
        comparison: The `Comparison` of its release.
        keys: Definitions that somebody looked at.
        renamed: Whether all that were only renamed are taken over as well.

    Returns:
        What was taken over, a line for each.
    """
    found = {f.key: f for f in comparison.found}
    others = {
        audit.subject(message): kind
        for kind in audit.ACCEPTABLE
        for message in comparison.audited.get(kind, ())
        if audit.subject(message) not in found
    }
    if renamed:
        keys = [*keys, *(k for k in lock.open if _is_renamed(found.get(k)))]
    problems, lines = [], []
    for key in keys:
        if key in others:
            lock.seen.append(key)
            lines.append(f"{key}: {others[key]}")
            continue
        problem = _problem_of(key, lock, found)
        if problem:
            problems.append(problem)
            continue
        lock.open.pop(key, None)
        if key in found:
            lock.definitions[key] = tree.definition_hash(found[key].new)
            lines.append(f"{key}: {found[key].state}{_size(found[key])}")
        else:
            lock.definitions.pop(key, None)
            lines.append(f"{key}: the overlay does not change it here")
    if problems:
        raise PatchError("\n".join(problems))
    return lines


def nearest(key, found):
    """Returns what to say of a key that nothing has."""
    near = difflib.get_close_matches(key, found, n=1)
    # Whoever leaves the folder out, or half of it.
    near = near or [k for k in found if k.endswith(key)]
    if near:
        return f"There is {near[0]}."
    return (
        'Keys look like "keras/src/layers/layer.py::Layer.__call__"; the lock '
        "has them all."
    )


def _is_renamed(found):
    return found is not None and found.state == compare.RENAMED


def _problem_of(key, lock, found):
    if key not in found and key not in lock.open:
        return f"{key}: not in {lock.file}. {nearest(key, found)}"
    if key in found and not found[key].new:
        release = when.version_of(lock.version).base_version
        return (
            f"{key}: gone in Keras {lock.version}, so there is nothing to "
            f'accept. Write `@when("<{release}")` on the overlay\'s '
            "definition, then accept it again."
        )
    return None


def _size(found):
    old, new = found.old.splitlines(), found.new.splitlines()
    marks = [line[0] for line in difflib.ndiff(old, new)]
    return f", {marks.count('+')} lines more and {marks.count('-')} less"
