"""Targets, predictions, masks and weights, to judge losses and metrics with."""

import inspect
import typing

import numpy as np

from keras.src import backend

RNG = np.random.default_rng(1337)
CLASSES = RNG.integers(0, 4, (4, 3))
# One row has nothing.
MASK = np.arange(3) < np.array([3, 1, 0, 2])[:, None]
WEIGHTS = (RNG.uniform(0.5, 2.0, MASK.shape) * MASK).astype("float32")
PROBABILITIES = RNG.uniform(0.05, 1.0, (4, 3, 4)).astype("float32")
PROBABILITIES /= PROBABILITIES.sum(-1, keepdims=True)
LABELS = np.array([[1, 0, 1], [0, 1, 1], [1, 0, 0], [1, 0, 1]], "float32")
SCORES = (RNG.permutation(12).reshape(4, 3) / 12 + 0.04).astype("float32")
# Some rows and some steps have none.
ENTRIES = RNG.uniform(0.5, 2.0, (4, 3, 4)) * (RNG.uniform(size=(4, 3, 4)) < 0.5)
ENTRIES = (ENTRIES * np.array([1, 1, 0, 1])[:, None, None]).astype("float32")

# Targets and predictions by their kind; all are floats, so that what weighs 0
# can be NaN.
DATA = {
    "real": (
        RNG.uniform(0.1, 1.0, (4, 3, 4)).astype("float32"),
        PROBABILITIES,
    ),
    "one_hot": (np.eye(4, dtype="float32")[CLASSES], PROBABILITIES),
    "sparse": (CLASSES.astype("float32"), PROBABILITIES),
    "scores": (LABELS, SCORES),
    "classes": (CLASSES.astype("float32"), ((CLASSES + LABELS) % 4)),
}
POISON = (np.nan, 1e20, np.inf, -1e20)
# Under a mask, where nothing else than finite numbers can be.
GARBAGE = (300.0, -300.0, 1e20, -1e20)


class Case(typing.NamedTuple):
    """How a class is judged.

    Attributes:
        kind: Key of `DATA`.
        formula: For losses, function of targets and predictions that gives
            one number for each entry. For metrics, function of these and of
            weights that gives the result. Entries are on the first axis.
        arguments: What the class is made with.
    """

    kind: str
    formula: typing.Callable
    arguments: dict = {}


def public(module, base):
    """The names of the public classes of a module that can be made."""
    return {
        name
        for name, found in vars(module).items()
        if inspect.isclass(found)
        and issubclass(found, base)
        and found is not base
    }


def named(cases):
    return [{"testcase_name": f"_{name}", "name": name} for name in cases]


def cycled(numbers, like):
    """The numbers over and over, in the shape of an array."""
    return np.resize(np.array(numbers, like.dtype), like.shape)


def over_features(mask, x):
    return mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))


def poisoned(x, mask, poison=POISON):
    return np.where(over_features(mask, x), x, cycled(poison, x))


def wrapped(values, mask):
    """A masked tensor whose constructor has not put 0 under the mask."""
    values, mask = (backend.convert_to_tensor(x) for x in (values, mask))
    return backend.MaskedTensor._wrap(values, mask)


def said(p, mask):
    """Predictions of which those that are masked say nothing."""
    classes = p.shape[-1] if p.ndim > mask.ndim else 1
    nothing = 1 / classes if classes > 1 and p.dtype.kind == "f" else 0
    return np.where(over_features(mask, p), p, nothing).astype(p.dtype)


def garbled(x, mask):
    return wrapped(poisoned(x, mask, GARBAGE), mask)


def flat(x):
    return x.reshape((12, *x.shape[2:]))


def ranks(y, p):
    """Targets, predictions, mask and weights, with weights of each rank."""
    yield "rank 1", flat(y), flat(p), flat(MASK), flat(WEIGHTS)
    yield "rank 2", y, p, MASK, WEIGHTS
    if p.ndim == 3:
        yield "full rank", y, p, MASK, WEIGHTS[..., None]


def alone(*arrays):
    """The single entries of arrays, each as a row of one."""
    return [x.reshape(-1, 1) for x in to_float64(*arrays)]


def to_float64(*arrays):
    return (np.asarray(x, "float64") for x in arrays)


def number(x):
    return np.asarray(backend.convert_to_numpy(x))
