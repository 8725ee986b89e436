"""Composes a whole tree: upstream's files, the overlay's, the exports."""

import ast
import dataclasses
import hashlib
import os
import pathlib
import re
import shutil
import textwrap

from patchset import markers
from patchset import renaming
from patchset import when
from patchset.exports import Exports
from patchset.pieces import PatchError
from patchset.pieces import parse
from patchset.splice import attempt
from patchset.splice import exported_names

LOCK_HINT = "look at the change: python pip_build.py {release}--show {key}"


# It states the fork's version, "UPSTREAM'S+masked.N".
VERSION_FILE = "keras/src/version.py"


@dataclasses.dataclass
class Composed:
    """A composed tree in memory, before anything is written."""

    new: dict  # {path: text} of files that upstream does not have
    changed: dict  # {path: text} of files that differ from upstream's
    changes: list  # one `Change` for each definition of upstream's touched
    others: list  # upstream's files of which no definition is touched
    problems: list  # what is in the way of this tree, as messages


def files_of(root):
    """Returns the sorted paths of all source files in `root/keras`."""
    root = pathlib.Path(root)
    return sorted(
        path.relative_to(root).as_posix()
        for path in (root / "keras").rglob("*.py")
        if "__pycache__" not in path.parts
    )


def tree_hash(root):
    """Returns one SHA-256 over the paths and contents of all source files."""
    digest = hashlib.sha256()
    for path in files_of(root):
        content = (pathlib.Path(root) / path).read_bytes()
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def definition_hash(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def lock_of(changes):
    """Returns the lock's {definition: hash} for these changes."""
    return {c.key: definition_hash(c.upstream) for c in changes}


def plan(upstream_dir, overlay_dir, lock):
    """Composes in memory.

    Args:
        upstream_dir: The directory that holds upstream's `keras/`.
        overlay_dir: The directory that holds the overlay's `keras/`.
        lock: The `Lock` of the release. A definition that it does not name is
            not compared.

    Raises:
        PatchError: Names every file or definition that is in the way.
    """
    composed = attempt_plan(upstream_dir, overlay_dir, lock)
    if composed.problems:
        raise PatchError("\n".join(composed.problems))
    return composed


def attempt_plan(upstream_dir, overlay_dir, lock):
    """Composes what can be composed, and collects what is in the way."""
    upstream_dir = pathlib.Path(upstream_dir)
    overlay_dir = pathlib.Path(overlay_dir)
    composed = Composed({}, {}, [], [], [])
    added, withdrawn, reasons = [], [], {}
    for path in files_of(overlay_dir):
        try:
            text, back = overlay_text(overlay_dir, path, lock)
            target = lock.moved.get(path, path)
            if text is None:
                continue
            if _is_left_out(upstream_dir, path, target, lock):
                composed.others.append(path)
                continue
            if not (upstream_dir / target).exists():
                composed.new[path] = when.tidied(text)
                added += _exports_of_new(text, path)
                continue
            upstream = (upstream_dir / target).read_text("utf-8")
            before = composed.changed.get(target, upstream)
            spliced = attempt(before, text, target)
            if spliced.text != upstream:
                composed.changed[target] = spliced.text
            reasons[target] = ast.get_docstring(parse(text, path)) or ""
            for change in spliced.changes:
                change.key = f"{path}::{renaming.back(change.name, back)}"
            composed.changes += spliced.changes
            composed.others += [] if spliced.changes else [path]
            composed.problems += spliced.problems
            added += [(public, target, n) for public, n in spliced.exports]
            withdrawn += spliced.withdrawn
        except PatchError as e:
            composed.problems.append(str(e))
    composed.problems += _lock_problems(composed, lock)
    composed.problems += _missing_inits(composed.new, upstream_dir)
    _export(composed, upstream_dir, added, withdrawn)
    for path, text in composed.changed.items():
        reason = reasons.get(path, "")
        composed.changed[path] = header(lock.version, reason) + text
    return composed


def overlay_text(overlay_dir, path, lock):
    """Returns what of an overlay file a release gets, with its names.

    Returns:
        The text, or None if the file is not for this release; and the names
        that its definitions have in the file, {name there: name here}.
    """
    text = (pathlib.Path(overlay_dir) / path).read_text("utf-8")
    text = when.select(text, path, lock.version)
    if text is None:
        return None, {}
    if path == VERSION_FILE:
        text = re.sub(r'"[^"+]+\+', f'"{lock.version}+', text)
    return renaming.renamed(text, path, lock.renamed)


def _is_left_out(upstream_dir, path, target, lock):
    """Returns whether an overlay file has nothing to change here.

    That is a test of upstream's that this release does not ship. Any other
    file must not turn into a new one.
    """
    if (upstream_dir / target).exists() or path not in lock.overlaid():
        return False
    if path.endswith("_test.py") and lock.tests == "none":
        return True
    raise PatchError(
        f"{path}: the overlay changes this file, and Keras {lock.version} has "
        f'no {target}. If it moved, name the new path under "moved" in '
        f'{lock.file}; if it is gone, write `__when__ = "<{lock.version}"` '
        "in the overlay's file."
    )


def compose(upstream_dir, overlay_dir, out_dir, lock):
    """Composes into `out_dir/keras`, which changes at once or not at all."""
    composed = plan(upstream_dir, overlay_dir, lock)
    write(composed, upstream_dir, out_dir)
    return composed


def header(version, reason):
    """Returns the notice that Apache-2.0, section 4b, asks for."""
    notice = (
        f'Changed from Keras {version} by the project "Keras with masked '
        'tensors" (notice under Apache-2.0, section 4b).'
    )
    if reason:
        notice += " " + " ".join(reason.split("\n\n")[0].split())
    lines = textwrap.wrap(notice, 78, break_on_hyphens=False)
    return "".join(f"# {line}\n" for line in lines)


def write(composed, upstream_dir, out_dir):
    """Writes the tree beside the old one, then puts it in its place.

    Files that stay the same are taken over from the old tree with their times
    (and the byte code beside them), so that Python need not compile them anew.
    """
    upstream_dir, out_dir = pathlib.Path(upstream_dir), pathlib.Path(out_dir)
    old, fresh = out_dir / "keras", out_dir / ".keras.new"
    gone = out_dir / ".keras.old"
    for leftover in (fresh, gone):
        shutil.rmtree(leftover, ignore_errors=True)
    texts = {**composed.new, **composed.changed}
    for path in [*files_of(upstream_dir), *composed.new]:
        source = upstream_dir / path
        content = texts[path].encode() if path in texts else source.read_bytes()
        _place(content, out_dir / path, fresh / path.partition("/")[2])
    if old.exists():
        old.rename(gone)
    fresh.rename(old)
    shutil.rmtree(gone, ignore_errors=True)


def _place(content, old, new):
    new.parent.mkdir(parents=True, exist_ok=True)
    if not old.exists() or old.read_bytes() != content:
        new.write_bytes(content)
        return
    _link(old, new)
    for cached in (old.parent / "__pycache__").glob(f"{old.stem}.*.pyc"):
        target = new.parent / "__pycache__"
        target.mkdir(exist_ok=True)
        _link(cached, target / cached.name)


def _link(old, new):
    try:
        os.link(old, new)
    except OSError:  # a file system without hard links
        shutil.copy2(old, new)


def _exports_of_new(text, path):
    tree = parse(text, path)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == markers.MODULE:
            raise PatchError(
                f"{path}:{node.lineno}: upstream has no file of this path, so "
                "all of it is new. Take the markers of `patchset` away."
            )
    return [
        (public, path, name)
        for name, node in map(_exported_value, tree.body)
        for public in exported_names(node)
    ]


def _exported_value(node):
    """Returns the name that a statement exports, and what says under which.

    That is a decorated definition, or, for a value that is defined elsewhere,
    the statement `keras_export("keras.Name")(Name)`.
    """
    call = getattr(node, "value", None)
    if isinstance(node, ast.Expr) and isinstance(call, ast.Call):
        inner, args = call.func, call.args
        if isinstance(inner, ast.Call) and len(args) == 1:
            holder = ast.FunctionDef(decorator_list=[inner])
            return getattr(args[0], "id", None), holder
    return getattr(node, "name", None), node


def _lock_problems(composed, lock):
    found = {change.key: change for change in composed.changes}
    release = f"--for {lock.version} "
    problems = [
        f"{key}: open in {lock.file} ({why}); "
        f"{LOCK_HINT.format(key=key, release=release)}\n"
        "    When the overlay is right again: python pip_build.py "
        f"{release}--accept {key}"
        for key, why in lock.open.items()
    ]
    for key, expected in lock.definitions.items():
        if key in found:
            if expected != definition_hash(found[key].upstream):
                problems.append(
                    f"{key}: upstream's definition has changed since the lock "
                    f"was written; {LOCK_HINT.format(key=key, release=release)}"
                    "\n    When the overlay is right again: python "
                    f"pip_build.py {release}--accept {key}"
                )
        elif not composed.problems and not _is_unshipped_test(key, lock):
            problems.append(
                f"{key}: in {lock.file}, but the overlay does not touch it. "
                f"Write the lock anew: python pip_build.py {release}--lock"
            )
    return problems


def _is_unshipped_test(key, lock):
    path = key.partition("::")[0]
    return path.endswith("_test.py") and lock.tests == "none"


def _missing_inits(new, upstream_dir):
    """A directory without `__init__.py` would be left out of the wheel."""
    folders = {os.path.dirname(path) for path in new}
    return [
        f"{folder}: this new directory has no __init__.py. Add one."
        for folder in sorted(folders)
        if f"{folder}/__init__.py" not in new
        and not (upstream_dir / folder / "__init__.py").exists()
    ]


def _export(composed, upstream_dir, added, withdrawn):
    def read(path):
        for texts in (composed.changed, composed.new):
            if path in texts:
                return texts[path]
        file = upstream_dir / path
        return file.read_text("utf-8") if file.exists() else None

    exports = Exports(read)
    for public in withdrawn:
        exports.withdraw(public)
    for public, path, name in added:
        module = path.removesuffix(".py").removesuffix("/__init__")
        exports.add(public, module.replace("/", "."), name)
    for path, text in exports.changed().items():
        is_new = read(path) is None or path in composed.new
        (composed.new if is_new else composed.changed)[path] = text
