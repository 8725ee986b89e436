"""Every public loss, on masked predictions and with weights.

What is expected is worked out in NumPy, over the entries that weigh something
and over no others. A class that has no formula fails the tests.
"""

import functools

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import losses
from keras.src import testing
from keras.src.testing.masked.cases.losses import ENTRYWISE_LOSSES
from keras.src.testing.masked.cases.losses import LOSSES
from keras.src.testing.masked.cases.losses import ROWWISE_LOSSES
from keras.src.testing.masked.cases.losses import binary_cross_entropies
from keras.src.testing.masked.cases.losses import circle
from keras.src.testing.masked.cases.losses import ctc
from keras.src.testing.masked.predictions import DATA
from keras.src.testing.masked.predictions import ENTRIES
from keras.src.testing.masked.predictions import GARBAGE
from keras.src.testing.masked.predictions import MASK
from keras.src.testing.masked.predictions import RNG
from keras.src.testing.masked.predictions import WEIGHTS
from keras.src.testing.masked.predictions import alone
from keras.src.testing.masked.predictions import named
from keras.src.testing.masked.predictions import number
from keras.src.testing.masked.predictions import poisoned
from keras.src.testing.masked.predictions import public
from keras.src.testing.masked.predictions import ranks
from keras.src.testing.masked.predictions import said
from keras.src.testing.masked.predictions import to_float64
from keras.src.testing.masked.predictions import wrapped
from keras.src.testing.masked.testing_utils import gradients


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
