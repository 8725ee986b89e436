"""What `explain_mask` tells of the calls of layers, and that it is all."""

import contextlib
import doctest
import io

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import random
from keras.src import testing
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.masking.showing import explain
from keras.src.masking.showing.explain import SeenMask
from keras.src.masking.showing.explain import explain_mask

IDS = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]])
STEPS = SeenMask((2, 5), 4, 10)


def explained(model, x, **kwargs):
    """The calls, and the text that was printed."""
    texts = []
    calls = explain_mask(
        model, x, print_fn=texts.append, line_length=150, **kwargs
    )
    (text,) = texts
    return calls, text


def sequence(features=4):
    values = np.random.default_rng(0).normal(size=(2, 5, features))
    return backend.MaskedTensor(values.astype("float32"), IDS != 0)


def outcomes(calls):
    return [(call.depth, call.name, call.outcome) for call in calls]


class Residual(layers.Layer):
    """A user's layer, made of others."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="inner_dense")
        self.pool = layers.GlobalMaxPooling1D(name="inner_pool")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return self.pool(x + self.dense(x))


class Inverts(layers.Layer):
    """Does what no mask over the rows of a matrix allows."""

    def call(self, x):
        return ops.linalg.inv(x)

    def compute_output_spec(self, x):
        return backend.KerasTensor(x.shape, x.dtype)


class Counts(layers.Layer):
    """Changes its state whenever it is called, and draws a number."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.count = self.add_weight(shape=(), initializer="zeros")
        self.seed = random.SeedGenerator(7)

    def call(self, x):
        self.count.assign_add(1)
        self.add_loss(ops.sum(self.count))
        return x + random.normal((), seed=self.seed)


class ExplainMaskTest(testing.TestCase):
    def test_a_sequential_model(self):
        model = models.Sequential(
            [
                layers.Embedding(10, 4, mask_zero=True, name="embedding"),
                layers.Conv1D(3, 3, padding="valid", name="conv"),
                layers.LSTM(3, name="lstm"),
                layers.Dense(2, name="head"),
            ],
            name="tagger",
        )
        model.build((None, 5))
        calls, text = explained(model, IDS)
        self.assertEqual(
            outcomes(calls),
            [
                (0, "tagger", ""),
                (1, "embedding", "made"),
                (1, "conv", "changed"),
                (1, "lstm", "ends"),
                (1, "head", ""),
            ],
        )
        # Of rows of three steps and of one, with windows of three.
        middles = SeenMask((2, 3), 1, 6)
        ins = [call.masks_in for call in calls]
        self.assertEqual(ins, [(None,), (None,), (STEPS,), (middles,), (None,)])
        outs = [call.masks_out for call in calls]
        self.assertEqual(
            outs, [(None,), (STEPS,), (middles,), (None,), (None,)]
        )
        classes = [call.class_name for call in calls]
        self.assertEqual(
            classes, ["Sequential", "Embedding", "Conv1D", "LSTM", "Dense"]
        )
        (line,) = (x for x in text.splitlines() if "conv" in x)
        fields = [field.strip() for field in line.strip("│").split("│")]
        self.assertEqual(
            fields,
            [
                "└ conv (Conv1D)",
                "(2, 5): 4 of 10 valid",
                "(2, 3): 1 of 6 valid",
                "changed",
            ],
        )

    def test_nested_and_shared_layers_and_operations(self):
        shared = layers.Dense(4, name="shared")
        inside = layers.Input((None, 4))
        nested = models.Model(
            inside, layers.ReLU(name="relu")(inside), name="nested"
        )
        ids = layers.Input((None,))
        h = layers.Embedding(10, 4, mask_zero=True, name="embedding")(ids)
        attention = layers.MultiHeadAttention(1, 2, name="attention")
        h = nested(shared(h) + attention(h, h))
        pooled = layers.GlobalAveragePooling1D(name="pool")(h)
        model = models.Model(ids, shared(pooled), name="model")
        calls, text = explained(model, IDS)
        found = {}
        for depth, name, outcome in outcomes(calls):
            found.setdefault(name, []).append((depth, outcome))
        add = next(call.name for call in calls if call.class_name == "Add")
        self.assertEqual(
            found,
            {
                "model": [(0, "")],
                "embedding": [(1, "made")],
                "shared": [(1, "kept"), (1, "")],
                "attention": [(1, "kept")],
                add: [(1, "kept")],
                "nested": [(1, "kept")],
                "relu": [(2, "kept")],
                "pool": [(1, "ends")],
            },
        )
        self.assertIn("│    └ relu (ReLU) ", text)

    def test_several_inputs(self):
        x, y = layers.Input((5, 4), name="x"), layers.Input((5, 4), name="y")
        joined = layers.Concatenate(axis=1, name="joined")([x, y])
        model = models.Model({"x": x, "y": y}, joined)
        plain = np.ones((2, 5, 4), "float32")
        calls, _ = explained(model, {"x": sequence(), "y": plain})
        self.assertEqual(calls[0].masks_in, (STEPS, None))
        self.assertEqual(calls[-1].name, "joined")
        self.assertEqual(calls[-1].masks_out, (SeenMask((2, 10), 14, 20),))
        add = layers.Add()
        add([sequence(), sequence()])
        calls, _ = explained(add, [sequence(), sequence()])
        self.assertEqual(calls[0].masks_in, (STEPS, STEPS))

    def test_a_single_layer(self):
        calls, _ = explained(layers.Reshape((20,), name="flat"), sequence())
        (call,) = calls
        # Each entry of a step that is there is there.
        self.assertEqual(call.masks_out, (SeenMask((2, 20), 16, 40),))
        self.assertEqual((call.depth, call.outcome), (0, "changed"))

    def test_a_subclassed_model(self):
        class Classifier(models.Model):
            def __init__(self):
                super().__init__(name="classifier")
                self.embedding = layers.Embedding(
                    10, 4, mask_zero=True, name="embedding"
                )
                self.residual = Residual(name="residual")

            def call(self, ids):
                return self.residual(self.embedding(ids))

        model = Classifier()
        model(IDS)
        calls, _ = explained(model, IDS)
        self.assertEqual(
            outcomes(calls),
            [
                (0, "classifier", ""),
                (1, "embedding", "made"),
                (1, "residual", "ends"),
                (2, "inner_dense", "kept"),
                (2, "inner_pool", "ends"),
            ],
        )

    def test_a_mask_passed_by_name(self):
        layer = layers.LSTM(3)
        values = sequence().values
        layer(values)
        for mask in (IDS != 0, backend.convert_to_tensor(IDS != 0)):
            calls, _ = explained(layer, values, mask=mask)
            self.assertEqual(calls[0].masks_in, (None, STEPS))
            self.assertEqual(calls[0].outcome, "ends")

    def test_a_refusal_is_shown_where_it_is_raised(self):
        x = layers.Input((5, 5))
        model = models.Model(x, Inverts(name="inverts")(x), name="outer")
        texts = []
        with pytest.raises(UnsupportedMaskError) as info:
            explain_mask(model, sequence(5), texts.append, 150)
        (text,) = texts
        lines = text.splitlines()
        (outer,) = (line for line in lines if "outer (Functional)" in line)
        self.assertIn("an error inside", outer)
        (refused,) = (line for line in lines if "inverts (Inverts)" in line)
        self.assertIn("UnsupportedMaskError: `inv` cannot take", refused)
        self.assertIn("refused", refused)
        self.assertIn("`inv` cannot take this masked tensor", str(info.value))

    @parameterized.parameters(False, True)
    def test_nothing_is_left_behind(self, fails):
        x = layers.Input((5, 5))
        h = layers.BatchNormalization(name="norm")(Counts()(x)) + 1.0
        h = layers.Dropout(0.5)(h)
        model = models.Model(x, Inverts()(h) if fails else h)
        everything = [*model._flatten_layers(), *model.operations]
        attributes = [dict(vars(op)) for op in everything]
        variables = [self.convert_to_numpy(v) for v in model.variables]
        if fails:
            with pytest.raises(UnsupportedMaskError):
                explained(model, sequence(5))
        else:
            explained(model, sequence(5))
        for op, before in zip(everything, attributes):
            after = vars(op)
            self.assertEqual(after.keys(), before.keys())
            changed = [k for k in before if before[k] is not after[k]]
            self.assertEqual(changed, [], msg=op.name)
        self.assertGreater(len(variables), 4)
        for variable, before in zip(model.variables, variables):
            self.assertAllEqual(self.convert_to_numpy(variable), before)
        self.assertEqual(model.losses, [])

    def test_dropout_is_off(self):
        seen = []
        probe = layers.Lambda(lambda x: seen.append(x) or x)
        model = models.Sequential([layers.Dropout(0.9), probe])
        x = sequence()
        model.build((2, 5, 4))
        seen.clear()
        explained(model, x)
        self.assertAllClose(seen[0].values, x.values)

    def test_prints_where_a_summary_prints(self):
        layer = layers.ReLU(name="relu")
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            explain_mask(layer, sequence(), line_length=100)
        self.assertIn('Masks of "relu"', out.getvalue())
        self.assertIn("(2, 5): 4 of 10 valid", out.getvalue())

    def test_an_unbuilt_model_is_refused(self):
        model = models.Sequential([layers.Dense(2)], name="raw")
        with self.assertRaisesRegex(ValueError, "'raw' .*is not built.*batch"):
            explain_mask(model, sequence())
        self.assertEqual(model.variables, [])

    def test_what_is_no_model_is_refused(self):
        with self.assertRaisesRegex(TypeError, "takes a model or a layer"):
            explain_mask(sequence(), layers.ReLU())
        with self.assertRaisesRegex(TypeError, "of type function"):
            explain_mask(ops.relu, sequence())

    def test_wrong_input_raises_what_the_model_raises(self):
        layer = layers.Dense(2)
        layer.build((None, 5, 4))
        texts = []
        with self.assertRaisesRegex(ValueError, "incompatible with the layer"):
            explain_mask(layer, sequence(3), print_fn=texts.append)
        # It did not come to a call.
        self.assertEqual(texts, [])
        self.assertIsNone(vars(layer).get("_chosen_protocol"))

    def test_the_example(self):
        example = doctest.DocTestFinder().find(
            keras.utils.explain_mask,
            "explain_mask",
            globs={"keras": keras, "np": np},
        )
        self.assertEqual(sum(len(x.examples) for x in example), 6)
        results = doctest.DocTestRunner().run(example[0])
        self.assertEqual(results.failed, 0)
        self.assertIs(keras.utils.explain_mask, explain.explain_mask)
