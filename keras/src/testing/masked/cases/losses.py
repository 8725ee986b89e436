"""Each public loss by hand: in NumPy, over the entries that are given."""

import itertools

import numpy as np
from scipy.special import logsumexp
from scipy.special import softmax

from keras.src.testing.masked.predictions import Case
from patchset.markers import when


def cross_entropy(y, p):
    return -np.sum(y * np.log(p / p.sum(-1, keepdims=True)), -1)


def of_label(y, p):
    return np.take_along_axis(p, y[:, None].astype(int), -1)[:, 0]


def binary_cross_entropies(y, p):
    return -y * np.log(p) - (1 - y) * np.log(1 - p)


def focal_factors(y, p):
    return (1 - y * p - (1 - y) * (1 - p)) ** 2


def categorical_focal(y, p):
    p = p / p.sum(-1, keepdims=True)
    return np.sum(-0.25 * (1 - p) ** 2 * y * np.log(p), -1)


def sparse_focal(y, p):
    p = of_label(y, p / p.sum(-1, keepdims=True))
    return -0.25 * (1 - p) ** 2 * np.log(p)


def hinge(y, p):
    return np.maximum(1 - (2 * y - 1) * p, 0)


def categorical_hinge(y, p):
    other = np.max((1 - y) * p, -1)
    return np.maximum(other - np.sum(y * p, -1) + 1, 0)


def similarity(y, p):
    lengths = np.linalg.norm(y, axis=-1) * np.linalg.norm(p, axis=-1)
    return np.sum(y * p, -1) / lengths


def squared(y, p):
    return np.mean((y - p) ** 2, -1)


def logarithmic(y, p):
    return np.mean((np.log1p(y) - np.log1p(p)) ** 2, -1)


def percentage(y, p):
    return np.mean(100 * np.abs(y - p) / y, -1)


def huber(y, p):
    error = np.abs(y - p)
    return np.mean(
        np.where(error <= 0.5, error**2 / 2, 0.5 * error - 0.125), -1
    )


def overlap(y, p):
    return 1 - 2 * np.sum(y * p, -1) / (y.sum(-1) + p.sum(-1))


def absolute(y, p):
    return np.mean(np.abs(y - p), -1)


def log_cosh(y, p):
    return np.mean(np.log(np.cosh(y - p)), -1)


def divergence(y, p):
    return np.sum(y * np.log(y / p), -1)


def poisson(y, p):
    return np.mean(p - y * np.log(p), -1)


def mean_of(formula):
    """The formula of single numbers, as the mean over the last axis."""
    return lambda y, p: np.mean(formula(y, p), -1)


LOSSES = {
    "BinaryCrossentropy": Case("one_hot", mean_of(binary_cross_entropies)),
    "BinaryFocalCrossentropy": Case(
        "one_hot",
        mean_of(
            lambda y, p: focal_factors(y, p) * binary_cross_entropies(y, p)
        ),
    ),
    "CategoricalCrossentropy": Case("one_hot", cross_entropy),
    "CategoricalFocalCrossentropy": Case("one_hot", categorical_focal),
    "CategoricalGeneralizedCrossEntropy": Case(
        "sparse", lambda y, p: 2 * (1 - np.sqrt(of_label(y, p)))
    ),
    "CategoricalHinge": Case("one_hot", categorical_hinge),
    "CosineSimilarity": Case("real", lambda y, p: -similarity(y, p)),
    "Dice": Case("one_hot", overlap, {"axis": -1}),
    "Hinge": Case("one_hot", mean_of(hinge)),
    "Huber": Case("real", huber, {"delta": 0.5}),
    "KLDivergence": Case("real", divergence),
    "LogCosh": Case("real", log_cosh),
    "MeanAbsoluteError": Case("real", absolute),
    "MeanAbsolutePercentageError": Case("real", percentage),
    "MeanSquaredError": Case("real", squared),
    "MeanSquaredLogarithmicError": Case("real", logarithmic),
    "Poisson": Case("real", poisson),
    "SparseCategoricalCrossentropy": Case(
        "sparse",
        lambda y, p: -np.log(of_label(y, p / p.sum(-1, keepdims=True))),
    ),
    "SquaredHinge": Case("one_hot", mean_of(lambda y, p: hinge(y, p) ** 2)),
    # Half of either error is the mean of the two sums, as in Dice.
    "Tversky": Case("one_hot", overlap, {"axis": -1}),
}
if when(">=3.16"):
    LOSSES["SparseCategoricalFocalCrossentropy"] = Case("sparse", sparse_focal)
# Which take each entry by itself: the others are of the last axis as a whole.
ENTRYWISE_LOSSES = {
    "BinaryCrossentropy",
    "BinaryFocalCrossentropy",
    "Hinge",
    "Huber",
    "LogCosh",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "SquaredHinge",
}
# Which have a loss for each row of a batch, and tests of their own.
ROWWISE_LOSSES = {"CTC", "Circle"}


def circle(labels, embeddings):
    """The loss of each row, which compares it with all the others."""
    distance = np.maximum(1 - embeddings @ embeddings.T, 0)
    same = labels[:, None] == labels
    near = -80 * (0.4 + distance) * (0.4 - distance)
    far = 80 * np.maximum(1.4 - distance, 0) * (0.6 - distance)
    near = np.where(same & ~np.eye(len(labels), dtype=bool), near, -np.inf)
    far = np.where(same, -np.inf, far)
    return np.logaddexp(0, logsumexp(near, 1) + logsumexp(far, 1))


def ctc(labels, logits):
    """The loss of one row: all ways to say the labels, one by one."""
    steps = softmax(logits, -1)
    total = 0.0
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        said = [k for k, _ in itertools.groupby(path) if k]
        if said == [k for k in labels if k]:
            total += np.prod(steps[np.arange(len(path)), path])
    return -np.log(total)
