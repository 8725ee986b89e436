"""Cuts source text into pieces, one for each statement."""

import ast
import dataclasses
import functools
import io
import itertools
import tokenize

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
IMPORTS = (ast.Import, ast.ImportFrom)
MARKERS = ("keeps", "new", "when")


class PatchError(Exception):
    """The patch set cannot be built; the message says why and what to do."""


@dataclasses.dataclass(eq=False)
class Piece:
    """One statement: the blank lines, the comments above it, its text."""

    node: ast.stmt
    name: str | None
    gap: str
    lead: str
    text: str
    fresh: bool = False  # stands where upstream has nothing
    is_new: bool = False
    keeps: str | None = None

    @property
    def is_definition(self):
        return isinstance(self.node, DEFINITIONS)

    @property
    def is_import(self):
        return isinstance(self.node, IMPORTS)


# Nobody changes a tree, and most files are asked for several times.
_parsed = functools.lru_cache(maxsize=4096)(ast.parse)


def parse(text, path):
    try:
        return _parsed(text)
    except SyntaxError as e:
        raise PatchError(
            f"{path}:{e.lineno}: this file does not parse: {e.msg}. "
            "Correct it, then build again."
        ) from None


class Source:
    """A parsed file, cut into pieces."""

    def __init__(self, text, path):
        self.path = path
        self.tree = parse(text, path)
        # Not `splitlines`: it also splits at form feeds, which ast does not.
        self.lines = [line + "\n" for line in text.split("\n")]
        if self.lines[-1] == "\n":
            self.lines.pop()

    def cut(self, body, first, last, ours):
        """Cuts `lines[first:last]`, which hold the statements of `body`.

        Returns:
            The pieces, and the text that is left after the last one.
        """
        pieces, at = [], first
        for i, node in enumerate(body):
            start = start_of(node)
            if start < at:
                raise PatchError(
                    f"{self.path}:{node.lineno}: two statements share this "
                    "line. Write one statement on each line."
                )
            limit = start_of(body[i + 1]) if i + 1 < len(body) else last
            end = self._end(node, limit)
            pieces.append(self._piece(node, i, at, start, end, ours))
            at = end
        return pieces, "".join(self.lines[at:last])

    def cut_module(self, ours):
        return self.cut(self.tree.body, 0, len(self.lines), ours)

    def cut_class(self, node, ours):
        last = self._end(node, len(self.lines))
        return self.cut(node.body, self.header_end(node), last, ours)

    def header_end(self, node):
        """Returns the number of lines up to the colon of a `class` line."""
        rest = io.StringIO("".join(self.lines[node.lineno - 1 :]))
        depth = 0
        for token in tokenize.generate_tokens(rest.readline):
            if token.string in ("(", "[", "{"):
                depth += 1
            elif token.string in (")", "]", "}"):
                depth -= 1
            elif token.string == ":" and depth == 0:
                return node.lineno - 1 + token.end[0]
        raise AssertionError("a parsed class has a colon")

    def between(self, first, last):
        return "".join(self.lines[first:last])

    def decorators(self, node):
        """Returns the decorator lines of a definition without our markers."""
        lines = self.lines[start_of(node) : node.lineno - 1]
        for decorator in node.decorator_list:
            if called(decorator) in MARKERS:
                first = decorator.lineno - 1 - start_of(node)
                last = decorator.end_lineno - start_of(node)
                lines[first:last] = [""] * (last - first)
        return "".join(lines)

    def _end(self, node, limit):
        """Takes in the comments below a block that are indented like it."""
        end = node.end_lineno
        if not hasattr(node, "body"):
            return end
        for i in range(end, limit):
            line = self.lines[i].strip()
            if line:
                indent = len(self.lines[i]) - len(self.lines[i].lstrip())
                if not line.startswith("#") or indent <= node.col_offset:
                    break
                end = i + 1
        return end

    def _piece(self, node, index, at, start, end, ours):
        split = start
        if ours:
            # All comments since the statement before travel with this one.
            split = at
            while split < start and not self.lines[split].strip():
                split += 1
        else:
            while split > at and self.lines[split - 1].strip()[:1] == "#":
                split -= 1
        piece = Piece(
            node=node,
            name=_name(node, index),
            gap=self.between(at, split),
            lead=self.between(split, start),
            text=self.between(start, end),
            fresh=ours,
        )
        if ours and piece.is_definition:
            self._read_markers(piece, end)
        return piece

    def _read_markers(self, piece, end):
        node = piece.node
        for decorator in node.decorator_list:
            marker = called(decorator)
            if marker == "new":
                piece.is_new = True
            elif marker == "keeps":
                piece.keeps = _kept_name(decorator, self.path)
        piece.text = self.decorators(node) + self.between(node.lineno - 1, end)


def start_of(node):
    lines = [d.lineno for d in getattr(node, "decorator_list", ())]
    return min([node.lineno, *lines]) - 1


def called(decorator):
    """Returns the last name of a decorator: `keeps` for `@keeps("x")`."""
    if isinstance(decorator, ast.Call):
        decorator = decorator.func
    return ast.unparse(decorator).rpartition(".")[2]


def _kept_name(decorator, path):
    args = getattr(decorator, "args", ())
    if len(args) == 1 and isinstance(args[0], ast.Constant):
        if str(args[0].value).isidentifier():
            return args[0].value
    raise PatchError(
        f"{path}:{decorator.lineno}: `@keeps` takes one name, as in "
        '`@keeps("_plain_call")`.'
    )


def _name(node, index):
    """Returns the name that a statement defines, if any."""
    if isinstance(node, DEFINITIONS):
        return node.name
    if isinstance(node, ast.Assign):
        names = [_target_names(target) for target in node.targets]
        if all(names):
            return ", ".join(itertools.chain(*names))
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return node.target.id
    if isinstance(node, IMPORTS) and len(node.names) == 1:
        return node.names[0].asname or node.names[0].name
    if index == 0 and isinstance(node, ast.Expr):
        if isinstance(node.value, ast.Constant):
            if isinstance(node.value.value, str):
                return "__doc__"
    return None


def _target_names(target):
    elements = getattr(target, "elts", [target])
    names = [e.id for e in elements if isinstance(e, ast.Name)]
    return names if len(names) == len(elements) else []
