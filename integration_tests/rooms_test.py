"""Imports go down: no room asks one above it, but for what is named here."""

import ast
import pathlib

import networkx

import pip_build

SOURCE = pathlib.Path(__file__).resolve().parents[1] / "keras" / "src"

# From the ground floor up. Of two that fit, the longer name counts.
ROOMS = (
    (
        "backend/common",
        "composite/errors",
        "masking/errors",
        "tree",
        "utils/module_utils",
    ),
    ("backend",),
    (
        "activations",
        "composite/wholes",
        "dtype_policies",
        "ops",
        "random",
        "utils",
    ),
    ("composite", "masking", "ops/carry", "utils/shifted_targets"),
    (
        "composite/recurrence",
        "layers",
        "losses",
        "masking/layers",
        "masking/training",
        "metrics",
        "utils/padding_report",
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
    (
        "backend/tensorflow/export",
        "export",
        "masking/showing",
        "migration",
        "saving",
    ),
)

# What is still asked of a room above. Other needs of lower rooms are hooks, in
# `backend/common/hooks.py`.
STILL = {
    # As upstream's own models and layers: configs hold functions and types.
    "composite/in_files": {"saving/serialization_lib"},
    "layers/core/lambda_layer": {"saving/serialization_lib"},
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


# What is in a circle beyond upstream's files: the types, which engines choose,
# and the operations that the operators of symbolic tensors need.
IN_CIRCLES = ("backend/", "ops/masking")


def at_import(node):
    """Yields the imports that run as a module is imported."""
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.ImportFrom) and inner.module:
            yield inner
        elif isinstance(inner, ast.If) and "TYPE_CHECKING" in ast.dump(
            inner.test
        ):
            continue
        elif not isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from at_import(inner)


def circles(folder):
    """The sets of modules of a Keras that import each other."""
    source = folder / "keras" / "src"
    graph = networkx.DiGraph()
    paths = [p for p in source.rglob("*.py") if "_test" not in p.stem]
    names = {}
    for path in paths:
        place = path.relative_to(source).with_suffix("").as_posix()
        names[place.removesuffix("__init__").rstrip("/")] = path
    for place, path in names.items():
        for node in at_import(ast.parse(path.read_text("utf-8"))):
            module = node.module.replace(".", "/")
            module = module.removeprefix("keras/src").lstrip("/")
            for alias in node.names:
                whole = f"{module}/{alias.name}".lstrip("/")
                other = whole if whole in names else module
                if other in names and other != place:
                    graph.add_edge(place, other)
    found = networkx.strongly_connected_components(graph)
    return [one for one in found if len(one) > 1]


def test_circles_are_upstreams_and_of_the_types():
    upstream = circles(pip_build.UPSTREAM)
    for ours in circles(pip_build.BUILD):
        within = [one for one in upstream if one & ours]
        assert len(within) == 1, sorted(ours)
        more = ours - within[0]
        assert {x for x in more if not x.startswith(IN_CIRCLES)} == set()


def test_no_room_asks_one_above_it():
    assert risen() == STILL


def test_rooms_are_told_by_the_longest_name():
    places = ["masking/layers/steps", "masking/masks", "ops/core", "saving/a"]
    assert list(map(floor_of, places)) == [4, 3, 2, 6]
    assert floor_of("wrappers") is None
    text = "from keras.src.masking import masks\nfrom keras.src import ops\n"
    assert list(imported(text)) == ["masking/masks"]
