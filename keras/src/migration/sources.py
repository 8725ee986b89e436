"""Reads files, resolves their names, and tells whose classes are Keras's."""

import ast
import dataclasses
import functools
import os
import pathlib
import re
import typing
import warnings

import libcst as cst
from libcst import metadata

# Where a class comes from, in names such as `keras.src.layers.Dense`.
ROOT = r"(?:keras(?:_\w+)?|tensorflow\.keras)\."
# What each kind is, by its base class, or by the package that has it.
KINDS = {
    "layer": ("Layer", "Model", "Sequential", "Functional"),
    "model": ("Model", "Sequential", "Functional"),
    "score": ("Metric", "Loss"),
}
PACKAGES = {
    "layer": {"layers", "models", "engine"},
    "model": {"models"},
    "score": {"metrics", "losses"},
}

# A file without any of these has nothing to be found. Names take long.
ATTRIBUTE_HINT = rb"keras_mask"
MASK_HINT = rb"Masking|mask_zero|MaskedTensor"
LAST_STEP_HINT = rb"\[\s*:\s*,\s*-\s*1\b"
TRAINING_HINTS = (
    MASK_HINT,
    rb"\.(?:compile|fit|evaluate|train_on_batch|test_on_batch)\(",
)
_HINTS = (
    (rb"supports_masking|compute_mask",),
    (rb"def call\b[\s\S]{0,500}?\bmask\b",),
    (rb"def call\b[\s\S]{0,300}?\b(\w+)\b[\s\S]{0,300}?\b\1_mask\b",),
    (rb"def call\b", rb"\b(?:jax|numpy|tensorflow|torch|backend)\b"),
    (ATTRIBUTE_HINT,),
    (LAST_STEP_HINT, rb"def call\b|" + MASK_HINT),
    TRAINING_HINTS,
)
_CLASS_HEADER = re.compile(rb"^[ \t]*class\s+\w+\s*\(([^)]*)\)", re.MULTILINE)


TOO_DEEP = "nested too deeply"


@dataclasses.dataclass(frozen=True, eq=False)
class Class:
    """A class of a file.

    Attributes:
        name: Its full name, with the module.
        node: Its definition.
        bases: Full names of its bases.
    """

    name: str
    node: cst.ClassDef
    bases: tuple

    @property
    def short_name(self) -> str:
        return self.node.name.value

    @functools.cached_property
    def methods(self) -> dict[str, cst.FunctionDef]:
        """Functions in its body, by name; the last of those of one name."""
        return {function.name.value: function for function in self._functions}

    @property
    def has_twins(self) -> bool:
        """Whether two functions in its body have the same name."""
        return len(self._functions) > len(self.methods)

    @functools.cached_property
    def _functions(self):
        body = self.node.body.body
        return [s for s in body if isinstance(s, cst.FunctionDef)]


class Source:
    """A file that was read.

    Attributes:
        path: Its path, as given or as found below a directory.
        data: Its content, as bytes.
        tree: Its syntax tree; the module's code is the file to the byte.
        classes: A `Class` for each definition of one.
    """

    def __init__(self, path: typing.Any, data: bytes):
        self.path, self.data = path, data
        self._module, self._package = _module_of(path)
        # The parser makes no node twice, so that no copy is needed.
        self._wrapper = metadata.MetadataWrapper(
            cst.parse_module(data), unsafe_skip_copy=True
        )
        self.tree = self._wrapper.module
        self._names = self._wrapper.resolve(metadata.QualifiedNameProvider)
        classes = (n for n in walk(self.tree) if isinstance(n, cst.ClassDef))
        self.classes = {node: self._class(node) for node in classes}

    # These take as long as all else, and most files need neither.

    @functools.cached_property
    def _positions(self):
        return self._wrapper.resolve(metadata.PositionProvider)

    @functools.cached_property
    def _parents(self):
        return self._wrapper.resolve(metadata.ParentNodeProvider)

    def _class(self, node):
        bases = (self.name_of(base.value) for base in node.bases)
        return Class(self.name_of(node), node, tuple(bases))

    def name_of(self, node: cst.CSTNode) -> str:
        """Full name of what an expression names; empty if it is no name."""
        names = self._names.get(node, ())
        names = names() if callable(names) else names
        return min(map(self._full_name, names), default="")

    def _full_name(self, name):
        if name.source is metadata.QualifiedNameSource.LOCAL:
            return f"{self._module}.{name.name}"
        # A dot for this package, and one for each above it.
        rest = name.name.lstrip(".")
        dots = len(name.name) - len(rest)
        if not dots:
            return rest
        packages = self._package.split(".")
        return ".".join([*packages[: len(packages) - dots + 1], rest])

    def line_of(self, node: cst.CSTNode) -> int:
        named = (cst.ClassDef, cst.FunctionDef)
        node = node.name if isinstance(node, named) else node
        return self._positions[node].start.line

    def code_of(self, node: cst.CSTNode, limit: int = 60) -> str:
        code = " ".join(self.tree.code_for_node(node).split())
        return code if len(code) <= limit else code[: limit - 3] + "..."

    def around(self, node: cst.CSTNode, *types: type) -> typing.Iterator:
        """The nodes of these types around a node, from inside out."""
        while (node := self._parents.get(node)) is not None:
            if isinstance(node, types):
                yield node

    def class_around(self, node: cst.CSTNode) -> "Class | None":
        """The innermost `Class` that a node is in, or None."""
        for around in self.around(node, cst.ClassDef):
            return self.classes[around]
        return None


class Project:
    """All files that are looked at, each parsed when it is asked for.

    Attributes:
        problems: Why files could not be read, by path.
        extended: Bare names that stand in the header of a class.
    """

    def __init__(self, paths: typing.Iterable):
        self.problems = {}
        self.extended = set()
        self._data = {}
        self._sources = {}
        self._bases = {}
        self._modules = {}
        self._is_a = {}
        for path in _files_of(paths, self.problems):
            self._read(path)

    def __len__(self):
        return len(self._data)

    def _read(self, path):
        try:
            data = pathlib.Path(path).read_bytes()
            # First, for it names the line, and libcst's parser can crash
            # where brackets are nested too deeply.
            with warnings.catch_warnings(action="ignore"):
                ast.parse(data)
        except OSError as error:
            self.problems[path] = error.strerror or str(error)
            return
        except SyntaxError as error:
            self.problems[path] = _describe(error)
            return
        except (ValueError, RecursionError, MemoryError) as error:
            self.problems[path] = str(error) or TOO_DEEP
            return
        self._data[path] = data
        self._modules[_module_of(path)[0]] = path
        for header in _CLASS_HEADER.findall(data):
            self.extended.update(re.findall(r"\w+", header.decode("latin-1")))

    def sources(self) -> typing.Iterator["Source"]:
        """Yields, parsed, the files that may have anything to be found."""
        for path, data in self._data.items():
            if any(has_all(data, hints) for hints in _HINTS):
                # Trees are large, so that none is kept.
                source = self._sources.pop(path, None) or self._parse(path)
                if source is not None:
                    yield source

    def _parse(self, path):
        """The file at a path, or None; the bases of its classes are noted."""
        self._bases[path] = {}
        try:
            source = Source(path, self._data[path])
        except RecursionError:
            self.problems[path] = TOO_DEEP
        except (SyntaxError, cst.ParserSyntaxError) as error:
            self.problems[path] = f"libcst cannot read it: {error}"
        else:
            bases = self._bases[path]
            for cls in source.classes.values():
                # A class of two definitions is what either is.
                bases[cls.name] = bases.get(cls.name, ()) + cls.bases
            return source

    def is_a(self, kind: str, name: str) -> bool:
        """Whether a class is a "layer", a "model" or a "score" of Keras.

        Args:
            kind: One of `KINDS`. Models are layers; losses and metrics are
                scores.
            name: Full name of the class.
        """
        if (kind, name) not in self._is_a:
            self._is_a[kind, name] = False  # For classes that go in circles.
            self._is_a[kind, name] = self._find_is_a(kind, name)
        return self._is_a[kind, name]

    def _find_is_a(self, kind, name):
        path, _, last = name.rpartition(".")
        from_keras = re.match(ROOT, name)
        if from_keras and last in KINDS[kind]:
            return True
        bases = self._bases_of(name)
        if bases is None:
            return (
                from_keras is not None
                and last[:1].isupper()
                and not PACKAGES[kind].isdisjoint(path.split("."))
            )
        return any(self.is_a(kind, base) for base in bases)

    def _bases_of(self, name):
        """The bases of the class of a full name; None if no file has it."""
        module = name
        while module := module.rpartition(".")[0]:
            path = self._modules.get(module)
            if path is not None:
                if path not in self._bases:
                    self._sources[path] = self._parse(path)
                return self._bases[path].get(name)
        return None


# The library visits the whole node for this.
@functools.lru_cache(maxsize=50_000)
def children_of(node: cst.CSTNode) -> tuple:
    return tuple(node.children)


def walk(
    node: cst.CSTNode, into: typing.Callable = children_of
) -> typing.Iterator:
    """Yields a node and those below it, in the order of the text.

    Args:
        node: Where to begin.
        into: Function that gives the children of a node to go on with.
            Defaults to all.
    """
    pending = [node]
    while pending:
        yield (node := pending.pop())
        pending.extend(reversed(into(node)))


def _describe(error):
    where = f"line {error.lineno}: " if error.lineno else ""
    return f"{where}{error.msg}"


def has_all(data: bytes, hints: typing.Iterable[bytes]) -> bool:
    return all(re.search(hint, data) for hint in hints)


def _files_of(paths, problems):
    """Yields files as they are, and those of Python in directories."""
    seen = set()
    for given in paths:
        if not os.path.isdir(given):
            found = [given]
        else:
            found = sorted(_python_files(given, problems))
        for path in found:
            if (real := os.path.realpath(path)) not in seen:
                seen.add(real)
                yield path


def _python_files(directory, problems):
    def note(error):
        problems[error.filename] = error.strerror

    for folder, below, names in os.walk(directory, onerror=note):
        below[:] = [n for n in below if n[0] != "." and n != "__pycache__"]
        for name in names:
            if name.endswith(".py"):
                yield os.path.normpath(os.path.join(folder, name))


def _module_of(path):
    """Names of the module and of its package, by the `__init__.py` files."""
    path = pathlib.Path(path).absolute()
    parts = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").exists():
        parts.insert(0, folder.name)
        folder = folder.parent
    name = ".".join(parts)
    is_package = path.stem == "__init__"
    package = name if is_package else name.rpartition(".")[0]
    return name, package
