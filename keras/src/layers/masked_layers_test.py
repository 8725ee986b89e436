"""Layers and models on masked tensors: right masks, and no interference.

Every case is checked with garbage under the mask, with more padding, through
its symbolic spec, and, where the backend trains, in its gradients.
"""

import os
import tempfile

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import losses
from keras.src import models
from keras.src import ops
from keras.src import saving
from keras.src import testing
from keras.src.saving import serialization_lib
from patchset.markers import when

LENGTHS = (4, 2, 1)
FEATURES = 6


def attention(x):
    """Attention in three lines of ops."""
    scores = ops.matmul(x, ops.swapaxes(x, -1, -2)) / FEATURES**0.5
    weights = ops.softmax(scores)
    return ops.matmul(weights, x)


class Residual(layers.Layer):
    """A user's layer with nothing about masks in it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv1D(FEATURES, 3, padding="causal")
        self.norm = layers.LayerNormalization()

    def build(self, shape):
        self.conv.build(shape)
        self.norm.build(shape)

    def call(self, x):
        x = x + ops.relu(self.conv(x))
        return self.norm(x + attention(x))


def self_attention(layer):
    class SelfAttention(layers.Layer):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def call(self, x):
            return self.layer(x, x)

    return SelfAttention()


def on_list(layer):
    return lambda x: layer([x, x])


def rnn(layer, **kwargs):
    return lambda: layer(3, **kwargs)


# name: (layer, whether the result has the mask of the input)
CASES = {
    "dense": (lambda: layers.Dense(3), True),
    "dense_activation": (lambda: layers.Dense(3, "softmax"), True),
    "einsum_dense": (
        lambda: layers.EinsumDense("...c,cd->...d", 3, bias_axes="d"),
        True,
    ),
    "relu": (lambda: layers.ReLU(), True),
    "elu": (lambda: layers.ELU(), True),
    "leaky_relu": (lambda: layers.LeakyReLU(), True),
    "softmax_of_features": (lambda: layers.Softmax(), True),
    "softmax_of_steps": (lambda: layers.Softmax(axis=1), True),
    "activation": (lambda: layers.Activation("gelu"), True),
    "dropout": (lambda: layers.Dropout(0.5), True),
    "identity": (lambda: layers.Identity(), True),
    "layer_normalization": (lambda: layers.LayerNormalization(), True),
    "batch_normalization": (lambda: layers.BatchNormalization(), True),
    "masking_again": (lambda: layers.Masking(), True),
    "lambda": (lambda: layers.Lambda(lambda x: x * 2), True),
    "causal_conv": (
        lambda: layers.Conv1D(3, 3, padding="causal", activation="elu"),
        True,
    ),
    "same_conv": (lambda: layers.Conv1D(3, 3, padding="same"), True),
    "time_distributed": (
        lambda: layers.TimeDistributed(layers.Dense(3)),
        True,
    ),
    "lstm_steps": (rnn(layers.LSTM, return_sequences=True), True),
    "gru_steps": (rnn(layers.GRU, return_sequences=True), True),
    "simple_rnn_steps": (rnn(layers.SimpleRNN, return_sequences=True), True),
    "bidirectional_steps": (
        lambda: layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
        True,
    ),
    "multi_head_attention": (
        lambda: self_attention(layers.MultiHeadAttention(2, 3)),
        True,
    ),
    "grouped_query_attention": (
        lambda: self_attention(layers.GroupedQueryAttention(3, 2, 1)),
        True,
    ),
    "residual_block": (Residual, True),
    "lstm": (rnn(layers.LSTM), False),
    "gru": (rnn(layers.GRU), False),
    "bidirectional": (lambda: layers.Bidirectional(layers.GRU(3)), False),
    "global_average": (lambda: layers.GlobalAveragePooling1D(), False),
    "global_max": (lambda: layers.GlobalMaxPooling1D(), False),
}
if when("<3.15"):  # Whose specs of `...` are fixed to the first batch.
    del CASES["einsum_dense"]
NAMES = [{"testcase_name": name, "name": name} for name in CASES]


def sequences(padded, garbage=None, lengths=LENGTHS):
    """A masked batch; `garbage` seeds what is put under the mask."""
    rng = np.random.default_rng(0)
    values = np.zeros((len(lengths), padded, FEATURES), "float32")
    for row, length in zip(values, lengths):
        row[:length] = rng.normal(size=(length, FEATURES))
    mask = np.arange(padded) < np.array(lengths)[:, None]
    x = backend.MaskedTensor(values, mask)
    if garbage is not None:
        rng = np.random.default_rng(garbage)
        noise = rng.integers(100, 900, values.shape)
        noise = noise * rng.choice([-1, 1], values.shape)
        # Not by adding to `x`: merging would put 0 there again.
        noise = np.where(mask[..., None], 0, noise).astype("float32")
        x = backend.MaskedTensor._wrap(x.values + noise, x.mask)
    return x


def gradients(layer, values, mask):
    """Gradients of a sum over the result, by the values and by the weights."""

    def loss(values):
        x = backend.MaskedTensor._wrap(values, mask)
        y = layer._run_call(x)
        return ops.sum(ops.square(y)) + ops.sum(ops.sin(y))

    if backend.backend() == "jax":
        import jax

        def by_all(weights, values):
            pairs = zip(layer.trainable_variables, weights)
            with backend.StatelessScope(state_mapping=list(pairs)):
                return loss(values)

        weights = [v.value for v in layer.trainable_variables]
        by_weights, by_values = jax.grad(by_all, (0, 1))(weights, values)
        return [by_values, *by_weights]
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        weights = [v.value for v in layer.trainable_variables]
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = loss(values)
        return tape.gradient(result, [values, *weights])
    import torch

    values = values.detach().requires_grad_()
    weights = [v.value for v in layer.trainable_variables]
    return torch.autograd.grad(
        loss(values), [values, *weights], allow_unused=True
    )


class MaskedLayersTest(testing.TestCase):
    def run_case(self, name, x):
        layer = self.layer
        if layer is None:
            layer = self.layer = CASES[name][0]()
        return layer(x)

    def setUp(self):
        super().setUp()
        self.layer = None

    @parameterized.named_parameters(NAMES)
    def test_mask_and_padding(self, name):
        keeps_mask = CASES[name][1]
        expected = self.run_case(name, sequences(5))
        self.assertEqual(ops.is_masked(expected), keeps_mask)
        if keeps_mask:
            self.assertAllEqual(expected.mask, sequences(5).mask)
        for padded, garbage in ((5, 1), (5, 2), (6, None), (12, 3)):
            found = self.run_case(name, sequences(padded, garbage))
            if not keeps_mask:
                self.assertAllClose(found, expected, atol=1e-5)
                continue
            self.assertMaskedClose(
                found[:, :5],
                self.convert_to_numpy(expected.values),
                sequences(5).mask,
                atol=1e-5,
            )

    @parameterized.named_parameters(NAMES)
    def test_symbolic_spec_is_that_of_the_run(self, name):
        eager = self.run_case(name, sequences(5))
        for length in (5, None):
            x = layers.Input((length, FEATURES), mask_shape=(length,))
            spec = self.layer(x)
            self.assertEqual(spec._mask_spec is not None, ops.is_masked(eager))
            self.assertEqual(len(spec.shape), len(eager.shape))
            if spec._mask_spec is not None:
                self.assertEqual(spec._mask_spec.shape, (None, length))
                self.assertEqual(
                    spec._mask_spec.shape,
                    spec.shape[: len(spec._mask_spec.shape)],
                )

    @parameterized.named_parameters(NAMES)
    @pytest.mark.requires_trainable_backend
    def test_gradients(self, name):
        self.run_case(name, sequences(5))
        expected = None
        for garbage in (None, 1, 2):
            x = sequences(5, garbage)
            found = [
                None if g is None else self.convert_to_numpy(g)
                for g in gradients(self.layer, x.values, x.mask)
            ]
            by_values = found[0]
            self.assertTrue(np.isfinite(by_values).all())
            hidden = ~self.convert_to_numpy(x.mask)
            self.assertAllEqual(by_values[hidden], 0 * by_values[hidden])
            expected = expected or found
            for one, other in zip(found, expected):
                if one is not None:
                    self.assertAllClose(one, other, atol=1e-4, rtol=1e-4)

    @parameterized.named_parameters(NAMES)
    def test_a_row_without_a_valid_step(self, name):
        x = sequences(4, garbage=1, lengths=(3, 0))
        y = self.run_case(name, x)
        values = self.convert_to_numpy(y)
        self.assertTrue(np.isfinite(values).all())
        if name in ("global_average", "global_max", "lstm", "gru"):
            self.assertAllEqual(values[1], 0 * values[1])

    def test_go_backwards_turns_the_mask(self):
        layer = layers.LSTM(3, return_sequences=True, go_backwards=True)
        x = sequences(5)
        mask = self.convert_to_numpy(x.mask)[:, ::-1]
        self.assertAllEqual(layer(x).mask, mask)

    def test_states_given_explicitly_keep_the_mask(self):
        layer = layers.LSTM(3, return_sequences=True)
        x = sequences(5, garbage=1)
        zeros = [ops.zeros((3, 3))] * 2
        self.assertMaskedClose(
            layer(x, initial_state=zeros),
            self.convert_to_numpy(layer(x)),
            x.mask,
        )

    def test_steps_inside_steps(self):
        rng = np.random.default_rng(0)
        mask = np.array([[[1, 1, 0], [0, 0, 0]], [[1, 0, 0], [1, 1, 1]]], bool)
        values = rng.normal(size=(2, 2, 3, 4)).astype("float32")
        x = backend.MaskedTensor(values, mask)
        layer = layers.TimeDistributed(layers.LSTM(3))
        y = layer(x)
        # A segment is valid when any of its steps is.
        self.assertAllEqual(y.mask, mask.any(-1))
        alone = layer.layer(x[1, 1][None])
        self.assertAllClose(y.values[1, 1], alone[0], atol=1e-5)

    @parameterized.named_parameters(
        ("lstm", lambda: layers.LSTM(3, return_sequences=True)),
        ("gru", lambda: layers.GRU(3)),
        ("bidirectional", lambda: layers.Bidirectional(layers.LSTM(3))),
        ("attention", lambda: on_list(layers.Attention())),
        ("additive_attention", lambda: on_list(layers.AdditiveAttention())),
        ("multi_head", lambda: self_attention(layers.MultiHeadAttention(2, 3))),
    )
    def test_entries_masked_inside_a_step_do_not_matter(self, make):
        mask = np.random.default_rng(1).uniform(size=(3, 5, FEATURES)) < 0.5
        mask[0, 1], mask[1] = False, False
        layer, found = make(), []
        for garbage in (1, 2):
            values = sequences(5, garbage, lengths=(5, 5, 5)).values
            noise = np.random.default_rng(garbage).normal(size=mask.shape)
            noise = np.where(mask, 0, 300 * noise).astype("float32")
            found.append(
                layer(backend.MaskedTensor._wrap(values + noise, mask))
            )
        self.assertAllClose(*(ops.filled(y) for y in found), atol=1e-5)
        if ops.is_masked(found[0]):
            self.assertAllEqual(found[0].mask, mask.any(-1))

    def test_explicit_masks_of_built_in_layers(self):
        x = sequences(5)
        plain, mask = x.values, x.mask
        layer = layers.LSTM(3, return_sequences=True)
        self.assertAllEqual(layer(plain, mask=mask).mask, mask)
        pool = layers.GlobalAveragePooling1D()
        self.assertAllClose(pool(plain, mask=mask), pool(x))
        scores = layers.Softmax()(plain, mask=ops.ones((1, 1, FEATURES)) > 0)
        self.assertFalse(ops.is_masked(scores))

    def test_activity_regularizer_sees_valid_entries(self):
        layer = layers.Dense(
            3, activity_regularizer="l2", kernel_initializer="ones"
        )
        losses = []
        for garbage in (None, 1):
            layer(sequences(5, garbage))
            losses.append(self.convert_to_numpy(layer.losses[0]))
        self.assertAllClose(*losses)
        self.assertGreater(losses[0], 0)

    def test_mixed_precision_casts_the_values(self):
        layer = layers.Dense(3, dtype="mixed_bfloat16")
        y = layer(sequences(5))
        self.assertDType(y, "bfloat16")
        self.assertAllEqual(y.mask, sequences(5).mask)

    def test_numpy_masked_arrays_at_the_door(self):
        values = np.ones((2, 3), "float32")
        hidden = np.array([[False, True, False], [True, True, True]])
        y = layers.ReLU()(np.ma.MaskedArray(values, hidden))
        self.assertAllEqual(y.mask, ~hidden)

    def test_nothing_is_cleared_on_the_callers_tensor(self):
        x = sequences(5)
        layer = layers.MultiHeadAttention(2, 3)
        y = layers.Add()([x, layer(x, x)])
        self.assertAllEqual(y.mask, x.mask)
        self.assertAllEqual(x.mask, sequences(5).mask)

    def test_add_loss_refuses_what_is_not_reduced(self):
        class Adds(layers.Layer):
            def call(self, x):
                self.add_loss(x)
                return x

        with self.assertRaisesRegex(ValueError, "takes scalars"):
            Adds()(sequences(5))


IDS = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0]])


def text_model(kind):
    """The same classifier of steps, built in four ways."""
    embedding = layers.Embedding(8, FEATURES, mask_zero=True)
    block, head = Residual(), layers.Dense(3)
    if kind == "sequential":
        return models.Sequential([embedding, block, head])
    inputs = layers.Input((None,), dtype="int32")
    if kind == "functional":
        return models.Model(inputs, head(block(embedding(inputs))))
    if kind == "nested":
        hidden = layers.Input((None, FEATURES), mask_shape=(None,))
        inner = models.Model(hidden, block(hidden))
        outer = models.Sequential([inner, head])
        return models.Model(inputs, outer(embedding(inputs)))

    class Subclassed(models.Model):
        def __init__(self):
            super().__init__()
            self.parts = [embedding, block, head]

        def call(self, x):
            for part in self.parts:
                x = part(x)
            return x

    return Subclassed()


class MaskedModelsTest(testing.TestCase):
    @parameterized.parameters("functional", "sequential", "nested", "subclass")
    def test_mask_at_the_top(self, kind):
        model = text_model(kind)
        y = model(IDS)
        self.assertAllEqual(y.mask, IDS != 0)
        wider = model(np.pad(IDS, ((0, 0), (0, 4))))
        self.assertMaskedClose(
            wider[:, :5], self.convert_to_numpy(y.values), IDS != 0, atol=1e-5
        )

    @parameterized.parameters("functional", "sequential", "nested", "subclass")
    @pytest.mark.requires_trainable_backend
    def test_compiled_training_does_not_see_the_padding(self, kind):
        results = []
        for more in (0, 3):
            ids = np.pad(IDS, ((0, 0), (0, more)))
            targets = ids % 3
            model = text_model(kind)
            model(ids)
            rng = np.random.default_rng(1)
            model.set_weights(
                [rng.normal(size=w.shape) * 0.3 for w in model.get_weights()]
            )
            model.compile(
                "sgd",
                losses.SparseCategoricalCrossentropy(
                    from_logits=True, reduction="mean_with_sample_weight"
                ),
            )
            weights = (ids != 0).astype("float32")
            history = model.fit(
                ids, targets, sample_weight=weights, epochs=2, verbose=0
            )
            results.append([*history.history["loss"], *model.get_weights()])
        for one, other in zip(*results):
            self.assertAllClose(one, other, atol=1e-5, rtol=1e-4)

    def test_mask_and_values_as_graph_tensors(self):
        x = layers.Input((None, 2), mask_shape=(None,))
        self.assertIs(x.mask, x.mask)
        lengths = ops.sum(ops.cast(x.mask, "int32"), axis=1)
        model = models.Model(x, {"lengths": lengths, "values": x.values + 1})
        y = model(backend.MaskedTensor(np.ones((2, 3, 2)), IDS[:, :3] != 0))
        self.assertAllEqual(y["lengths"], [3, 2])
        self.assertFalse(ops.is_masked(y["values"]))
        # A plain tensor counts as all valid.
        self.assertAllEqual(model(np.ones((1, 3, 2)))["lengths"], [3])

    def test_making_a_mask_in_a_graph(self):
        x, valid = layers.Input((3, 2)), layers.Input((3,), dtype="bool")
        masked = backend.MaskedTensor(x, valid)
        self.assertEqual(masked._mask_spec.shape, (None, 3))
        model = models.Model([x, valid], ops.mean(masked, axis=1))
        values = np.array([[[1.0, 2.0], [np.nan, 0.0], [3.0, 6.0]]])
        y = model([values, np.array([[True, False, True]])])
        self.assertMaskedClose(y, [[2.0, 4.0]], [True])

    def test_a_mask_that_does_not_fit_is_refused(self):
        with self.assertRaisesRegex(ValueError, "the leading axes"):
            layers.Input((3, 2), mask_shape=(2,))
        with self.assertRaisesRegex(ValueError, "neither sparse"):
            layers.Input((3, 2), mask_shape=(3,), sparse=True)

    @parameterized.parameters("functional", "sequential", "nested")
    def test_save_and_load(self, kind):
        model = text_model(kind)
        expected = model(IDS)
        path = os.path.join(tempfile.mkdtemp(), "model.keras")
        model.save(path)
        again = saving.load_model(path, custom_objects={"Residual": Residual})
        self.assertMaskedClose(
            again(IDS), self.convert_to_numpy(expected.values), IDS != 0
        )

    def test_a_masked_constant_is_saved_with_its_graph(self):
        x = layers.Input((3,))
        constant = backend.MaskedTensor(
            np.array([[1.0, 2.0, 3.0]], "float32"), [[True, False, True]]
        )
        model = models.Model(x, x + constant)
        again = models.Model.from_config(model.get_config())
        self.assertMaskedClose(
            again(np.zeros((2, 3))), [[1, 0, 3]] * 2, [[1, 0, 1]] * 2
        )
        config = serialization_lib.serialize_keras_object(constant)
        self.assertEqual(config["class_name"], "__masked_tensor__")

    def test_mask_argument_of_a_model(self):
        model = models.Sequential([layers.Dense(2), layers.ReLU()])
        x = np.ones((2, 5, 3))
        self.assertAllEqual(model(x, mask=IDS != 0).mask, IDS != 0)
        inputs = layers.Input((5, 3))
        model = models.Model(inputs, layers.Dense(2)(inputs))
        self.assertAllEqual(model(x, mask=IDS != 0).mask, IDS != 0)


class QuantizedTest(testing.TestCase):
    @parameterized.parameters("int8", "int4")
    def test_quantized_dense(self, mode):
        layer = layers.Dense(4)
        x = sequences(5)
        layer(x)
        layer.quantize(mode)
        expected = layer(x.values)
        self.assertMaskedClose(
            layer(sequences(5, garbage=1)),
            self.convert_to_numpy(expected),
            x.mask,
            atol=1e-4,
        )

    def test_own_gradients_refuse_what_they_cannot_know(self):
        @ops.custom_gradient
        def double(x):
            def grad(*args, upstream=None):
                return args[0] if upstream is None else upstream

            return x * 2, grad

        x = sequences(5)
        self.assertAllEqual(double(x).mask, x.mask)
        with self.assertRaisesRegex(TypeError, "gradient of its own"):
            double(backend.MaskedTensor(np.ones(3), np.ones(3, "bool")))
