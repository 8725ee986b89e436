"""Every public metric, on masked predictions and with weights.

What is expected is worked out in NumPy, over the entries that weigh something
and over no others. A class that has no formula fails the tests.
"""

import inspect

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import testing
from keras.src.testing.masked.cases.metrics import ENTRYWISE_METRICS
from keras.src.testing.masked.cases.metrics import FLAT
from keras.src.testing.masked.cases.metrics import METRICS
from keras.src.testing.masked.cases.metrics import OF_RANKS
from keras.src.testing.masked.cases.metrics import OF_VALUES
from keras.src.testing.masked.cases.metrics import WANT_CLASSES
from keras.src.testing.masked.predictions import DATA
from keras.src.testing.masked.predictions import ENTRIES
from keras.src.testing.masked.predictions import GARBAGE
from keras.src.testing.masked.predictions import MASK
from keras.src.testing.masked.predictions import POISON
from keras.src.testing.masked.predictions import WEIGHTS
from keras.src.testing.masked.predictions import alone
from keras.src.testing.masked.predictions import flat
from keras.src.testing.masked.predictions import garbled
from keras.src.testing.masked.predictions import named
from keras.src.testing.masked.predictions import number
from keras.src.testing.masked.predictions import over_features
from keras.src.testing.masked.predictions import poisoned
from keras.src.testing.masked.predictions import public
from keras.src.testing.masked.predictions import ranks
from keras.src.testing.masked.predictions import said
from keras.src.testing.masked.predictions import to_float64
from keras.src.testing.masked.predictions import wrapped

OF_ONE_CLASS = [
    name
    for name in sorted(METRICS)
    if "class_id"
    in inspect.signature(getattr(keras.metrics, name).__init__).parameters
]


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

    @parameterized.parameters(OF_ONE_CLASS)
    def test_weights_of_entries_for_one_class(self, name):
        # For those that ask for another value, beside it.
        other = {"PrecisionAtRecall": 0.5, "RecallAtPrecision": 0.5}
        other |= dict.fromkeys(
            ("SensitivityAtSpecificity", "SpecificityAtSensitivity"), 0.5
        )
        args = [other[name]] if name in other else []
        y = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 1, 1]], "float32")
        scores = np.random.default_rng(0).random((4, 3)).astype("float32")
        weights = np.array([[1, 0, 1], [1, 2, 1], [0, 1, 0], [1, 3, 1]])
        alone = getattr(keras.metrics, name)(*args)
        alone.update_state(y[:, 1], scores[:, 1], sample_weight=weights[:, 1])
        # By entries, by rows, and by rows with an axis that is none.
        for given in (weights, weights[:, 1], weights[:, 1:2]):
            of_class = getattr(keras.metrics, name)(*args, class_id=1)
            of_class.update_state(y, scores, sample_weight=given)
            self.assertAllClose(of_class.result(), alone.result())

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
