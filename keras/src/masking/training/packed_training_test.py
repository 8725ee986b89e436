"""Models train on packed batches as on padded ones."""

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import testing
from keras.src.distribution import distribution_lib
from keras.src.masking import packing
from keras.src.testing.masked.packed import FEATURES
from keras.src.testing.masked.packed import MASK
from keras.src.testing.masked.packed import TIME
from keras.src.testing.masked.packed import VALUES
from keras.src.testing.masked.packed import Block
from keras.src.testing.masked.packed import SameResults
from keras.src.testing.masked.packed import padded_and_packed
from keras.src.utils import set_random_seed

MaskedTensor = backend.MaskedTensor


class Watch(layers.Layer):
    """Notes its name where it is called on what is packed."""

    seen = set()

    def call(self, x):
        # To build a model, layers are traced with padded tensors.
        if packing.is_packed(x):
            Watch.seen.add(self.name)
        return x


class Noting(models.Sequential):
    """Notes whether a target comes packed to its loss."""

    packed = False

    def compute_loss(self, x, y, *args, **kwargs):
        Noting.packed |= packing.is_packed(y)
        return super().compute_loss(x, y, *args, **kwargs)


def targets_of_classes(is_one_hot=False):
    """Inputs, and targets of three classes whose masks differ by rows."""
    classes = np.arange(10 * TIME).reshape(10, TIME) * 7 % 3
    mask = np.tile(MASK, (3, 1))[:10]
    y = np.eye(3, dtype="float32")[classes] if is_one_hot else classes
    x = np.random.default_rng(3).normal(size=(10, TIME, FEATURES))
    return x.astype("float32"), MaskedTensor(y, mask)


ROWS = np.linspace(0.5, 2, 10).astype("float32")
STEPS = ROWS[:, None] * np.linspace(0.1, 1, TIME).astype("float32")

# Of the targets, what `fit` is given besides.
OPTIONS = {
    "nothing": lambda y: {},
    "class_weight": lambda y: {"class_weight": {0: 3.0, 2: 0.5}},
    "class_weight_of_shares": lambda y: {"class_weight": {0: 3.0, 2: 0.5}},
    "class_weight_and_split": lambda y: {
        "class_weight": {1: 2.0},
        "validation_split": 0.3,
    },
    "rows": lambda y: {"sample_weight": ROWS},
    "steps": lambda y: {"sample_weight": STEPS},
    "numpy_ma": lambda y: {
        "sample_weight": np.ma.array(STEPS, mask=STEPS < 0.3)
    },
    "masked": lambda y: {"sample_weight": MaskedTensor(STEPS, STEPS > 0.3)},
    "packed": lambda y: {
        "sample_weight": MaskedTensor(STEPS, STEPS > 0.3).packed()
    },
    "split": lambda y: {"sample_weight": STEPS, "validation_split": 0.3},
    "data": lambda y: {
        "validation_data": (targets_of_classes()[0], y, STEPS),
        "validation_batch_size": 3,
    },
}


class PackedTrainingTest(testing.TestCase, SameResults):
    def test_a_dataset_of_packed_targets(self):
        """Their masks are weights, as in a dataset of padded ones."""
        if backend.backend() != "tensorflow":
            self.skipTest("Datasets of others hold no masked tensors.")
        import tensorflow as tf

        x = MaskedTensor(VALUES, MASK)
        y = MaskedTensor(VALUES[..., :1], MASK)
        padded = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
        packed = padded.map(lambda x, y: (x.packed(), y.packed()))
        model = models.Sequential([layers.Dense(1)])
        model.compile("sgd", "mse", weighted_metrics=["mae"], jit_compile=False)
        wanted = model.evaluate(x, y, verbose=0)
        for dataset in (padded, packed):
            self.assertAllClose(model.evaluate(dataset, verbose=0), wanted)

    def test_training_knows_the_longest_row(self):
        """So scores of attention are computed up to that one."""
        seen = []

        class Limit(layers.Layer):
            def call(self, x):
                if packing.is_packed(x):
                    seen.append(x.limit)
                return x

        mask = np.tile(np.arange(64) < 5, (4, 1))
        x = MaskedTensor(np.ones((4, 64, 2), "float32"), mask).packed()
        model = models.Sequential([Limit(), layers.Dense(2)])
        model.compile("sgd", "mse")
        calls = {
            "predict_on_batch": lambda: model.predict_on_batch(x),
            "test_on_batch": lambda: model.test_on_batch(x, x),
            "predict": lambda: model.predict(x, verbose=0),
            "generator": lambda: model.evaluate(
                (pair for pair in [(x, x)]), verbose=0
            ),
        }
        if backend.backend() != "numpy":
            calls["train_on_batch"] = lambda: model.train_on_batch(x, x)
            calls["fit"] = lambda: model.fit(x, x, verbose=0)
        for name, run in calls.items():
            seen.clear()
            run()
            of_pipeline = "batch" not in name
            if backend.backend() == "tensorflow" and of_pipeline:
                # Its functions are traced for batches of any length.
                self.assertEqual({*seen}, {64}, name)
                continue
            if backend.backend() != "jax":
                # Which compiled a function that knows it before.
                self.assertNotEqual(seen, [], name)
            self.assertLessEqual(max(seen, default=0), 8, name)

    def test_training(self):
        """Batches are packed anew, and train as padded ones do."""
        ids = np.arange(10 * TIME).reshape(10, TIME) % 5
        mask = np.tile(MASK, (3, 1))[:10]
        y = MaskedTensor((ids * 7 % 3)[..., None], mask)
        x = MaskedTensor(ids.astype("int32"), mask)
        results = []
        for inputs, targets in ((x, y), (x.packed(), y.packed())):
            set_random_seed(1)
            Watch.seen.clear()
            Noting.packed = False
            model = Noting(
                [
                    Watch(name="before"),
                    layers.Embedding(5, FEATURES),
                    Block(),
                    Watch(name="behind"),
                    layers.Dropout(0.5, seed=3),
                    layers.Dense(3, "softmax"),
                ]
            )
            model.compile("sgd", "sparse_categorical_crossentropy")
            found = {}
            if backend.backend() != "numpy":
                history = model.fit(
                    inputs, targets, 4, 2, shuffle=False, validation_split=0.2,
                    verbose=0,
                )  # fmt: skip
                found |= history.history
                found["on_batch"] = model.train_on_batch(inputs, targets)
            batches = ((inputs[i:][:5], targets[i:][:5]) for i in (0, 5))
            found["generator"] = model.evaluate(batches, verbose=0)
            predicted = model.predict(inputs, 4, verbose=0)
            found["predict"] = predicted.filled(0)
            results.append(found)
            wanted = {"before", "behind"} if inputs.is_packed else set()
            self.assertEqual(Watch.seen, wanted)
            self.assertEqual(Noting.packed, inputs.is_packed)
        padded, packed_ones = results
        self.assertEqual(set(padded), set(packed_ones))
        for name, value in padded.items():
            self.assertAllClose(packed_ones[name], value, 1e-5, msg=name)

    @parameterized.named_parameters((name, name) for name in OPTIONS)
    @pytest.mark.requires_trainable_backend
    def test_packed_targets_take_the_options_of_fit(self, name):
        is_one_hot = name == "class_weight_of_shares"
        x, y = targets_of_classes(is_one_hot)
        found = []
        for targets in (y, y.packed()):
            options = OPTIONS[name](targets)
            given = ("sample_weight", "class_weight")
            of_batch = {k: options[k] for k in given if k in options}
            set_random_seed(1)
            kind = "categorical" if is_one_hot else "sparse_categorical"
            model = models.Sequential([layers.Dense(3, "softmax")])
            model.compile(
                "sgd", f"{kind}_crossentropy", weighted_metrics=["accuracy"]
            )
            history = model.fit(
                x, targets, 4, shuffle=False, verbose=0, **options
            ).history
            history["batch"] = model.train_on_batch(x, targets, **of_batch)
            weights = of_batch.get("sample_weight")
            batch = (x, targets) if weights is None else (x, targets, weights)
            batches = (one for one in [batch])
            history["generator"] = model.evaluate(batches, verbose=0)
            found.append(history)
        padded, packed_ones = found
        self.assertEqual(set(padded), set(packed_ones))
        for key, value in padded.items():
            self.assertAllClose(packed_ones[key], value, 1e-5, msg=key)

    def test_data_pipelines_of_tensorflow(self):
        if backend.backend() != "tensorflow":
            self.skipTest("They hold tensors of TensorFlow.")
        # Late: only the engine that runs is imported.
        import tensorflow as tf

        x, y = padded_and_packed()
        dataset = tf.data.Dataset.from_tensors(x)
        for batch in dataset.map(lambda x: x.packed() + 1):
            self.assertTrue(batch.is_packed)
            self.assert_same(batch, x + 1, 0, "")
        dataset = tf.data.Dataset.from_tensors(y)
        self.assertTrue(next(iter(dataset)).is_packed)
        for refused in (
            lambda: dataset.batch(2),
            lambda: tf.data.Dataset.from_tensor_slices(y),
        ):
            with self.assertRaisesRegex(ValueError, "pack each batch"):
                refused()

    def test_several_devices_are_refused(self):
        if backend.backend() != "jax":
            self.skipTest("Others have one device here.")
        _, x = padded_and_packed()
        model = models.Sequential([layers.Dense(2)])
        model.compile("sgd", "mse")
        distribution_lib.set_distribution(distribution_lib.DataParallel())
        try:
            with self.assertRaisesRegex(ValueError, "x.padded"):
                model.fit(x, VALUES[..., :2], verbose=0)
        finally:
            distribution_lib.set_distribution(None)
