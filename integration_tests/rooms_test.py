"""Imports go down: no room asks one above it, but for what is named here."""

import ast
import pathlib

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "keras" / "src"

# From the ground floor up. Of two that fit, the longer name counts.
ROOMS = (
    ("backend/common", "composite/errors"),
    ("backend",),
    ("activations", "dtype_policies", "ops", "random", "tree", "utils"),
    ("composite", "masking", "utils/padding_report", "utils/shifted_targets"),
    (
        "composite/recurrence",
        "layers",
        "losses",
        "masking/layers",
        "masking/training",
        "metrics",
    ),
    (
        "backend/jax/trainer",
        "backend/numpy/trainer",
        "backend/tensorflow/trainer",
        "backend/torch/trainer",
        "masking/training/batches",
        "masking/training/data",
        "masking/training/padding",
        "masking/training/ragged",
        "models",
        "trainers",
    ),
    ("export", "masking/showing", "migration", "saving"),
)

# What is still asked of a room above: `Operation` and the functions of
# `keras.ops` know the door by its address.
STILL = {
    "backend/tensorflow/export": {"export/in_pairs"},
    "composite/in_files": {"saving/serialization_lib"},
    "dtype_policies/dtype_policy": {
        "masking/calls",
        "masking/masks",
        "masking/packing",
    },
    "layers/core/lambda_layer": {"saving/serialization_lib"},
    "masking/layers/adapting": {"trainers/data_adapters/py_dataset_adapter"},
    "masking/rules/carry": {"masking/training/batches"},
    "ops/core": {
        "composite/rules",
        "masking/calls",
        "masking/errors",
        "masking/masks",
        "masking/rules/carry",
    },
    "ops/function": {"composite/wholes", "masking/symbolic"},
    "ops/image": {"composite/rules"},
    "ops/linalg": {"masking/rules/carry"},
    "ops/masking": {"composite/rules"},
    "ops/math": {"composite/rules"},
    "ops/nn": {"composite/rules", "masking/errors"},
    "ops/numpy": {
        "composite/rules",
        "masking/calls",
        "masking/errors",
        "masking/rules/carry",
        "masking/rules/index",
        "masking/symbolic",
    },
    "ops/operation": {
        "composite/rules",
        "masking/calls",
        "masking/dispatch",
        "masking/errors",
        "masking/refusals",
        "masking/symbolic",
    },
    "utils/padding_report": {"masking/layers/steps"},
    "utils/summary_utils": {"masking/showing/graph_masks"},
}


def floor_of(place):
    """The number of the room that a module is in; None for upstream's rest."""
    fitting = [
        (len(name), floor)
        for floor, names in enumerate(ROOMS)
        for name in names
        if place == name or place.startswith(f"{name}/")
    ]
    return max(fitting)[1] if fitting else None


def imported(text):
    """Yields the modules of Keras that a file imports at its top."""
    for node in ast.parse(text).body:
        if not isinstance(node, ast.ImportFrom) or not node.module:
            continue
        for alias in node.names:
            name = f"{node.module}.{alias.name}".removeprefix("keras.src.")
            place = name.replace(".", "/")
            if node.module.startswith("keras.src."):
                is_module = (SOURCE / f"{place}.py").exists()
                yield place if is_module else place.rpartition("/")[0]


def risen():
    """What each module imports from above."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        place = path.relative_to(SOURCE).with_suffix("").as_posix()
        own = floor_of(place)
        if place.endswith("_test") or own is None:
            continue
        floors = {x: floor_of(x) for x in imported(path.read_text("utf-8"))}
        above = {x for x, n in floors.items() if n is not None and n > own}
        if above:
            found[place] = above
    return found


def test_no_room_asks_one_above_it():
    assert risen() == STILL


def test_rooms_are_told_by_the_longest_name():
    places = ["masking/layers/steps", "masking/masks", "ops/core", "saving/a"]
    assert list(map(floor_of, places)) == [4, 3, 2, 6]
    assert floor_of("wrappers") is None
    text = "from keras.src.masking import masks\nfrom keras.src import ops\n"
    assert list(imported(text)) == ["masking/masks"]
