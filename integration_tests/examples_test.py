"""The examples in our docstrings run, on every engine, and none is missing."""

import ast
import doctest
import pathlib

import numpy as np
import pytest

import keras

REPO = pathlib.Path(__file__).resolve().parents[1]
UPSTREAM = REPO / "build" / "upstream"
# Bases whose methods are those of the public classes.
BASES = ("MaskedTensorBase", "CompositeBase")
# What Keras calls, and not its users.
HOOKS = {"build", "call", "compute_output_spec", "from_config", "get_config"}


def definitions(path):
    """Yields a name and a node of each function and class, and of methods."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef):
                    yield f"{node.name}.{method.name}", method


def sources():
    for path in sorted((REPO / "keras").rglob("*.py")):
        if not path.name.endswith("_test.py"):
            yield path


def examples():
    """The docstrings with examples, by where they are."""
    found = {}
    for path in sources():
        for name, node in definitions(path):
            text = ast.get_docstring(node) or ""
            if ">>>" in text:
                found[f"{path.relative_to(REPO)}::{name}"] = text
    return found


def is_exported(node):
    return any("keras_export" in ast.unparse(d) for d in node.decorator_list)


def public_functions():
    """Yields where each public function and method of ours is."""
    for path in sources():
        theirs = UPSTREAM / path.relative_to(REPO)
        known = dict(definitions(theirs)) if theirs.exists() else {}
        public = set(BASES)
        for name, node in definitions(path):
            owner, _, method = name.rpartition(".")
            if name not in known and is_exported(node):
                public.add(name)
                # An error is raised, not called.
                is_called = not name.endswith(("Error", "Warning"))
            else:
                is_called = owner in public and not is_property(node)
                is_called &= not method.startswith("_") and method not in HOOKS
            if is_called:
                yield f"{path.relative_to(REPO)}::{name}"


def is_property(node):
    return any("property" in ast.unparse(d) for d in node.decorator_list)


EXAMPLES = examples()


@pytest.mark.parametrize("place", EXAMPLES)
def test_the_example(place):
    test = doctest.DocTestParser().get_doctest(
        EXAMPLES[place], {"keras": keras, "np": np}, place, place, 0
    )
    assert test.examples
    report = []
    keras.utils.clear_session()
    result = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert not result.failed, "".join(report)


def test_every_public_function_has_one():
    public = list(public_functions())
    assert "keras/src/ops/masking.py::last" in public
    method = "keras/src/backend/common/masked_tensor.py::"
    assert f"{method}MaskedTensorBase.to_ragged" in public
    assert not [place for place in public if not has_example(place)]


def has_example(place):
    """Whether it has one, or that of its class calls it."""
    owner, _, method = place.rpartition(".")
    return place in EXAMPLES or f".{method}(" in EXAMPLES.get(owner, "")
