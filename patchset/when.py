"""Leaves out of the overlay what a release does not need.

`@when("<3.16")` on a definition, `if when("<3.16"):` around imports, `del`s and
assignments, and `__when__ = "<3.16"` for a file name the releases of upstream
that it is for. Lines that are left out become blank, so that messages name the
lines of the file.
"""

import ast
import re

try:
    from packaging import specifiers
    from packaging import version as versions
except ImportError:  # An environment with pip and nothing else.
    from pip._vendor.packaging import specifiers
    from pip._vendor.packaging import version as versions

from patchset import markers
from patchset.pieces import PatchError
from patchset.pieces import called
from patchset.pieces import parse
from patchset.pieces import start_of

SIMPLE = (ast.Import, ast.ImportFrom, ast.Delete, ast.Assign, ast.AnnAssign)


def version_of(text):
    try:
        return versions.Version(text)
    except versions.InvalidVersion:
        raise PatchError(
            f"{text} is no version of Keras. Write it as in 3.15.1, or give "
            "the path of a wheel."
        ) from None


def applies(specifier, version, where=""):
    """Returns whether a release is one of those that are named.

    A nightly of 3.16 counts as 3.16, which `packaging` puts before it.
    """
    try:
        wanted = specifiers.SpecifierSet(specifier)
    except specifiers.InvalidSpecifier:
        raise PatchError(
            f'{where}"{specifier}" names no releases. Write it as in '
            '"<3.16" or ">=3.15,<3.16".'
        ) from None
    return wanted.contains(version_of(version).base_version, prereleases=True)


def select(text, path, version):
    """Returns what of an overlay file a release gets, or None: nothing."""
    if not re.search(r"\bwhen\(|\b__when__\b", text):
        return text
    module = parse(text, path)
    lines = text.split("\n")
    if not _file_applies(module, lines, path, version):
        return None
    _select_in(module.body, lines, path, version)
    return "\n".join(lines)


def _file_applies(module, lines, path, version):
    for node in module.body:
        if isinstance(node, ast.Assign):
            if getattr(node.targets[0], "id", None) == "__when__":
                value = getattr(node.value, "value", None)
                where = f"{path}:{node.lineno}: "
                first = _with_comments(lines, node.lineno - 1)
                _blank(lines, first, node.end_lineno)
                return applies(_text(value, where), version, where)
    return True


def _select_in(body, lines, path, version):
    for node in body:
        if isinstance(node, ast.ImportFrom):
            if node.module == markers.MODULE and node.names[0].name == "when":
                _blank(lines, node.lineno - 1, node.end_lineno)
        elif isinstance(node, ast.If) and _is_when(node.test):
            _select_block(node, lines, path, version)
        elif _keep(node, lines, path, version):
            if isinstance(node, ast.ClassDef):
                _select_in(node.body, lines, path, version)


def _keep(node, lines, path, version):
    """Blanks the decorator, and with it what it leaves out."""
    for decorator in getattr(node, "decorator_list", ()):
        if _is_when(decorator):
            if not _applies(decorator, path, version):
                first = _with_comments(lines, start_of(node))
                _blank(lines, first, node.end_lineno)
                return False
            _blank(lines, decorator.lineno - 1, decorator.end_lineno)
    return True


def _with_comments(lines, first):
    """Returns the first of the comment lines above a line, or itself."""
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return first


def _select_block(node, lines, path, version):
    """Replaces `if when(...):` by what is in it, or after its `else:`."""
    simple = all(isinstance(n, SIMPLE) for n in [*node.body, *node.orelse])
    if not simple:
        raise PatchError(
            f"{path}:{node.lineno}: `if when(...)` holds imports, `del`s and "
            "assignments. Write `@when(...)` on a definition instead."
        )
    chosen = node.body if _applies(node.test, path, version) else node.orelse
    kept = set()
    for inner in chosen:
        kept.update(range(inner.lineno - 1, inner.end_lineno))
    for i in range(node.lineno - 1, node.end_lineno):
        lines[i] = lines[i].removeprefix("    ") if i in kept else ""


def _is_when(node):
    return isinstance(node, ast.Call) and called(node) == "when"


def _applies(call, path, version):
    where = f"{path}:{call.lineno}: "
    value = call.args[0] if len(call.args) == 1 else None
    text = _text(getattr(value, "value", None), where)
    return applies(text, version, where)


def _text(value, where):
    if not isinstance(value, str):
        raise PatchError(f'{where}`when` takes one text, as in when("<3.16").')
    return value


def _blank(lines, first, last):
    lines[first:last] = [""] * (last - first)


def tidied(text):
    """Returns the text of a new file without the holes of `select`."""
    return re.sub(r"\n{4,}", "\n\n\n", text)
