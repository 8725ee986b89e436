"""
Title: Packed storage: cost that falls with padding
Description: The same model, padded and packed: the same numbers, less time.
Accelerator: None

`python guides/packed_storage.py` runs this guide, in about two minutes on two
cores. It takes the fork, `rich` and `names`. `KERAS_BACKEND` picks a backend
that trains: `jax`, `tensorflow` or `torch`. `--help` lists the options.

A batch of sequences is as long as its longest one, and most of it may be
padding. Masks keep padding out of every result; it still costs time. A masked
tensor can be stored *packed*, as its valid steps one after another:

    model.fit(x.packed(), y)

Nothing else changes. `x.packed()` is a `keras.MaskedTensor`, with the shape,
the values and the mask that `x` has, and the model is the same.

## Setup
"""

import argparse
import importlib.resources
import json
import os
import statistics
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

Two Transformer blocks, as one writes them. There is nothing about masks in it,
nor about packing. Positions are counted with a `cumsum` over ones: that goes
over steps, so it is computed on the padded tensor, and what comes out is packed
again.
"""


class Block(layers.Layer):
    def __init__(self, width, heads):
        super().__init__()
        self.attention = layers.MultiHeadAttention(heads, width // heads)
        self.norms = [layers.LayerNormalization() for _ in range(2)]
        self.hidden = layers.Dense(4 * width, "gelu")
        self.outer = layers.Dense(width)

    def call(self, x):
        y = self.norms[0](x)
        x = x + self.attention(y, y, use_causal_mask=True)
        return x + self.outer(self.hidden(self.norms[1](x)))


class NextLetter(keras.Model):
    def __init__(self, length, width=64, heads=4):
        super().__init__()
        self.letters = layers.Embedding(LETTERS, width)
        self.places = layers.Embedding(length, width)
        self.blocks = [Block(width, heads) for _ in range(2)]
        self.head = layers.Dense(LETTERS)

    def call(self, ids):
        place = ops.cumsum(ops.ones_like(ids), axis=1) - 1
        x = self.letters(ids) + self.places(place)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def make_model(length):
    keras.utils.set_random_seed(1)
    model = NextLetter(length)
    model.compile(
        keras.optimizers.Adam(3e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=["accuracy"],
    )
    return model


"""
## The same curve

The names are padded to 40 letters, so that five of six are none. The losses of
both runs agree, and so do the predictions.
"""


def train(x, y, length, epochs):
    """The losses of a model by epoch, the seconds, and its predictions."""
    model = make_model(length)
    options = {"batch_size": 64, "shuffle": False, "verbose": 0}
    # Compilers see the shapes of all batches once.
    model.fit(x, y, epochs=1, **options)
    start = time.perf_counter()
    history = model.fit(x, y, epochs=epochs, **options)
    seconds = time.perf_counter() - start
    return history.history["loss"], seconds, model.predict(x, verbose=0)


def compare(count, length, epochs):
    x, y = batch(read(count), length)
    console.print(keras.utils.padding_report(x))
    padded = train(x, y, length, epochs)
    packed = train(x.packed(), y, length, epochs)
    np.testing.assert_allclose(padded[0], packed[0], rtol=1e-3)
    np.testing.assert_allclose(
        padded[2].filled(0), packed[2].filled(0), atol=1e-2
    )
    console.print(
        f"{BACKEND}: {epochs} epochs of {count} names, loss "
        f"{padded[0][-1]:.4f} padded and {packed[0][-1]:.4f} packed, "
        f"{padded[1]:.1f} s and {packed[1]:.1f} s"
    )
    return {"padded": padded[:2], "packed": packed[:2]}


"""
## What a step costs

One block of 32 x 128 x 256 with a feed-forward part of 1,024, forward and
backward, with more and more padding. What is compared is the step without any
mask. Attention scores are computed up to the longest row of the batch.
"""

SHAPE = 32, 128, 256


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


def rows_of(share, rng):
    """A mask of random lengths of which about this share is valid."""
    rows, length, _ = SHAPE
    if share == 1:
        return np.ones((rows, length), "bool")
    least = max(1, round((2 * share - 1) * length))
    most = min(length, round(2 * share * length))
    lengths = rng.integers(least, most + 1, rows)
    return np.arange(length) < lengths[:, None]


def costs(turns):
    """The time of packed steps over that of a plain one, by the share."""
    rng = np.random.default_rng(0)
    values = ops.convert_to_tensor(rng.normal(size=SHAPE).astype("float32"))
    block = Block(SHAPE[-1], 4)
    block(values)
    masks = {share: rows_of(share, rng) for share in (0.1, 0.2, 0.5, 0.8, 1.0)}
    steps = {"plain": gradient_step(block, values)}
    for share, mask in masks.items():
        x = keras.MaskedTensor(values, mask)
        steps[share] = gradient_step(block, x.packed())
    found = {name: [] for name in steps}
    for turn in range(turns + 2):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn > 1:
                found[name].append(time.perf_counter() - start)
    times = {name: statistics.median(own) for name, own in found.items()}
    table = Table("valid", "packed / plain", title=f"{BACKEND}, one step")
    for share, mask in masks.items():
        ratio = times[share] / times["plain"]
        table.add_row(f"{mask.mean():.0%}", f"{ratio:.2f}")
    console.print(table)
    return {
        float(mask.mean()): times[share] / times["plain"]
        for share, mask in masks.items()
    }


"""
## When to pack

- Where much is padding. With none, a packed step takes about as long as any.
- Layers that go over time by themselves, as recurrent ones and convolutions do,
  get the padded tensor, and cost what they cost. What they return is packed.
- Sorting or bucketing by length makes less padding in the first place, and
  goes with packing: scores of attention are computed up to the longest row.
- JAX and TensorFlow compile for each shape. An epoch of 1,000 batches of 32
  rows of any length up to 128 has 6 of them; smaller batches differ more.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--length", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--json", help="file for the numbers")
    given = parser.parse_args()
    results = {"fit": compare(given.count, given.length, given.epochs)}
    if given.turns:
        results["step"] = costs(given.turns)
    if given.json:
        with open(given.json, "w") as file:
            json.dump(results, file)


if __name__ == "__main__":
    main()
