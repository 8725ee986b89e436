"""
Title: Masked tensors in ten minutes
Description: What a masked tensor is, and a model that is scored by the truth.
Accelerator: None

`python pip_build.py --demo` runs this guide, in a few minutes on two cores. To
run it by itself, install the fork, `names`, `rich` and `matplotlib`, and pick a
backend that trains with `KERAS_BACKEND`: `jax`, `tensorflow` or `torch`.

First it shows what a masked tensor is. Then it trains a small language model
on padded sequences, the job that masks are for, and checks what Keras reports
by hand. It does so a second time, in a process of its own, with unpatched
Keras: the very same script. `--help` lists its options.

## Setup
"""

import argparse
import contextlib
import importlib.resources
import json
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import typing
import warnings

# TensorFlow is chatty, also where it is no more than installed.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
# The model is small: PyTorch's threads would mostly wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn
from rich.table import Table

import keras
from keras import layers
from keras import ops

# Unpatched Keras has no masked tensors; the model below is the same for both.
FORK = hasattr(keras, "MaskedTensor")

console = Console()
logging.getLogger("tensorflow").setLevel("ERROR")

"""
## What a masked tensor is

Sequences are of unequal length, and a batch is a rectangle. What fills the
rectangle up is *padding*, and a *mask* says which entries are there: `True`
where valid. A `keras.MaskedTensor` is values and a mask in one object. The
mask covers the leading axes of the values: a mask of shape `(batch, time)` over
values of shape `(batch, time, features)` says which steps are there.

What lies under the mask means nothing. **No valid result, and no gradient,
ever depends on it.** That is the promise from which all the rest follows.
"""


def making_one():
    x = keras.MaskedTensor([1.0, 2.0, 4.0], [True, False, True])
    show("x = keras.MaskedTensor([1, 2, 4], [True, False, True])", x)
    rows = [[1, 2, 3], [4]]
    y = keras.MaskedTensor.from_ragged(rows)
    show("keras.MaskedTensor.from_ragged([[1, 2, 3], [4]])", y)
    return x


def show(code, result):
    console.print(f">>> {code}", style="bold", highlight=False, markup=False)
    console.print(str(result), highlight=False, markup=False)


"""
## Operators and reductions

All operators and the functions of `keras.ops` take masked tensors. An
elementwise op is **valid where every masked operand is valid**; a plain operand
changes nothing about the mask. A reduction goes over the valid entries only,
and where it leaves no masked axis its result is a plain tensor.

So attention written as `softmax(q @ k.T) @ v` leaves padding out by itself,
and a residual connection is a bare `h + r`.
"""


def computing(x):
    show("x + 1", x + 1)
    y = keras.MaskedTensor([10.0, 20.0, 30.0], [True, True, False])
    show("x + keras.MaskedTensor([10, 20, 30], [True, True, False])", x + y)
    # The mean of two entries: 5 / 2.
    show("ops.mean(x)", ops.convert_to_numpy(ops.mean(x)))
    show("ops.softmax(x)", ops.softmax(x))


"""
## Ways out, and errors

`ops.is_masked(x)` asks whether a tensor is masked, `ops.get_mask(x)` gives its
mask, or None for a plain one. There are three ways out of a mask:

- `ops.filled(x, value)` puts a value where nothing is,
- `x.values` drops the mask on purpose,
- `ops.convert_to_numpy(x)` gives a `numpy.ma` array (its own mask is True where
  *masked*).

There is no other: a masked tensor never turns into a plain array by itself.
`np.asarray(x)`, `jnp.sin(x)` and `torch.sin(x)` raise, and an op of Keras that
can do nothing sensible with a mask raises `UnsupportedMaskError`. The message
names the op and the shapes, and says what to do: fill the masked entries, drop
the mask, or add a rule for the op (`keras.masking.rule_for`). No mask is lost
in silence. For a script that cannot be changed today,
`keras.config.set_unsupported_mask("warn")` makes warnings of the errors of
`keras.ops` and `keras.random`. What calls the engine itself (`tf.matmul`, the
functions of `tf.keras.backend`, a layer of a package that does) raises all the
same: put `keras.ops.filled(x, 0)` before it.
"""


def leaving(x):
    show("ops.get_mask(x)", ops.convert_to_numpy(ops.get_mask(x)))
    show("ops.filled(x, -1.0)", ops.convert_to_numpy(ops.filled(x, -1.0)))
    try:
        np.asarray(x)
    except TypeError as error:
        show("np.asarray(x)", f"TypeError: {error}")


"""
## The data: 89,000 surnames

The package `names` has the surnames of the US census. A name becomes the ids
of its letters, an END, and padding with 0:

    SMITH   ->   S M I T H END 0 0 0 0 0 ...
"""

PAD, END, FIRST_LETTER = 0, 1, 2
VOCABULARY = FIRST_LETTER + 26
SHORT, LONG = 16, 40
BATCH = 128


def read_names(count):
    """Returns this many surnames, in a random order that is always the same."""
    file = importlib.resources.files("names") / "dist.all.last"
    found = [line.split()[0] for line in file.read_text().splitlines()]
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i] for i in order[:count]]


def pad(names, length, side="right"):
    """Returns the ids of names, of shape `(len(names), length)`."""
    ids = np.full((len(names), length), PAD, "int32")
    for row, name in zip(ids, names, strict=True):
        tokens = [ord(letter) - ord("A") + FIRST_LETTER for letter in name]
        tokens.append(END)
        start = 0 if side == "right" else length - len(tokens)
        row[start : start + len(tokens)] = tokens
    return ids


"""
The model reads the characters so far and says the next one: inputs and targets
are the same ids, one step apart. A step has weight 1 if there is a character to
read and one to say, so END is credited once and padding never. This is decided
here, where the data is known, and not by the model.

(With padding at the end, as here, `keras.utils.shift_for_next_token(ids)` does
all of it in one call.)
"""


class Data(typing.NamedTuple):
    """What a model reads, what it is to say, and what of that counts."""

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def shift(ids):
    inputs, targets = ids[:, :-1], ids[:, 1:]
    mask = (inputs != PAD) & (targets != PAD)
    if not FORK:
        return Data(inputs, targets, mask.astype("float32"))
    return Data(inputs, targets, keras.utils.sample_weight_from_mask(mask))


"""
## The model

Attention in three lines of `keras.ops`. A layer's `call` gets the masked tensor
and returns what its ops make of it. There is not a word about masks in this
one: that nobody may look into the future is no matter of padding. (A layer
that does want the mask says `call(self, x, mask=None)`, and gets plain values
and the mask.)
"""

WIDTH = 48


class CausalAttention(layers.Layer):
    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.query = layers.Dense(units, use_bias=False)
        self.key = layers.Dense(units, use_bias=False)
        self.value = layers.Dense(units, use_bias=False)

    def call(self, h):
        q, k, v = self.query(h), self.key(h), self.value(h)
        scores = q @ ops.swapaxes(k, 1, 2) / WIDTH**0.5
        return ops.softmax(ops.where(is_past(h), scores, -1e9)) @ v


def is_past(h):
    steps = ops.arange(ops.shape(h)[1])
    return steps[:, None] >= steps


"""
`Embedding(mask_zero=True)` makes the mask. From there on it is part of the
tensor, and nothing below has to care. The stages have names, so that we can
look at each of them later.
"""


def stages_of(ids):
    """Yields each stage of the model, as a name and a tensor."""
    h = layers.Embedding(VOCABULARY, WIDTH, mask_zero=True)(ids)
    yield "h = Embedding(ids)", h
    # No relu: next to its kink rounding would choose between two gradients.
    r = layers.Conv1D(WIDTH, 3, padding="causal", activation="gelu")(h)
    yield "r = Conv1D(h)", r
    h = h + r
    yield "h = h + r", h
    r = CausalAttention(WIDTH)(h)
    yield "r = attention(h)", r
    h = h + r
    yield "h = h + r (2)", h
    h = layers.LayerNormalization()(h)
    yield "h = LayerNorm(h)", h
    yield "logits = Dense(h)", layers.Dense(VOCABULARY)(h)


def build_model():
    """Returns the model, and the names and a model of all its stages."""
    keras.utils.set_random_seed(1)
    ids = keras.Input((None,), dtype="int32")
    names, tensors = zip(*stages_of(ids), strict=True)
    return keras.Model(ids, tensors[-1]), names, keras.Model(ids, list(tensors))


"""
## Training and scoring

**A mask never weighs.** Losses and metrics do not read it, for it is made by
the model, and who is judged must not choose what counts. `sample_weight` is the
only weight. `keras.utils.sample_weight_from_mask(ids != 0)` makes one from a
mask, and two names belong to it:

- `weighted_metrics` in `compile`: these metrics use `sample_weight`. Those in
  `metrics` ignore it!
- `reduction="mean_with_sample_weight"` of the loss: the sum is divided by the
  sum of the weights. By default it is divided by the number of all entries,
  padding included. With that a batch padded to 40 has a loss, and so a
  gradient, 2.6 times smaller than the same batch padded to 16, and the length
  of the longest name decides on the size of a step.

What one writes first has none of this, and counts padding. The fork then warns,
once, and shows the line to write.
"""


def compile_and_fit(model, data, weighted, epochs, callback):
    """Returns the loss of each epoch."""
    model.compile(
        optimizer=keras.optimizers.Adam(4e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True,
            reduction="mean_with_sample_weight" if weighted else "mean",
        ),
        metrics=None if weighted else ["accuracy"],
        weighted_metrics=["accuracy"] if weighted else None,
    )
    history = model.fit(
        data.inputs,
        data.targets,
        sample_weight=data.weights if weighted else None,
        batch_size=BATCH,
        epochs=epochs,
        shuffle=False,  # Names come in random order, and each run in the same.
        verbose=0,
        callbacks=[callback],
    )
    return history.history["loss"]


def reported_accuracy(model, data, weighted=True):
    """The accuracy that Keras reports."""
    return model.evaluate(
        data.inputs,
        data.targets,
        sample_weight=data.weights if weighted else None,
        batch_size=BATCH,
        verbose=0,
        return_dict=True,
    )["accuracy"]


def true_accuracy(model, data):
    """The accuracy over characters, by hand."""
    guesses = np.argmax(predictions(model, data), axis=-1)
    return float(np.mean(guesses == data.targets[data.weights > 0]))


def predictions(model, data):
    """The logits for what is to be said, of shape `(characters, 28)`."""
    logits = model.predict(data.inputs, batch_size=BATCH, verbose=0)
    # `predict` gives a `numpy.ma` array for a masked output.
    return np.ma.getdata(logits)[data.weights > 0]


"""
## The attack

A mask that losses and metrics listen to invites a trick. Put one layer on top
of a trained model, which masks everything but the twentieth that the model is
most confident of: a metric that reads the mask now counts easy characters only.

Such a layer returns a masked tensor, or, as upstream has it, it overrides
`compute_mask`. (The fork still runs layers that do, and says that there is a
shorter way.)
"""


class HidesByType(layers.Layer):
    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def call(self, logits):
        logits = ops.filled(logits)
        return keras.MaskedTensor(logits, confidence(logits) > self.threshold)


class HidesByComputeMask(layers.Layer):
    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold
        self.supports_masking = True

    def call(self, logits):
        return logits

    def compute_mask(self, logits, previous_mask):
        return confidence(logits) > self.threshold


WAYS = {"compute_mask": HidesByComputeMask}
if FORK:
    WAYS["MaskedTensor"] = HidesByType


def confidence(logits):
    return ops.max(ops.softmax(logits), axis=-1)


def attack(model, data, hides):
    """Returns accuracies of a model before and after the attack."""
    sure = ops.convert_to_numpy(confidence(predictions(model, data)))
    top = hides(threshold=float(np.quantile(sure, 0.95)))
    attacked = keras.Sequential([model, top])
    attacked.compile(loss=model.loss, weighted_metrics=["accuracy"])
    return {
        "reported": reported_accuracy(model, data),
        "attacked": reported_accuracy(attacked, data),
        "attacked, true": true_accuracy(attacked, data),
    }


"""
`keras.MaskedTensor(values, mask)` puts 0 under the mask. So who hides an answer
that way has none, and it counts as wrong.

## What padding changes

It should change nothing at all, with weights. Two experiments:

- **Padded to 16, and to 40.** Same seed, same batches. We compare the loss of
  each epoch, the trained parameters, and the predictions for all characters of
  names that were held back.

  What is equal on paper differs by rounding, for sums are taken in another
  order, and training amplifies it. By how much, a *control* shows: padded to
  16 again, with the rows of each batch in reverse. On paper that too is the
  same training. The padded length may then do ten times what the control does
  (which is a single sample), plus ten units in the last place of a float32 of
  that size (for the control may happen to round alike).
- **Padding before the names instead of behind them.** The model knows no
  positions, so a name is the same name wherever it stands. Behind the names,
  padding lies in the future, and a causal model would not see it anyway; before
  them, the convolution and the attention do run over it.
"""

ROUNDINGS = 10


class Run(typing.NamedTuple):
    """A trained model, the data it is tested on, and its loss by epoch."""

    model: keras.Model
    stage_names: list
    stages: keras.Model
    data: Data
    losses: list


def train(names, length, options, callback, weighted=True, backwards=False):
    """Trains on all but some of the names, which are held back for tests."""
    held_back = max(1, len(names) // 8 // BATCH) * BATCH
    usable = len(names) // BATCH * BATCH
    ids = pad(names[held_back:usable], length)
    if backwards:
        ids = ids.reshape(-1, BATCH, length)[:, ::-1].reshape(-1, length)
    model, stage_names, stages = build_model()
    losses = compile_and_fit(
        model, shift(ids), weighted, options.epochs, callback
    )
    test = shift(pad(names[:held_back], length))
    return Run(model, stage_names, stages, test, losses)


def differences(run, other):
    """How far two trainings differ at most, and how far they may."""
    pairs = {
        "loss": (run.losses, other.losses),
        "parameters": (flat_parameters(run), flat_parameters(other)),
        "predictions": (
            predictions(run.model, run.data),
            predictions(other.model, other.data),
        ),
    }
    return {
        name: {
            "difference": largest(np.subtract(a, b)),
            "unit": float(np.spacing(np.float32(largest(a)))),
        }
        for name, (a, b) in pairs.items()
    }


def flat_parameters(run):
    return np.concatenate([w.ravel() for w in run.model.get_weights()])


def largest(x):
    return float(np.max(np.abs(x)))


def change_side(run, names):
    """The same names with padding behind them, and before them."""
    right, left = (
        shift(pad(names[: len(run.data.inputs)], LONG, side))
        for side in ("right", "left")
    )
    change = predictions(run.model, right) - predictions(run.model, left)
    return {
        "right": true_accuracy(run.model, right),
        "left": true_accuracy(run.model, left),
        "difference": largest(change),
    }


SHOWN = 7


def look_at_stages(run):
    """For each stage: the size of its values, and its mask if it has one."""
    found = {}
    tensors = run.stages(run.data.inputs[:SHOWN])
    for name, x in zip(run.stage_names, tensors, strict=True):
        values = ops.convert_to_numpy(x.values if FORK else x)
        # Upstream hangs the mask on a tensor, under this name.
        mask = getattr(x, "_keras_mask", None)
        found[name] = {
            "values": np.sqrt(np.mean(values**2, axis=-1)).tolist(),
            "mask": None
            if mask is None
            else ops.convert_to_numpy(mask).tolist(),
        }
    return found


"""
## All measurements

Five trainings: without weights for each length, with weights for each length,
and the control.
"""


def measure(options):
    """Returns all numbers for the Keras that runs, ready for JSON."""
    names = read_names(options.names)
    with progress_bar(options) as callback, heard_warnings() as heard:
        careless = {
            n: train(names, n, options, callback, weighted=False)
            for n in (SHORT, LONG)
        }
        weighted = {n: train(names, n, options, callback) for n in careless}
        control = train(names, SHORT, options, callback, backwards=True)
        run = weighted[SHORT]
        numbers = {
            "keras": keras.version(),
            "backend": keras.backend.backend(),
            "without weights": {
                str(n): scores(r, False) for n, r in careless.items()
            },
            "with weights": {
                str(n): scores(r, True) for n, r in weighted.items()
            },
            "losses": {str(n): r.losses for n, r in weighted.items()},
            "length": differences(run, weighted[LONG]),
            "control": differences(run, control),
            "side": change_side(run, names),
            "attack": {
                way: attack(run.model, run.data, hides)
                for way, hides in WAYS.items()
            },
            "stages": look_at_stages(run),
            "inputs": run.data.inputs[:SHOWN].tolist(),
        }
    return numbers | {"warning": heard[0]}


def scores(run, weighted):
    return {
        "reported": reported_accuracy(run.model, run.data, weighted),
        "true": true_accuracy(run.model, run.data),
    }


class AdvanceBar(keras.callbacks.Callback):
    def __init__(self, advance):
        super().__init__()
        self.advance = advance

    def on_train_batch_end(self, batch, logs=None):
        self.advance()


@contextlib.contextmanager
def progress_bar(options):
    """Yields the callback that moves a progress bar through all trainings."""
    steps = options.names // BATCH - max(1, options.names // 8 // BATCH)
    with Progress(
        TextColumn("{task.description:18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        who = "this fork" if FORK else "unpatched Keras"
        task = progress.add_task(who, total=5 * options.epochs * steps)
        yield AdvanceBar(lambda: progress.advance(task))


@contextlib.contextmanager
def heard_warnings():
    """Yields a list of the warnings about masks, which it takes in."""
    heard = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield heard
        # At the end of the block, before the list is read.
        texts = [str(w.message) for w in caught if w.category is UserWarning]
        heard += [text for text in texts if "mask" in text] + [None]


"""
The same script in a second process, with unpatched Keras before the fork on the
path. `build/upstream` is what the fork was made from; where the fork came as a
wheel there is none, and the message says how to get one.
"""


GUIDE = pathlib.Path(__file__).resolve()


def find_upstream(options):
    folder = options.upstream or GUIDE.parents[1] / "build" / "upstream"
    if not (folder / "keras" / "__init__.py").exists():
        sys.exit(
            f"error: there is no unpatched Keras in {folder}. Get it with\n"
            "    pip install --no-deps --target plain keras==3.15.1\n"
            "and pass `--upstream plain`; or pass `--no-upstream`."
        )
    return folder.resolve()


def measure_upstream(folder, options):
    with tempfile.TemporaryDirectory() as scratch:
        file = pathlib.Path(scratch) / "numbers.json"
        command = [sys.executable, str(GUIDE), "--quiet", "--json", str(file)]
        command += [f"--names={options.names}", f"--epochs={options.epochs}"]
        env = os.environ | {
            "PYTHONPATH": str(folder),
            "KERAS_BACKEND": keras.backend.backend(),
        }
        if subprocess.run(command, env=env).returncode:
            sys.exit(f"error: with the Keras in {folder} it failed, see above.")
        return json.loads(file.read_text())["upstream"]


"""
## What comes out

- Without weights, and padded to 40, either Keras reports 0.88 where 0.30 is
  true: most of what is counted is padding. The fork says so, with the line to
  write. Upstream says that the convolution destroys the mask, and leaves it to
  you to see what follows.
- With weights both report the truth, and learn the same from 16 and from 40.
  But that takes a causal model, and padding behind the names. With padding
  before them, upstream takes it for characters, and its accuracy falls. The
  fork does not notice.
- The attack makes upstream report more than twice what is true, in spite of the
  weights. On the fork it gains nothing.

What is claimed of the fork is checked whenever this guide runs.
"""


def check(numbers):
    for pair in numbers["with weights"].values():
        assert abs(pair["reported"] - pair["true"]) <= 1e-6, pair
    for name, found in numbers["length"].items():
        assert found["difference"] <= allowed(numbers, name), (name, found)
    side = numbers["side"]
    assert side["difference"] <= 1e-4, side
    # Where two letters are as good as equal, rounding may choose.
    assert abs(side["left"] - side["right"]) <= 1e-3, side
    for found in numbers["attack"].values():
        assert found["attacked"] <= found["reported"], found
        assert abs(found["attacked"] - found["attacked, true"]) <= 1e-6, found
    for name, stage in numbers["stages"].items():
        assert stage["mask"], name


def allowed(numbers, name):
    """The largest difference that rounding explains."""
    control = numbers["control"][name]
    return ROUNDINGS * (control["difference"] + control["unit"])


"""
## Tables
"""

LABELS = {"fork": "this fork", "upstream": "unpatched"}


def print_results(results):
    print_accuracies(results)
    for who, numbers in results.items():
        if numbers["warning"]:
            text = " ".join(numbers["warning"].split())
            console.print(f"{LABELS[who]} warns: {text}", style="dim")
    print_lengths(results)
    print_sides(results)
    print_attack(results)


def print_accuracies(results):
    """Padded length by Keras: what is reported, and what is true."""
    table = Table(title="Accuracy, as reported and as counted by hand")
    table.add_column("padded to")
    table.add_column("Keras")
    kinds = "without weights", "with weights"
    for kind in kinds:
        table.add_column(f"reported,\n{kind}", justify="right")
        table.add_column("true", justify="right")
    for length in (SHORT, LONG):
        for who, numbers in results.items():
            pairs = [numbers[kind][str(length)] for kind in kinds]
            cells = [f"{x:.4f}" for pair in pairs for x in pair.values()]
            table.add_row(str(length), LABELS[who], *cells)
        table.add_section()
    console.print(table)


def print_lengths(results):
    table = Table(title="Padded to 16 and to 40: the largest differences")
    table.add_column("Keras")
    for name in ("loss", "parameters", "predictions"):
        table.add_column(name, justify="right")
    for who, numbers in results.items():
        found = numbers["length"]
        cells = [f"{x['difference']:.1e}" for x in found.values()]
        limits = [f"{allowed(numbers, name):.1e}" for name in found]
        table.add_row(LABELS[who], *cells)
        table.add_row("  rounding explains", *limits, style="dim")
    console.print(table)


def print_sides(results):
    table = Table(title="Padding behind the names, and before them")
    table.add_column("Keras")
    columns = "true accuracy,\nbehind", "\nbefore", "predictions,\ndifference"
    for name in columns:
        table.add_column(name, justify="right")
    for who, numbers in results.items():
        right, left, change = numbers["side"].values()
        cells = f"{right:.4f}", f"{left:.4f}", f"{change:.1e}"
        table.add_row(LABELS[who], *cells)
    console.print(table)


def print_attack(results):
    table = Table(title="The attack: mask what the model is not sure of")
    columns = "reported", "attacked", "attacked,\ntrue", "gain"
    for name in ("Keras", "by", *columns):
        table.add_column(name, justify="right" if name in columns else "left")
    for who, numbers in results.items():
        for way, found in numbers["attack"].items():
            gain = found["attacked"] - found["reported"]
            cells = [f"{x:.4f}" for x in found.values()] + [f"{gain:+.4f}"]
            table.add_row(LABELS[who], way, *cells)
    console.print(table)


"""
## A picture

One batch on its way through the model: a row for each stage, a column for each
Keras. The colour of a cell is the size of the values of one character.
"""


def draw(results, file):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    stages = list(next(iter(results.values()))["stages"])
    figure, axes = pyplot.subplots(
        1 + len(stages),
        len(results),
        figsize=(3.6 * len(results) + 1.8, 1.1 * (1 + len(stages)) + 0.6),
        squeeze=False,
        layout="constrained",
    )
    for column, (who, numbers) in zip(axes.T, results.items(), strict=True):
        column[0].set_title(LABELS[who], fontsize=14)
        draw_ids(column[0], np.array(numbers["inputs"]))
        draw_stages(column[1:], numbers["stages"], results)
    for axis, name in zip(axes[:, 0], ["ids", *stages], strict=True):
        style = {"family": "monospace", "rotation": 0, "ha": "right"}
        axis.set_ylabel(name, va="center", **style)
    figure.supxlabel(
        "colour: size of the values, by row; grey: masked", fontsize=10
    )
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def draw_ids(axis, ids):
    draw_cells(axis, np.full(ids.shape, 0.3), ids == PAD, 0, 1)
    for (row, column), token in np.ndenumerate(ids):
        letter = chr(ord("A") + token - FIRST_LETTER)
        axis.text(
            column,
            row,
            {PAD: "0", END: "END"}.get(int(token), letter),
            size=4.5 if token == END else 7.5,
            color="0.6" if token == PAD else "white",
            ha="center",
            va="center_baseline",
        )


def draw_stages(axes, stages, results):
    lost = False
    for axis, (name, stage) in zip(axes, stages.items(), strict=True):
        sizes = [r["stages"][name]["values"] for r in results.values()]
        values = np.array(stage["values"])
        mask = np.array(stage["mask"] or np.ones(values.shape, bool))
        draw_cells(axis, values, ~mask, np.min(sizes), np.max(sizes))
        if stage["mask"] is None:
            note = "no mask" if lost else "mask lost here"
            lost = True
            axis.spines[:].set(color="crimson", linewidth=2.5)
            style = {"color": "white", "ha": "center", "va": "center"}
            box = {"facecolor": "crimson", "edgecolor": "none"}
            place = axis.transAxes
            axis.text(0.78, 0.5, note, transform=place, bbox=box, **style)


def draw_cells(axis, values, hidden, low, high):
    axis.imshow(
        np.ma.array(values, mask=hidden), vmin=low, vmax=high, aspect="auto"
    )
    axis.set(xticks=[], yticks=[], facecolor="0.93")


"""
## Putting it together
"""


def main():
    options = arguments()
    if keras.backend.backend() not in ("jax", "tensorflow", "torch"):
        sys.exit(
            f"The {keras.backend.backend()} backend cannot train: set "
            "KERAS_BACKEND to jax, tensorflow or torch for this guide."
        )
    compared = FORK and not options.no_upstream
    upstream = find_upstream(options) if compared else None
    if FORK and not options.quiet:
        x = making_one()
        computing(x)
        leaving(x)
    results = {"fork" if FORK else "upstream": measure(options)}
    if compared:
        results["upstream"] = measure_upstream(upstream, options)
    if not options.quiet:
        print_results(results)
        draw(results, options.picture)
        console.print(f"The picture: {options.picture.resolve()}")
    if options.json:
        options.json.write_text(json.dumps(results))
    if FORK:
        check(results["fork"])


def arguments():
    parser = argparse.ArgumentParser(
        description="Masked tensors in ten minutes: the guide, as a script."
    )
    parser.add_argument(
        "--names", type=int, default=16_000, help="how many to take"
    )
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument(
        "--upstream",
        type=pathlib.Path,
        help="a folder that holds unpatched Keras",
    )
    parser.add_argument(
        "--no-upstream", action="store_true", help="leave unpatched Keras out"
    )
    parser.add_argument(
        "--quiet", action="store_true", help="print the progress and no more"
    )
    parser.add_argument(
        "--picture",
        type=pathlib.Path,
        default="masked_tensors.png",
        help="where to draw it",
    )
    parser.add_argument(
        "--json", type=pathlib.Path, help="where to write the numbers"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
