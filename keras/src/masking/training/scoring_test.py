"""Losses and metrics judge all entries, masked ones as saying nothing."""

import inspect

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import losses
from keras.src import metrics
from keras.src import ops
from keras.src import testing
from keras.src.backend import MaskedTensor
from keras.src.losses.loss import Loss
from keras.src.masking.training import scoring
from keras.src.testing.masked import testing_utils as u
from patchset.markers import when

SEED = 1337
MASK = np.array([[True, True, False], [True, False, False]])

# Losses that compare entries with each other, or need other arguments.
SPARSE = (
    "SparseCategoricalCrossentropy",
    "SparseCategoricalFocalCrossentropy",
)
ALONE = ("CTC", "Circle", "CategoricalGeneralizedCrossEntropy")
WHOLE = ("Dice", "Tversky")


def loss_classes():
    return {
        name: cls
        for name, cls in vars(losses).items()
        if inspect.isclass(cls)
        and issubclass(cls, Loss)
        and cls not in (Loss, losses.LossFunctionWrapper)
    }


def cases(names):
    return [{"testcase_name": f"_{name}", "name": name} for name in names]


def metric_classes():
    found = {}
    for name, cls in vars(metrics).items():
        if inspect.isclass(cls) and issubclass(cls, metrics.Metric):
            found[name] = cls
    return found


ENTRYWISE = sorted(set(loss_classes()) - {*ALONE, *WHOLE})
# What these need to be made, where defaults do not do.
METRIC_ARGUMENTS = {
    "MeanMetricWrapper": {"fn": losses.mean_squared_error},
    "TopKCategoricalAccuracy": {"k": 2},
    "SparseTopKCategoricalAccuracy": {"k": 2},
    "MeanIoU": {"num_classes": 2},
    "IoU": {"num_classes": 2, "target_class_ids": [0]},
    "BinaryIoU": {"target_class_ids": [1]},
    "OneHotIoU": {"num_classes": 4, "target_class_ids": [0]},
    "OneHotMeanIoU": {"num_classes": 4},
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtPrecision": {"precision": 0.5},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
}
SPARSE_METRICS = (
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
)
FLAT_METRICS = ("R2Score", "F1Score", "FBetaScore")
PER_LABEL = ("MeanIoU", "IoU", "BinaryIoU")
PAIRS = sorted(
    name
    for name, cls in metric_classes().items()
    if "y_true" in inspect.signature(cls.update_state).parameters
)


def problem(sparse=False, per_label=False):
    """Targets and predictions of shape `(2, 3, 4)`, or what the kind needs."""
    rng = np.random.default_rng(SEED)
    y_pred = rng.uniform(0.05, 1.0, (2, 3, 4)).astype("float32")
    y_pred /= y_pred.sum(-1, keepdims=True)
    classes = rng.integers(0, 4, (2, 3))
    if per_label:
        return (classes > 1).astype("float32"), y_pred[..., 0]
    if sparse:
        return classes, y_pred
    return np.eye(4, dtype="float32")[classes], y_pred


def said(y_pred, mask):
    """Predictions of which those that are masked say nothing."""
    if mask.ndim == y_pred.ndim:
        return np.where(mask, y_pred, 0).astype(y_pred.dtype)
    nothing = np.full(y_pred.shape, 1 / y_pred.shape[-1], y_pred.dtype)
    return np.where(mask[..., None], y_pred, nothing)


def masked_predictions(y_pred, mask):
    """The predictions, masked, with one thing and another under the mask."""
    yield MaskedTensor(y_pred, mask)
    cells = u.over_all_axes(mask, y_pred.shape)
    for junk in (0.3, 50, -7):
        junk = np.asarray(junk, y_pred.dtype)
        values = ops.convert_to_tensor(np.where(cells, y_pred, junk))
        yield MaskedTensor._wrap(values, ops.convert_to_tensor(mask))


class LossMaskTest(testing.TestCase):
    @parameterized.named_parameters(cases(ENTRYWISE + list(WHOLE)))
    def test_masked_predictions_say_nothing(self, name):
        y_true, y_pred = problem(name in SPARSE)
        for reduction in ("mean_with_sample_weight", None):
            loss = loss_classes()[name](reduction=reduction)
            plain = loss(y_true, said(y_pred, MASK))
            for masked in masked_predictions(y_pred, MASK):
                self.assertAllClose(loss(y_true, masked), plain)
                self.assertFalse(ops.is_masked(loss(y_true, masked)))
            y_true_masked = MaskedTensor(y_true, np.ones((2, 3), "bool"))
            self.assertAllClose(loss(y_true_masked, masked), plain)

    @when(">=3.16")
    def test_a_label_stays_an_integer_in_half_precision(self):
        """In bfloat16 257 is 256: upstream's loss of labels casts none."""
        y_true = np.array([[257, 256, 3]])
        y_pred = np.full((1, 3, 300), 0.001, "float32")
        y_pred[0, [0, 1, 2], y_true[0]] = 0.701
        judge = losses.SparseCategoricalFocalCrossentropy(dtype="bfloat16")
        expected = 0.25 * 0.299**2 * -np.log(0.701)
        weight = np.ones((1, 3))
        for args in ((), (weight,), (MaskedTensor(weight, weight > 0),)):
            found = ops.cast(judge(y_true, y_pred, *args), "float32")
            self.assertAllClose(found, expected, rtol=2e-2)

    @parameterized.named_parameters(cases(ENTRYWISE + list(WHOLE)))
    @pytest.mark.requires_trainable_backend
    def test_no_gradient_of_masked_predictions(self, name):
        y_true, y_pred = problem(name in SPARSE)
        loss = loss_classes()[name]()
        mask = ops.convert_to_tensor(MASK)

        def judge(values):
            return loss(y_true, MaskedTensor._wrap(values, mask))

        found = [
            gradient(judge, u.array(masked.values))
            for masked in masked_predictions(y_pred, MASK)
        ]
        for one in found:
            self.assertAllClose(one, found[0], atol=0, rtol=0)
            self.assertAllEqual(one[~MASK], 0 * one[~MASK])
        self.assertNotAllClose(found[0][MASK], 0 * found[0][MASK])

    def test_a_masked_number_is_0(self):
        loss = losses.MeanSquaredError()
        y_true = np.ones((2, 3, 1), "float32")
        for shape, ndim in (((2, 3, 1), 2), ((2, 3, 1), 3), ((6,), 1)):
            y_pred = np.full(shape, 3, "float32")
            mask = MASK.reshape((6,) if ndim == 1 else (2, 3, 1)[:ndim])
            (*_, masked) = masked_predictions(y_pred, mask)
            # (3 - 1)^2 where it is valid, and 1 where it is not.
            found = loss(y_true.reshape(shape), masked)
            self.assertAllClose(found, (3 * 4 + 3 * 1) / 6)

    def test_classes_that_are_masked_are_none(self):
        """Of a row in which all are, each is as likely as any other."""
        y_pred = np.array([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]], "float32")
        mask = np.array([[True, True, False], [False, False, False]])
        loss = losses.CategoricalCrossentropy(reduction=None)
        for masked in masked_predictions(y_pred, mask):
            found = loss(np.eye(3)[[0, 0]], masked)
            self.assertAllClose(found, -np.log([0.4, 1 / 3]), atol=1e-5)

    @parameterized.named_parameters(cases(ENTRYWISE))
    def test_weights_of_the_mask_give_the_loss_of_valid_entries(self, name):
        y_true, y_pred = problem(name in SPARSE)
        weights = MASK.astype("float32")
        cls = loss_classes()[name]
        by_hand = cls(reduction=None)(y_true[MASK], y_pred[MASK])
        by_hand = backend.convert_to_numpy(by_hand)
        masked = MaskedTensor(y_pred, MASK)
        total = cls(reduction="sum")(y_true, masked, weights)
        self.assertAllClose(total, by_hand.sum(), rtol=1e-5)
        mean = cls(reduction="mean_with_sample_weight")
        self.assertAllClose(
            mean(y_true, masked, weights), by_hand.mean(), rtol=1e-5
        )

    def test_a_masked_weight_weighs_0_where_masked(self):
        y_true, y_pred = problem()
        ones = np.ones((2, 3), "float32")
        loss = losses.MeanSquaredError(reduction="sum")
        expected = loss(y_true, y_pred, MASK.astype("float32"))
        self.assertAllClose(
            loss(y_true, y_pred, MaskedTensor(ones, MASK)), expected
        )
        hidden = np.ma.MaskedArray(np.full((2, 3), 1.0, "float32"), ~MASK)
        self.assertAllClose(loss(y_true, y_pred, hidden), expected)

    def test_what_predict_gives_counts_as_what_the_model_does(self):
        y_true, y_pred = problem()
        loss = losses.MeanSquaredError()
        full = np.broadcast_to(MASK[..., None], y_pred.shape)
        self.assertAllClose(
            loss(y_true, np.ma.MaskedArray(y_pred, ~full)),
            loss(y_true, said(y_pred, MASK)),
        )

    def test_nests_are_unwrapped(self):
        class PairLoss(Loss):
            def call(self, y_true, y_pred):
                return y_true["a"] - y_pred["a"] + y_pred["b"]

        masked = MaskedTensor(np.ones((2, 3), "float32"), MASK)
        loss = PairLoss(reduction="sum")(
            {"a": np.zeros((2, 3))}, {"a": masked, "b": masked}
        )
        self.assertAllClose(loss, 0.0)

    def test_the_old_attribute_is_not_read_off_a_returned_prediction(self):
        class Returned(Loss):
            def call(self, y_true, y_pred):
                return y_pred

        y_pred = ops.convert_to_tensor([1.0, 3.0])
        backend.set_keras_mask(y_pred, ops.convert_to_tensor([True, False]))
        self.assertAllClose(Returned()(ops.zeros(2), y_pred), 2.0)

    def test_a_mask_that_the_loss_makes_counts(self):
        class Own(Loss):
            def call(self, y_true, y_pred):
                return MaskedTensor(y_pred, ops.not_equal(y_true, 9))

        values = np.array([1.0, 5.0, 3.0], "float32")
        y_true = np.array([0, 9, 0])
        self.assertAllClose(Own()(y_true, values), 2.0)
        self.assertAllClose(Own(reduction=None)(y_true, values), [1, 0, 3])

    def test_ignore_class_divides_by_what_counts(self):
        y_true, y_pred = problem(sparse=True)
        y_true[~MASK] = 7
        loss = losses.SparseCategoricalCrossentropy(ignore_class=7)
        by_hand = -np.log(
            np.take_along_axis(
                y_pred[MASK], y_true[MASK][:, None].astype(int), -1
            )
        )
        self.assertAllClose(
            loss(y_true, MaskedTensor(y_pred, MASK)), by_hand.mean()
        )
        each = losses.sparse_categorical_crossentropy(
            y_true, y_pred, ignore_class=7
        )
        self.assertFalse(ops.is_masked(each))
        self.assertAllClose(backend.convert_to_numpy(each)[~MASK], 0.0)

    @parameterized.named_parameters(
        ("per_step", (2, 3)), ("per_sample", (2,)), ("with_axis", (2, 3, 1))
    )
    def test_a_target_of_weight_0_may_be_anything(self, shape):
        y_true, y_pred = problem()
        weights = np.ones(shape, "float32")
        weights[0] = 0
        cls = PerSample if shape == (2,) else losses.MeanSquaredError
        loss_of = cls(reduction="sum")
        expected = None
        for poison in (0.5, 1e20, np.nan, np.inf, -np.inf):
            y_true[0] = poison
            loss = backend.convert_to_numpy(loss_of(y_true, y_pred, weights))
            expected = loss if expected is None else expected
            self.assertEqual(loss, expected)

    @parameterized.parameters("float16", "float32", "float64")
    def test_a_target_of_weight_0_may_be_of_any_dtype(self, dtype):
        """Also beyond what the dtype of the loss has."""
        y_true = np.array([[1.0], [2.0]], dtype)
        for poison in (np.nan, np.inf, np.finfo(dtype).max):
            y_true[1] = poison
            metric = metrics.MeanSquaredError()
            for judge in (losses.MeanSquaredError(), metric):
                found = judge(y_true, np.zeros((2, 1)), np.array([1.0, 0.0]))
                # A loss is the mean over all, a metric that of the weights.
                expected = 1.0 if judge is metric else 0.5
                self.assertAllClose(found, expected)

    def test_a_weighted_loss_of_close_entries_is_left_alone(self):
        # Circle compares the labels of a batch: none may be changed.
        rng = np.random.default_rng(SEED)
        labels = np.array([1.0, 1.0, 2.0, 2.0], "float32")
        embeddings = rng.normal(size=(4, 8)).astype("float32")
        each = losses.Circle(reduction=None)(labels, embeddings)
        weighted = losses.Circle(reduction=None)(
            labels, embeddings, np.array([1.0, 0.0, 1.0, 1.0])
        )
        each = backend.convert_to_numpy(each)
        weighted = backend.convert_to_numpy(weighted)
        self.assertAllClose(weighted[[0, 2, 3]], each[[0, 2, 3]])

    @parameterized.named_parameters(
        cases(["MeanSquaredError", "LogCosh", "CategoricalCrossentropy"])
    )
    @pytest.mark.requires_trainable_backend
    def test_a_target_of_weight_0_reaches_no_gradient(self, name):
        y_true, y_pred = problem()
        loss = loss_classes()[name](reduction="sum")
        weights = MASK.astype("float32")
        clean = gradient(lambda p: loss(y_true, p, weights), y_pred)
        for poison in (1e20, 3e38, np.nan, np.inf):
            y_true[~MASK] = poison
            found = gradient(lambda p: loss(y_true, p, weights), y_pred)
            self.assertAllClose(found, clean, atol=0, rtol=0)
            self.assertAllClose(found[~MASK], 0.0, atol=0)


class PerSample(Loss):
    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=(1, 2))


def gradient(fn, x):
    """The gradient of a scalar function, as a NumPy array."""
    if backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(fn)(x))
    x = ops.convert_to_tensor(x)
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(x)
            y = fn(x)
        return tape.gradient(y, x).numpy()
    x = x.detach().requires_grad_(True)
    fn(x).backward()
    return x.grad.cpu().numpy()


def public_functions():
    """Functions of targets and predictions, off the exports."""
    found = {}
    for module in (keras.losses, keras.metrics):
        for name, x in vars(module).items():
            if (
                inspect.isfunction(x)
                and "y_pred" in inspect.signature(x).parameters
            ):
                found[name] = x
    return found


# What they need besides, and one that is told of lengths otherwise.
FUNCTION_ARGUMENTS = {
    "categorical_generalized_cross_entropy": {"q": 0.5},
    "top_k_categorical_accuracy": {"k": 2},
    "sparse_top_k_categorical_accuracy": {"k": 2},
}
FUNCTIONS = sorted(set(public_functions()) - {"ctc", "circle"})


class FunctionMaskTest(testing.TestCase):
    @parameterized.named_parameters(cases(FUNCTIONS))
    def test_functions_read_no_mask(self, name):
        function = public_functions()[name]
        kwargs = FUNCTION_ARGUMENTS.get(name, {})
        y_true, y_pred = problem("sparse" in name or "generalized" in name)
        y_true = ops.convert_to_tensor(y_true)
        plain = ops.convert_to_tensor(said(y_pred, MASK))
        expected = function(y_true, plain, **kwargs)
        for masked in masked_predictions(y_pred, MASK):
            valid = MaskedTensor(y_true, np.ones((2, 3), "bool"))
            for target in (y_true, valid):
                found = function(target, masked, **kwargs)
                self.assertFalse(ops.is_masked(found))
                self.assertAllClose(found, expected)

    def test_all_functions_are_found(self):
        names = {
            getattr(fn, "__name__", "") for fn in public_functions().values()
        }
        wanted = {"mean_squared_error", "binary_accuracy", "dice", "huber"}
        self.assertEqual(wanted - names, set())

    def test_functions_are_known_by_name(self):
        """As they are exported, and in files."""
        for name in ("mean_squared_error", "categorical_accuracy"):
            function = public_functions()[name]
            config = keras.saving.serialize_keras_object(function)
            self.assertIs(
                keras.saving.deserialize_keras_object(config), function
            )


class MetricMaskTest(testing.TestCase):
    def make(self, name):
        return metric_classes()[name](**METRIC_ARGUMENTS.get(name, {}))

    def problem(self, name):
        return problem(name in SPARSE_METRICS, name in PER_LABEL)

    @parameterized.named_parameters(cases(PAIRS))
    def test_masked_predictions_say_nothing(self, name):
        y_true, y_pred = self.problem(name)
        mask = MASK
        if name in FLAT_METRICS:
            y_true, y_pred, mask = y_true[0], y_pred[0], MASK[0]
        plain = self.make(name)
        plain.update_state(y_true, said(y_pred, mask))
        for masked in masked_predictions(y_pred, mask):
            for by_name in (False, True):
                metric = self.make(name)
                if by_name:
                    metric.update_state(y_true, y_pred=masked)
                else:
                    metric.update_state(y_true, masked)
                self.assertAllClose(metric.result(), plain.result())

    @parameterized.named_parameters(cases(PAIRS))
    def test_weights_of_which_none_is_valid_change_nothing(self, name):
        y_true, y_pred = self.problem(name)
        mask = MASK
        if name in FLAT_METRICS:
            y_true, y_pred, mask = y_true[0], y_pred[0], MASK[0]
        metric = self.make(name)
        if (
            "sample_weight"
            not in inspect.signature(metric.update_state).parameters
        ):
            self.skipTest("It has no weights.")
        weights = np.ones(mask.shape, "int32" if "IoU" in name else "float32")
        metric.update_state(y_true, y_pred, weights)
        before = u.array(metric.result())
        metric.update_state(y_true, y_pred, MaskedTensor(weights, 0 * mask > 0))
        self.assertAllClose(metric.result(), before)

    @parameterized.named_parameters(
        cases(
            sorted(
                n
                for n in PAIRS
                if issubclass(metric_classes()[n], metrics.MeanMetricWrapper)
            )
        )
    )
    def test_weights_of_the_mask_give_the_mean_of_valid_entries(self, name):
        y_true, y_pred = self.problem(name)
        by_hand, weighted = self.make(name), self.make(name)
        by_hand.update_state(y_true[MASK], y_pred[MASK])
        if np.issubdtype(y_true.dtype, np.floating):
            y_true[~MASK] = np.nan
        ones = np.ones((2, 3), "float32")
        weighted.update_state(
            y_true, MaskedTensor(y_pred, MASK), MaskedTensor(ones, MASK)
        )
        # Three valid steps weigh 3, in rows of 2/3 and 1/3.
        self.assertAllClose(weighted.result(), by_hand.result(), rtol=1e-5)

    def test_the_metric_of_a_user_gets_plain_tensors(self):
        test = self

        class Seen(metrics.Metric):
            def update_state(self, y_true, y_pred, sample_weight=None):
                for x in (y_true, y_pred, sample_weight):
                    test.assertFalse(ops.is_masked(x))
                self.seen = backend.convert_to_numpy(sample_weight)

            def result(self):
                return 0.0

        masked = MaskedTensor(np.ones((2, 3), "float32"), MASK)
        for args, kwargs in (
            ((masked, masked, masked), {}),
            ((masked,), {"y_pred": masked, "sample_weight": masked}),
        ):
            metric = Seen()
            metric.update_state(*args, **kwargs)
            self.assertAllClose(metric.seen, MASK.astype("float32"))
        self.assertEqual(
            list(inspect.signature(metric.update_state).parameters),
            ["y_true", "y_pred", "sample_weight"],
        )

    @parameterized.named_parameters(
        ("own", lambda self, y, p, sample_weight=None: self.see(p)),
        ("any", lambda self, y, p, **kwargs: self.see(p)),
        ("none", lambda self, *args, **kwargs: self.see(args[1])),
        ("one", lambda self, y, *args, sample_weight=None: self.see(args[0])),
        ("Keras's", lambda self, y, y_pred, sample_weight: self.see(y_pred)),
    )
    def test_the_second_argument_is_the_prediction(self, update_state):
        """In a model, alone, and padded or packed."""

        class Total(metrics.Metric):
            def __init__(self):
                super().__init__(name="total")
                self.total = self.add_weight(initializer="zeros")

            def see(self, values):
                self.total.assign_add(ops.sum(values))

            def result(self):
                return ops.convert_to_tensor(self.total)

        Total = type("Total", (Total,), {"update_state": update_state})
        values = np.ones((2, 3, 2), "float32")
        x = MaskedTensor(values, MASK)
        # 1 in each of two classes where there is something, else 1/2.
        for y_pred in (x, x.packed()):
            metric = Total()
            metric.update_state(values, y_pred, sample_weight=None)
            self.assertAllClose(metric.result(), 9.0)
        if backend.backend() == "numpy":
            return  # It does not train.
        model = keras.Sequential([keras.layers.Identity()])
        model.compile(loss="mse", metrics=[Total()])
        for data in (x, x.packed()):
            logs = model.evaluate(
                data, values, sample_weight=np.ones(2), return_dict=True
            )
            self.assertAllClose(logs["total"], 9.0)

    def test_own_names_of_what_weighs_0(self):
        class Total(metrics.Sum):
            def update_state(self, y, p, sample_weight):
                super().update_state(y + p, sample_weight)

        values = np.array([1.0, np.nan], "float32")
        metric = Total()
        metric.update_state(values, p=values, sample_weight=np.eye(2)[0])
        self.assertAllClose(metric.result(), 2.0)

    def test_a_second_argument_may_weigh(self):
        class Weighted(metrics.Sum):
            def update_state(self, values, weights):
                super().update_state(ops.multiply(values, weights))

        metric = Weighted()
        ones = np.ones((2, 3), "float32")
        metric.update_state(ones, MaskedTensor(ones, MASK & [[True], [False]]))
        self.assertAllClose(metric.result(), 2.0)

    def test_decorating_twice_is_decorating_once(self):
        update = metrics.Mean.update_state
        self.assertIs(scoring.ignores_masks(update), update)

    def test_a_masked_value_is_averaged_as_it_stands(self):
        metric = metrics.Mean()
        metric.update_state(MaskedTensor([3.0, 9.0], [True, False]))
        self.assertAllClose(metric.result(), 1.5)  # The constructor's 0.

    def test_the_old_attribute_is_not_read(self):
        y_pred = ops.convert_to_tensor([[1.0], [3.0]])
        backend.set_keras_mask(y_pred, ops.convert_to_tensor([True, False]))
        metric = metrics.MeanMetricWrapper(lambda y_true, y_pred: y_pred)
        metric.update_state(ops.zeros((2, 1)), y_pred, np.ones(2))
        self.assertAllClose(metric.result(), 2.0)

    def test_classes_that_the_function_ignores_do_not_weigh(self):
        y_true, y_pred = problem(sparse=True)
        y_true[0] = 7
        metric = metrics.SparseCategoricalCrossentropy(ignore_class=7)
        metric.update_state(y_true, MaskedTensor(y_pred, MASK), np.ones((2, 3)))
        each = losses.sparse_categorical_crossentropy(
            y_true[1], said(y_pred, MASK)[1]
        )
        by_hand = np.mean(backend.convert_to_numpy(each))
        self.assertAllClose(metric.result(), by_hand, rtol=1e-5)

    @parameterized.named_parameters(("sum", "Sum", 4.0), ("mean", "Mean", 2.0))
    def test_a_value_of_weight_0_may_be_anything(self, name, expected):
        for poison in (1e20, np.nan, np.inf):
            metric = metric_classes()[name]()
            metric.update_state([1.0, 3.0, poison], [1.0, 1.0, 0.0])
            self.assertAllClose(metric.result(), expected)
