"""Every public loss and metric, on masked predictions and with weights.

What is expected is worked out in NumPy, over the entries that weigh something
and over no others. A class that has no formula here fails the tests.
"""

import functools
import inspect
import itertools
import typing

import numpy as np
import pytest
from absl.testing import parameterized
from scipy.special import logsumexp
from scipy.special import softmax

import keras
from keras.src import backend
from keras.src import losses
from keras.src import testing
from keras.src.testing.masked.testing_utils import gradients
from patchset.markers import when

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
EPSILON = 1e-7


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


# ------------------------------------------------------------ losses by hand


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


# ----------------------------------------------------------- metrics by hand

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


# ------------------------------------------------------------------ the tests


# Metrics that sort predictions.
OF_RANKS = {
    "AUC",
    "PrecisionAtRecall",
    "SparseTopKCategoricalAccuracy",
    "TopKCategoricalAccuracy",
}


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


# NumPy says so of what weighs nothing.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
class EveryLossTest(testing.TestCase):
    def test_there_is_a_case_for_each(self):
        self.assertEqual(
            public(keras.losses, keras.losses.Loss),
            set(LOSSES) | ROWWISE_LOSSES,
        )

    def each(self, name, y, p, mask):
        """The loss of each valid entry, and 0 elsewhere."""
        found = np.zeros(mask.shape)
        found[mask] = LOSSES[name].formula(*to_float64(y[mask], p[mask]))
        return found

    def reduced(self, each, weights):
        """What each reduction makes of weighted losses."""
        weights = weights.reshape(each.shape)
        total = np.sum(each * weights)
        mean = total / each.size
        return {
            "none": each * weights,
            "sum": total,
            "sum_over_batch_size": mean,
            "mean": mean,
            "mean_with_sample_weight": total / max(np.sum(weights), 1e-9),
        }

    def make(self, name, reduction):
        arguments = LOSSES[name].arguments
        return getattr(keras.losses, name)(reduction=reduction, **arguments)

    def check(self, make, each, weights, *arguments, mask=None, **tolerance):
        """Compares what each reduction gives with what is worked out.

        Args:
            make: Function that makes the loss, of the reduction.
            each: The losses of the entries, by hand.
            weights: Their weights.
            *arguments: Targets, predictions and maybe weights, for the loss.
            mask: Of the predictions, None for plain ones.
        """
        expected = self.reduced(each, weights)

        y, p, *given = arguments
        p = p if mask is None else wrapped(p, mask)
        for reduction, value in expected.items():
            found = number(make(reduction)(y, p, *given))
            self.assertEqual(found.shape, np.shape(value))
            self.assertAllClose(found, value, **tolerance)

    @parameterized.named_parameters(named(LOSSES))
    def test_masked_predictions_say_nothing(self, name):
        y, p = DATA[LOSSES[name].kind]
        make = functools.partial(self.make, name)
        for mask in (MASK, None):
            seen = p if mask is None else said(p, mask)
            each = self.each(name, y, seen, np.ones_like(MASK))
            self.check(make, each, np.ones(12), y, p, mask=mask, rtol=1e-4)

    @parameterized.named_parameters(named(LOSSES))
    def test_what_weighs_0_stays_out(self, name):
        make = functools.partial(self.make, name)
        for _, y, p, mask, weights in ranks(*DATA[LOSSES[name].kind]):
            each = self.each(name, y, p, mask)
            y, p = poisoned(y, mask), poisoned(p, mask, GARBAGE)
            arguments = y, p, weights
            self.check(make, each, weights, *arguments, mask=mask, rtol=1e-5)

    @parameterized.named_parameters(named(LOSSES))
    def test_weights_of_rows(self, name):
        """Also where the number of rows is that of the steps."""
        y, p = (x[:3] for x in DATA[LOSSES[name].kind])
        weights = np.array([0.5, 0.0, 2.0], "float32")
        some = np.repeat(weights[:, None] > 0, 3, 1)
        each = self.each(name, y, p, some)
        of_each = np.repeat(weights[:, None], 3, 1)
        make = functools.partial(self.make, name)
        arguments = poisoned(y, some), p, weights
        self.check(make, each, of_each, *arguments, rtol=1e-5)

    @parameterized.named_parameters(named(ENTRYWISE_LOSSES))
    def test_weights_of_entries(self, name):
        y, p = DATA[LOSSES[name].kind]
        formula = LOSSES[name].formula
        each = formula(*alone(y, p)).reshape(y.shape) * ENTRIES
        masked = np.ma.MaskedArray(np.ones(y.shape), ENTRIES == 0)
        masked *= ENTRIES
        for weights in (ENTRIES, masked):
            for reduction, expected in {
                "none": each.mean(-1),
                "sum": each.mean(-1).sum(),
                "sum_over_batch_size": each.mean(),
                "mean_with_sample_weight": each.sum() / ENTRIES.sum(),
            }.items():
                loss = self.make(name, reduction)
                found = number(loss(poisoned(y, ENTRIES > 0), p, weights))
                self.assertAllClose(found, expected, rtol=1e-5)
        ones = np.ones(y.shape, "float32")
        for reduction in ("none", "sum", "mean"):
            loss = self.make(name, reduction)
            self.assertAllClose(loss(y, p, ones), loss(y, p), rtol=1e-5)

    @parameterized.named_parameters(named(ENTRYWISE_LOSSES))
    @pytest.mark.requires_trainable_backend
    def test_entries_of_weight_0_stay_out_of_the_gradient(self, name):
        y, p = DATA[LOSSES[name].kind]
        loss = self.make(name, "sum")
        some = ENTRIES > 0
        found = self.gradient(
            loss, poisoned(y, some), poisoned(p, some, GARBAGE), some, ENTRIES
        )
        formula = LOSSES[name].formula
        slope = formula(*alone(y, p + 1e-5)) - formula(*alone(y, p - 1e-5))
        slope = slope.reshape(y.shape) / 2e-5 * ENTRIES / y.shape[-1]
        self.assertAllClose(found, slope, rtol=2e-2, atol=1e-4)
        self.assertAllEqual(found[~some], 0 * found[~some])

    def test_weights_of_entries_over_another_axis(self):
        y, p = DATA["one_hot"]
        each = binary_cross_entropies(*to_float64(y, p)) * ENTRIES
        for axis in (1, -1):
            loss = losses.BinaryCrossentropy(reduction="none", axis=axis)
            found = loss(y, p, ENTRIES)
            self.assertAllClose(found, each.mean(axis), rtol=1e-5)

    @parameterized.product(
        shapes=(((4,), (4, 1)), ((4,), (4,)), ((4, 3), (4, 3, 1))),
        by=("weights", "weights of one more axis"),
    )
    def test_weights_of_entries_of_targets_without_features(self, shapes, by):
        """These are losses of single entries, though an axis is averaged."""
        y, p = (RNG.normal(size=shape).astype("float32") for shape in shapes)
        weights = RNG.uniform(size=y.shape).astype("float32")
        expected = weights * (y - p.reshape(y.shape)) ** 2
        loss = losses.MeanSquaredError("mean_with_sample_weight")
        given = weights if by == "weights" else weights[..., None]
        self.assertAllClose(
            loss(y, p, given), expected.sum() / weights.sum(), rtol=1e-5
        )

    @parameterized.named_parameters(
        named(
            name
            for name in sorted(set(LOSSES) - ENTRYWISE_LOSSES)
            if LOSSES[name].kind != "sparse"
        )
    )
    def test_weights_of_entries_are_refused_by_name(self, name):
        y, p = DATA[LOSSES[name].kind]
        with self.assertRaisesRegex(
            ValueError,
            rf"(?s)\(4, 3, 4\) weighs single entries.*`{name}` of shape "
            r"\(4, 3\).*keras.MaskedTensor",
        ):
            self.make(name, "sum")(y, p, ENTRIES)

    def test_a_loss_of_a_user_is_refused_by_its_name(self):
        def own(y_true, y_pred):
            return keras.ops.max(keras.ops.abs(y_true - y_pred), -1)

        y, p = DATA["real"]
        with self.assertRaisesRegex(ValueError, "`own`"):
            losses.LossFunctionWrapper(own)(y, p, ENTRIES)

    def gradient(self, loss, y, p, mask, weights):
        """That of the predictions, None on a backend without gradients."""

        found = gradients(
            lambda xs: loss(y, wrapped(xs[0], mask), weights), [p]
        )
        return None if found is None else number(found[0])

    @parameterized.named_parameters(named(LOSSES))
    @pytest.mark.requires_trainable_backend
    def test_what_weighs_0_stays_out_of_the_gradient(self, name):
        y, p = DATA[LOSSES[name].kind]
        expected = np.zeros(p.shape)
        entries = list(to_float64(y[MASK], p[MASK], WEIGHTS[MASK]))
        for place in range(p.shape[-1]):
            up, down = (entries[1].copy() for _ in range(2))
            up[:, place] += 1e-5
            down[:, place] -= 1e-5
            formula = LOSSES[name].formula
            slope = formula(entries[0], up) - formula(entries[0], down)
            expected[MASK, place] = slope / 2e-5 * entries[2]
        y, p = poisoned(y, MASK), poisoned(p, MASK, GARBAGE)
        loss = self.make(name, "sum")
        found = self.gradient(loss, y, p, MASK, WEIGHTS)
        self.assertAllClose(found, expected, rtol=1e-3, atol=1e-5)
        self.assertAllEqual(found[~MASK], 0 * found[MASK])

    def check_rows(self, loss_class, y, p, each, mask):
        """A loss for each row, in a batch in which one weighs nothing."""

        def make(reduction):
            return loss_class(reduction=reduction)

        weights = WEIGHTS[:, 0] * mask
        arguments = y, p, weights
        self.check(make, each, weights, *arguments, mask=mask, rtol=1e-4)
        found = self.gradient(make("sum"), y, p, mask, weights)
        if found is not None:
            self.assertTrue(np.all(np.isfinite(found)))
            self.assertTrue(np.all(np.any(found[mask], axis=-1)))

    def test_circle(self):
        labels = np.array([1.0, 1.0, 2.0, 2.0], "float32")
        p = RNG.normal(size=(4, 5))
        p = (p / np.linalg.norm(p, axis=-1, keepdims=True)).astype("float32")
        mask = np.array([True, True, False, True])
        # A row of weight 0 is still compared with: it says nothing then.
        each = circle(labels, said(p, mask).astype("float64"))
        self.assertTrue(np.all(each > 0))
        p = poisoned(p, mask, (1e20, -1e20))
        self.check_rows(losses.Circle, labels, p, each, mask)

    def test_ctc(self):
        labels = np.array([[1, 2], [2, 0], [1, 1], [2, 1]], "float32")
        logits = RNG.normal(size=(4, 4, 3)).astype("float32")
        mask = np.array([True, True, False, True])
        each = np.array([ctc(*row) for row in zip(labels, logits)])
        y, p = poisoned(labels, mask), poisoned(logits, mask, GARBAGE)
        self.check_rows(losses.CTC, y, p, each, mask)

    def test_ctc_is_over_the_frames_that_are_there(self):
        """Before, after or between others, and however many are not."""
        labels = [[1, 2], [2], [1, 1]]
        rows = [RNG.normal(size=(n, 3)).astype("float32") for n in (4, 2, 3)]
        each = np.array([ctc(*row) for row in zip(labels, rows)])
        y = np.array([[1, 2], [2, 0], [1, 1]], "float32")
        for length in (4, 7):
            p = np.full((3, length, 3), np.nan, "float32")
            mask = np.zeros((3, length), "bool")
            for i, row in enumerate(rows):
                places = np.sort(RNG.permutation(length)[: len(row)])
                p[i, places], mask[i, places] = row, True
            p = keras.MaskedTensor(p, mask)
            loss = losses.CTC(reduction=None)
            for target in (y, keras.MaskedTensor(y, y != 0)):
                self.assertAllClose(loss(target, p), each, rtol=1e-4)
            # Of weights for frames, or labels, each row has one.
            for weights in (mask, y != 0, np.ones(3)):
                found = loss(y, p, weights.astype("float32"))
                self.assertAllClose(found, each, rtol=1e-4)
        none = keras.MaskedTensor(p.values, np.zeros_like(mask))
        none = backend.convert_to_numpy(loss(y, none))
        self.assertTrue(np.all(np.isfinite(none)) and np.all(none > 1))

    @parameterized.named_parameters(named(LOSSES))
    def test_nothing_valid_gives_0_and_no_gradient(self, name):
        y, p = DATA[LOSSES[name].kind]
        nothing = np.zeros_like(MASK)
        y, p = poisoned(y, nothing), poisoned(p, nothing, GARBAGE)
        weights = nothing.astype("float32")
        make, each = functools.partial(self.make, name), np.zeros(MASK.shape)
        arguments = y, p, weights
        self.check(make, each, weights, *arguments, mask=nothing, atol=0)
        loss = self.make(name, "mean_with_sample_weight")
        found = self.gradient(loss, y, p, nothing, weights)
        if found is not None:
            self.assertAllEqual(found, np.zeros(p.shape))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
class EveryMetricTest(testing.TestCase):
    def test_there_is_a_case_for_each(self):
        self.assertEqual(
            public(keras.metrics, keras.metrics.Metric),
            set(METRICS) | OF_VALUES,
        )

    def make(self, name):
        return getattr(keras.metrics, name)(**METRICS[name].arguments)

    def by_hand(self, name, y, p, weights):
        some = weights > 0
        entries = to_float64(y[some], p[some], weights[some])
        return METRICS[name].formula(*entries)

    @parameterized.named_parameters(named(METRICS))
    def test_masked_predictions_say_nothing(self, name):
        y, p = (flat(x) for x in DATA[METRICS[name].kind])
        metric = self.make(name)
        metric.update_state(y, wrapped(p, flat(MASK)))
        seen = said(p, flat(MASK))
        expected = self.by_hand(name, y, seen, np.ones(12))
        if name in OF_RANKS:
            # The formulas know no ties.
            metric_of_plain = self.make(name)
            metric_of_plain.update_state(y, seen)
            expected = number(metric_of_plain.result())
        self.assertAllClose(number(metric.result()), expected, rtol=1e-4)

    @parameterized.named_parameters(named(METRICS))
    def test_what_weighs_0_stays_out(self, name):
        data = DATA[METRICS[name].kind]
        expected = self.by_hand(name, *data, WEIGHTS)
        for label, y, p, mask, weights in ranks(*data):
            if (name in FLAT) != (label == "rank 1"):
                continue
            metric = self.make(name)
            metric.update_state(poisoned(y, mask), garbled(p, mask), weights)
            # A batch with nothing valid changes nothing.
            metric.update_state(
                poisoned(y, mask), garbled(p, mask), sample_weight=0 * weights
            )
            found = number(metric.result())
            self.assertAllClose(found, expected, rtol=1e-4, msg=label)

    @parameterized.named_parameters(named(sorted(set(METRICS) - FLAT)))
    def test_weights_of_rows(self, name):
        """Also where the number of rows is that of the steps."""
        y, p = (x[1:] for x in DATA[METRICS[name].kind])
        weights = np.array([0.5, 1.0, 2.0], "float32")
        expected = self.by_hand(name, y, p, np.repeat(weights[:, None], 3, 1))
        metric = self.make(name)
        metric.update_state(y, p, weights)
        self.assertAllClose(number(metric.result()), expected, rtol=1e-4)

    @parameterized.named_parameters(named(ENTRYWISE_METRICS))
    def test_weights_of_entries(self, name):
        y, p = DATA[METRICS[name].kind]
        weights = ENTRIES.reshape(-1).astype("float64")
        expected = METRICS[name].formula(*alone(y, p), weights)
        metric = self.make(name)
        metric.update_state(poisoned(y, ENTRIES > 0), p, ENTRIES)
        self.assertAllClose(number(metric.result()), expected, rtol=1e-4)

    @parameterized.named_parameters(
        named(
            name
            for name in sorted(set(METRICS) - ENTRYWISE_METRICS)
            if METRICS[name].kind in ("real", "one_hot") and name != "R2Score"
        )
    )
    def test_weights_of_entries_are_refused(self, name):
        y, p = DATA[METRICS[name].kind]
        weights = ENTRIES
        if name in FLAT:
            y, p, weights = map(flat, (y, p, weights))
        metric = self.make(name)
        with self.assertRaisesRegex(ValueError, "(?s)weighs single entries"):
            metric.update_state(y, p, weights)

    @parameterized.product(
        name=sorted({*ENTRYWISE_METRICS, "CosineSimilarity"}),
        of=("rows", "steps", "entries"),
    )
    def test_batches_of_any_length_weigh_by_their_entries(self, name, of):
        if of == "entries" and name not in ENTRYWISE_METRICS:
            self.skipTest("is refused")
        rng = np.random.default_rng(0)
        metric, found = self.make(name), []
        for steps in (2, 9):
            y, p = rng.uniform(0.1, 0.9, (2, 3, steps, 4)).astype("float32")
            y = np.round(y) if METRICS[name].kind == "one_hot" else y
            rank = {"rows": 1, "steps": 2, "entries": 3}[of]
            w = rng.uniform(0.0, 2.0, y.shape[:rank]).astype("float32")
            metric.update_state(y, p, w)
            full = np.broadcast_to(over_features(w, y), y.shape)
            found.append([x.reshape(-1, 4) for x in (y, p, full)])
        y, p, w = (np.concatenate(xs) for xs in zip(*found))
        if of == "entries":
            y, p, w = (*alone(y, p), w.reshape(-1))
        else:
            w = w[:, 0]
        expected = METRICS[name].formula(y, p, w)
        self.assertAllClose(number(metric.result()), expected, rtol=1e-4)

    @parameterized.named_parameters(named(METRICS))
    def test_plain_predictions_that_weigh_0_may_be_anything(self, name):
        if name in WANT_CLASSES:
            self.skipTest("Upstream's fails for a label that is no class.")
        data = DATA[METRICS[name].kind]
        expected = self.by_hand(name, *data, WEIGHTS)
        _, y, p, mask, weights = next(ranks(*data))
        poison = POISON
        if backend.backend() == "torch" and name == "BinaryCrossentropy":
            # PyTorch's own refuses NaN for a probability.
            poison = GARBAGE
        metric = self.make(name)
        p = poisoned(p, mask, poison)
        metric.update_state(poisoned(y, mask), p, weights)
        self.assertAllClose(number(metric.result()), expected, rtol=1e-4)

    # Of nothing, R2Score gives NaN: it divides by how much the targets vary.
    @parameterized.named_parameters(named(sorted(set(METRICS) - {"R2Score"})))
    def test_nothing_valid_is_not_nan(self, name):
        y, p = (flat(x) for x in DATA[METRICS[name].kind])
        nothing = np.zeros(12, bool)
        metric = self.make(name)
        metric.update_state(
            poisoned(y, nothing), garbled(p, nothing), 0 * flat(WEIGHTS)
        )
        found = number(metric.result())
        self.assertTrue(np.all(np.isfinite(found)), found)

    @parameterized.named_parameters(named(sorted(OF_VALUES)))
    def test_values(self, name):
        _, p = DATA["real"]
        for rank in (2, 3):
            weights = WEIGHTS.reshape(MASK.shape + (1,) * (rank - 2))
            metric = getattr(keras.metrics, name)()
            metric.update_state(garbled(p, MASK), weights)
            expected = np.sum(p * WEIGHTS[..., None], dtype="float64")
            if name == "Mean":
                expected /= WEIGHTS.sum() * p.shape[-1]
            self.assertAllClose(number(metric.result()), expected, rtol=1e-5)
