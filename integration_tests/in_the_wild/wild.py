"""What the programs in this folder are made of: a decorator and some help.

A program is a short function in the manner of scripts and packages that people
wrote for Keras without masked tensors ("upstream"). It yields what it computes:

    @program(differs={"pooled": "Upstream loses the mask at the `+`."})
    def text_classifier():
        "Token and position embeddings, averaged."
        ...
        yield "logits", logits              # the same here and upstream
        yield "pooled", pooled, expected    # `expected`: what is right

It runs on the fork and upstream, in two processes. What it yields must be the
same on both, where the fork says that it is valid, and must be `expected`,
where that is given: from plain NumPy on the rows without their padding, or from
the model on each row alone, without padding. A `numpy.ma` array as `expected`
says that the mask has to be this one as well. What stands in `differs`, with
the reason, is right on the fork only.
"""

import inspect
import typing

import numpy as np

import keras
from keras import ops
from keras.src.backend import get_keras_mask

FORK = hasattr(keras, "MaskedTensor")
PROGRAMS = {}


class Program(typing.NamedTuple):
    """A program, and what it declares.

    Args:
        run: The generator function.
        differs: The reason by the name of each result that is right on the
            fork, and not upstream.
        warns: A pattern. The fork warns so, and upstream does not.
        refused: A pattern. The fork raises an error that says what to write.
    """

    run: typing.Callable
    differs: dict
    warns: str | None
    refused: str | None


def program(differs=None, warns=None, refused=None):
    """Declares a program, which is then known by the name of its function."""

    def declare(function):
        name = function.__name__
        assert name not in PROGRAMS, f"There are two programs {name}."
        assert inspect.isgeneratorfunction(function), name
        PROGRAMS[name] = Program(function, differs or {}, warns, refused)
        return function

    return declare


# Three rows of ids of unequal length, as all programs on tokens use them.
ROWS = [3, 1, 4, 1, 5], [2, 6, 5], [7]
STEPS = 7


def ids(steps=STEPS, padding="post"):
    """`ROWS`, padded with 0: `(3, steps)`."""
    return keras.utils.pad_sequences(ROWS, steps, padding=padding)


def series(lengths=(5, 3, 1), steps=STEPS, features=3, value=0.0, seed=0):
    """Rows of numbers, padded with a value: `(batch, steps, features)`."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(len(lengths), steps, features)) + 1.0
    x[~valid(lengths, steps)] = value
    return x.astype("float32")


def valid(lengths=(5, 3, 1), steps=STEPS):
    """True where a row of such lengths has a step: `(batch, steps)`."""
    return np.arange(steps) < np.array(lengths)[:, None]


def give_weights(layer, seed=0):
    """Gives a model or a layer weights that do not depend on the engine.

    The embedding of the padding is far from 0, so that it shows where it gets
    to.
    """
    rng = np.random.default_rng(seed)
    for variable in layer.weights:
        if "seed" in variable.path or "float" not in str(variable.dtype):
            continue
        values = rng.normal(scale=0.5, size=tuple(variable.shape))
        if "variance" in variable.path:
            values = np.abs(values) + 0.5
        if "embeddings" in variable.path:
            values[0] = 9.0
        variable.assign(values.astype("float32"))
    return layer


def array(x):
    """A NumPy array of a tensor, of its values alone if it is masked."""
    if x is None or isinstance(x, (np.ndarray, np.generic)):
        return np.ma.getdata(x)
    if FORK and ops.is_masked(x):
        x = x.values
    return np.array(ops.convert_to_numpy(x))


def mask_of(x):
    """The mask that a tensor carries, as an array, or None."""
    mask = get_keras_mask(x)
    return None if mask is None else array(mask)


def masked(values, mask):
    """A `numpy.ma` array, by a mask that is True where an entry is valid."""
    values = np.asarray(values)
    mask = np.reshape(mask, mask.shape + (1,) * (values.ndim - mask.ndim))
    return np.ma.MaskedArray(values, ~np.broadcast_to(mask, values.shape))


def each_alone(function, rows, steps=None):
    """What a function returns for each row by itself, without padding.

    Args:
        function: Takes a batch of one row, and returns its results.
        rows: Lists or arrays of unequal length.
        steps: Where the results are sequences, the length to which they are
            padded: a `numpy.ma` array comes back.
    """
    found = [array(function(np.asarray(row)[None]))[0] for row in rows]
    if steps is None:
        return np.stack(found)
    padded = np.zeros((len(found), steps, *found[0].shape[1:]), found[0].dtype)
    for row, result in zip(padded, found):
        row[: len(result)] = result
    return masked(padded, valid([len(x) for x in found], steps))


def unpadded(x, lengths=(5, 3, 1)):
    return [row[:n] for row, n in zip(x, lengths)]


def predict(model, x):
    return model.predict(x, verbose=0)


def softmax(x, axis=-1):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def cross_entropy(logits, labels):
    """The cross entropy of each label, in NumPy."""
    logs = np.log(softmax(np.asarray(logits, "float64")))
    return -np.take_along_axis(logs, np.asarray(labels)[..., None], -1)[..., 0]
