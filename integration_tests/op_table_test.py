"""The op table of the guides against the code and the public functions."""

import importlib.util
import inspect
import pathlib
import re

import keras

GUIDES = pathlib.Path(__file__).resolve().parents[1] / "guides"
FILE = GUIDES / "op_table.md"


def script():
    """`guides/op_table.py` as a module."""
    spec = importlib.util.spec_from_file_location(
        "op_table", GUIDES / "op_table.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written_rows():
    """The function, the rule and the text of each row of the file."""
    return re.findall(
        r"^\| `(keras\.\S+)` \| (.+?) \| (.+) \|$",
        FILE.read_text("utf-8"),
        re.M,
    )


def test_the_table_is_not_stale():
    if FILE.read_text("utf-8") != script().render():
        raise AssertionError(
            "The tables of the ops say something else than guides/op_table.md. "
            "Run `python guides/op_table.py` and commit what it writes."
        )


def test_the_table_has_each_public_function_once():
    public = {
        f"{module.__name__}.{name}"
        for module in (keras.ops, keras.ops.image, keras.random)
        for name, _ in inspect.getmembers(module, inspect.isfunction)
    }
    written = [path for path, _, _ in written_rows()]
    assert sorted(p for p in written if "activations" not in p) == sorted(
        public
    )


def test_each_row_says_in_a_sentence_what_becomes_of_the_mask():
    text = FILE.read_text("utf-8")
    files = dict(re.findall(r"^\| \[(\w+)\]\(\.\./(\S+)\)", text, re.M))
    for path, rule, text in written_rows():
        assert re.fullmatch(r"[A-Z`].*[^.]\.", text), path
        if rule not in ("**refused**", "elsewhere"):
            family, name = rule.strip("`").split(".")
            file = GUIDES.parent / files[family]
            found = rf"^(def {name}\(|{name} = )"
            assert re.search(found, file.read_text("utf-8"), re.M), rule


def test_the_counts_add_up():
    text = FILE.read_text("utf-8")
    (table,) = re.findall(r"## Families and counts\n(.*)", text, re.S)
    counts = dict(re.findall(r"^\| \[?(\w+)\S* \| (\d+) \|", table, re.M))
    assert int(counts.pop("all")) == len(written_rows())
    assert sum(map(int, counts.values())) == len(written_rows())
    refused = [r for r in written_rows() if r[1] == "**refused**"]
    assert int(counts["refused"]) == len(refused)
