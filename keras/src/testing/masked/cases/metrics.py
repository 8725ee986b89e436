"""Each public metric by hand: in NumPy, of entries and their weights."""

import numpy as np

from keras.src import losses
from keras.src.testing.masked.cases.losses import LOSSES
from keras.src.testing.masked.cases.losses import absolute
from keras.src.testing.masked.cases.losses import binary_cross_entropies
from keras.src.testing.masked.cases.losses import categorical_hinge
from keras.src.testing.masked.cases.losses import cross_entropy
from keras.src.testing.masked.cases.losses import divergence
from keras.src.testing.masked.cases.losses import hinge
from keras.src.testing.masked.cases.losses import log_cosh
from keras.src.testing.masked.cases.losses import logarithmic
from keras.src.testing.masked.cases.losses import mean_of
from keras.src.testing.masked.cases.losses import percentage
from keras.src.testing.masked.cases.losses import poisson
from keras.src.testing.masked.cases.losses import similarity
from keras.src.testing.masked.cases.losses import squared
from keras.src.testing.masked.predictions import Case
from patchset.markers import when

# Upstream leaves out what is no class since 3.15.
WANT_CLASSES = ()
if when("<3.15"):
    WANT_CLASSES = ("IoU", "MeanIoU")


def averaged(formula):
    return lambda y, p, w: np.average(formula(y, p), weights=w)


def correct(y, p):
    return np.argmax(y, -1) == np.argmax(p, -1)


def among_two(labels, p):
    return np.any(np.argsort(p, -1)[:, -2:] == labels[:, None], -1)


def pearson(y, p):
    return [np.corrcoef(*pair)[0, 1] for pair in zip(y, p)]


def concordance(y, p):
    covariance = np.mean((y.T - y.mean(-1)) * (p.T - p.mean(-1)), 0)
    apart = (y.mean(-1) - p.mean(-1)) ** 2
    return 2 * covariance / (y.var(-1) + p.var(-1) + apart)


def confusion(y, p, w, threshold=0.5):
    """True and false positives, false and true negatives, by their weight."""
    y, p = y == 1, p > threshold
    return [np.sum(w[a & b]) for a, b in ((y, p), (~y, p), (y, ~p), (~y, ~p))]


def cell(place):
    return lambda y, p, w: confusion(y, p, w)[place]


def precision(tp, fp, fn, tn):
    return tp / (tp + fp) if tp else 0.0


def recall(tp, fp, fn, tn):
    return tp / (tp + fn)


def specificity(tp, fp, fn, tn):
    return tn / (tn + fp)


def best(wanted, bound):
    """The best of one rate over all thresholds at which another is 0.6."""

    def by_hand(y, p, w):
        cells = [confusion(y, p, w, t) for t in (-1.0, *p)]
        return max(wanted(*c) for c in cells if bound(*c) >= 0.6)

    return by_hand


def area(y, p, w):
    """The weight of the pairs in which the positive entry scores higher."""
    higher = p[y == 1][:, None] > p[y == 0]
    pairs = w[y == 1][:, None] * w[y == 0]
    return np.sum(pairs * higher) / np.sum(pairs)


def shares(y, p, w, classes):
    """Intersection over union of each class."""
    found = []
    for k in classes:
        both = np.sum(w[(y == k) & (p == k)])
        found.append(both / np.sum(w[(y == k) | (p == k)]))
    return np.mean(found)


def one_hot_shares(y, p, w, classes):
    return shares(np.argmax(y, -1), np.argmax(p, -1), w, classes)


def f_scores(y, p, w, beta):
    said = p == p.max(-1, keepdims=True)
    cells = [confusion(y[:, k], said[:, k], w) for k in range(y.shape[1])]
    square = beta**2
    return [
        (1 + square) * tp / ((1 + square) * tp + square * fn + fp)
        for tp, fp, fn, _ in cells
    ]


def r2(y, p, w):
    mean = np.average(y, 0, w)
    left = np.average((y - p) ** 2, 0, w)
    return np.mean(1 - left / np.average((y - mean) ** 2, 0, w))


# Without the dtype these cut weights to integers.
IOU = {"num_classes": 4, "dtype": "float32"}
METRICS = {
    "AUC": Case("scores", area),
    "Accuracy": Case("classes", averaged(np.equal)),
    "BinaryAccuracy": Case("scores", averaged(lambda y, p: y == (p > 0.5))),
    "BinaryCrossentropy": Case(
        "one_hot", averaged(mean_of(binary_cross_entropies))
    ),
    "BinaryIoU": Case(
        "scores",
        lambda y, p, w: shares(y, p >= 0.5, w, (0, 1)),
        {"dtype": "float32"},
    ),
    "CategoricalAccuracy": Case("one_hot", averaged(correct)),
    "CategoricalCrossentropy": Case("one_hot", averaged(cross_entropy)),
    "CategoricalHinge": Case("one_hot", averaged(categorical_hinge)),
    "ConcordanceCorrelation": Case("real", averaged(concordance)),
    "CosineSimilarity": Case("real", averaged(similarity)),
    "F1Score": Case("one_hot", lambda y, p, w: f_scores(y, p, w, 1.0)),
    "FBetaScore": Case(
        "one_hot", lambda y, p, w: f_scores(y, p, w, 2.0), {"beta": 2.0}
    ),
    "FalseNegatives": Case("scores", cell(2)),
    "FalsePositives": Case("scores", cell(1)),
    "Hinge": Case("one_hot", averaged(mean_of(hinge))),
    "IoU": Case(
        "classes",
        lambda y, p, w: shares(y, p, w, (0, 2)),
        {**IOU, "target_class_ids": [0, 2]},
    ),
    "KLDivergence": Case("real", averaged(divergence)),
    "LogCoshError": Case("real", averaged(log_cosh)),
    "MeanAbsoluteError": Case("real", averaged(absolute)),
    "MeanAbsolutePercentageError": Case("real", averaged(percentage)),
    "MeanIoU": Case(
        "classes",
        lambda y, p, w: shares(y, p, w, np.union1d(y, p)),
        IOU,
    ),
    "MeanMetricWrapper": Case(
        "real", averaged(squared), {"fn": losses.mean_squared_error}
    ),
    "MeanSquaredError": Case("real", averaged(squared)),
    "MeanSquaredLogarithmicError": Case("real", averaged(logarithmic)),
    "OneHotIoU": Case(
        "one_hot",
        lambda y, p, w: one_hot_shares(y, p, w, (0, 2)),
        {**IOU, "target_class_ids": [0, 2]},
    ),
    "OneHotMeanIoU": Case(
        "one_hot",
        lambda y, p, w: one_hot_shares(
            y, p, w, np.union1d(np.argmax(y, -1), np.argmax(p, -1))
        ),
        IOU,
    ),
    "PearsonCorrelation": Case("real", averaged(pearson)),
    "Poisson": Case("real", averaged(poisson)),
    "Precision": Case("scores", lambda y, p, w: precision(*confusion(y, p, w))),
    "PrecisionAtRecall": Case(
        "scores", best(precision, recall), {"recall": 0.6}
    ),
    "R2Score": Case("real", r2),
    "Recall": Case("scores", lambda y, p, w: recall(*confusion(y, p, w))),
    "RecallAtPrecision": Case(
        "scores", best(recall, precision), {"precision": 0.6}
    ),
    "RootMeanSquaredError": Case(
        "real", lambda y, p, w: np.sqrt(averaged(squared)(y, p, w))
    ),
    "SensitivityAtSpecificity": Case(
        "scores", best(recall, specificity), {"specificity": 0.6}
    ),
    "SparseCategoricalAccuracy": Case(
        "sparse", averaged(lambda y, p: y == np.argmax(p, -1))
    ),
    "SparseCategoricalCrossentropy": Case(
        "sparse", averaged(LOSSES["SparseCategoricalCrossentropy"].formula)
    ),
    "SparseTopKCategoricalAccuracy": Case(
        "sparse", averaged(among_two), {"k": 2}
    ),
    "SpecificityAtSensitivity": Case(
        "scores", best(specificity, recall), {"sensitivity": 0.6}
    ),
    "SquaredHinge": Case(
        "one_hot", averaged(mean_of(lambda y, p: hinge(y, p) ** 2))
    ),
    "TopKCategoricalAccuracy": Case(
        "one_hot",
        averaged(lambda y, p: among_two(np.argmax(y, -1), p)),
        {"k": 2},
    ),
    "TrueNegatives": Case("scores", cell(3)),
    "TruePositives": Case("scores", cell(0)),
}
ENTRYWISE_METRICS = {
    "BinaryCrossentropy",
    "Hinge",
    "LogCoshError",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanMetricWrapper",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Poisson",
    "RootMeanSquaredError",
    "SquaredHinge",
}
# Which take values, no pairs, and have tests of their own.
OF_VALUES = {"Mean", "Sum"}
# Which take entries on the first axis, and no others.
FLAT = {"F1Score", "FBetaScore", "R2Score"}


# Metrics that sort predictions.
OF_RANKS = {
    "AUC",
    "PrecisionAtRecall",
    "SparseTopKCategoricalAccuracy",
    "TopKCategoricalAccuracy",
}
