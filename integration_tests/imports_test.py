"""Imports stand at the top of a file; one that does not says why."""

import ast
import pathlib

KERAS = pathlib.Path(__file__).resolve().parents[1] / "keras"


def late_imports(text):
    """The lines of imports inside functions that no comment stands above."""
    lines = text.splitlines()
    late = {
        node.lineno
        for function in ast.walk(ast.parse(text))
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    return [
        line
        for line in sorted(late)
        if line - 1 not in late and not lines[line - 2].lstrip().startswith("#")
    ]


def test_an_import_inside_a_function_says_why():
    found = {}
    for path in KERAS.rglob("*.py"):
        if path.name.endswith("_test.py"):
            continue
        lines = late_imports(path.read_text("utf-8"))
        if lines:
            found[str(path)] = lines
    assert not found


def test_one_that_does_not_is_found():
    text = "def f():\n    import a\n    import b\n    # Late: c may miss.\n"
    assert late_imports(text + "    import c\n") == [2]
