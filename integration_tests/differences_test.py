"""The list of differences against the overlay, and against upstream's tests."""

import ast
import importlib.util
import pathlib
import re

import pip_build

REPO = pathlib.Path(__file__).resolve().parents[1]
FILE = REPO / "guides" / "differences.md"


def script():
    """`guides/differences.py` as a module."""
    spec = importlib.util.spec_from_file_location(
        "differences", REPO / "guides" / "differences.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def entries():
    """The file, the tests and the reason of each entry."""
    for section in FILE.read_text("utf-8").split("\n## ")[1:]:
        file, _, text = section.partition("\n")
        for tests, reason in re.findall(r"^- (`.+?`): (.+)$", text, re.M):
            yield f"keras/src/{file}", re.findall("`(.+?)`", tests), reason


def test_the_list_is_not_stale():
    if FILE.read_text("utf-8") != script().render():
        raise AssertionError(
            "The overlay changes other tests of upstream's, or for other "
            "reasons, than guides/differences.md says. Run "
            "`python guides/differences.py` and commit what it writes."
        )


def test_each_is_a_test_of_upstreams_and_has_a_reason():
    for file, tests, reason in entries():
        tree = ast.parse((pip_build.UPSTREAM / file).read_text("utf-8"))
        known = {
            f"{cls.name}.{member.name}"
            for cls in tree.body
            if isinstance(cls, ast.ClassDef)
            for member in cls.body
            if isinstance(member, ast.FunctionDef)
        }
        for test in tests:
            assert test.removesuffix(" (deleted)") in known, (file, test)
        assert re.fullmatch(r"[A-Z`].{20,}\.", reason), reason


def test_the_count_is_that_of_the_list():
    count = sum(len(tests) for _, tests, _ in entries())
    files = len({file for file, _, _ in entries()})
    assert count > 0
    assert f"\n{count} tests in {files} files.\n" in FILE.read_text("utf-8")
