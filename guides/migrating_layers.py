"""
Title: Migrating layers to masked tensors
Description: What to write instead of the old way to handle masks, compared.
Accelerator: None

`python guides/migrating_layers.py` runs this guide in less than a minute, with
the fork and `rich` installed. `KERAS_BACKEND` picks any backend; NumPy's cannot
train, so there the part on training evaluates only.

It is for whoever maintains layers, metrics or training scripts that were
written for Keras without masked tensors ("upstream"). "Masked tensors in ten
minutes" (`masked_tensors.py`) says what a masked tensor is; read that first.

Each pattern below comes twice, the old way and the new one, and both are run
and compared, on this fork. The old way is run with upstream as well, in a
process of its own: the very same script. `--no-upstream` leaves that out, and
`--help` lists the options.

## Setup
"""

import argparse
import inspect
import json
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
# All is small: PyTorch's threads would mostly wait for each other.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from rich.console import Console
from rich.table import Table

import keras
from keras import layers
from keras import ops
from keras.src.backend import get_keras_mask
from keras.src.backend import set_keras_mask

# Upstream has no masked tensors; the layers below are the same for both.
FORK = hasattr(keras, "MaskedTensor")
BACKEND = keras.backend.backend()

console = Console()

"""
## What changed, and why

Upstream hangs a mask on a tensor, as an attribute `_keras_mask`. Any op drops
it: `x + y` has none. So each layer must say that it hands the mask on
(`supports_masking`), what becomes of it (`compute_mask`), and ask for it
(`mask=` in `call`). Where one layer does not, the mask is gone, with a warning
at best, and padding counts from there on. What lies under a mask leaks into
convolutions, means and gradients.

Here a mask is a part of the tensor. What follows from it:

- **A tensor with a mask is a `keras.MaskedTensor`**, values and a mask. Each
  op of `keras.ops`, and each operator, takes one and says what becomes of the
  mask (`op_table.md`). So a layer that is made of ops says nothing about masks.
- **No valid result and no gradient depends on what lies under a mask**, not
  even on NaN.
- **Masks merge by AND; a plain operand changes nothing.** `x + y` is valid
  where both are. Upstream's merge layers join by OR, and drop the mask where
  one operand is plain. (`layers.Add(mask_mode="union")` is the OR.)
- **What cannot work raises.** An op without an answer raises
  `keras.masking.UnsupportedMaskError`, a function of the backend (`jnp.sin`,
  `torch.sin`) a `TypeError`. Upstream goes on without the mask.
- **Losses and metrics never read a mask.** A mask is made by the model, and who
  is judged must not choose what counts. `sample_weight` is the only weight.
  Upstream reads the mask off `y_pred`, if it has come that far.
- **More masks arrive.** A convolution, `Flatten`, `Reshape` and `x[:, 1:]` keep
  what upstream loses. So a model that ends in `Flatten` after an
  `Embedding(mask_zero=True)` has a masked output, and `predict` gives a
  `numpy.ma` array for it (`.data` has the values).
- **A mask covers the leading axes** of its values: `(batch, time)` for
  `(batch, time, features)`. One of another shape is refused where it is made.

Layers that are written the old way go on working: one that overrides
`compute_mask`, or sets `supports_masking` and has a `call` of its own, runs as
upstream runs it, and gets one `DeprecationWarning` for its class. Nothing has
to be done at once. `differences.md` lists each test of upstream that expects
something else now, with the reason.

## How a layer takes masks

A `call` is run in one of three ways:

| | `call` gets | what comes out |
|---|---|---|
| `call(self, x)` | a `MaskedTensor` | what its ops make of it |
| `call(self, x, mask=None)` | plain values, and the mask | as it is returned |
| the old way | plain values that carry the mask | as `compute_mask` says |

Write the first. Write the second if you want to see the mask: to hand it to
code that is not Keras, or to a fused kernel. `mask` belongs to the first
argument, and `<arg>_mask` to the argument `<arg>`. A layer that you call inside
on such values sees their mask, as it did, and gives back plain values that
carry theirs; functions and operators drop it. Given a `keras.MaskedTensor`, or
a `mask=`, it gives back a `keras.MaskedTensor`.

A subclass of a layer of Keras is asked first: if its own `call` has a `mask`,
it is given it. What upstream keeps the mask for, a subclass of `Dense` or
`LayerNormalization` for one, keeps it here, with no line more.

Old layers hand each other the masks that they made, in the form in which they
made them: floats, or of shape `(batch, steps, 1)`. All other layers see a
boolean mask over the leading axes.

## Before and after

The sequences for the patterns: two, padded to four steps with 0, as plain
arrays. `layers.Masking` makes the mask, upstream as here.
"""


def steps(lengths=(3, 2), seed=0):
    """Sequences of steps of three features, with their mask."""
    return layers.Masking()(padded(lengths, seed))


def padded(lengths=(3, 2), seed=0):
    x = np.random.default_rng(seed).normal(size=(len(lengths), 4, 3))
    for row, length in zip(x, lengths):
        row[length:] = 0
    return x.astype("float32")


"""
### `supports_masking = True`

The flag said: this layer works step by step, so the mask may stay. Delete it.
Ops hand the mask on.
"""


class OldGate(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        return x * ops.sigmoid(x)


class Gate(layers.Layer):
    def call(self, x):
        return x * ops.sigmoid(x)


"""
### `compute_mask` that returns the mask as it is

The same in other words. Delete it.
"""


class OldTwice(layers.Layer):
    def call(self, x):
        return 2 * x

    def compute_mask(self, inputs, mask=None):
        return mask


class Twice(layers.Layer):
    def call(self, x):
        return 2 * x


"""
### `compute_mask` that changes the mask

It repeated for the mask what `call` does to the steps. An op does both, so they
cannot drift apart. Delete it.
"""


class OldEverySecond(layers.Layer):
    def call(self, x):
        return x[:, ::2]

    def compute_mask(self, inputs, mask=None):
        return None if mask is None else mask[:, ::2]


class EverySecond(layers.Layer):
    def call(self, x):
        return x[:, ::2]


"""
### `compute_mask` that makes a mask

A layer that knows what is padding returns a `MaskedTensor`. `ops.filled(x)` is
`x` itself if it is plain, and has 0 where it is masked.
"""


class OldLoudOnly(layers.Layer):
    def call(self, x):
        return x

    def compute_mask(self, inputs, mask=None):
        return ops.any(ops.abs(inputs) > 1, axis=-1)


class LoudOnly(layers.Layer):
    def call(self, x):
        x = ops.filled(x)
        return keras.MaskedTensor(x, ops.any(ops.abs(x) > 1, axis=-1))


"""
### `compute_mask` that drops the mask

A reduction over time leaves the mask of the batch axis: a sequence without a
step has no sum. Upstream ends the mask here. `ops.filled` does, and says what a
sequence without a step gets. (Without it, the output of the model is masked,
which is as right; `predict` then gives a `numpy.ma` array.)
"""


class OldSum(layers.Layer):
    def call(self, x):
        return ops.sum(x, axis=1)

    def compute_mask(self, inputs, mask=None):
        return None


class Sum(layers.Layer):
    def call(self, x):
        return ops.filled(ops.sum(x, axis=1))


"""
(The old sum is right because padding happens to be 0. The new one is right
whatever the padding is.)

### `compute_mask` that returns several masks

Each output has what its ops make of it. A difference of two steps is there
where both are.
"""


class OldWithChanges(layers.Layer):
    def call(self, x):
        return x, x[:, 1:] - x[:, :-1]

    def compute_mask(self, inputs, mask=None):
        if mask is None:
            return None
        return [mask, mask[:, 1:] & mask[:, :-1]]


class WithChanges(layers.Layer):
    def call(self, x):
        return x, x[:, 1:] - x[:, :-1]


"""
### `call(self, x, mask=None)` in a layer that uses the time axis up

Pooling by hand: multiply by the mask, divide by how many there are, mind the
empty sequence. `ops.mean` does that.
"""


class OldMean(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        return mean_of_steps(x, mask)

    def compute_mask(self, inputs, mask=None):
        return None


def mean_of_steps(x, mask):
    if mask is None:
        return ops.mean(x, axis=1)
    mask = ops.expand_dims(mask, -1)
    count = ops.sum(ops.cast(mask, x.dtype), axis=1)
    return ops.sum(ops.where(mask, x, 0), axis=1) / ops.maximum(count, 1)


class Mean(layers.Layer):
    def call(self, x):
        return ops.filled(ops.mean(x, axis=1))


"""
### `call(self, x, mask=None)` in a layer that returns steps

By type there is no more to it than the formula. A layer may go on asking for
the mask by name: then delete the flag, and return a `MaskedTensor`. (Who
returns the plain steps is warned that the mask ends there.)
"""


class OldCenter(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        return x - mean_of_steps(x, mask)[:, None]


class Center(layers.Layer):
    def call(self, x):
        return x - ops.mean(x, axis=1, keepdims=True)


class CenterByName(layers.Layer):
    def call(self, x, mask=None):
        x = x - mean_of_steps(x, mask)[:, None]
        return x if mask is None else keras.MaskedTensor(x, mask)


"""
### `x[:, -1]`, the last step

Many-to-one models take the last step of what an `LSTM` returns. Of a sequence
that is padded at its end this is padding, and masked here. Upstream a recurrent
layer repeats its last output there, so that it is the last valid step after
all; of any other layer it is a number that means nothing. `ops.last(x)` is the
last valid step of either, wherever the padding is; of a plain tensor it is
`x[:, -1]`. A layer that does the same has a mask of shape `(batch,)`,
False where a sequence has no step: `ops.filled` ends it.
"""


class OldLast(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        if mask is None:
            return x[:, -1]
        steps = ops.arange(ops.shape(x)[1])
        last = ops.max(ops.where(mask, steps, -1), axis=1, keepdims=True)
        is_last = ops.expand_dims(steps == last, -1)
        return ops.sum(ops.where(is_last, x, 0), axis=1)

    def compute_mask(self, inputs, mask=None):
        return None


class Last(layers.Layer):
    def call(self, x):
        return ops.filled(ops.last(x))


"""
### States that are kept: `k * new + (1 - k) * old`

With a mask as a number `k`, this keeps an old state where a step is padding.
Arithmetic with a masked tensor is masked: here the result is, wherever `new`
is. `ops.where(k, new, old)` with a boolean `k` chooses between the masks as
between the values, and the state that is kept is as valid as it was.

### Two inputs and their masks

Attention from one sequence to another. `q_mask` and `v_mask` are filled in by
their names, here as upstream. By type they are not needed: the scores are valid
where both steps are, and `ops.softmax` leaves out what is masked.
"""


class OldCross(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, q, v, q_mask=None, v_mask=None):
        scores = q @ ops.swapaxes(v, 1, 2)
        if v_mask is not None:
            there = ops.cast(ops.expand_dims(v_mask, 1), scores.dtype)
            scores = scores - 1e9 * (1 - there)
        return ops.softmax(scores) @ v

    def compute_mask(self, inputs, mask=None):
        return mask


class Cross(layers.Layer):
    def call(self, q, v):
        return ops.softmax(q @ ops.swapaxes(v, 1, 2)) @ v


"""
A layer that takes a list gets its masks as a list, where it asks for them. By
type each tensor of the list has its own. The old layer below says AND, as the
operator does. Where yours says OR, use `layers.Add(mask_mode="union")`, or make
the mask: `keras.MaskedTensor(values, a_mask | b_mask)`.
"""


class OldProduct(layers.Layer):
    def call(self, inputs):
        a, b = inputs
        return a * b

    def compute_mask(self, inputs, mask=None):
        a_mask, b_mask = mask
        return a_mask & b_mask


class Product(layers.Layer):
    def call(self, inputs):
        a, b = inputs
        return a * b


"""
### `_keras_mask`

Read it by `ops.get_mask(x)`, which is None for a plain tensor. (`x._keras_mask`
and `get_keras_mask(x)` still give it.) Do not write it: return a
`MaskedTensor`. To get rid of it, take `x.values`.
"""


class OldByLength(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        # Or `x._keras_mask`, where the backend's tensors take attributes.
        mask = get_keras_mask(x)
        return x / length(x, mask)


class ByLength(layers.Layer):
    def call(self, x):
        mask = ops.get_mask(x)
        return x / length(x, mask)


def length(x, mask):
    """The number of steps, of shape `(batch, 1, 1)` if there is a mask."""
    if mask is None:
        return x.shape[1]
    return ops.sum(ops.cast(mask, x.dtype), axis=1)[:, None, None]


class OldSetter(layers.Layer):
    def call(self, x):
        y = ops.concatenate([x, x], axis=-1)
        set_keras_mask(y, ops.any(x > 1, axis=-1))
        return y


class Setter(layers.Layer):
    def call(self, x):
        y = ops.concatenate([x, x], axis=-1)
        return keras.MaskedTensor(y, ops.any(x > 1, axis=-1))


"""
### Functions of the backend in `call`

`jnp.tanh`, `torch.tanh` and `tf.tanh` know no masked tensors, and raise. There
are three ways over. Use `keras.ops`, which also runs on every backend. Or ask
for the mask by name. Or take the values and put the mask back.

The last two see what lies under the mask. It is finite, and it must not reach
a valid entry, nor a gradient: that is up to you now. Function by function of
one entry each, as here, it does not. Where entries meet (sums, convolutions,
attention), or a slope is infinite, put something harmless there first:
`ops.filled(x, value)`.
"""


def raw_tanh(x):
    if BACKEND == "numpy":
        return np.tanh(x)
    if BACKEND == "jax":
        import jax.numpy as jnp

        return jnp.tanh(x)
    if BACKEND == "torch":
        import torch

        return torch.tanh(x)
    import tensorflow as tf

    return tf.tanh(x)


class OldRaw(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x):
        return raw_tanh(x)


class WithOps(layers.Layer):
    def call(self, x):
        return ops.tanh(x)


class RawByName(layers.Layer):
    def call(self, x, mask=None):
        y = raw_tanh(x)
        return y if mask is None else keras.MaskedTensor(y, mask)


class RawOnValues(layers.Layer):
    def call(self, x):
        if not ops.is_masked(x):
            return raw_tanh(x)
        return keras.MaskedTensor(raw_tanh(x.values), x.mask)


class RawUnchanged(layers.Layer):
    """What happens without a flag, and without any of the three."""

    def call(self, x):
        return raw_tanh(x)


"""
### `Lambda`

Its function gets the masked tensor. If it has an argument `mask`, it gets plain
values and the mask, as upstream. `mask=` of the layer is not needed any more.
"""


def old_lambda():
    return layers.Lambda(lambda x: x[:, 1:], mask=lambda x, mask: mask[:, 1:])


def new_lambda():
    return layers.Lambda(lambda x: x[:, 1:])


"""
### A layer around a layer

It had to find out whether the inner layer wants the mask, and to say what
becomes of its own. Call the inner layer; that is all.
"""


class OldResidual(layers.Layer):
    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer
        self.supports_masking = True

    def call(self, x, mask=None):
        kwargs = {}
        if "mask" in inspect.signature(self.layer.call).parameters:
            kwargs["mask"] = mask
        return x + self.layer(x, **kwargs)


class Residual(layers.Layer):
    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs)
        self.layer = layer

    def call(self, x):
        return x + self.layer(x)


def recurrent():
    """An inner layer; it has the same weights each time."""
    return layers.SimpleRNN(
        3,
        return_sequences=True,
        kernel_initializer=keras.initializers.Identity(0.5),
        recurrent_initializer=keras.initializers.Identity(0.5),
    )


"""
### All of them

`before` and `after` make the layers; `inputs` makes what they are called on.
"""


class Pattern(typing.NamedTuple):
    before: typing.Callable
    after: typing.Callable
    inputs: typing.Callable = lambda: [steps()]


def two():
    return [steps(), steps((1, 4), seed=1)]


PATTERNS = {
    "supports_masking": Pattern(OldGate, Gate),
    "compute_mask, the same": Pattern(OldTwice, Twice),
    "compute_mask, changed": Pattern(OldEverySecond, EverySecond),
    "compute_mask, made": Pattern(
        OldLoudOnly, LoudOnly, lambda: [ops.convert_to_tensor(padded())]
    ),
    "compute_mask, dropped": Pattern(OldSum, Sum),
    "compute_mask, several": Pattern(OldWithChanges, WithChanges),
    "mask=None, time used up": Pattern(OldMean, Mean),
    "the last step": Pattern(OldLast, Last),
    "mask=None, by type": Pattern(OldCenter, Center),
    "mask=None, still by name": Pattern(OldCenter, CenterByName),
    "q_mask=None, v_mask=None": Pattern(OldCross, Cross, two),
    "a list and its masks": Pattern(OldProduct, Product, lambda: [two()]),
    "_keras_mask, read": Pattern(OldByLength, ByLength),
    "_keras_mask, written": Pattern(
        OldSetter, Setter, lambda: [ops.convert_to_tensor(padded())]
    ),
    "backend's function, ops": Pattern(OldRaw, WithOps),
    "backend's function, by name": Pattern(OldRaw, RawByName),
    "backend's function, values": Pattern(OldRaw, RawOnValues),
    "Lambda": Pattern(old_lambda, new_lambda),
    "a layer around a layer": Pattern(
        lambda: OldResidual(recurrent()), lambda: Residual(recurrent())
    ),
}


def run(make, inputs):
    """What a layer returns: values and a mask (or None) for each tensor."""
    outputs = make()(*inputs())
    if not isinstance(outputs, (list, tuple)):
        outputs = [outputs]
    return [take_apart(x) for x in outputs]


def take_apart(x):
    """The values, 0 where masked, and the mask, here and upstream."""
    mask = get_keras_mask(x)
    if FORK and ops.is_masked(x):
        x = x.values
    values = ops.convert_to_numpy(x)
    if mask is None:
        return values, None
    mask = ops.convert_to_numpy(mask)
    valid = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    return np.where(valid, values, 0), mask


def difference(found, expected):
    """The largest difference of valid values; the masks have to be equal."""
    largest = 0.0
    for (values, mask), (other, other_mask) in zip(
        found, expected, strict=True
    ):
        assert (mask is None) == (other_mask is None), (mask, other_mask)
        assert np.array_equal(mask, other_mask), (mask, other_mask)
        assert np.shape(values) == np.shape(other)
        largest = max(largest, float(np.max(np.abs(values - np.array(other)))))
    return largest


"""
## Masks and metrics

The model below keeps its mask to the end upstream, too. There its loss and its
metrics leave padding out without being asked, for they read the mask off
`y_pred`. Here they do not. **So a script that calls `fit` on a masked model
without weights reports other numbers**, and learns from padding. It is warned,
with the line to write. Three things belong together:

- `sample_weight`, which says what counts:
  `keras.utils.sample_weight_from_mask(ids != 0)`,
- `weighted_metrics` in `compile`. Metrics in `metrics` ignore weights. A
  weighted metric is the weighted mean over all entries. Upstream, a row of 50
  steps counts no more than one of 2 in another batch, so that batches of
  unequal length give other numbers.
- `reduction="mean_with_sample_weight"` of the loss, which divides by the sum of
  the weights. The default one divides by the number of all entries.

The numbers are then true, here and upstream, and do not depend on how far a
mask comes. (Without weights they do: put one convolution into the model, and
padding counts upstream, too.) A metric of your own takes `sample_weight` in its
`update_state`; one that reads the mask off `y_pred` finds none here.

(`OldHits` and `Hits` below, "hits" in the tables that are printed.)

| accuracy, on JAX | reported | true |
|---|---|---|
| no weights, here | 0.936 | 0.777 |
| no weights, upstream | 0.777 | 0.777 |
| weights, here and upstream | 0.777 | 0.777 |
"""

PAD, LETTERS, LONGEST = 0, 20, 12


def tagged(count=256):
    """Ids of shape `(count, 12)`, and for each whether it is odd, mostly."""
    rng = np.random.default_rng(0)
    ids = rng.integers(1, LETTERS, (count, LONGEST))
    lengths = rng.integers(2, LONGEST // 2, (count, 1))
    ids = np.where(np.arange(LONGEST) < lengths, ids, PAD)
    flipped = rng.random(ids.shape) < 0.2
    tags = np.where(ids == PAD, 0, (ids + flipped) % 2)
    return ids.astype("int32"), tags.astype("int32")


def tagger():
    keras.utils.set_random_seed(1)
    ids = keras.Input((None,), dtype="int32", name="ids")
    h = layers.Embedding(LETTERS, 8, mask_zero=True, name="embedding")(ids)
    h = layers.Dense(16, activation="relu", name="dense")(h)
    return keras.Model(ids, layers.Dense(2, name="tags")(h), name="tagger")


class OldHits(keras.metrics.Mean):
    """A metric of the old kind. Here it finds no mask, and counts padding."""

    def update_state(self, y_true, y_pred, sample_weight=None):
        hits = ops.equal(y_true, ops.argmax(y_pred, axis=-1))
        super().update_state(hits, sample_weight=get_keras_mask(y_pred))


class Hits(keras.metrics.Mean):
    def update_state(self, y_true, y_pred, sample_weight=None):
        hits = ops.equal(y_true, ops.argmax(y_pred, axis=-1))
        super().update_state(hits, sample_weight=sample_weight)


def weights_of(ids):
    """1 where there is an id. Upstream has no helper for it."""
    if FORK:
        return keras.utils.sample_weight_from_mask(ids != PAD)
    return (ids != PAD).astype("float32")


WAYS = {
    "no weights": {"metrics": ["accuracy", OldHits]},
    "weights": {"weighted_metrics": ["accuracy", Hits]},
}


def score(way):
    """The loss and the accuracy that Keras reports, and the true ones."""
    ids, tags = tagged()
    ((kind, (name, metric)),) = WAYS[way].items()
    weighted = kind == "weighted_metrics"
    loss = keras.losses.SparseCategoricalCrossentropy(
        from_logits=True,
        reduction="mean_with_sample_weight" if weighted else "mean",
    )
    model = tagger()
    metrics = {kind: [name, metric(name="hits")]}
    model.compile(keras.optimizers.Adam(0.05), loss, **metrics)
    data = {"x": ids, "y": tags, "verbose": 0}
    if weighted:
        data["sample_weight"] = weights_of(ids)
    if BACKEND != "numpy":
        model.fit(**data, batch_size=64, epochs=4, shuffle=False)
    # In one batch: Keras averages over batches, whatever they weigh.
    reported = model.evaluate(**data, batch_size=len(ids))
    reported = dict(zip(("loss", "accuracy", "hits"), map(float, reported)))
    return reported | truth(model, ids, tags)


def truth(model, ids, tags):
    """Loss and accuracy over the ids that are there, by hand."""
    # `predict` gives a `numpy.ma` array for a masked output.
    logits = np.ma.getdata(model.predict(ids, verbose=0))[ids != PAD]
    tags = tags[ids != PAD]
    logits = logits - logits.max(axis=-1, keepdims=True)
    logs = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    return {
        "true loss": float(-np.mean(logs[np.arange(len(tags)), tags])),
        "true accuracy": float(np.mean(logits.argmax(axis=-1) == tags)),
    }


"""
## Where is my mask?

- `model.summary(show_masks=True)` has a column with the mask of each layer, and
  says where it ends.
- `keras.utils.plot_model(model, show_masks=True)` draws it, with `pydot` and
  graphviz; here if `--picture FILE` says where to.
- `keras.utils.explain_mask(model, x)` runs a model on real input and says,
  layer by layer, how many entries are valid, and where a layer refuses.

A model that upstream saved loads, and need not predict what it did: where
upstream lost the mask, padding took part in what it computed, here it does not.
Its weights learned with the padding, and yet it may predict better at valid
steps, where the length of a batch decided before. To see where the two part,
look both ways: `explain_mask(model, x)` says which layers have a mask
now, and with masks that end at once,

    keras.utils.explain_mask(model, ops.filled(x))

of a masked input, or with `mask_zero=False` in its `Embedding`, the first layer
that is `kept` or `changed` in one table and has no mask in the other is where
upstream lost it, or would have. Compare predictions at valid steps only, train
on for an epoch if they differ, and score both with `sample_weight`.
"""


def look(picture):
    model = keras.Sequential(
        [
            keras.Input((None,), name="ids"),
            layers.Embedding(LETTERS, 4, mask_zero=True, name="embedding"),
            layers.Conv1D(4, 3, strides=2, name="conv"),
            OldGate(name="old_gate"),
            layers.GlobalAveragePooling1D(name="pooling"),
            layers.Dense(1, name="dense"),
        ],
        name="classifier",
    )
    model.summary(show_masks=True)
    ids, _ = tagged(2)
    keras.utils.explain_mask(model, ids)
    if picture:
        try:
            keras.utils.plot_model(model, str(picture), show_masks=True)
        except ImportError as error:  # pydot or graphviz is missing.
            console.print(str(error))


"""
## One layer for both

A package that has to work with upstream as well can do so with one source. The
layers below give the same on both, without a warning on either. (`FORK` is
`hasattr(keras, "MaskedTensor")`.)

- `call(self, x, mask=None)` gets the mask on both, and is the only way to see
  it on both. `getattr(x, "mask", None)` is the mask of a masked tensor, and
  None for a plain one: upstream, always.
- Keep `supports_masking = True` where upstream must keep the mask, but set it
  there only: on the fork it means the old way. `compute_mask` likewise.
- A `call` that asks for the mask and returns steps puts it back itself on the
  fork.
- Multiply by the mask, or use `ops.where`, before anything that lets steps
  meet: upstream does not.
- Pass `sample_weight` and `weighted_metrics`, always.
- Run your tests on both, with padding that is not 0: upstream's errors hide
  behind zeros.
"""


class GateForBoth(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        if not FORK:
            self.supports_masking = True

    def call(self, x):
        return x * ops.sigmoid(x)


class CenterForBoth(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        if not FORK:
            self.supports_masking = True

    def call(self, x, mask=None):
        return with_mask(x - mean_of_steps(x, mask)[:, None], mask)


class MeanForBoth(layers.Layer):
    def call(self, x, mask=None):
        return mean_of_steps(x, mask)

    if not FORK:

        def compute_mask(self, inputs, mask=None):
            return None


def with_mask(x, mask):
    return keras.MaskedTensor(x, mask) if FORK and mask is not None else x


FOR_BOTH = GateForBoth, CenterForBoth, MeanForBoth


def embedded():
    """Steps whose padding is not 0, upstream either."""
    embed = layers.Embedding(
        5,
        3,
        mask_zero=True,
        embeddings_initializer=keras.initializers.RandomUniform(seed=0),
    )
    return [embed(np.array([[1, 2, 3, 0], [4, 1, 0, 0]]))]


"""
## Extension types of TensorFlow

Keras 2 took a `tf.experimental.ExtensionType` through its layers, and declared
one by `Input(type_spec=...)`. Keras 3 has neither. Here a composite tensor
(`composite_tensors.py`) takes their place, on every backend. This

    class Network(tf.experimental.BatchableExtensionType):
        shape: tf.TensorShape
        work: tf.Tensor
        bandwidth: tf.Tensor

    network = Input(type_spec=Network.Spec(shape=None, work=..., bandwidth=...))

becomes this, and `keras.Model(network, outputs)` stays what it was:

    class Network(keras.CompositeTensor):
        work: keras.KerasTensor
        bandwidth: keras.KerasTensor

    network = Network(
        work=keras.Input((None,)), bandwidth=keras.Input((None, None))
    )

- A field of another extension type is one of another composite type. One of
  `str`, `int` or `tuple` is the same: a static field, which is hashable.
- A `typing.Mapping` of tensors is a composite type, with a field for each.
- `shape` was there for Keras. It is left out, unless the type is an array to
  layers and operators: then it is a property, and `dtype` another.
- There is no `__init__`: the fields make it. Use a classmethod for another way
  to make one. `__validate__` is `__check__`; it may look at shapes and dtypes.
- There is no batch encoder: parts are batched along their first axis.
- `tf.experimental.dispatch_for_api(tf.add)` is `@keras.rule_for` of
  `keras.ops.add` and the type; one for many functions is a loop, mostly with
  `keras.composite.parts`. What has no rule raises `keras.UnsupportedTypeError`.
- `keras.layers.RNN` gives a cell the steps of such a sequence, each of its
  parts being `(batch, time, ...)`, and takes states of such types, from
  `initial_state` or `get_initial_state` of the cell.
- On TensorFlow the type is a composite tensor of TensorFlow as well, which
  `tf.function`, `tf.map_fn` and `tf.data` take. Where they ask for a spec, it
  is `tf.type_spec_from_value(network)`.
- A part that is annotated with `keras.MaskedTensor` keeps its mask, in layers,
  in `fit` and in files.
"""


"""
## A tool that finds the lines

`python -m keras.src.migration PATH...` reads your sources, without
running them, and prints each line with one of the patterns above and what to
write instead. `--diff` proposes the plain ones as a patch.

## Checklist

1. Run your tests with `-W "error:Layer class:DeprecationWarning"`: the call of
   a class of the old kind fails, and names it.
2. Delete `supports_masking` and each `compute_mask` that says what the ops of
   `call` say anyway.
3. Where `compute_mask` made or changed a mask by a rule of its own, return
   `keras.MaskedTensor(values, mask)`.
4. Replace functions of the backend in `call` by `keras.ops`, or have `call` ask
   for the mask.
5. Delete arithmetic with masks from `call` where an op does it: `ops.mean`,
   `ops.max` and `ops.softmax` leave out what is masked.
6. Replace `x._keras_mask` by `ops.get_mask(x)`. Do not write it.
7. Look whether a merge relied on OR, or on a plain operand to end the mask.
8. Pass `sample_weight` and `weighted_metrics` in each `fit` and `evaluate`, and
   take the mask out of metrics and losses of your own.
9. Expect a `numpy.ma` array from `predict` where an output is masked, and end
   the mask on purpose where you do not want one: `ops.filled(x)`, `x.values`.
   What `export` writes then has an output `output_0_mask` beside `output_0`.
10. Look at `model.summary(show_masks=True)`: does the mask end where you meant
    it to?
11. Test with NaN as padding. Nothing may change.

## Running it
"""

GUIDE = pathlib.Path(__file__).resolve()


def measure():
    """What both Keras are asked, ready for JSON, and the warnings."""
    numbers = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        numbers["before"] = {
            name: lists(run(pattern.before, pattern.inputs))
            for name, pattern in PATTERNS.items()
        }
        numbers["scores"] = {way: score(way) for way in WAYS}
    numbers["warnings"] = about_masks(caught)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        numbers["for both"] = {
            make.__name__: lists(run(make, embedded)) for make in FOR_BOTH
        }
    assert not about_masks(caught), about_masks(caught)
    return numbers


def about_masks(caught):
    """The texts and classes of the warnings about masks, each text once."""
    return {
        str(w.message): w.category.__name__
        for w in caught
        if "mask" in str(w.message)
    }


def lists(parts):
    return [(v.tolist(), None if m is None else m.tolist()) for v, m in parts]


def refused():
    """The error of a layer that calls a function of the backend."""
    try:
        RawUnchanged(name="raw")(steps())
    except TypeError as error:
        return error
    raise AssertionError("A function of the backend has taken a mask.")


def compare(here, upstream):
    """The differences by pattern and by layer for both: rounding at most.

    For a pattern, of new to old here, and of new here to old upstream.
    """
    found = {}
    for name, pattern in PATTERNS.items():
        after = run(pattern.after, pattern.inputs)
        found[name] = [difference(after, here["before"][name])]
        if upstream:
            found[name].append(difference(after, upstream["before"][name]))
    if upstream:
        for name, parts in here["for both"].items():
            found[name] = [difference(parts, upstream["for both"][name])]
    for name, differences in found.items():
        assert max(differences) <= 1e-6, (name, differences)
    return found


def check_scores(here, upstream):
    """With weights what is reported is true, and the same here as upstream."""
    found = here["scores"]["weights"]
    for kind in ("loss", "accuracy"):
        assert abs(found[kind] - found[f"true {kind}"]) <= 1e-4, found
        if upstream:
            other = upstream["scores"]["weights"][kind]
            assert abs(found[kind] - other) <= 1e-3, (found, other)


"""
The same script in a second process, with upstream before the fork on the path.
`build/upstream` is what the fork was made from; where the fork came as a wheel
there is none, and the message says how to get one.
"""


def find_upstream(options):
    folder = options.upstream or GUIDE.parents[1] / "build" / "upstream"
    if not (folder / "keras" / "__init__.py").exists():
        sys.exit(
            f"error: there is no unpatched Keras in {folder}. Get it with\n"
            "    pip install --no-deps --target plain keras==3.15.1\n"
            "and pass `--upstream plain`; or pass `--no-upstream`."
        )
    return folder.resolve()


def start_upstream(folder, file):
    """Starts this script with the Keras in a folder."""
    command = [sys.executable, str(GUIDE), "--json", str(file)]
    env = os.environ | {"PYTHONPATH": str(folder), "KERAS_BACKEND": BACKEND}
    return subprocess.Popen(command, env=env)


def main():
    options = arguments()
    if not FORK and not options.json:
        sys.exit(
            f"error: {keras.__file__} is unpatched Keras {keras.__version__}. "
            "Install the fork: python pip_build.py --install"
        )
    if not FORK:
        options.json.write_text(json.dumps(measure()))
        return
    with tempfile.TemporaryDirectory() as folder:
        numbers = measure_all(options, pathlib.Path(folder))
    show(numbers)
    look(options.picture)
    if options.json:
        options.json.write_text(json.dumps(numbers))


def measure_all(options, folder):
    """Everything, by who was asked, and the differences between them."""
    if options.no_upstream:
        numbers = {"fork": measure()}
    else:
        file = folder / "upstream.json"
        process = start_upstream(find_upstream(options), file)
        numbers = {"fork": measure()}
        if process.wait():
            sys.exit("error: with unpatched Keras it failed, see above.")
        numbers["upstream"] = json.loads(file.read_text())
    numbers["differences"] = compare(numbers["fork"], numbers.get("upstream"))
    check_scores(numbers["fork"], numbers.get("upstream"))
    return numbers


def show(numbers):
    show_differences(numbers["differences"])
    who = [name for name in ("fork", "upstream") if name in numbers]
    for name in who:
        show_warnings(name, numbers[name]["warnings"])
    title = "A function of the backend in `call`, on a masked tensor:"
    console.print(title, style="bold")
    error = refused()
    note = error.__notes__[-1]
    console.print(
        f"{type(error).__name__}, with the note:\n{note}", highlight=False
    )
    for name in who:
        show_scores(name, numbers[name]["scores"])


def show_differences(found):
    table = Table(title="The largest difference of valid values")
    table.add_column("pattern, or layer for both")
    columns = "new to old,\nhere", "new to old,\nupstream", "here to\nupstream"
    for title in columns:
        table.add_column(title, justify="right")
    for name, differences in found.items():
        cells = [f"{x:.0e}" for x in differences]
        table.add_row(name, *(cells if name in PATTERNS else ["", "", *cells]))
    console.print(table)


def show_warnings(who, heard):
    """The first warning of each kind, and how many there were."""
    kinds = {}
    for text, category in heard.items():
        kinds.setdefault(category, []).append(text)
    for category, texts in kinds.items():
        title = f"{who}: {len(texts)} x {category}, the first:"
        console.print(title, style="bold", highlight=False)
        console.print(texts[0], highlight=False, markup=False)


def show_scores(who, scores):
    table = Table(title=f"{who}: reported, and true")
    for name in ("way", *next(iter(scores.values()))):
        table.add_column(name, justify="left" if name == "way" else "right")
    for way, numbers in scores.items():
        table.add_row(way, *(f"{x:.4f}" for x in numbers.values()))
    console.print(table)


def arguments():
    parser = argparse.ArgumentParser(
        description="Migrating layers: the guide, as a script."
    )
    parser.add_argument(
        "--upstream",
        type=pathlib.Path,
        help="a folder that holds unpatched Keras",
    )
    parser.add_argument(
        "--no-upstream", action="store_true", help="leave unpatched Keras out"
    )
    parser.add_argument(
        "--picture", type=pathlib.Path, help="where to draw a model"
    )
    parser.add_argument(
        "--json", type=pathlib.Path, help="where to write the numbers"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
