"""Compares what the overlay changes with another release of upstream's."""

import collections
import dataclasses
import difflib
import functools
import io
import pathlib
import re
import textwrap
import tokenize

from patchset.names import Names
from patchset.pieces import PatchError
from patchset.pieces import Source
from patchset.splice import definition_in
from patchset.tree import definition_hash
from patchset.tree import files_of

# What can have happened to a definition, from harmless to not.
SAME = "same"
RENAMED = "renamed only"
CHANGED = "changed"
MOVED = "moved"
MOVED_AND_CHANGED = "moved and changed"
GONE = "gone"
STATES = (SAME, RENAMED, CHANGED, MOVED, MOVED_AND_CHANGED, GONE)
# How much of a definition must be found elsewhere to say that it moved, and how
# many places are looked at.
ALIKE = 0.5
PLACES = 8
LAYOUT = (
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.COMMENT,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
)


@dataclasses.dataclass
class Found:
    """What another release made of one definition.

    Attributes:
        key: The definition, "FILE::Class.f", as the lock names it.
        state: One of `STATES`.
        old: Its text where the lock was written.
        new: Its text in the other release, or "".
        where: Its key there, or "".
        renames: {old dotted name: new} that explain the difference.
    """

    key: str
    state: str
    old: str
    new: str = ""
    where: str = ""
    renames: dict = dataclasses.field(default_factory=dict)


def remembered(method):
    """Keeps what a method gives as long as its object lives."""

    @functools.wraps(method)
    def wrapped(self, argument):
        memory = self.__dict__.setdefault(f"_{method.__name__}", {})
        if argument not in memory:
            memory[argument] = method(self, argument)
        return memory[argument]

    return wrapped


class Tree:
    """The source files of one release, read and cut when they are needed."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.files = set(files_of(root))

    @remembered
    def read(self, path):
        return (self.root / path).read_text("utf-8")

    @remembered
    def definition(self, key):
        path, _, name = key.partition("::")
        if path not in self.files:
            return None
        return definition_in(self.source(path), name)

    @remembered
    def source(self, path):
        return Source(self.read(path), path)

    @functools.cached_property
    def defined(self):
        """All names that are defined anywhere, methods too."""
        pattern = re.compile(r"^ *(?:def|class) +(\w+)|^(\w+) *=", re.M)
        return {
            name
            for path in self.files
            for match in pattern.findall(self.read(path))
            for name in match
        }

    @functools.cached_property
    def homes(self):
        """{last name: keys} of all functions, classes and methods."""
        pattern = re.compile(r"^( *)(?:async )?(def|class) +(\w+)", re.M)
        homes = collections.defaultdict(list)
        for path in sorted(self.files):
            owner = ""
            for indent, kind, name in pattern.findall(self.read(path)):
                if not indent:
                    owner = name if kind == "class" else ""
                    homes[name].append(f"{path}::{name}")
                elif indent == "    " and owner:
                    homes[name].append(f"{path}::{owner}.{name}")
        return homes

    @remembered
    def words(self, path):
        """All dotted names of a file, outside of comments and strings."""
        return {t for t in tokens_of(self.read(path)) if _is_name(t)}

    @functools.cached_property
    def names(self):
        return Names(self.read, self.files)

    def absolute(self, path, name):
        """Returns "keras.src.x.y" of a name in a file, if it is Keras's."""
        root, dot, rest = name.partition(".")
        module = self.names.module_of(path)
        own = re.search(rf"^(?:def|class) +{root}\b", self.read(path), re.M)
        if own:
            return f"{module}.{name}"
        for target in self.names.imports(path).get(root, ()):
            if target.partition(".")[0] == "keras":
                return target + dot + rest
        return None


def compare(base, other, lock, skip=()):
    """Yields a `Found` for each definition of the lock.

    Args:
        base: `Tree` of the release that the lock is of.
        other: `Tree` of the other release.
        lock: The `Lock`.
        skip: Definitions that are left out.
    """
    finder = _Finder(base, other)
    for key in lock.definitions:
        if key not in skip:
            yield finder.find(key)


def tests_missing(lock, other):
    """Returns the overlaid files of tests that a release does not ship."""
    paths = {key.partition("::")[0] for key in lock.definitions}
    return sorted(
        path
        for path in paths | set(lock.files)
        if path.endswith("_test.py") and path not in other.files
    )


class _Finder:
    def __init__(self, base, other):
        self.base, self.other = base, other

    def find(self, key):
        old = self.base.definition(key)
        if old is None:
            raise PatchError(
                f"{key}: the release that the lock is of has no such "
                "definition. Write the lock anew: python pip_build.py --lock"
            )
        new = self.other.definition(key)
        if new is not None:
            state, renames = self._difference(key, key, old, new)
            return Found(key, state, old, new, key, renames)
        where, new = self._moved(key, old)
        if where is None:
            return Found(key, GONE, old)
        state, renames = self._difference(key, where, old, new)
        moved = MOVED_AND_CHANGED if state == CHANGED else MOVED
        return Found(key, moved, old, new, where, renames)

    def _difference(self, key, where, old, new):
        if definition_hash(old) == definition_hash(new):
            return SAME, {}
        renames = self._renames(key, where, old, new)
        return (CHANGED, {}) if renames is None else (RENAMED, renames)

    def _renames(self, key, where, old, new):
        """Returns {old name: new} if nothing else differs, else None."""
        before, after = tokens_of(old), tokens_of(new)
        if len(before) != len(after):
            return None
        renames = {}
        for a, b in zip(before, after):
            if a != b and not (_is_name(a) and _is_name(b)):
                return None
            if _is_name(a) and renames.setdefault(a, b) != b:
                return None
        renames = {a: b for a, b in renames.items() if a != b}
        here, there = key.partition("::")[0], where.partition("::")[0]
        for a, b in renames.items():
            if not self._is_rename(a, b, here, there):
                return None
        return renames

    def _is_rename(self, old, new, here, there):
        """Something of Keras's that is there no more, and its new name."""
        before = self.base.absolute(here, old)
        after = self.other.absolute(there, new)
        if before is None or after is None or old in self.other.words(there):
            return False
        if old.rpartition(".")[2] != new.rpartition(".")[2]:
            if self.base.names.exists(after):
                return False
        return not self.other.names.exists(before)

    def _moved(self, key, old):
        """Returns the new key and text of what is not where it was."""
        path, _, name = key.partition("::")
        owner, _, member = name.partition(".")
        if member.startswith("__") and member in (
            "__bases__",
            "__decorators__",
        ):
            where, _ = self._moved(f"{path}::{owner}", old)
            where = where and f"{where}.{member}"
            return where, where and self.other.definition(where)
        last = member or owner
        places = [
            place
            for place in self.other.homes.get(last, ())
            if ("." in place.partition("::")[2]) == bool(member)
            and self.base.definition(place) is None
        ]
        near = sorted(places, key=lambda place: _distance(key, place))
        best, score = None, ALIKE
        for place in near[:PLACES]:
            text = self.other.definition(place)
            if text and _distance(key, place)[0] == 0:
                return place, text
            alike = _ratio(old, text) if text else 0
            if alike > score:
                best, score = place, alike
        return best, best and self.other.definition(best)


@functools.cache
def tokens_of(text):
    """Returns the tokens of source, dotted names whole, without layout."""
    found = []
    reader = io.StringIO(textwrap.dedent(text)).readline
    try:
        for token in tokenize.generate_tokens(reader):
            if token.type in LAYOUT:
                continue
            word = token.string
            dotted = found and found[-1][-1:] == "." and word.isidentifier()
            joins = word == "." and found and _is_name(found[-1])
            if dotted or joins:
                found[-1] += word
                continue
            if word in (")", "]", "}") and found and found[-1] == ",":
                found.pop()  # a formatter's
            found.append(word)
    except (tokenize.TokenError, IndentationError):
        return tuple(text.split())
    return tuple(found)


def _is_name(token):
    return token.replace(".", "").isidentifier() and token[0] != "."


def _distance(key, place):
    """Returns how far apart two keys are: in folders, then by their names."""
    path, _, name = key.partition("::")
    other, _, there = place.partition("::")
    lacking = set(path.split("/")) - set(other.split("/"))
    more = set(other.split("/")) - set(path.split("/"))
    names = difflib.SequenceMatcher(None, name, there).ratio()
    return len(lacking), len(more), -names


def _ratio(old, new):
    matcher = difflib.SequenceMatcher(
        None, tokens_of(old), tokens_of(new), autojunk=False
    )
    return matcher.ratio() if matcher.quick_ratio() > ALIKE else 0
