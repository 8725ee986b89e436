"""Tells, from source alone, whether a dotted name of Keras's exists."""

import ast
import functools

from patchset.pieces import parse

OPEN = "__getattr__"  # a module that defines it may have any name


class Names:
    """The names that the modules of a tree bind, without importing them."""

    def __init__(self, read, files):
        """Takes `read(path)`, and the paths that there are."""
        self._read, self._files = read, files
        self._bound = {}

    def exists(self, dotted):
        """Returns whether "keras.src.x.y" exists, True if it cannot be told.

        Attributes of classes and values are not looked at.
        """
        parts = dotted.split(".")
        return parts[0] != "keras" or self._has("keras", parts[1:], ())

    def imports(self, path):
        """Returns {name: dotted names} that a file binds by imports."""
        return self._of(self.module_of(path))[0]

    def module_of(self, path):
        module = path.removesuffix(".py").removesuffix("/__init__")
        return module.replace("/", ".")

    def _has(self, module, parts, seen):
        """Returns whether a module has a name, and that its own, and so on."""
        if not parts or (module, *parts) in seen:
            return True
        if len(seen) > 60 or self._path(module) is None:
            return self._is_folder(module)
        seen = (*seen, (module, *parts))
        imported, own, stars = self._of(module)
        first, rest = parts[0], parts[1:]
        if first in own or OPEN in own:
            return True
        for target in imported.get(first, ()):
            if target.partition(".")[0] != "keras":
                return True
            if self._leads_on(target, rest, seen):
                return True
        if any(self._has(star, parts, seen) for star in stars):
            return True
        child = f"{module}.{first}"
        if self._path(child) or self._is_folder(child):
            return self._has(child, rest, seen)
        return False

    def _leads_on(self, target, rest, seen):
        if self._path(target) or self._is_folder(target):
            return self._has(target, rest, seen)
        owner, _, name = target.rpartition(".")
        return self._has(owner, [name, *rest], seen)

    def _path(self, module):
        stem = module.replace(".", "/")
        for path in (f"{stem}.py", f"{stem}/__init__.py"):
            if path in self._files:
                return path
        return None

    def _is_folder(self, module):
        return module.replace(".", "/") in self._folders

    @functools.cached_property
    def _folders(self):
        return {path.rpartition("/")[0] for path in self._files}

    def _of(self, module):
        """Returns what a module binds by imports, by itself, and its stars."""
        if module not in self._bound:
            path = self._path(module)
            text = self._read(path) if path else ""
            tree = parse(text, path)
            self._bound[module] = _bindings(tree)
        return self._bound[module]


def _bindings(tree):
    imported, own, stars = {}, set(), []
    for node in _statements(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                target = alias.name if alias.asname else name
                imported.setdefault(name, []).append(target)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*":
                    stars.append(node.module)
                    continue
                target = f"{node.module}.{alias.name}"
                imported.setdefault(alias.asname or alias.name, []).append(
                    target
                )
        elif hasattr(node, "name"):
            own.add(node.name)
        else:
            own.update(
                n.id
                for n in ast.walk(node)
                if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            )
    return imported, own, stars


def _statements(tree):
    """Yields the statements that run when a module is imported."""
    for node in tree.body:
        yield node
        for field in ("body", "orelse", "handlers", "finalbody"):
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                inner = getattr(node, field, None)
                if inner:
                    yield from _statements(ast.Module(inner, []))


def chains(tree):
    """Yields (node, "a.b.c") of the dotted names in a tree, whole ones."""
    inner = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node not in inner:
            parts, at = [], node
            while isinstance(at, ast.Attribute):
                parts.append(at.attr)
                at = at.value
                inner.add(at)
            if isinstance(at, ast.Name):
                yield node, ".".join([at.id, *reversed(parts)])
