"""What is found in a file, and the change of the tree that answers it."""

import dataclasses
import typing

import libcst as cst

from keras.src.migration.patterns import PATTERNS

# The change that takes a statement out.
REMOVE = object()


@dataclasses.dataclass(frozen=True)
class Finding:
    """A place in a file.

    Attributes:
        path: Path of the file.
        line: Line, from 1.
        name: Name of the pattern, a key of `PATTERNS`.
        text: What was found and what to write instead.
        node: Where in the tree it is.
        change: Function that gives what takes the place of the node, or
            `REMOVE`, or None where no patch is proposed.
    """

    path: str
    line: int
    name: str
    text: str
    node: cst.CSTNode
    change: typing.Any = None

    @property
    def is_mechanical(self) -> bool:
        return self.change is not None


def find(
    source: typing.Any,
    node: cst.CSTNode,
    name: str,
    change: typing.Any = None,
    **names: str,
) -> "Finding":
    """A `Finding` of a pattern at a node; `names` fill in its texts."""
    pattern = PATTERNS[name]
    text = f"{pattern.what}. {pattern.replacement}.".format(**names)
    return Finding(source.path, source.line_of(node), name, text, node, change)
