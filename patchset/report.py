"""What the patch set changes: diff, check, sizes, the tests it replaces."""

import ast
import difflib
import pathlib

from patchset.pieces import DEFINITIONS
from patchset.pieces import IMPORTS
from patchset.pieces import parse
from patchset.splice import definition_of
from patchset.tree import files_of
from patchset.tree import lock_of
from patchset.tree import overlay_text

LONGEST_COPY = 5


def diff(composed, upstream_dir):
    """Yields the lines of a unified diff of the fork against upstream."""
    texts = {**composed.new, **composed.changed}
    for path in sorted(texts):
        before = []
        if path in composed.changed:
            before = _read(upstream_dir, path).splitlines(keepends=True)
        yield from difflib.unified_diff(
            before,
            texts[path].splitlines(keepends=True),
            f"a/{path}" if before else "/dev/null",
            f"b/{path}",
        )


def check(composed, upstream_dir, overlay_dir, lock):
    """Returns what is wrong with an overlay that composes, as messages."""
    needed = lock_of(composed.changes)
    write = f"python pip_build.py --for {lock.version} --lock"
    problems = [
        f"{key}: not in {lock.file}. Write it: {write}"
        for key in sorted(needed.keys() - lock.definitions.keys())
    ]
    problems += [
        f"{key}: in {lock.file}, but the overlay does not touch it. Write "
        f"the lock anew: {write}"
        for key in sorted(lock.definitions.keys() - needed.keys())
    ]
    if sorted(lock.files) != sorted(composed.others):
        other = sorted({*lock.files} ^ {*composed.others})
        problems.append(
            f'{lock.file}: "files" differs from what the overlay changes by '
            f"{len(other)} files, {other[0]} first. Write the lock anew: "
            f"{write}"
        )
    problems += [
        f"{change.key}: upstream exports it, the overlay's definition does "
        "not. Put upstream's `@keras_export` on it."
        for change in composed.changes
        if "@keras_export(" in change.upstream
        and change.kind != "deleted"
        and "@keras_export(" not in change.overlay
    ]
    for path in files_of(overlay_dir):
        # What a fix of ours repeats where upstream has it is left out there.
        text, _ = overlay_text(overlay_dir, path, lock)
        target = lock.moved.get(path, path)
        if text and (pathlib.Path(upstream_dir) / target).exists():
            first = copied_line(text, _read(upstream_dir, target))
            if first:
                problems.append(
                    f"{path}:{first}: {LONGEST_COPY + 1} or more lines in a "
                    "row are upstream's. Wrap its definition with `@keeps`, "
                    "or write the lines anew."
                )
    return problems


def copied_line(overlay, upstream):
    """Returns where the overlay repeats upstream's lines, or None."""
    size = LONGEST_COPY + 1
    theirs = [line for _, line in _substance(upstream)]
    runs = {tuple(theirs[i : i + size]) for i in range(len(theirs) - size + 1)}
    ours = _substance(overlay)
    for i in range(len(ours) - size + 1):
        if tuple(line for _, line in ours[i : i + size]) in runs:
            return ours[i][0]
    return None


def _substance(text):
    """Returns (line number, line) without the lines that say nothing.

    These are blank lines, comments, imports, punctuation, decorators, and the
    signatures of definitions, which an overlay has to repeat.
    """
    trivial = set()
    for node in ast.walk(parse(text, "")):
        if isinstance(node, IMPORTS):
            trivial.update(range(node.lineno, node.end_lineno + 1))
        if isinstance(node, DEFINITIONS):
            starts = [d.lineno for d in node.decorator_list] + [node.lineno]
            body = node.body[0].lineno
            trivial.update(range(min(starts), max(body, node.lineno + 1)))
    lines = [line.strip() for line in text.split("\n")]
    return [
        (number, line)
        for number, line in enumerate(lines, 1)
        if number not in trivial
        and not line.startswith("#")
        and any(c.isalnum() for c in line)
    ]


def replaced_tests(composed):
    """Yields (file::Class::method, reason) of upstream's tests we change."""
    for change in composed.changes:
        if change.path.endswith("_test.py") and change.reason:
            name = change.name.replace(".", "::")
            deleted = " (deleted)" if change.kind == "deleted" else ""
            yield f"{change.path}::{name}{deleted}", change.reason


def sizes(composed, upstream_dir, overlay_dir):
    """Yields (file, overlay's lines, upstream's lines that they replace)."""
    for path in files_of(overlay_dir):
        replaced = sum(
            change.upstream.count("\n")
            for change in composed.changes
            if change.path == path and change.kind != "kept"
        )
        yield path, _read(overlay_dir, path).count("\n"), replaced


def count_lines(upstream_dir):
    return sum(
        _read(upstream_dir, p).count("\n") for p in files_of(upstream_dir)
    )


def show(key, upstream_dir, overlay_dir):
    """Returns upstream's definition of a lock's key, and the overlay's."""
    path, _, name = key.partition("::")
    parts = []
    for owner, root in (("upstream", upstream_dir), ("overlay", overlay_dir)):
        text = None
        if (pathlib.Path(root) / path).is_file():
            text = definition_of(_read(root, path), path, name)
        if text is None:
            text = f"# {owner} has no such definition.\n"
        parts.append(f"# ---- {owner}: {key}\n{text}")
    return "\n".join(parts)


def _read(root, path):
    return (pathlib.Path(root) / path).read_text("utf-8")
