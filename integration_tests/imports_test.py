"""Imports stand at the top of a file, or say why; an overlay has its own."""

import ast
import collections
import json
import pathlib
import re
import subprocess
import sys

import pip_build

REPO = pathlib.Path(__file__).resolve().parents[1]
KERAS = REPO / "keras"


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


def undefined_names(folder):
    """{path: names} of what the files in a folder neither define nor import."""
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "."]
    command += ["--select", "F821", "--output-format", "json", "--no-cache"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = collections.defaultdict(set)
    for one in json.loads(done.stdout):
        path = pathlib.Path(one["filename"]).relative_to(folder.resolve())
        found[path].add(re.search("`(.+?)`", one["message"])[1])
    return found


def name_of(node):
    """The name that a node of a syntax tree binds, or None."""
    if isinstance(node, ast.Name):
        return node.id if isinstance(node.ctx, ast.Store) else None
    return getattr(node, "asname", None) or getattr(node, "name", None)


def borrowed(folder, upstream):
    """{path: names} that upstream's imports bind for files of the overlay."""
    found = {}
    for path, names in undefined_names(folder).items():
        theirs = upstream / path
        body = ast.parse(theirs.read_text()).body if theirs.exists() else ()
        # Which imports what depends on the backend, too.
        own = {
            name
            for node in body
            if not isinstance(node, (ast.Import, ast.ImportFrom))
            for name in map(name_of, ast.walk(node))
        }
        kept = {n for n in names if n.startswith("_")}  # By `@keeps`.
        if names - own - kept:
            found[str(path)] = sorted(names - own - kept)
    return found


def test_an_overlay_imports_what_it_uses():
    """Upstream may drop its import any day."""
    assert borrowed(KERAS, pip_build.UPSTREAM / "keras") == {}


def test_one_that_does_not_is_named(tmp_path):
    for folder, text in (
        ("overlay", "def f(): return np.zeros(g())\n"),
        ("upstream", "import numpy as np\ndef g(): pass\n"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "m.py").write_text(text)
    found = borrowed(tmp_path / "overlay", tmp_path / "upstream")
    assert found == {"m.py": ["np"]}
