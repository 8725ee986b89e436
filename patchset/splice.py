"""Splices one overlay file into upstream's file of the same path.

Both files are cut into pieces. A piece that the overlay does not touch is
written out as it was read, so upstream's text stays what it is to the byte.
"""

import ast
import dataclasses
import itertools
import re

from patchset import markers
from patchset.pieces import DEFINITIONS
from patchset.pieces import MARKERS
from patchset.pieces import PatchError
from patchset.pieces import Source
from patchset.pieces import called
from patchset.pieces import parse
from patchset.pieces import start_of

# What a wrapper that passes its arguments on is decorated with.
AS_KEPT = "from keras.src.signatures import as_kept\n"


@dataclasses.dataclass
class Change:
    """What happens to one definition of upstream's."""

    path: str
    name: str
    kind: str  # "replaced", "kept" or "deleted"
    upstream: str
    overlay: str
    reason: str = ""
    key: str = ""  # as the overlay names it: "FILE::Class.f"


@dataclasses.dataclass
class Spliced:
    """The composed text of one file, and what went into it."""

    text: str
    changes: list[Change]
    exports: list[tuple[str, str]]  # (public name, name in the module)
    withdrawn: list[str]  # public names of deleted definitions
    problems: list[str]  # what the text lacks, and why


def exported_names(node):
    """Returns the public names in the `@keras_export` of a definition."""
    for decorator in getattr(node, "decorator_list", ()):
        if called(decorator) == "keras_export":
            values = [*decorator.args, *(k.value for k in decorator.keywords)]
            names = ast.literal_eval(values[0])
            return [names] if isinstance(names, str) else list(names)
    return []


def splice(upstream, overlay, path):
    """Returns upstream's text with the overlay's definitions in it."""
    spliced = attempt(upstream, overlay, path)
    if spliced.problems:
        raise PatchError("\n".join(spliced.problems))
    return spliced


def attempt(upstream, overlay, path):
    """Splices what can be spliced; the problems say what is left out."""
    return _Splicer(upstream, overlay, path).run()


def definition_of(text, path, name):
    """Returns the text of one definition, "f" or "Class.f", or None."""
    return definition_in(Source(text, path), name)


def definition_in(source, name):
    pieces, _ = source.cut_module(ours=False)
    owner, _, member = name.partition(".")
    found = _find(pieces, owner)
    if member:
        if not found or not isinstance(found[0].node, ast.ClassDef):
            return None
        node = found[0].node
        if member in ("__bases__", "__decorators__"):
            return source.between(start_of(node), source.header_end(node))
        found = _find(source.cut_class(node, ours=False)[0], member)
    return "".join(piece.text for piece in found) or None


class _Splicer:
    def __init__(self, upstream, overlay, path):
        self.path = path
        self.upstream = Source(upstream, f"upstream's {path}")
        self.overlay = Source(overlay, path)
        self.changes = []
        self.exports = []
        self.withdrawn = []
        self.problems = []
        self.passes_on = False  # Whether a wrapper of this file does.

    def run(self):
        theirs, tail = self.upstream.cut_module(ours=False)
        ours, _ = self.overlay.cut_module(ours=True)
        imports = [p for p in ours if p.is_import and not _is_marker(p)]
        ours = [p for p in ours if not p.is_import and p.name != "__doc__"]
        self._merge(theirs, ours, scope="", blanks=2)
        if self.passes_on:
            imports += Source(AS_KEPT, self.path).cut_module(ours=True)[0]
        _add_imports(theirs, imports)
        text = _render(theirs, blanks=2) + tail
        composed = parse(text, f"the composed {self.path}")
        if any(f"@{marker}" in text for marker in MARKERS):
            self._check_markers(composed)
        return Spliced(
            text, self.changes, self.exports, self.withdrawn, self.problems
        )

    def _check_markers(self, tree):
        for node in ast.walk(tree):
            for decorator in getattr(node, "decorator_list", ()):
                if called(decorator) in MARKERS:
                    self.problems.append(
                        f"{self.path}: `@{called(decorator)}` on "
                        f"`{node.name}` has no meaning inside a definition "
                        "that is new or replaced whole. Take it away."
                    )

    def _merge(self, theirs, ours, scope, blanks):
        """Merges the overlay's pieces of one body into upstream's, in place."""
        added = _added_names(ours)
        pending = []
        for name, group in _groups(ours):
            try:
                if isinstance(group[0].node, ast.Delete):
                    self._delete(theirs, group[0], scope)
                elif name is None:
                    pending += group
                elif self._is_new(theirs, name, group, scope, added):
                    self._export(group[0], scope)
                    pending += group
                else:
                    found = _find(theirs, name)
                    _insert_before(theirs, found[0], pending, blanks)
                    pending = []
                    self._replace(theirs, found, group, scope, blanks)
                    self._export(group[0], scope)
            except PatchError as e:
                self.problems.append(str(e))
        if pending:
            pending[0].gap = "\n" * blanks
            theirs += pending

    def _is_new(self, theirs, name, group, scope, added):
        declared = any(p.is_new for p in group)
        declared = declared or set(name.split(", ")) <= added
        found = _find(theirs, name)
        if declared and found:
            self._fail(
                group[0].node,
                f"`{scope}{name}` is declared new, but upstream has it. "
                "Take the declaration away to replace upstream's.",
            )
        if declared and any(p.keeps for p in group):
            self._fail(
                group[0].node,
                f"`{scope}{name}` is new, so that there is nothing to keep. "
                "Take `@keeps` away.",
            )
        if not declared and not found:
            key = f"{self.path}::{scope}{name}"
            self._fail(
                group[0].node,
                f"upstream has no `{scope}{name}`. Declare it with `@new` (an "
                "assignment: in `__added__`), or correct the name. If upstream "
                f"moved it: python pip_build.py --show {key}",
            )
        return declared

    def _replace(self, theirs, found, group, scope, blanks):
        first, ours = found[0], group[0]
        keeps = next((p.keeps for p in group if p.keeps), None)
        classes = (first.node, ours.node)
        if (
            not scope
            and keeps is None
            and all(isinstance(node, ast.ClassDef) for node in classes)
        ):
            self._merge_class(first, ours)
            return
        name = scope + ours.name
        self._record(name, found, group, "kept" if keeps else "replaced")
        if keeps:
            if _find(theirs, keeps):
                self._fail(
                    ours.node,
                    f"`{name}` cannot be kept as `{keeps}`: upstream has a "
                    f"`{scope}{keeps}`. Choose another name.",
                )
            if _passes_on(ours.node) and not _passes_on(first.node):
                self.passes_on = True
                _sign(ours, keeps)
            for piece in found:
                _rename(piece, keeps, self.path)
            at = theirs.index(found[-1]) + 1
            ours.gap = "\n" * blanks
            theirs[at:at] = group
        else:
            ours.gap, ours.lead = first.gap, ours.lead or first.lead
            ours.fresh = ours.is_definition != first.is_definition
            at = theirs.index(first)
            theirs[at : at + 1] = group
            for piece in found[1:]:
                _remove(theirs, piece)

    def _merge_class(self, first, ours):
        # Upstream's class is cut anew: a `del` may have changed its text.
        up, over = Source(first.text, self.path), self.overlay
        (node,) = up.tree.body
        name = ours.name
        theirs, tail = up.cut_class(node, ours=False)
        mine, _ = over.cut_class(ours.node, ours=True)
        decorators = up.decorators(node)
        if over.decorators(ours.node):
            self._record_text(f"{name}.__decorators__", decorators, ours)
            decorators = over.decorators(ours.node)
        header = up.between(node.lineno - 1, up.header_end(node))
        if _bases(ours.node) not in ([], _bases(node)):
            self._record_text(f"{name}.__bases__", header, ours)
            line = ours.node.lineno - 1
            header = over.between(line, over.header_end(ours.node))
        if mine and mine[0].name == "__doc__" and not _find(theirs, "__doc__"):
            theirs.insert(0, dataclasses.replace(mine.pop(0), gap="", lead=""))
            theirs[1].gap = theirs[1].gap or "\n"
        self._merge(theirs, mine, scope=f"{name}.", blanks=1)
        first.lead = ours.lead or first.lead
        first.text = decorators + header + _render(theirs, blanks=1) + tail

    def _delete(self, theirs, piece, scope):
        for target in piece.node.targets:
            name = scope + ast.unparse(target)
            owner, _, member = name.partition(".")
            if scope or not member:
                self._delete_one(theirs, member or owner, name, piece)
                continue
            found = [p for p in _find(theirs, owner) if p.is_definition]
            if not found:
                self._fail(piece.node, f"upstream has no class `{owner}`.")
            self._delete_member(found[0], member, name, piece)

    def _delete_member(self, owner, member, name, piece):
        source = Source(owner.text, self.path)
        (node,) = source.tree.body
        members, tail = source.cut_class(node, ours=False)
        head = source.between(0, source.header_end(node))
        self._delete_one(members, member, name, piece)
        owner.text = head + _render(members, blanks=1) + tail

    def _delete_one(self, pieces, name, qualified, piece):
        found = _find(pieces, name, imports=True)
        if not found:
            key = f"{self.path}::{qualified}"
            self._fail(
                piece.node,
                f"upstream has no `{qualified}` to delete. Correct the name; "
                f"if upstream moved it: python pip_build.py --show {key}",
            )
        reason = _comment_text(piece.lead)
        if self.path.endswith("_test.py") and not reason:
            self._fail(
                piece.node,
                f"the test `{qualified}` is deleted without a reason. Write "
                "it in a comment above the `del`.",
            )
        self._record(qualified, found, [piece], "deleted", reason)
        for gone in found:
            self.withdrawn += exported_names(gone.node)
            _remove(pieces, gone)

    def _record(self, name, found, group, kind, reason=None):
        if reason is None:
            reason = _docstring(group[0].node)
        is_test = name.rpartition(".")[2].startswith("test")
        if self.path.endswith("_test.py") and is_test and not reason:
            self._fail(
                group[0].node,
                f"the test `{name}` is replaced without a reason. Write it in "
                "the docstring of the replacing test.",
            )
        upstream = "".join(p.text for p in found)
        overlay = "".join(p.lead + p.text for p in group)
        self.changes.append(
            Change(self.path, name, kind, upstream, overlay, reason)
        )

    def _record_text(self, name, upstream, piece):
        self.changes.append(
            Change(self.path, name, "replaced", upstream, piece.text)
        )

    def _export(self, piece, scope):
        if not scope:
            self.exports += [
                (n, piece.name) for n in exported_names(piece.node)
            ]

    def _fail(self, node, message):
        raise PatchError(f"{self.path}:{node.lineno}: {message}")


def _groups(pieces):
    """Yields (name, pieces of that name); property setters share a group."""
    seen = set()
    for piece in pieces:
        if piece.name in seen or isinstance(piece.node, ast.Pass):
            continue
        if piece.name == "__added__":
            continue
        if piece.name is None or piece.is_import:
            yield None, [piece]
            continue
        seen.add(piece.name)
        yield piece.name, [p for p in pieces if p.name == piece.name]


def _added_names(pieces):
    added = {"__added__"}
    for piece in pieces:
        if piece.name == "__added__":
            added.update(ast.literal_eval(piece.node.value))
    return added


def _find(pieces, name, imports=False):
    """Returns the pieces of a name: a property has one for its setter too."""
    found = [p for p in pieces if p.name == name]
    return [p for p in found if imports or not p.is_import]


def _insert_before(pieces, anchor, new, blanks):
    if not new:
        return
    new[0].gap, anchor.gap = anchor.gap, "\n" * blanks
    at = pieces.index(anchor)
    pieces[at:at] = new


def _remove(pieces, piece):
    at = pieces.index(piece)
    following = pieces[at + 1] if at + 1 < len(pieces) else None
    kept = piece.gap.rstrip("\n ")  # a comment that stands by itself
    if following is not None:
        if at == 0:
            following.gap = piece.gap
        elif kept:
            following.gap = f"{kept}\n{following.gap}"
    del pieces[at]


def _passes_on(node):
    """Whether a definition takes whatever it is given."""
    args = getattr(node, "args", None)
    return bool(args and args.vararg and args.kwarg)


def _sign(piece, kept):
    """Gives a wrapper the signature of what it wraps."""
    lines = piece.text.splitlines(keepends=True)
    at = next(i for i, x in enumerate(lines) if x.lstrip().startswith("def "))
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    lines.insert(at, f"{indent}@as_kept({kept})\n")
    piece.text = "".join(lines)


def _rename(piece, name, path):
    """Gives upstream's piece another name, and takes its export away."""
    old, node = piece.name, piece.node
    if not isinstance(node, DEFINITIONS):
        raise PatchError(
            f"{path}: `@keeps` works for functions and classes; upstream's "
            f"`{old}` is an assignment."
        )
    start = start_of(node)
    lines = piece.text.splitlines(keepends=True)
    at = node.lineno - 1 - start
    lines[at] = re.sub(
        rf"\b(def|class)(\s+){old}\b", rf"\1\2{name}", lines[at], count=1
    )
    for decorator in node.decorator_list:
        first, last = decorator.lineno - 1 - start, decorator.end_lineno - start
        if called(decorator) == "keras_export":
            lines[first:last] = [""] * (last - first)
        # `@x.setter` is written in terms of the old name.
        lines[first] = re.sub(rf"^(\s*@){old}\.", rf"\1{name}.", lines[first])
    piece.name, piece.text = name, "".join(lines)


def _add_imports(pieces, imports):
    """Adds imports after the last one of the file's head."""
    present = {ast.dump(p.node) for p in pieces if p.is_import}
    imports = [p for p in imports if ast.dump(p.node) not in present]
    futures = [p for p in imports if _is_future(p)]
    imports = [p for p in imports if not _is_future(p)]
    head = itertools.takewhile(
        lambda p: (
            p.is_import
            or p.name == "__doc__"
            or (isinstance(p.node, (ast.If, ast.Try)) and not p.fresh)
        ),
        pieces,
    )
    head = [p for p in head if p.is_import or p.name == "__doc__"]
    after_docstring = int(bool(head) and head[0].name == "__doc__")
    _insert_imports(pieces, pieces.index(head[-1]) + 1 if head else 0, imports)
    _insert_imports(pieces, after_docstring, futures)


def _insert_imports(pieces, at, imports):
    for piece in imports:
        piece.gap = ""
    if imports:
        previous = pieces[at - 1] if at else None
        if previous is not None and not previous.is_import:
            imports[0].gap = "\n"
        if at < len(pieces) and not pieces[at].gap:
            if not pieces[at].is_import or _is_future(imports[0]):
                pieces[at].gap = "\n"
    pieces[at:at] = imports


def _is_future(piece):
    return getattr(piece.node, "module", None) == "__future__"


def _is_marker(piece):
    return getattr(piece.node, "module", None) == markers.MODULE


def _bases(node):
    return [ast.dump(n) for n in [*node.bases, *node.keywords]]


def _render(pieces, blanks):
    parts = []
    previous = None
    for piece in pieces:
        gap = piece.gap
        if previous is not None and (previous.fresh or piece.fresh):
            gap = _tidy(gap, previous, piece, blanks)
        parts += [gap, piece.lead, piece.text]
        previous = piece
    return "".join(parts)


def _tidy(gap, previous, piece, blanks):
    """Returns the gap, with enough blank lines around a definition."""
    if gap.strip():
        return gap
    count = min(gap.count("\n"), blanks)
    if previous.is_definition or piece.is_definition:
        count = blanks
    return "\n" * count


def _docstring(node):
    if not isinstance(node, DEFINITIONS):
        return ""
    return _first_paragraph(ast.get_docstring(node) or "")


def _first_paragraph(text):
    return " ".join(text.strip().split("\n\n")[0].split())


def _comment_text(lead):
    lines = [line.strip().lstrip("#").strip() for line in lead.splitlines()]
    return _first_paragraph("\n".join(lines))
