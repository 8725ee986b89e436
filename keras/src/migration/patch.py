"""Applies what is mechanical to a file, and shows it as a patch."""

import difflib
import os
import re
import typing

import libcst as cst

from keras.src.migration.finding import REMOVE
from keras.src.migration.finding import Finding
from keras.src.migration.sources import Source


def patched(source: Source, findings: typing.Iterable[Finding]) -> bytes:
    """The file with every mechanical finding replaced, as bytes."""
    changes = {f.node: f.change for f in findings if f.is_mechanical}
    return source.tree.visit(_Apply(changes)).bytes


def unified_diff(path: typing.Any, before: bytes, after: bytes) -> bytes:
    """A patch of one file that `patch -p0` and `git apply` take, as bytes.

    Args:
        path: Path of the file.
        before: Its content, as bytes.
        after: Its content when patched.
    """
    # `git apply` strips the first directory, and `patch -p0` strips none.
    path = os.path.relpath(path).replace(os.sep, "/").encode()
    old, new = (
        re.findall(rb"[^\n]*\n|[^\n]+", text) for text in (before, after)
    )
    lines = difflib.diff_bytes(
        difflib.unified_diff,
        old,
        new,
        fromfile=b"./" + path,
        tofile=b"./" + path,
    )
    ending = b"\n\\ No newline at end of file\n"
    return b"".join(
        line if line.endswith(b"\n") else line + ending for line in lines
    )


class _Apply(cst.CSTTransformer):
    def __init__(self, changes):
        super().__init__()
        self.changes = changes

    def on_leave(self, original_node, updated_node):
        updated_node = super().on_leave(original_node, updated_node)
        change = self.changes.get(original_node)
        # What goes is taken out of the block that it is in.
        if change is None or change is REMOVE:
            return updated_node
        return change(updated_node)

    def leave_IndentedBlock(self, original_node, updated_node):
        """Takes statements out, but not the comments that stay true."""
        body, left_over = [], []
        for old, new in zip(original_node.body, updated_node.body, strict=True):
            lines = new.leading_lines
            if self.changes.get(old) is REMOVE:
                left_over += _comments_to_keep(lines)
                continue
            if not body and old is not original_node.body[0]:
                lines = _without_empty([*left_over, *lines])
            else:
                lines = [*left_over, *lines]
            body.append(new.with_changes(leading_lines=lines))
            left_over = []
        footer = [*left_over, *updated_node.footer]
        return updated_node.with_changes(body=body, footer=footer)


def _comments_to_keep(lines):
    """Lines above a statement that goes, less those that speak of masks."""
    lines, attached = list(lines), []
    while lines and lines[-1].comment is not None:
        attached.insert(0, lines.pop())
    if any("mask" in line.comment.value.lower() for line in attached):
        attached = []
    kept = [*lines, *attached]
    return kept if any(line.comment for line in kept) else []


def _without_empty(lines):
    """Lines without the empty ones at the start, where a block begins."""
    lines = list(lines)
    while lines and lines[0].comment is None:
        del lines[0]
    return lines
