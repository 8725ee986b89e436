"""Losses and metrics of packed predictions give what padded ones give.

Those of padded predictions are held against NumPy elsewhere. Here each function
that is taken by steps is run on both, with targets and weights of all kinds,
and no padded predictions may be made on the way.
"""

import itertools

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import losses
from keras.src import metrics
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.backend import MaskedTensor
from keras.src.masking import packing
from keras.src.masking.training import flat
from keras.src.masking.training import weighing
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.packed import MASK
from keras.src.testing.masked.packed import Block
from keras.src.testing.masked.packed import counted
from keras.src.testing.masked.packed import hidden
from keras.src.utils import set_random_seed

BATCH, TIME, CLASSES = *MASK.shape, 3
REDUCTIONS = ("sum_over_batch_size", "sum", "mean_with_sample_weight")
rng = np.random.default_rng(0)
LABELS = rng.integers(0, CLASSES, (BATCH, TIME))
PROBABILITIES = rng.dirichlet(np.ones(CLASSES), (BATCH, TIME))
PROBABILITIES = PROBABILITIES.astype("float32")
NUMBERS = rng.random((BATCH, TIME, CLASSES)).astype("float32")
# Those of steps under the mask weigh something in some, and nothing in others.
WEIGHTS = {
    "none": None,
    "rows": np.array([1.0, 0.5, 0.0, 2.0]),
    "steps": rng.random((BATCH, TIME)),
    "times": rng.random((1, TIME)),
    "mask": MASK.astype("float32"),
    "others": rng.random((BATCH, TIME)) * ~MASK,
    "column": rng.random((BATCH, TIME, 1)) * MASK[..., None],
    "entries": rng.random((BATCH, TIME, CLASSES)),
}


def pairs():
    """Losses and metrics of steps: what to make, a target, a prediction."""
    found = {}
    for function in (*flat._OF_LABELS, *flat._OF_STEPS, *flat._OF_ENTRIES):
        name = function.__name__
        labels = any(function is one for one in flat._OF_LABELS)
        target = LABELS if labels else np.eye(CLASSES)[LABELS]
        found[name] = function, target, PROBABILITIES
        if labels:
            found[f"{name}_column"] = function, target[..., None], PROBABILITIES
        if any(function is one for one in flat._OF_ENTRIES):
            of_time = NUMBERS[..., 0]
            found[f"{name}_over_time"] = function, of_time, of_time + 1
        if any(function is one for one in weighing.ENTRYWISE):
            of_one = NUMBERS[..., :1] + 1
            found[f"{name}_of_one"] = function, of_time, of_one
    return found


PAIRS = pairs()
# The functions are written in ops of Keras: a few tell about an engine.
FEW = (
    "binary_accuracy_over_time",
    "mean_squared_error",
    "mean_squared_error_of_one",
    "sparse_categorical_crossentropy",
)
CHOSEN = PAIRS if backend.backend() == "numpy" else FEW


def kinds_of(target):
    """A target as it is given: plain, masked, packed in this or a layout."""
    target = target.astype("float32")
    other = MASK.copy()
    other[0, 4], other[3, 0] = True, False
    yield "plain", lambda y_pred: target
    yield "padded", lambda y_pred: MaskedTensor(target, MASK)
    yield "other", lambda y_pred: hidden(MaskedTensor(target, other).packed())
    yield (
        "same",
        lambda y_pred: (
            y_pred.with_flat(
                packing.packed(ops.convert_to_tensor(target), y_pred)
            )
            if packing.is_packed(y_pred)
            else MaskedTensor(target, MASK)
        ),
    )


def weights_for(name, target, prediction):
    """Those of the weights that a loss of these takes."""
    for label, weights in WEIGHTS.items():
        if label == "entries":
            entrywise = name.removesuffix("_column") in [
                f.__name__ for f in weighing.ENTRYWISE
            ]
            if not entrywise or target.shape != prediction.shape:
                continue
        yield label, weights


class FlatTest(testing.TestCase):
    @parameterized.named_parameters(*[(name, name) for name in CHOSEN])
    def test_packed_gives_what_padded_gives(self, name):
        function, target, prediction = PAIRS[name]
        padded = MaskedTensor(prediction, MASK)
        taken = 0
        kinds = list(kinds_of(target))
        given = list(weights_for(name, target, prediction))
        for i, (label, weights) in enumerate(given):
            # Weights and kinds of targets are independent of each other.
            chosen = kinds if label == "steps" else kinds[i % 4 :][:1]
            for kind, target_for in chosen:
                case = f"{label} {kind}"
                found = []
                for y_pred in (padded, hidden(padded.packed())):
                    y_true = target_for(y_pred)
                    with counted() as shapes:
                        found.append(
                            [*results(function, y_true, y_pred, weights)]
                        )
                taken += shapes == []
                for one, other in zip(*found):
                    self.assertAllClose(one, other, 1e-5, 1e-6, msg=case)
        self.assertGreater(taken, 4)

    def test_by_hand(self):
        """Of valid steps; the others have 1/n for each class."""
        y_pred = MaskedTensor(PROBABILITIES, MASK).packed()
        said = np.where(MASK[..., None], PROBABILITIES, 1 / CLASSES)
        own = -np.log(np.take_along_axis(said, LABELS[..., None], -1)[..., 0])
        for name in ("none", "rows", "steps", "mask"):
            weights = WEIGHTS[name]
            one = np.ones(MASK.shape) if weights is None else weights
            one = one[:, None] if one.ndim == 1 else one
            weighed = own * one
            for reduction, wanted in zip(
                REDUCTIONS,
                (
                    weighed.mean(),
                    weighed.sum(),
                    weighed.sum() / np.broadcast_to(one, own.shape).sum(),
                ),
            ):
                loss = losses.SparseCategoricalCrossentropy(reduction=reduction)
                result = loss(LABELS, y_pred, weights)
                self.assertAllClose(result, wanted, 1e-5, msg=name)

    @parameterized.parameters(
        ("categorical_crossentropy", {"label_smoothing": 0.1}),
        ("categorical_crossentropy", {"axis": 1}),
        ("huber", {"delta": 0.3}),
        ("sparse_categorical_crossentropy", {"ignore_class": 1}),
    )
    def test_arguments(self, name, arguments):
        target = LABELS if "sparse" in name else np.eye(CLASSES)[LABELS]
        loss = losses.losses.LossFunctionWrapper(
            getattr(losses, name), **arguments
        )
        padded = MaskedTensor(PROBABILITIES, MASK)
        for weights in (None, WEIGHTS["rows"]):
            self.assertAllClose(
                loss(target, hidden(padded.packed()), weights),
                loss(target, padded, weights),
                1e-5,
            )

    def test_of_no_step_at_all(self):
        x = MaskedTensor(PROBABILITIES, np.zeros_like(MASK))
        found = []
        for y_pred in (x, x.packed()):
            function = losses.sparse_categorical_crossentropy
            found.append([*results(function, LABELS, y_pred, None)])
        self.assertAllClose(*found, 1e-5)

    @parameterized.parameters(np.nan, np.inf, 1e30)
    def test_what_weighs_nothing_does_no_harm(self, poison):
        target = np.where(MASK[..., None], NUMBERS, np.float32(poison))
        target[0, 0] = poison
        weights = MASK.astype("float32")
        weights[0, 0] = 0
        x = MaskedTensor(NUMBERS + 1, MASK)

        def loss_of(y_pred):
            loss = losses.MeanSquaredError("mean_with_sample_weight")
            return loss(target, y_pred, weights)

        self.assertAllClose(loss_of(hidden(x.packed())), 1.0, 1e-5)
        if backend.backend() != "numpy":
            (slope,) = u.gradients(
                lambda a: loss_of(MaskedTensor(a[0], MASK).packed()),
                [NUMBERS + 1],
            )
            wanted = weights[..., None] * 2 / (weights.sum() * CLASSES)
            self.assertAllClose(slope, wanted + 0 * NUMBERS, 1e-5)

    def test_a_step_has_no_padded_tensor_but_for_scores(self):
        """Of a chain from ids to its loss, and of one that is pooled."""
        ids = MaskedTensor(1 + LABELS.astype("int32"), MASK)
        y = MaskedTensor(LABELS[..., None], MASK)
        is_eager = backend.backend() in ("numpy", "torch")
        kinds = list(itertools.product((False, True), repeat=2))
        for pooled, masks_zero in kinds if is_eager else kinds[1:2]:
            last = [layers.GlobalAveragePooling1D()] if pooled else []
            set_random_seed(1)
            model = models.Sequential(
                [layers.Embedding(4, 3, mask_zero=masks_zero), Block(), Block()]
                + [*last, layers.Dense(CLASSES, "softmax")]
            )
            model.compile(
                "sgd",
                "sparse_categorical_crossentropy",
                weighted_metrics=["accuracy"],
            )
            target = LABELS[:, 0] if pooled else y.packed()
            step = (
                model.test_on_batch
                if backend.backend() == "numpy"
                else model.train_on_batch
            )
            if is_eager:
                # Others compute only as they are compiled, in the first step.
                step(ids.packed(), target)
            with counted() as shapes:
                step(ids.packed(), target)
            wide = [s for s in shapes if np.prod(s[1:]) > 1]
            # Query, key and value of each block; to build the model it is run
            # once more, to compile it maybe again.
            self.assertEqual({len(shape) for shape in wide}, {3}, shapes)
            self.assertIn(len(wide), (6, 12, 18), shapes)


def results(function, y_true, y_pred, weights):
    """The loss by each reduction, and what a metric adds up."""
    arguments = {"k": 2} if "top_k" in function.__name__ else {}
    if hasattr(losses, function.__name__):
        for reduction in REDUCTIONS:
            loss = losses.losses.LossFunctionWrapper(function, reduction)
            yield loss(y_true, y_pred, weights)
    # A metric as a function does not bring them to one rank.
    if len(y_true.shape) <= len(y_pred.shape) and y_pred.shape[-1] != 1:
        metric = metrics.MeanMetricWrapper(function, **arguments)
        metric.update_state(y_true, y_pred, weights)
        yield from (metric.total, metric.count)
