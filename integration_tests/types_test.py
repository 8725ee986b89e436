"""Our public functions say their types; `mypy` checks them."""

import ast
import pathlib

REPO = pathlib.Path(__file__).resolve().parents[1]
SOURCE = REPO / "keras" / "src"
UPSTREAM = REPO / "build" / "upstream" / "keras" / "src"
# What tests share says none.
WITHOUT_TYPES = ("testing",)


def our_files():
    """The files that upstream does not have, but for tests."""
    for path in sorted(SOURCE.rglob("*.py")):
        is_test = path.name.endswith("_test.py")
        place = path.relative_to(SOURCE)
        is_silent = any(map(place.is_relative_to, WITHOUT_TYPES))
        if not (is_test or is_silent or (UPSTREAM / place).exists()):
            yield path


def public_functions(body, owner=""):
    """Yields the names and nodes of public functions and methods."""
    for node in body:
        name = getattr(node, "name", "_")
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(node, ast.ClassDef):
            yield from public_functions(node.body, f"{name}.")
        if isinstance(node, ast.FunctionDef):
            yield owner + name, node


def says_its_types(name, function):
    of = function.args
    parameters = [*of.posonlyargs, *of.args, *of.kwonlyargs]
    parameters += filter(None, (of.vararg, of.kwarg))
    decorators = [ast.unparse(x) for x in function.decorator_list]
    if "." in name and "staticmethod" not in decorators:
        parameters = parameters[1:]
    returns = function.returns is not None or name.endswith("__init__")
    return returns and all(x.annotation for x in parameters)


def test_public_functions_say_their_types():
    silent = []
    for path in our_files():
        body = ast.parse(path.read_text("utf-8")).body
        for name, function in public_functions(body):
            if not says_its_types(name, function):
                silent.append(f"{path.relative_to(SOURCE)}::{name}")
    assert not silent


def test_one_that_does_not_is_found():
    text = "def f(x): ...\nclass A:\n    def g(self, y: int) -> int: ..."
    said = {
        name: says_its_types(name, function)
        for name, function in public_functions(ast.parse(text).body)
    }
    assert said == {"f": False, "A.g": True}
