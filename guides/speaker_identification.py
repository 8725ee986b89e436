"""
Title: Who is speaking? Series of unequal length
Description: An LSTM, a Transformer and convolutions on real, padded series.
Accelerator: None

`python guides/speaker_identification.py` runs this guide, in about two minutes
on two cores. It takes the fork, `rich`, `matplotlib`, and the data of `aeon`,
which `pip install --no-deps aeon` fetches. `KERAS_BACKEND` picks a backend that
trains: `jax`, `tensorflow` or `torch`. `--help` lists the options.

Nine men say the Japanese vowels "ae", and a model is to tell who it was. The
recordings are of unequal length, so a batch of them is padded. The guide trains
three models of different kinds on it, and checks that the padding changes
nothing. "Masked tensors in ten minutes" (`masked_tensors.py`) says what a
masked tensor is.

## Setup
"""

import argparse
import importlib.metadata
import json
import logging
import os
import pathlib
import sys
import tempfile
import typing

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

console = Console()
logging.getLogger("absl").setLevel("ERROR")

"""
## The data

The series come with `aeon`, a library for time series, as text files. Of `aeon`
nothing is run. After `@data` a line is a series: a colon between its features,
a comma between its steps, and the speaker at the end.

    1.86,1.89,1.93:-0.20,-0.19,-0.23: ... :1
"""

SPEAKERS = 9
FEATURES = 12


class Part(typing.NamedTuple):
    """Series of shape `(steps, 12)`, and who speaks: 0 to 8."""

    series: list
    speakers: np.ndarray

    @property
    def lengths(self):
        return np.array([len(x) for x in self.series], "int32")


def read(part):
    """Reads the part `"TRAIN"` or `"TEST"`."""
    file = f"aeon/datasets/data/JapaneseVowels/JapaneseVowels_{part}.ts"
    try:
        file = importlib.metadata.distribution("aeon").locate_file(file)
    except importlib.metadata.PackageNotFoundError:
        sys.exit(
            "error: the data comes with `aeon`, which is not installed. Get "
            "it with\n    pip install --no-deps aeon"
        )
    return parse(file.read_text())


def parse(text):
    series, speakers = [], []
    for line in text.partition("@data\n")[2].splitlines():
        *features, speaker = line.split(":")
        rows = [feature.split(",") for feature in features]
        series.append(np.array(rows, "float32").T)
        speakers.append(int(speaker) - 1)
    return Part(series, np.array(speakers))


"""
A list of series becomes one masked tensor, padded to the longest, or to a
length that is given.
"""


def pad(part, length):
    return keras.MaskedTensor.from_ragged(part.series, length=length)


"""
## Three models

What they have in common: `keras.Input` with a `mask_shape` declares a masked
input. `Normalization` learns mean and deviation of each feature, of the steps
that are there. At the end the steps are averaged, again those that are there:
that uses the masked axis up. So the output is a plain tensor, a row for each
series, and nothing has to be said about weights.

In between, not a word about masks: no `mask=`, no `supports_masking`, and
residual connections are a bare `h + r`.

(Dropout is `SpatialDropout1D`, which drops a feature of a series for all of
its steps. `Dropout` draws a number for each step, and so draws others for a
longer rectangle. That would be as good a training, but not the same.)
"""

WIDTH = 64


def lstm(h):
    """Reads a series in both directions."""
    h = layers.SpatialDropout1D(0.1)(h)
    cell = layers.LSTM(WIDTH, return_sequences=True, dropout=0.2)
    return layers.Bidirectional(cell)(h)


def transformer(h):
    """Two blocks of attention."""
    h = Positions()(layers.Dense(WIDTH)(h))
    for _ in range(2):
        r = layers.LayerNormalization()(h)
        r = layers.MultiHeadAttention(num_heads=4, key_dim=WIDTH // 4)(r, r)
        h = h + layers.SpatialDropout1D(0.2)(r)
        r = layers.LayerNormalization()(h)
        r = layers.Dense(2 * WIDTH, activation="gelu")(r)
        r = layers.Dense(WIDTH)(r)
        h = h + layers.SpatialDropout1D(0.2)(r)
    return layers.LayerNormalization()(h)


def convolutions(h):
    """Looks back only, by 14 steps in all."""
    h = layers.Dense(WIDTH)(h)
    for rate in (1, 2, 4):
        r = layers.LayerNormalization()(h)
        r = layers.Conv1D(
            WIDTH, 3, padding="causal", dilation_rate=rate, activation="gelu"
        )(r)
        h = h + layers.SpatialDropout1D(0.2)(r)
    return layers.LayerNormalization()(h)


MODELS = {
    "LSTM": lstm,
    "Transformer": transformer,
    "convolutions": convolutions,
}


"""
Attention does not know which step came first, so the Transformer is told. What
is added is a plain tensor, and changes nothing about the mask.
"""


@keras.saving.register_keras_serializable("speakers")
class Positions(layers.Layer):
    """Adds waves to the features, by which steps tell where they are."""

    def call(self, h):
        steps = ops.arange(ops.shape(h)[1], dtype=h.dtype)
        rates = 100.0 ** -np.linspace(0, 1, h.shape[-1] // 2)
        angles = steps[:, None] * ops.cast(rates, h.dtype)
        return h + ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)


def build(body, x):
    """The model, with the moments of the training data `x`."""
    keras.utils.set_random_seed(1)
    normalization = layers.Normalization()
    normalization.adapt(x)
    series = keras.Input((None, FEATURES), mask_shape=(None,))
    h = body(normalization(series))
    h = layers.GlobalAveragePooling1D()(h)
    return keras.Model(series, layers.Dense(SPEAKERS)(layers.Dropout(0.3)(h)))


def layers_with_mask(model):
    """How many layers hand a mask on, and how many there are to the pooling."""
    names = [type(layer).__name__ for layer in model.layers]
    before = model.layers[: names.index("GlobalAveragePooling1D")]
    masked = [ops.is_masked(layer.output) for layer in before]
    return sum(masked), len(before)


"""
## Training
"""

BATCH = 32


def train(body, part, length, options, epochs):
    """Trains for some of the epochs; returns the model and its history."""
    x = pad(part, length)
    model = build(body, x)
    steps = options.epochs * -(-len(part.series) // BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(4e-3, steps)
    model.compile(
        optimizer=keras.optimizers.Adam(schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        x, part.speakers, batch_size=BATCH, epochs=epochs, verbose=0
    )
    return model, history.history


def logits(model, x):
    return model.predict(x, batch_size=len(x), verbose=0)


def accuracy(scores, part):
    return float(np.mean(np.argmax(scores, axis=-1) == part.speakers))


"""
## What padding changes

The longest series has 29 steps. Padded to 64, or to 200, nothing may change:

- **The same model, the same predictions.** To see that this is not for nothing
  the model is also given the values without their mask. It then takes the
  padding for steps of the series.
- **The same training.** From the same seed, with the series padded to each
  length, the loss of each epoch is the same. What is equal on paper differs by
  rounding, and training amplifies that; a few epochs keep it small.
"""

SHORT, *LONGER = LENGTHS = 29, 64, 200


def change_length(model, part):
    """Accuracies and change of the predictions, for each padded length."""
    found = {}
    expected = logits(model, pad(part, SHORT))
    for length in LENGTHS:
        x = pad(part, length)
        scores = logits(model, x)
        found[str(length)] = {
            "accuracy": accuracy(scores, part),
            "difference": largest(scores - expected),
            "without mask": accuracy(logits(model, x.values), part),
        }
    return found


def train_with_length(body, part, history, options):
    """The loss curves for each padded length, of as few epochs."""
    epochs = min(options.padded_epochs, options.epochs)
    curves = {str(SHORT): history["loss"][:epochs]}
    for length in LONGER:
        _, longer = train(body, part, length, options, epochs)
        curves[str(length)] = longer["loss"]
    return curves


def largest(x):
    return float(np.max(np.abs(x)))


"""
## Saved, exported, reloaded

A masked input is part of a saved model. What is exported is run without Keras,
which knows of no masked tensors. So the exported model takes plain ones, the
series and their lengths, and makes the mask itself.
"""


@keras.saving.register_keras_serializable("speakers")
class MaskOfLengths(layers.Layer):
    """Padded series and their lengths become one masked tensor."""

    def call(self, series, lengths):
        steps = ops.arange(ops.shape(series)[1], dtype="int32")
        return keras.MaskedTensor(series, steps < lengths[:, None])


def with_plain_inputs(model):
    series = keras.Input((None, FEATURES), name="series")
    lengths = keras.Input((), dtype="int32", name="lengths")
    outputs = model(MaskOfLengths()(series, lengths))
    return keras.Model([series, lengths], outputs)


"""
JAX and TensorFlow export a SavedModel, which takes batches of any size and
length. PyTorch exports a program of its own. That is one for a single size and
length: a recurrent layer is a loop in Python there, of as many turns as there
are steps, and `torch.export` writes each of them down.
"""


def export_and_run(model, inputs, folder):
    """What the exported model says of inputs, once it is loaded again."""
    model = with_plain_inputs(model)
    if BACKEND == "torch":
        import torch

        file = str(folder / "exported.pt2")
        signature = [
            keras.InputSpec(shape=x.shape, dtype=x.dtype.name) for x in inputs
        ]
        model.export(
            file, format="torch", input_signature=[signature], verbose=False
        )
        program = torch.export.load(file).module()
        with torch.no_grad():
            return program([torch.from_numpy(x) for x in inputs]).numpy()
    import tensorflow as tf

    model.export(str(folder / "exported"), verbose=False)
    loaded = tf.saved_model.load(str(folder / "exported"))
    return loaded.serve(inputs).numpy()


def come_back(model, part):
    """How far predictions are off after saving, and after exporting."""
    x = pad(part, SHORT)
    expected = logits(model, x)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model.save(folder / "model.keras")
        saved = keras.saving.load_model(folder / "model.keras")
        inputs = [ops.convert_to_numpy(x.values), part.lengths]
        exported = export_and_run(model, inputs, folder)
    return {
        "saved": largest(logits(saved, x) - expected),
        "exported": largest(exported - expected),
    }


"""
## Which lengths are hard, and who is taken for whom
"""

LONGEST = 10, 13, 16, 19, 29


def accuracy_by_length(scores, part):
    """The number of series, and the accuracy, by groups of lengths."""
    right = np.argmax(scores, axis=-1) == part.speakers
    group = np.digitize(part.lengths, LONGEST, right=True)
    groups = [right[group == i] for i in range(len(LONGEST))]
    return {
        str(longest): {"series": len(x), "accuracy": float(np.mean(x))}
        for longest, x in zip(LONGEST, groups, strict=True)
    }


def confusion(scores, part):
    """How often a speaker (row) is taken for a speaker (column)."""
    matrix = np.zeros((SPEAKERS, SPEAKERS), int)
    np.add.at(matrix, (part.speakers, np.argmax(scores, axis=-1)), 1)
    return matrix


def draw(results, file):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (axes,) = pyplot.subplots(
        1,
        len(results),
        figsize=(3.2 * len(results) + 0.4, 3.8),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    names = range(1, SPEAKERS + 1)
    for axis, (name, found) in zip(axes, results.items(), strict=True):
        matrix = np.array(found["confusion"])
        axis.imshow(matrix / matrix.sum(axis=1, keepdims=True), cmap="Blues")
        for (row, column), count in np.ndenumerate(matrix):
            color = "white" if row == column else "black"
            style = {"color": color, "size": 8, "ha": "center", "va": "center"}
            axis.text(column, row, count or "", **style)
        axis.set_title(f"{name}: {found['accuracy']:.4f}")
        axis.set_xticks(range(SPEAKERS), names)
        axis.set_yticks(range(SPEAKERS), names)
        axis.set_xlabel("taken for")
    axes[0].set_ylabel("speaker")
    figure.savefig(file, dpi=80)
    pyplot.close(figure)


"""
## All measurements
"""


def measure(body, data, options):
    """Returns all numbers of one model, ready for JSON."""
    model, history = train(body, data["train"], SHORT, options, options.epochs)
    test = data["test"]
    scores = logits(model, pad(test, SHORT))
    reported = model.evaluate(
        pad(test, SHORT), test.speakers, verbose=0, return_dict=True
    )
    return {
        "accuracy": accuracy(scores, test),
        "reported": reported["accuracy"],
        "parameters": model.count_params(),
        "layers with mask": layers_with_mask(model),
        "padded": change_length(model, test),
        "losses": train_with_length(body, data["train"], history, options),
        "reloaded": come_back(model, test),
        "by length": accuracy_by_length(scores, test),
        "confusion": confusion(scores, test).tolist(),
    }


"""
What is claimed is checked whenever this guide runs. A sum of 200 terms that is
padded may be taken in another order than one of 29, and is rounded otherwise.
"""


def check(found):
    masked, before = found["layers with mask"]
    assert masked == before, found["layers with mask"]
    assert abs(found["reported"] - found["accuracy"]) <= 1e-6, found
    for padded in found["padded"].values():
        assert padded["difference"] <= 1e-4, padded
    for difference in curve_differences(found).values():
        assert difference <= 1e-3, found["losses"]
    for difference in found["reloaded"].values():
        assert difference <= 1e-4, found["reloaded"]


def curve_differences(found):
    """The largest difference of a loss curve to that of the shortest length."""
    curves = found["losses"]
    return {
        length: largest(np.subtract(curves[str(length)], curves[str(SHORT)]))
        for length in LONGER
    }


"""
## Tables
"""


def describe(data):
    return {
        name: {
            "series": len(part.series),
            "shortest": int(min(part.lengths)),
            "longest": int(max(part.lengths)),
            "of each speaker": np.bincount(part.speakers).tolist(),
        }
        for name, part in data.items()
    }


def print_data(parts):
    table = Table(title="The data: Japanese vowels, 12 features")
    for name in ("part", "series", "steps", "of each speaker"):
        table.add_column(name)
    for name, part in parts.items():
        steps = f"{part['shortest']} to {part['longest']}"
        counts = " ".join(map(str, part["of each speaker"]))
        table.add_row(name, str(part["series"]), steps, counts)
    console.print(table)


def print_results(results):
    print_padding(results)
    print_training(results)
    print_reloaded(results)
    print_by_length(results)


def table_of(title, *columns):
    table = Table("model", title=title)
    for name in columns:
        table.add_column(name, justify="right")
    return table


def print_padding(results):
    table = table_of(
        "The same model, padded to",
        "length",
        "accuracy",
        "predictions\nchange by",
        "accuracy\nwithout mask",
    )
    for name, found in results.items():
        for length, padded in found["padded"].items():
            table.add_row(
                name if length == str(SHORT) else "",
                length,
                f"{padded['accuracy']:.4f}",
                f"{padded['difference']:.1e}",
                f"{padded['without mask']:.4f}",
            )
        table.add_section()
    console.print(table)


def print_training(results):
    epochs = len(next(iter(results.values()))["losses"][str(SHORT)])
    table = table_of(
        f"The same training, the loss after {epochs} epochs, padded to",
        *map(str, LENGTHS),
        "largest difference\nof an epoch",
    )
    for name, found in results.items():
        losses = [f"{curve[-1]:.6f}" for curve in found["losses"].values()]
        difference = max(curve_differences(found).values())
        table.add_row(name, *losses, f"{difference:.1e}")
    console.print(table)


def print_reloaded(results):
    table = table_of(
        "Predictions are off by",
        "saved and\nloaded",
        "exported and\nloaded",
        "layers that\nhand masks on",
    )
    for name, found in results.items():
        differences = [f"{x:.1e}" for x in found["reloaded"].values()]
        masked, before = found["layers with mask"]
        table.add_row(name, *differences, f"{masked} of {before}")
    console.print(table)


def print_by_length(results):
    groups = next(iter(results.values()))["by length"]
    columns = [f"up to {x}\n({g['series']})" for x, g in groups.items()]
    table = table_of("Accuracy by steps (and series)", *columns, "all")
    for name, found in results.items():
        cells = [f"{g['accuracy']:.3f}" for g in found["by length"].values()]
        table.add_row(name, *cells, f"{found['accuracy']:.4f}")
    console.print(table)


"""
## Putting it together
"""


def main():
    options = arguments()
    if BACKEND not in ("jax", "tensorflow", "torch"):
        sys.exit(
            f"The {BACKEND} backend cannot train: set KERAS_BACKEND to jax, "
            "tensorflow or torch for this guide."
        )
    data = {"train": read("TRAIN"), "test": read("TEST")}
    parts = describe(data)
    print_data(parts)
    results = {}
    for name in options.models:
        with console.status(name):
            results[name] = measure(MODELS[name], data, options)
    print_results(results)
    draw(results, options.picture)
    console.print(f"The picture: {options.picture.resolve()}")
    if options.json:
        options.json.write_text(json.dumps({"data": parts, "models": results}))
    for found in results.values():
        check(found)


def arguments():
    parser = argparse.ArgumentParser(
        description="Who is speaking? The guide, as a script."
    )
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=list(MODELS)
    )
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument(
        "--padded-epochs",
        type=int,
        default=3,
        help="how many to compare between padded lengths",
    )
    parser.add_argument(
        "--picture",
        type=pathlib.Path,
        default="speaker_confusion.png",
        help="where to draw it",
    )
    parser.add_argument(
        "--json", type=pathlib.Path, help="where to write the numbers"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
