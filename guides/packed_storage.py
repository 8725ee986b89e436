"""
Title: Packed storage: cost that falls with padding
Description: The same model, padded and packed: the same numbers, less time.
Accelerator: None

`python guides/packed_storage.py` runs this guide, in a few minutes on two
cores. It takes the fork, `rich`, `matplotlib`, and the data of `names` and of
`aeon`. `KERAS_BACKEND` picks a backend that trains: `jax`, `tensorflow` or
`torch`. `--help` lists the options.

A batch of sequences is as long as its longest one, and most of it may be
padding. Masks keep padding out of every result; it still costs time. A masked
tensor can be stored *packed*, as its valid steps one after another:

    model.fit(x.packed(), y.packed())

Nothing else changes. `x.packed()` is a `keras.MaskedTensor`, with the shape,
the values and the mask that `x` has, and the model is the same. Targets may be
packed or not.

## Setup
"""

import argparse
import functools
import importlib.resources
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
from rich.console import Console
from rich.table import Table

import keras
from keras import layers
from keras import ops

BACKEND = keras.backend.backend()
console = Console()

"""
## The data

The package `names` has the surnames of the US census. A model is to say of
each letter which one comes next; 0 is the end of a name.
"""

LETTERS = 27


def read(count):
    """Surnames as arrays of numbers, 1 to 26."""
    text = (importlib.resources.files("names") / "dist.all.last").read_text()
    found = [line.split()[0] for line in text.splitlines()]
    order = np.random.default_rng(0).permutation(len(found))[:count]
    return [
        np.array([ord(letter) - ord("A") + 1 for letter in found[i]], "int32")
        for i in order
    ]


def batch(names, length):
    """The letters, and for each the next one, padded to a length."""
    targets = [np.append(name[1:], 0) for name in names]
    x = keras.MaskedTensor.from_ragged(names, length)
    y = keras.MaskedTensor.from_ragged(targets, length)
    return x, y


"""
## The model

Transformer blocks, as one writes them. There is nothing about masks in it, nor
about packing. Positions are counted with a `cumsum` over ones: that goes over
steps, so it is computed on the padded tensor, and what comes out is packed
again.
"""


class Block(layers.Layer):
    def __init__(self, width, heads, causal=False):
        super().__init__()
        self.attention = layers.MultiHeadAttention(heads, width // heads)
        self.norms = [layers.LayerNormalization() for _ in range(2)]
        self.hidden = layers.Dense(4 * width, "gelu")
        self.outer = layers.Dense(width)
        self.causal = causal

    def call(self, x):
        y = self.norms[0](x)
        x = x + self.attention(y, y, use_causal_mask=self.causal)
        return x + self.outer(self.hidden(self.norms[1](x)))


class NextLetter(keras.Model):
    def __init__(self, length, blocks, width=64, heads=4):
        super().__init__()
        self.letters = layers.Embedding(LETTERS, width)
        self.places = layers.Embedding(length, width)
        self.blocks = [Block(width, heads, True) for _ in range(blocks)]
        self.head = layers.Dense(LETTERS)

    def call(self, ids):
        place = ops.cumsum(ops.ones_like(ids), axis=1) - 1
        x = self.letters(ids) + self.places(place)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def compiled(model):
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
    )
    return model


def next_letter(length, blocks):
    keras.utils.set_random_seed(1)
    return compiled(NextLetter(length, blocks))


"""
## The same curve

The names are padded to 40 letters, so that five of six are none. The losses of
both runs agree, and so do the predictions. The mask of a target is its weight;
the loss is computed for the steps that are there, since no other weighs
anything.
"""


def train(model, x, y, epochs):
    """The losses of a model by epoch, the seconds, and its predictions."""
    options = {"batch_size": 64, "shuffle": False, "verbose": 0}
    # Compilers see the shapes of all batches once.
    model.fit(x, y, epochs=1, **options)
    start = time.perf_counter()
    history = model.fit(x, y, epochs=epochs, **options)
    seconds = time.perf_counter() - start
    start = time.perf_counter()
    predicted = model.predict(x, verbose=0)
    return (
        history.history["loss"],
        seconds,
        time.perf_counter() - start,
        (np.ma.filled(predicted, 0)),
    )


def compare(name, make, x, y, epochs):
    console.print(keras.utils.padding_report(x))
    packed_y = y.packed() if ops.is_masked(y) else y
    padded = train(make(), x, y, epochs)
    packed = train(make(), x.packed(), packed_y, epochs)
    np.testing.assert_allclose(padded[0], packed[0], rtol=1e-2)
    np.testing.assert_allclose(padded[-1], packed[-1], atol=5e-2)
    for kind, (losses, fit, predict, _) in zip(
        ("padded", "packed"), (padded, packed)
    ):
        console.print(
            f"{BACKEND}, {name} {kind}: loss {losses[-1]:.4f}, {epochs} epochs "
            f"in {fit:.1f} s, predictions in {predict:.2f} s"
        )
    return {"padded": padded[:3], "packed": packed[:3]}


"""
A series of twelve numbers a step, 7 to 29 steps long, and who of nine people
spoke: the Transformer of [speaker_identification.py](speaker_identification.py)
with its mean over steps, padded to 64. Its loss is one for each row.
"""


def speakers(blocks):
    """The series and who spoke, and what makes the model of them."""
    # Late: it reads what comes with `aeon`.
    import speaker_identification as guide

    part = guide.read("TRAIN")
    x = guide.pad(part, 64)
    body = guide.transformer if blocks > 1 else lambda x: layers.Dense(8)(x)
    return lambda: compiled(guide.build(body, x)), x, part.speakers


"""
## Batches of one's own

A loader packs each batch as it puts it together: `from_ragged` of the rows that
it is given. So does the `collate_fn` of PyTorch's `DataLoader`, the `batch_fn`
of grain, and any generator. A `tf.data.Dataset` of TensorFlow batches padded
ones, and packs each; there the number of steps is any, so that it is not for
`jit_compile=True`. All have one length, since TensorFlow wants to know it of a
loader, and packed it costs nothing.
"""

LENGTH = 40


def collate(samples):
    names, targets = zip(*samples)
    from_ragged = keras.MaskedTensor.from_ragged
    return (
        from_ragged(names, LENGTH, packed=True),
        from_ragged(targets, LENGTH, packed=True),
    )


def with_pytorch(samples):
    import torch

    return torch.utils.data.DataLoader(samples, 64, collate_fn=collate)


def with_grain(samples):
    import grain

    source = grain.MapDataset.source(samples)
    return source.batch(64, batch_fn=collate).to_iter_dataset()


def with_tensorflow(samples):
    import tensorflow as tf

    x, y = (
        keras.MaskedTensor.from_ragged(part, LENGTH) for part in zip(*samples)
    )
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(64)
    return dataset.map(lambda x, y: (x.packed(), y.packed()))


def recipes(names, blocks):
    """Trains with what loaders make; first the loss is that of one batch."""
    samples = [(name, np.append(name[1:], 0)) for name in names]
    model = next_letter(LENGTH, blocks)
    model.compile("sgd", model.loss, jit_compile=False)
    makers = [with_pytorch, with_grain]
    makers += [with_tensorflow] * (BACKEND == "tensorflow")
    found = {"one batch": loss_of_letters(model, [collate(samples)])}
    for make in makers:
        found[make.__name__] = loss_of_letters(model, make(samples))
    for make in makers:
        model.fit(make(samples), shuffle=False, verbose=0)
    console.print(found)
    np.testing.assert_allclose(
        list(found.values()), found["one batch"], rtol=1e-4
    )
    return found


def loss_of_letters(model, batches):
    """The mean over all letters, which loaders pad to different lengths."""
    loss = keras.losses.SparseCategoricalCrossentropy(True, reduction="sum")
    total = count = 0
    for x, y in batches:
        weights = keras.utils.sample_weight_from_mask(y.mask)
        total += ops.convert_to_numpy(loss(y, model(x), weights))
        count += ops.convert_to_numpy(y.mask).sum()
    return float(total / count)


"""
## What a step costs

One block of 32 x 128 x 256 with a feed-forward part of 1,024, forward and
backward, with more and more padding. What is compared is the step without any
mask. Attention scores are computed up to the longest row of the batch; on a
CPU, where nothing is compiled, rows of half its length and less are computed
apart, if that saves enough.

Beside it, on PyTorch: its own nested tensors, jagged ones, running the same
block (which takes functions of theirs, and no causal mask); and bucketing by
length, where the rows of eight batches are sorted, and each batch is padded to
its longest row. `--draw` makes a picture of the numbers that `--json` wrote.

With one thread on one core, a step over the step without padding, as
`packed_costs.png` draws it:

    valid    JAX   TensorFlow   PyTorch   jagged   sorted by length
    11 %    0.12         0.12      0.14     0.18               0.12
    20 %    0.21         0.25      0.21     0.29               0.21
    50 %    0.55         0.61      0.49     0.67               0.55
    80 %    0.79         0.88      0.81     0.97               0.81
    100 %   0.94         1.04      1.03     1.18               1.00
"""

SHAPE = [32, 128, 256]


def gradient_step(block, x):
    """A function that runs one step; compiled on JAX and TensorFlow."""

    def loss_of(outputs):
        return ops.mean(ops.square(outputs))

    if BACKEND == "torch":

        def step():
            block.zero_grad()
            loss_of(block(x)).backward()

        return step
    if BACKEND == "jax":
        import jax

        def loss(variables, x):
            return loss_of(block.stateless_call(variables, [], x)[0])

        gradient = jax.jit(jax.grad(loss))
        variables = [v.value for v in block.trainable_variables]
        return lambda: jax.block_until_ready(gradient(variables, x))
    import tensorflow as tf

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = loss_of(block(x))
        variables = [v.value for v in block.trainable_variables]
        return tape.gradient(loss, variables)

    return step


def lengths_of(share, rng, count):
    """Random lengths in pairs, each with the mean that makes up this share."""
    length = SHAPE[1]
    if share == 1:
        return np.full(count, length)
    least = max(1, round((2 * share - 1) * length))
    most = min(length, round(2 * share * length))
    half = rng.integers(least, most + 1, -(-count // 2))
    return np.append(half, least + most - half)[:count]


def jagged_step(block, values, lengths):
    """The same step with PyTorch's nested tensors, by their own functions."""
    import torch
    from torch.nn import functional

    rows = [row[:length] for row, length in zip(values, lengths)]
    x = torch.nested.nested_tensor(rows, layout=torch.jagged)
    attention = block.attention
    width, heads = SHAPE[-1], attention.num_heads

    def norm(x, layer):
        parts = layer.gamma.value, layer.beta.value
        return functional.layer_norm(x, (width,), *parts, layer.epsilon)

    def dense(x, layer):
        kernel = layer.kernel.value.reshape(x.shape[-1], -1)
        return functional.linear(x, kernel.T, layer.bias.value.reshape(-1))

    def attend(y):
        parts = [
            dense(y, layer).unflatten(-1, (heads, width // heads))
            for layer in (
                attention.query_dense,
                attention.key_dense,
                attention.value_dense,
            )
        ]
        found = functional.scaled_dot_product_attention(
            *(x.transpose(1, 2) for x in parts)
        )
        found = found.transpose(1, 2).flatten(-2)
        layer = attention.output_dense
        kernel = layer.kernel.value.reshape(width, width)
        return functional.linear(found, kernel.T, layer.bias.value)

    def call():
        y = x + attend(norm(x, block.norms[0]))
        hidden = functional.gelu(dense(norm(y, block.norms[1]), block.hidden))
        return y + dense(hidden, block.outer)

    def step():
        block.zero_grad()
        call().values().square().mean().backward()

    step.call = call
    return step


def bucketed_steps(block, values, share, rng):
    """Steps of eight batches of rows sorted by length, each padded alone."""
    lengths = np.sort(lengths_of(share, rng, 8 * SHAPE[0]))
    steps = []
    for own in lengths.reshape(8, -1):
        mask = np.arange(own.max()) < own[:, None]
        x = keras.MaskedTensor(values[:, : own.max()], mask)
        steps.append(gradient_step(block, x))

    def step():
        for one in steps:
            one()

    return step


def steps_to_time(shares):
    """Functions that run a step, by what it is a step of and by the share."""
    rng = np.random.default_rng(0)
    values = ops.convert_to_tensor(rng.normal(size=SHAPE).astype("float32"))
    block = Block(SHAPE[-1], 4)
    block(values)
    steps, valid = {("plain", 1.0): gradient_step(block, values)}, {}
    for share in shares:
        lengths = lengths_of(share, rng, SHAPE[0])
        mask = np.arange(SHAPE[1]) < lengths[:, None]
        valid[share] = float(mask.mean())
        packed = keras.MaskedTensor(values, mask).packed()
        steps["packed", share] = gradient_step(block, packed)
        if BACKEND == "torch":
            step = jagged_step(block, values, lengths)
            # It is the same block.
            np.testing.assert_allclose(
                ops.convert_to_numpy(step.call().values()),
                ops.convert_to_numpy(block(packed).flat),
                atol=1e-3,
            )
            steps["jagged", share] = step
            steps["bucketed", share] = bucketed_steps(block, values, share, rng)
    return steps, valid


def costs(turns, shares=(0.1, 0.2, 0.5, 0.8, 1.0)):
    """The time of steps over that of a plain one, by what and by the share."""
    steps, valid = steps_to_time(shares)
    found = {name: [] for name in steps}
    for turn in range(turns + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn > 1:
                found[name].append(time.perf_counter() - start)
    times = {name: statistics.median(own) for name, own in found.items()}
    plain, results = times.pop(("plain", 1.0)), {}
    for (kind, share), own in times.items():
        ratio = own / plain / (8 if kind == "bucketed" else 1)
        results.setdefault(kind, []).append((valid[share], ratio))
    table = Table("valid", *results, title=f"{BACKEND}, a step / a plain one")
    for row in zip(*results.values()):
        table.add_row(f"{row[0][0]:.0%}", *(f"{ratio:.2f}" for _, ratio in row))
    console.print(table)
    return results


def draw(files, picture):
    """Draws what some runs have found, a line for each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 4))
    names = {"jagged": "jagged nested tensors", "bucketed": "sorted by length"}
    for file in files:
        with open(file) as opened:
            found = json.load(opened)
        for kind, line in found["step"].items():
            shares, ratios = zip(*line)
            dashes = "-" if kind == "packed" else "--"
            label = f"{found['backend']}, {names.get(kind, kind)}"
            axes.plot(shares, ratios, f"o{dashes}", label=label, markersize=3)
    axes.plot([0, 1], [0, 1], color="lightgray")
    axes.set_xlabel("share of steps that are valid")
    axes.set_ylabel("time of a step / without padding")
    axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(picture, dpi=80)


"""
## What a step takes of memory

The most that a process takes for steps of the block with a fifth of valid
steps, beyond what it had before: a process for the padded ones, and one for the
packed ones. On PyTorch 184 and 51 MiB, on TensorFlow 188 and 64; on JAX, with
what compiling takes, 300 and 132.
"""


def growth(kind):
    """The bytes by which steps of a kind make this process grow."""
    rng = np.random.default_rng(0)
    values = ops.convert_to_tensor(rng.normal(size=SHAPE).astype("float32"))
    block = Block(SHAPE[-1], 4)
    block(values[:1, :1])
    mask = np.arange(SHAPE[1]) < lengths_of(0.2, rng, SHAPE[0])[:, None]
    x = keras.MaskedTensor(values, mask)
    step = gradient_step(block, x.packed() if kind == "packed" else x)
    own = pathlib.Path("/proc/self")
    # What imports took at most is forgotten.
    (own / "clear_refs").write_text("5")
    before = peak(own)
    for _ in range(3):
        step()
    return peak(own) - before


def peak(process):
    """The most that a process has taken so far, as Linux tells it."""
    status = (process / "status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def memory():
    found = {}
    for kind in ("padded", "packed"):
        run = [sys.executable, __file__, f"--growth={kind}"]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        found[kind] = int(done.stdout.split()[-1])
        console.print(f"{BACKEND}, {kind}: {found[kind] / 2**20:.0f} MiB more")
    return found


"""
## When to pack

- Where much is padding. With none, a packed step takes about as long as any.
- Layers that go over time by themselves, as convolutions do, get the padded
  tensor, and cost what they cost. What they return is packed. So do recurrent
  layers; but LSTM and GRU, and `Bidirectional` of these, run on PyTorch over
  the valid steps alone, if they have their usual activations and no
  `recurrent_dropout`.
- Sorting or bucketing by length makes less padding in the first place, and
  goes with packing: scores of attention are computed up to the longest row,
  but in TensorFlow's pipelines up to the length of the batch.
- JAX and TensorFlow compile for each shape. An epoch of 1,000 batches of 32
  rows of any length up to 128 has 6 of them; smaller batches differ more.
- A loss of each step is computed of valid steps, where weights leave out the
  others: the mask of a target, or a `sample_weight` of it. Without weights all
  steps count, as ever. A loss of one's own gets padded predictions.
"""

PARTS = ("names", "speakers", "recipes", "step", "memory")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--length", type=int, default=LENGTH)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--json", help="file for the numbers")
    parser.add_argument("--growth", choices=("padded", "packed"))
    parser.add_argument("--draw", nargs="*", help="files of numbers")
    given = parser.parse_args()
    if given.growth:
        return print(growth(given.growth))
    if given.draw:
        return draw(given.draw, "packed_costs.png")
    SHAPE[:] = given.shape
    names = read(given.count)

    def of_names():
        make = functools.partial(next_letter, given.length, given.blocks)
        return compare("names", make, *batch(names, given.length), given.epochs)

    runs = {
        "names": of_names,
        "speakers": lambda: compare(
            "speakers", *speakers(given.blocks), given.epochs
        ),
        "recipes": lambda: recipes(names[:200], given.blocks),
        "step": lambda: costs(given.turns),
        "memory": memory,
    }
    results = {"backend": BACKEND}
    results |= {part: runs[part]() for part in given.parts}
    if given.json:
        with open(given.json, "w") as file:
            json.dump(results, file)


if __name__ == "__main__":
    main()
