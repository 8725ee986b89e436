"""Every name of Keras in a guide, a docstring or a message exists."""

import importlib
import pathlib
import re

import keras

REPO = pathlib.Path(__file__).resolve().parents[1]
# `keras.ops.exp`, alone or called, set as code.
NAME = re.compile(r"`@?(keras(?:\.[A-Za-z_]\w*)+)")


def papers():
    yield from REPO.glob("*.md")
    for folder in ("guides", "keras"):
        for path in (REPO / folder).rglob("*"):
            if path.suffix in (".md", ".py"):
                yield path


def exists(name):
    found = keras
    walked = "keras"
    for part in name.split(".")[1:]:
        walked += f".{part}"
        if not hasattr(found, part):
            try:
                importlib.import_module(walked)
            except ModuleNotFoundError:
                return False
        found = getattr(found, part)
    return True


def test_names_exist():
    missing = {}
    for path in papers():
        for name in NAME.findall(path.read_text("utf-8")):
            if not exists(name):
                missing.setdefault(name, set()).add(str(path))
    assert not missing


def test_a_name_that_is_not_there_is_found():
    assert NAME.findall("see `@keras.masking.rule_for(Op)`, `keras.x`") == [
        "keras.masking.rule_for",
        "keras.x",
    ]
    assert exists("keras.ops.exp")
    assert not exists("keras.UnsupportedMaskError")
