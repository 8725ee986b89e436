"""
Title: Composite tensors of your own
Description: Four types made of tensors, with rules, through layers and models.
Accelerator: None

`python guides/composite_tensors.py` runs this guide, in less than a minute on
two cores. It takes the fork, `rich`, `matplotlib`, `scikit-learn`, and the data
of `chemicals`, which `pip install --no-deps chemicals` fetches. `KERAS_BACKEND`
picks any backend; NumPy's cannot train, so there the networks stay as they
were made, and what is said of trained ones is left out. `--help` lists the
options.

A `keras.CompositeTensor` is a nest of tensors that has a type of its own, and
rules that say what functions of `keras.ops` make of it. To layers, functional
models, `fit`, files and compilers it is what a dictionary of its parts would
be. This guide writes four of them, each in less than 60 lines:

| type | parts | static | what for |
|---|---|---|---|
| `Interval` | `low`, `high` | | what a network may say anywhere in a box |
| `Graph` | `atoms` (masked), `bonds` | | molecules of unequal size |
| `Quantized` | `values` (int8), `scale` | `dtype` | a quarter of the memory |
| `Quantity` | `value` | `unit` | metres plus seconds is an error |

## Setup
"""

import argparse
import functools
import importlib.metadata
import json
import os
import pathlib
import re
import sys
import tempfile

# TensorFlow is chatty, also where it is no more than installed.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
# The models are small: PyTorch's threads would mostly wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from rich.console import Console
from rich.table import Table

import keras
from keras import layers
from keras import ops

BACKEND = keras.backend.backend()
TRAINS = BACKEND != "numpy"

console = Console()


def array(x):
    return ops.convert_to_numpy(x)


"""
## Interval: what a network may say

An interval is two tensors, and stands for all that lies between. The
annotations say what the parts are, and make the constructor. Since it has a
`shape` and a `dtype`, it is *array-like*: it has all operators, and a layer is
built by its shape.

`__check__` looks at what was given. It runs inside compiled functions as well,
where values are not known yet, so it looks at shapes and types only.
"""


class Interval(keras.CompositeTensor):
    low: keras.KerasTensor
    high: keras.KerasTensor

    shape = property(lambda self: self.low.shape)
    dtype = property(lambda self: self.low.dtype)

    def __check__(self):
        if tuple(self.low.shape) != tuple(self.high.shape):
            raise ValueError(f"The ends differ in their shape: {self!r}.")


"""
A rule is given what the function was given, and operators are functions: the
rule of `keras.ops.add` is that of `+`, on either side. `keras.composite.parts`
applies a function part by part, which is right for whatever never falls.
"""

for rising in (ops.relu, ops.sigmoid, ops.tanh, ops.exp, ops.add):
    by_parts = functools.partial(keras.composite.parts, rising)
    keras.rule_for(rising, Interval)(by_parts)


@keras.rule_for(ops.negative, Interval)
def negative(x):
    return Interval(-x.high, -x.low)


@keras.rule_for(ops.subtract, Interval)
def subtract(x1, x2):
    return x1 + (-x2)


@keras.rule_for(ops.multiply, Interval)
def multiply(x1, x2):
    products = ops.stack([a * b for a in ends(x1) for b in ends(x2)])
    return Interval(ops.min(products, axis=0), ops.max(products, axis=0))


def ends(x):
    return (x.low, x.high) if isinstance(x, Interval) else (x,)


"""
A rule says no by `NotImplemented`. This one knows an interval times a matrix;
for one on the right, Keras raises `UnsupportedTypeError`. Rules are written in
`keras.ops`, and are the same on every backend.
"""


@keras.rule_for(ops.matmul, Interval)
def matmul(x1, x2):
    if isinstance(x2, Interval):
        return NotImplemented
    middle = ops.matmul((x1.low + x1.high) / 2, x2)
    reach = ops.matmul((x1.high - x1.low) / 2, ops.abs(x2))
    return Interval(middle - reach, middle + reach)


"""
`Dense` multiplies by a matrix, adds a bias and applies its activation, for all
of which there are rules now. So the layers below take images, and take boxes of
images, and nothing about them says so.
"""

PIXELS, DIGITS = 64, 10


class Classifier(keras.Model):
    def __init__(self):
        super().__init__()
        self.stack = [
            layers.Dense(64, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(DIGITS),
        ]

    def call(self, x):
        for layer in self.stack:
            x = layer(x)
        return x


def digits():
    """Training and test data: 1797 written digits, which are real."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype("float32"), y[order]
    return (x[:1400], y[:1400]), (x[1400:], y[1400:])


def box_around(x, radius):
    """All images of which no pixel differs by more than the radius."""
    return Interval(np.clip(x - radius, 0, 1), np.clip(x + radius, 0, 1))


"""
A digit is *certified* if its own logit cannot fall below any other anywhere in
the box, so no change of the pixels within the radius can fool the network.
"""


def certified(model, x, y, radius):
    """The part of the images that are certified."""
    logits = model(box_around(x, radius))
    low, high = array(logits.low), array(logits.high)
    own = np.eye(DIGITS, dtype=bool)[y]
    others = np.where(own, -np.inf, high).max(axis=1)
    return float(np.mean(low[own] > others))


def attacked(model, x, y, radius, tries=10):
    """The part that is still right at random points of the box.

    No box may have a point beyond its bounds, which is checked on the way.
    """
    rng = np.random.default_rng(0)
    box, bounds = box_around(x, radius), model(box_around(x, radius))
    right = np.ones(len(x), bool)
    for turn in range(tries):
        share = rng.uniform(size=x.shape)
        # Every other time a corner, where a network is most easily fooled.
        share = np.round(share) if turn % 2 else share
        low, high = array(box.low), array(box.high)
        logits = array(model((low + share * (high - low)).astype("float32")))
        assert np.all(logits >= array(bounds.low) - 1e-4)
        assert np.all(logits <= array(bounds.high) + 1e-4)
        right &= np.argmax(logits, axis=1) == y
    return float(np.mean(right))


"""
The bounds are made of operations that have gradients. So a network can also be
trained on boxes, by its worst case: the lowest logit of the digit, the highest
of all others. That is `fit` on an `Interval`, whose parts are cut into batches
as arrays would be, with a loss that is given the `Interval` that comes out. (A
`DataLoader` of PyTorch, or `.batch(n)` of grain, may be given one `Interval`
for each row, and stacks their parts.) The boxes grow while it trains: of large
ones, a new network knows nothing at all.
"""

# Radii, and for how many epochs.
GROWING = (0.0, 5), (0.02, 5), (0.05, 5), (0.1, 15)


def worst_case(y, logits):
    own = ops.one_hot(ops.cast(ops.reshape(y, (-1,)), "int32"), DIGITS)
    logits = ops.where(own > 0, logits.low, logits.high)
    return keras.losses.categorical_crossentropy(own, logits, from_logits=True)


def train_on_points(model, x, y):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(5e-3), loss)
    model.fit(x, y, batch_size=100, epochs=15, verbose=0)


def train_on_boxes(model, x, y):
    model.compile(keras.optimizers.Adam(5e-3), worst_case)
    for radius, epochs in GROWING:
        box = box_around(x, radius)
        model.fit(box, y, batch_size=100, epochs=epochs, verbose=0)


RADII = 0, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15


def measure_intervals(data):
    """Certified and attacked accuracy by radius, and the first network."""
    found, models = {}, {}
    train, test = data
    for name, fit in (("points", train_on_points), ("boxes", train_on_boxes)):
        keras.utils.set_random_seed(1)
        models[name] = model = Classifier()
        model(train[0][:1])
        if TRAINS:
            fit(model, *train)
        found[name] = {
            "certified": [certified(model, *test, r) for r in RADII],
            "attacked": [attacked(model, *test, r) for r in RADII],
        }
    return found, models["points"]


def check_intervals(found):
    for curves in found.values():
        # The bounds hold, and the wider the box, the less is certain.
        for sure, right in zip(*curves.values(), strict=True):
            assert sure <= right, curves
        assert sorted(curves["certified"], reverse=True) == curves["certified"]
    if TRAINS:
        at = RADII.index(0.05)
        assert found["points"]["certified"][0] > 0.93, found
        assert found["points"]["certified"][at] < 0.1, found
        assert found["boxes"]["certified"][at] > 0.7, found


"""
And the arithmetic, on numbers that one can see:
"""


def small_intervals():
    x = Interval([1.0, -2.0], [2.0, 3.0])
    for code, found, low, high in (
        ("10 - x", 10.0 - x, [8, 7], [9, 12]),
        ("x * x", x * x, [1, -6], [4, 9]),
        ("x @ [[1], [-1]]", x @ np.array([[1.0], [-1.0]], "f"), [-2], [4]),
        ("ops.relu(x)", ops.relu(x), [1, 0], [2, 3]),
    ):
        assert array(found.low).tolist() == low, (code, found)
        assert array(found.high).tolist() == high, (code, found)
        show(code, f"from {array(found.low)} to {array(found.high)}")
    # What no rule is for raises, and says what to write.
    try:
        ops.sin(x)
    except keras.UnsupportedTypeError as error:
        show("ops.sin(x)", f"UnsupportedTypeError: {error}")
    else:
        raise AssertionError("There is no rule for `sin`.")


def show(code, result):
    console.print(f">>> {code}", style="bold", highlight=False, markup=False)
    console.print(str(result), highlight=False, markup=False)


"""
## Graph: molecules of unequal size

A molecule is a graph, of atoms and bonds. Molecules differ in size, so a batch
of them is padded, and which atoms are there is a mask: the atoms are a
`keras.MaskedTensor`. The bonds are a plain matrix, and without a bond nothing
is passed on, so they need no mask.

A graph has no `shape` of its own. It is a *structure*: layers take it, and
functions of `keras.ops` refuse it by name.
"""


@keras.saving.register_keras_serializable("molecules")
class Graph(keras.CompositeTensor):
    atoms: keras.MaskedTensor  # (molecules, atoms, features)
    bonds: keras.KerasTensor  # (molecules, atoms, atoms), their order


@keras.saving.register_keras_serializable("molecules")
class Messages(layers.Layer):
    """Each atom hears its neighbours, as loud as the bond is strong."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.own = layers.Dense(units)
        self.heard = layers.Dense(units, use_bias=False)

    def build(self, shapes):
        # A graph of shapes.
        self.own.build(shapes.atoms)
        self.heard.build(shapes.atoms)

    def call(self, graph):
        heard = graph.bonds @ self.heard(graph.atoms)
        atoms = ops.relu(self.own(graph.atoms) + heard)
        return graph.replace(atoms=atoms)

    def get_config(self):
        return super().get_config() | {"units": self.units}


"""
A graph of symbolic tensors declares the input, and each layer takes a graph and
gives one. At the end the atoms are added up, those that are there.
"""

ELEMENTS = {"C": 4, "N": 3, "O": 2, "F": 1, "S": 2, "Cl": 1, "Br": 1}
FEATURES = len(ELEMENTS) + 1


def boiling_point_model():
    keras.utils.set_random_seed(1)
    graph = Graph(
        atoms=keras.Input((None, FEATURES), mask_shape=(None,), name="atoms"),
        bonds=keras.Input((None, None), name="bonds"),
    )
    h = graph
    for _ in range(3):
        h = Messages(48)(h)
    molecule = ops.filled(ops.sum(h.atoms, axis=1)) / 10
    molecule = layers.Dense(48, activation="relu")(molecule)
    # Most molecules boil at 440 kelvin, more or less.
    kelvin = layers.Rescaling(100.0, 440.0)(layers.Dense(1)(molecule))
    return keras.Model(graph, kelvin)


"""
The data are 1200 molecules and their boiling points, which come with
`chemicals` as text files; nothing of it is run. A molecule is written as a line
of atoms, `CC(=O)O` for vinegar: atoms stand beside those that they are bonded
to, `=` and `#` are for double and triple bonds, parentheses for side branches,
and two equal digits close a ring.
"""

TOKENS = re.compile(r"Cl|Br|[CNOFS]|[=#()]|\d")


def parse(text):
    """Features of the atoms and matrix of the bonds, None for other atoms."""
    if TOKENS.sub("", text):
        return None
    elements, found, branches, rings = [], [], [], {}
    previous, order = None, 1
    for token in TOKENS.findall(text):
        if token == "(":
            branches.append(previous)
        elif token == ")":
            previous = branches.pop()
        elif token in "=#":
            order = 2 if token == "=" else 3
        elif token.isdigit() and token not in rings:
            rings[token] = previous
        else:
            this = previous
            if not token.isdigit():
                this = len(elements)
                elements.append(token)
            other = rings.pop(token) if token.isdigit() else previous
            if other is not None:
                found.append((other, this, order))
            previous, order = this, 1
    return features_of(elements, found)


def features_of(elements, found):
    """An atom is its element, and how many hydrogens fill it up."""
    bonds = np.zeros((len(elements), len(elements)), "float32")
    for one, other, order in found:
        bonds[one, other] = bonds[other, one] = order
    names = list(ELEMENTS)
    atoms = np.eye(len(names))[[names.index(name) for name in elements]]
    valences = np.array([ELEMENTS[name] for name in elements])
    hydrogens = np.maximum(valences - bonds.sum(axis=1), 0)
    atoms = np.concatenate([atoms, hydrogens[:, None]], axis=1)
    return atoms.astype("float32"), bonds


LARGEST = 16


def molecules():
    """Pairs of a molecule and its boiling point, in a random order."""
    rows = lines_of("Identifiers/chemical identifiers pubchem small.tsv")
    structures = {row[1]: row[4] for row in rows}
    found = []
    for number, kelvin, *_ in lines_of("Phase Change/Yaws Boiling Points.tsv"):
        molecule = parse(structures.get(number, "?"))
        if molecule and len(molecule[0]) <= LARGEST:
            found.append((molecule, float(kelvin)))
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i] for i in order]


def lines_of(file):
    try:
        package = importlib.metadata.distribution("chemicals")
    except importlib.metadata.PackageNotFoundError:
        sys.exit(
            "error: the data comes with `chemicals`, which is not installed. "
            "Get it with\n    pip install --no-deps chemicals"
        )
    text = package.locate_file(f"chemicals/{file}").read_text("utf-8")
    return [line.split("\t") for line in text.splitlines()]


def batch(found, length=LARGEST):
    """Molecules as one graph, padded to this many atoms."""
    bonds = np.zeros((len(found), length, length), "float32")
    for matrix, (_, own) in zip(bonds, found, strict=True):
        matrix[: len(own), : len(own)] = own
    atoms = [own for own, _ in found]
    return Graph(keras.MaskedTensor.from_ragged(atoms, length=length), bonds)


"""
The order in which atoms are written down must not matter, nor the padding.
Both are checked, and that the model comes back from a file. How good it is, is
compared with what one can say without the bonds: a linear fit to the numbers of
atoms of each kind.
"""


def measure_graphs():
    data = molecules()
    structures, kelvin = [x for x, _ in data], np.array([y for _, y in data])
    train, test = slice(0, 1000), slice(1000, None)
    model = boiling_point_model()
    if TRAINS:
        steps = 20 * -(-900 // 50)
        rate = keras.optimizers.schedules.CosineDecay(2e-2, steps)
        model.compile(keras.optimizers.Adam(rate), "mean_absolute_error")
        model.fit(
            batch(structures[train]),
            kelvin[train].astype("float32"),
            batch_size=50,
            epochs=20,
            validation_split=0.1,
            verbose=0,
        )
    expected = predicted(model, batch(structures[test]))
    counts = np.array([counted(x) for x in structures])
    fitted = np.linalg.lstsq(counts[train], kelvin[train], rcond=None)[0]
    rng = np.random.default_rng(0)
    return {
        "molecules": len(data),
        "sizes": [min(map(size, structures)), max(map(size, structures))],
        "network": error(expected, kelvin[test]),
        "counts": error(counts[test] @ fitted, kelvin[test]),
        "mean": error(np.mean(kelvin[train]), kelvin[test]),
        "changes": {
            name: float(np.max(np.abs(found - expected)))
            for name, found in {
                "atoms in another order": predicted(
                    model,
                    batch([reordered(x, rng) for x in structures[test]]),
                ),
                "padded to 40 atoms": predicted(
                    model, batch(structures[test], 40)
                ),
                "saved and loaded": predicted(
                    reloaded(model), batch(structures[test])
                ),
            }.items()
        },
    }


def predicted(model, graphs):
    return array(model(graphs))[:, 0]


def size(molecule):
    return len(molecule[0])


def counted(molecule):
    total = molecule[0].sum(axis=0)
    return np.concatenate([total, [1, size(molecule) ** 0.5]])


def error(found, kelvin):
    return float(np.mean(np.abs(found - kelvin)))


def reordered(molecule, rng):
    atoms, bonds = molecule
    order = rng.permutation(len(atoms))
    return atoms[order], bonds[order][:, order]


def reloaded(model):
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.keras"
        model.save(file)
        return keras.saving.load_model(file)


def check_graphs(found):
    for name, change in found["changes"].items():
        assert change <= 0.01, (name, found)
    if TRAINS:
        assert found["network"] < 0.7 * found["counts"], found


"""
## Quantized: a quarter of the memory

Small integers and a scale stand for a tensor of floats (this is what
`keras-team/keras#21574` asked for). The `dtype` is a *static* field here, as
every field is that is not annotated with a type of tensor: what the tensor
counts as. Compilers take static fields for a part of the type.

`to_dense` opts in to a fallback: a function without a rule is given what it
returns. Without that method nothing becomes dense, as with `Interval`.
"""


class Quantized(keras.CompositeTensor):
    values: keras.KerasTensor  # int8
    scale: keras.KerasTensor  # of each row, or of each column
    dtype: str = "float32"

    shape = property(lambda self: self.values.shape)

    def to_dense(self):
        return ops.cast(self.values, self.dtype) * self.scale


def quantize(x, axis):
    """One scale for all entries along an axis."""
    scale = ops.max(ops.abs(x), axis=axis, keepdims=True) / 127
    scale = ops.maximum(scale, 1e-12)
    return Quantized(ops.cast(ops.round(x / scale), "int8"), scale)


"""
Rows of the left operand have a scale, and columns of the right one, so they
stand outside of the sum, and what is summed are integers. A plain operand is
quantized for it: so `Dense` computes in int8 on a `Quantized` input, and
`x @ kernel` with a `Quantized` kernel, whatever `x` is.
"""


@keras.rule_for(ops.matmul, Quantized)
def quantized_matmul(x1, x2):
    x1 = x1 if isinstance(x1, Quantized) else quantize(x1, axis=-1)
    x2 = x2 if isinstance(x2, Quantized) else quantize(x2, axis=-2)
    total = ops.matmul(x1.values, x2.values)
    assert keras.backend.standardize_dtype(total.dtype) == "int32"
    return ops.cast(total, x1.dtype) * x1.scale * x2.scale


for by_part in (ops.transpose, ops.get_item):
    keras.rule_for(by_part, Quantized)(
        functools.partial(keras.composite.parts, by_part)
    )


@keras.rule_for(ops.relu, Quantized)
def quantized_relu(x):
    return x.replace(values=ops.relu(x.values))


"""
The network of above, with its kernels quantized once, is the network of above.
"""


def in_int8(model):
    """The same network, with a kernel in int8 for each of its layers."""
    stack = [(quantize(x.kernel, axis=0), x) for x in model.stack]

    def run(x):
        for kernel, layer in stack:
            x = layer.activation(x @ kernel + layer.bias)
        return x

    return run, [kernel for kernel, _ in stack]


def measure_quantized(model, data):
    _, (x, y) = data
    expected = array(model(x))
    run, kernels = in_int8(model)
    found = array(run(x))
    # By `Dense` itself, as its input is quantized.
    layer = model.stack[0]
    of_input = array(layer(quantize(ops.convert_to_tensor(x), axis=-1)))
    wanted = array(layer(x))
    return {
        "accuracy": float(np.mean(np.argmax(expected, axis=1) == y)),
        "accuracy in int8": float(np.mean(np.argmax(found, axis=1) == y)),
        "difference": relative(found, expected),
        "difference of one layer": relative(of_input, wanted),
        "bytes": sum(4 * int(np.prod(k.shape)) for k in kernels),
        "bytes in int8": sum(
            array(k.values).nbytes + array(k.scale).nbytes for k in kernels
        ),
    }


def relative(found, expected):
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


def check_quantized(found):
    assert abs(found["accuracy in int8"] - found["accuracy"]) <= 0.01, found
    assert found["difference of one layer"] <= 0.02, found
    assert found["difference"] <= 0.05, found
    assert found["bytes in int8"] < 0.3 * found["bytes"], found


def small_quantized():
    x = quantize(ops.convert_to_tensor([[-1.0, 0.5], [2.0, 4.0]]), axis=-1)
    show("x = quantize([[-1, 0.5], [2, 4]], axis=-1)", x)
    assert array(x.values).tolist() == [[-127, 64], [64, 127]]
    show("ops.relu(x)[0].values", array(ops.relu(x)[0].values))
    assert array(ops.relu(x)[0].values).tolist() == [0, 64]
    # There is no rule for `mean`: `to_dense` is asked.
    show("ops.mean(x)", array(ops.mean(x)))
    assert abs(float(array(ops.mean(x))) - 1.375) < 0.01


"""
## Quantity: metres plus seconds is an error

The unit is static, so it costs nothing when a compiled function runs, and an
error about units is raised when a model is made, before it sees any data.
"""


class Quantity(keras.CompositeTensor):
    value: keras.KerasTensor
    unit: tuple = ()  # `(("m", 1), ("s", -1))` is metres per second.

    shape = property(lambda self: self.value.shape)
    dtype = property(lambda self: self.value.dtype)


def value_of(x):
    return x.value if isinstance(x, Quantity) else x


def unit_of(x):
    """The powers of the units; a plain tensor has none."""
    return dict(x.unit) if isinstance(x, Quantity) else {}


def written(powers):
    names = (n if p == 1 else f"{n}^{p}" for n, p in powers.items())
    return " ".join(names) or "no unit"


def with_unit(value, powers):
    return Quantity(
        value, tuple(sorted((n, p) for n, p in powers.items() if p))
    )


"""
What adds or compares wants one unit on both sides. What multiplies adds their
powers, and what divides subtracts them.
"""


def of_one_unit(function, keeps_unit, x1, x2):
    one, other = unit_of(x1), unit_of(x2)
    if one != other:
        raise ValueError(
            f"`{function.__name__}` of something in {written(one)} and "
            f"something in {written(other)}."
        )
    result = function(value_of(x1), value_of(x2))
    return with_unit(result, one) if keeps_unit else result


def of_any_units(function, sign, x1, x2):
    powers = unit_of(x1)
    for name, power in unit_of(x2).items():
        powers[name] = powers.get(name, 0) + sign * power
    return with_unit(function(value_of(x1), value_of(x2)), powers)


RULES = {
    ops.add: functools.partial(of_one_unit, ops.add, True),
    ops.subtract: functools.partial(of_one_unit, ops.subtract, True),
    ops.less: functools.partial(of_one_unit, ops.less, False),
    ops.greater: functools.partial(of_one_unit, ops.greater, False),
    ops.multiply: functools.partial(of_any_units, ops.multiply, 1),
    ops.matmul: functools.partial(of_any_units, ops.matmul, 1),
    ops.divide: functools.partial(of_any_units, ops.divide, -1),
    # The unit is that of the operand.
    ops.sum: functools.partial(keras.composite.parts, ops.sum),
    ops.mean: functools.partial(keras.composite.parts, ops.mean),
    ops.negative: functools.partial(keras.composite.parts, ops.negative),
    ops.get_item: functools.partial(keras.composite.parts, ops.get_item),
}
for function, rule in RULES.items():
    keras.rule_for(function, Quantity)(rule)


def small_quantities():
    way = Quantity([100.0, 42195.0], (("m", 1),))
    time = Quantity([9.58, 7235.0], (("s", 1),))
    speed = way / time
    show("way / time", f"{array(speed.value)} {written(unit_of(speed))}")
    assert speed.unit == (("m", 1), ("s", -1))
    assert unit_of(3.6 * speed * time) == {"m": 1}
    assert unit_of(speed / speed) == {}
    np.testing.assert_allclose(array(speed.value), [10.4384, 5.8321], rtol=1e-4)
    assert array(speed[0] > speed[1])
    try:
        way + time
    except ValueError as error:
        show("way + time", f"ValueError: {error}")
        assert "in m and something in s" in str(error)
    else:
        raise AssertionError("Metres plus seconds has a result.")


"""
A functional model takes quantities and gives one, and units are checked where
it is made:
"""


def model_of_quantities():
    way = Quantity(keras.Input((2,)), (("m", 1),))
    time = Quantity(keras.Input((2,)), (("s", 1),))
    model = keras.Model([way, time], way / time)
    try:
        keras.Model([way, time], way + time)
    except ValueError as error:
        assert "in m and something in s" in str(error)
    else:
        raise AssertionError("A model adds metres and seconds.")
    found = model(
        [way.replace(value=[[6.0, 9.0]]), time.replace(value=[[2.0, 3.0]])]
    )
    assert found.unit == (("m", 1), ("s", -1))
    assert array(found.value).tolist() == [[3.0, 3.0]]
    show("keras.Model([way, time], way / time)(...)", found)


"""
## Tables, and a picture
"""


def table_of(title, *columns):
    table = Table(title=title)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left")
    return table


def print_results(results):
    if not TRAINS:
        console.print(
            "NumPy cannot train: no network here has learned a thing."
        )
    titles = (f"{radius:g}" for radius in RADII)
    table = table_of("Certified (attacked) accuracy by radius", "", *titles)
    for name, curves in results["intervals"].items():
        pairs = zip(*curves.values(), strict=True)
        table.add_row(
            f"trained on {name}", *(f"{a:.2f} ({b:.2f})" for a, b in pairs)
        )
    console.print(table)
    found = results["graphs"]
    table = table_of("Boiling points, of molecules not seen", "", "error in K")
    for name in ("mean", "counts", "network"):
        table.add_row(name, f"{found[name]:.1f}")
    for name, change in found["changes"].items():
        table.add_row(f"change, {name}", f"{change:.1e}")
    console.print(table)
    table = table_of("The network on digits", "", "float32", "int8")
    found = results["quantized"]
    for name, digits_ in (("accuracy", ".4f"), ("bytes", ",")):
        pair = found[name], found[f"{name} in int8"]
        table.add_row(name, *(format(x, digits_) for x in pair))
    console.print(table)


def draw(found, file):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(5.2, 3.4), layout="constrained")
    for color, (name, curves) in zip(("C0", "C1"), found.items(), strict=True):
        axis.plot(RADII, curves["certified"], f"{color}.-", label=name)
        axis.plot(RADII, curves["attacked"], f"{color}.:")
    axis.set_xlabel("radius")
    axis.set_ylabel("accuracy")
    axis.set_title("Certified (dotted: at random points)", size=10)
    axis.legend(title="trained on")
    figure.savefig(file, dpi=80)
    pyplot.close(figure)


"""
## Putting it together
"""


def main():
    options = arguments()
    small_intervals()
    small_quantized()
    small_quantities()
    model_of_quantities()
    data = digits()
    with console.status("Interval"):
        intervals, model = measure_intervals(data)
    with console.status("Graph"):
        graphs = measure_graphs()
    results = {
        "intervals": intervals,
        "graphs": graphs,
        "quantized": measure_quantized(model, data),
    }
    print_results(results)
    draw(intervals, options.picture)
    console.print(f"The picture: {options.picture.resolve()}")
    if options.json:
        options.json.write_text(json.dumps(results))
    check_intervals(intervals)
    check_graphs(graphs)
    check_quantized(results["quantized"])


def arguments():
    parser = argparse.ArgumentParser(
        description="Composite tensors: the guide, as a script."
    )
    parser.add_argument(
        "--picture",
        type=pathlib.Path,
        default="certified_accuracy.png",
        help="where to draw it",
    )
    parser.add_argument(
        "--json", type=pathlib.Path, help="where to write the numbers"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
