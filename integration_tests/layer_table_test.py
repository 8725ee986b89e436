"""The layer table of the guides against the code and the public layers."""

import importlib.util
import inspect
import pathlib
import re

import keras

GUIDES = pathlib.Path(__file__).resolve().parents[1] / "guides"
FILE = GUIDES / "layer_table.md"

NOT_OF_AN_OPERAND = ("attention_mask", "use_causal_mask")
EITHER_WAY = (
    "BatchNormalization",
    "GlobalAveragePooling1D",
    "Lambda",
    "Pipeline",
    "Softmax",
)


def script():
    """`guides/layer_table.py` as a module."""
    spec = importlib.util.spec_from_file_location(
        "layer_table", GUIDES / "layer_table.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written_rows():
    """The layer, how it takes masks and the text of each row of the file."""
    return re.findall(
        r"^\| `(\w+)` \| (.+?) \| (.+) \|$", FILE.read_text("utf-8"), re.M
    )


def test_the_table_is_not_stale():
    if FILE.read_text("utf-8") != script().render():
        raise AssertionError(
            "The layers do something else than guides/layer_table.md says. "
            "Run `python guides/layer_table.py` and commit what it writes."
        )


def test_the_table_has_each_public_layer_once():
    written = [name for name, _, _ in written_rows()]
    assert len(written) == len(set(written))
    # Some have several names.
    classes = {
        cls for _, cls in inspect.getmembers(keras.layers, inspect.isclass)
    }
    assert {getattr(keras.layers, name) for name in written} == classes
    assert len(written) == len(classes)


def test_by_name_is_what_has_an_argument_for_a_mask():
    for name, how, _ in written_rows():
        call = getattr(getattr(keras.layers, name), "call", None)
        if how == "-" or call is None:
            continue
        arguments = inspect.signature(call).parameters
        wanted = [a for a in arguments if a.endswith("mask")]
        wanted = [a for a in wanted if a not in NOT_OF_AN_OPERAND]
        found = re.findall(r"`(\w+)`", how)
        assert how.startswith("by name") == bool(found), name
        # Those by type that upstream gives the argument take it all the same.
        assert found == (wanted if name not in EITHER_WAY else []), name


def test_what_is_taken_over_the_batch_alone_is_refused_elsewhere():
    """`layers_test` tries the refusals, one or more of each of these."""
    from keras.src.testing.masked.cases import preprocessing

    over_the_batch = {
        name for name, how, _ in written_rows() if how == "over the batch"
    }
    # These two draw a layer each call, not always one that refuses.
    assert over_the_batch - {"AugMix", "RandAugment"} <= {
        *preprocessing.REFUSALS
    }
