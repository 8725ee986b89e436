"""Masks that are passed beside a tensor: what fits, and what is refused."""

import inspect

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.masking.calls import values_of
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.cases.layers import CASES
from keras.src.utils import set_random_seed

X = np.random.default_rng(0).normal(size=(2, 5, 4)).astype("float32")
SHORT = X[:, :3]
STEPS = np.array([[1, 1, 0, 1, 0], [0, 1, 1, 0, 0]], bool)
# JAX compiles anew for each layer and shape.
ALL = backend.backend() != "jax"
SEQUENCES = ("(2,) or (2, 5) or (2, 5, 4)", "sequences")


def ones(*shape):
    return np.ones(shape, "bool")


# What makes the layer, the arguments of the call, the masks by their names,
# and what the error says: the shapes that fit and the argument.
REFUSED = {
    "lstm": (lambda: layers.LSTM(3), [X], {"mask": ones(2, 3)}, SEQUENCES),
    "other_batch": (
        lambda: layers.SimpleRNN(3),
        [X],
        {"mask": ones(3, 5)},
        SEQUENCES,
    ),
    "too_many_axes": (
        lambda: layers.GRU(3),
        [X],
        {"mask": ones(2, 5, 4, 1)},
        SEQUENCES,
    ),
    "no_axes": (lambda: layers.GRU(3), [X], {"mask": True}, SEQUENCES),
    "bidirectional": (
        lambda: layers.Bidirectional(layers.GRU(3)),
        [X],
        {"mask": ones(5, 2)},
        SEQUENCES,
    ),
    "conv_lstm": (
        lambda: layers.ConvLSTM1D(2, 2),
        [X[..., None]],
        {"mask": ones(2, 4)},
        ("(2,) or (2, 5) or (2, 5, 4) or (2, 5, 4, 1)", "sequences"),
    ),
    "query": (
        lambda: layers.MultiHeadAttention(2, 3),
        [X, SHORT],
        {"query_mask": ones(2, 3)},
        ("(2,) or (2, 5) or (2, 5, 4)", "query"),
    ),
    "value": (
        lambda: layers.MultiHeadAttention(2, 3),
        [X, SHORT],
        {"value_mask": ones(2, 5)},
        ("(2,) or (2, 3) or (2, 3, 4)", "value"),
    ),
    "key": (
        lambda: layers.GroupedQueryAttention(3, 2, 1),
        [X, SHORT, SHORT],
        {"key_mask": ones(2, 5)},
        ("(2,) or (2, 3) or (2, 3, 4)", "key"),
    ),
    "attention": (
        lambda: layers.Attention(),
        [[X, SHORT]],
        {"mask": [None, ones(2, 5)]},
        ("(2,) or (2, 3) or (2, 3, 4)", "inputs"),
    ),
    "additive_attention": (
        lambda: layers.AdditiveAttention(),
        [[X, SHORT]],
        {"mask": [ones(2, 3), ones(2, 3)]},
        ("(2,) or (2, 5) or (2, 5, 4)", "inputs"),
    ),
    "batch_normalization": (
        lambda: layers.BatchNormalization(),
        [X],
        {"mask": ones(2, 4)},
        ("(2,) or (2, 5) or (2, 5, 4)", "inputs"),
    ),
    "pooling": (
        lambda: layers.GlobalAveragePooling1D(data_format="channels_first"),
        [X],
        {"mask": ones(2, 3)},
        ("(2, 4) or (2,) or (2, 5) or (2, 5, 4)", "inputs"),
    ),
    "lambda": (
        lambda: layers.Lambda(lambda x: 2 * x),
        [X],
        {"mask": ones(2, 4)},
        ("(2,) or (2, 5) or (2, 5, 4)", "inputs"),
    ),
    "sequential": (
        lambda: models.Sequential([layers.Dense(2)]),
        [X],
        {"mask": ones(5, 2)},
        ("(2,) or (2, 5) or (2, 5, 4)", "inputs"),
    ),
}


# What makes a layer, and how it is called on values and their explicit mask.
FILLED = {
    "lstm": (
        lambda: layers.LSTM(3, unroll=True),
        lambda layer, x: layer(x, mask=STEPS),
    ),
    "bidirectional": (
        lambda: layers.Bidirectional(layers.SimpleRNN(3, dropout=0.5)),
        lambda layer, x: layer(x, mask=STEPS, training=False),
    ),
    "attention": (
        layers.Attention,
        lambda layer, x: layer([x, x], mask=[STEPS, STEPS]),
    ),
    "additive_attention": (
        layers.AdditiveAttention,
        lambda layer, x: layer([X, x], mask=[None, STEPS]),
    ),
    "multi_head": (
        lambda: layers.MultiHeadAttention(2, 3),
        lambda layer, x: layer(x, x, query_mask=STEPS, value_mask=STEPS),
    ),
    "grouped_query": (
        lambda: layers.GroupedQueryAttention(3, 2, 1),
        lambda layer, x: layer(X, x, x, value_mask=STEPS, key_mask=STEPS),
    ),
    "keys_of_a_list": (
        layers.Attention,
        lambda layer, x: layer([X, X, x], mask=[None, STEPS]),
    ),
    "keys_without_a_mask": (
        lambda: layers.MultiHeadAttention(2, 3),
        lambda layer, x: layer(X, X, x, value_mask=STEPS),
    ),
    "heir": (
        lambda: Heir(3),
        lambda layer, x: layer(x, mask=STEPS),
    ),
    "masked_as_well": (
        lambda: layers.LSTM(3, return_sequences=True),
        lambda layer, x: layer(backend.MaskedTensor(x, ones(2, 5)), mask=STEPS),
    ),
    "pooling": (
        layers.GlobalAveragePooling1D,
        lambda layer, x: layer(x, mask=STEPS),
    ),
    "time_distributed": (
        lambda: layers.TimeDistributed(layers.Dense(2)),
        lambda layer, x: layer(x, mask=STEPS),
    ),
    "batch_normalization": (
        layers.BatchNormalization,
        lambda layer, x: layer(x, mask=STEPS, training=True),
    ),
    "lambda": (
        lambda: layers.Lambda(lambda x: 2 * x),
        lambda layer, x: layer(x, mask=STEPS),
    ),
}


def mask_arguments(layer):
    """Names of the arguments of its `call` that take a mask."""
    names = inspect.signature(layer.call).parameters
    return [n for n in names if n == "mask" or n.endswith("_mask")]


def taken_apart(layer, args):
    """The arguments with plain values, and the masks by their names."""
    names = [*inspect.signature(layer.call).parameters]
    told = {}
    for name, x in zip(names, args):
        mask = keras.tree.map_structure(ops.get_mask, x)
        if any(m is not None for m in keras.tree.flatten(mask)):
            own = f"{name}_mask"
            told[own if own in names else "mask"] = mask
    return keras.tree.map_structure(values_of, args), told


# On JAX each shape is compiled anew: there, one case of each layer.
TOLD = [
    (f"{name}_{i}", case)
    for name, cases in CASES.items()
    if hasattr(layers, name) and mask_arguments(getattr(layers, name))
    for i, case in enumerate(cases if ALL else cases[:1])
    if mask_arguments(case.make())
]


def poisoned():
    """The values with other things under the mask, each time others."""
    for poison in (0, np.nan, np.inf, 1e30):
        yield np.where(STEPS[..., None], X, poison).astype("float32")


class Heir(layers.LSTM):
    """A layer of an author's, whose mask is still that of an LSTM."""

    def call(self, sequences, initial_state=None, mask=None, training=False):
        return super().call(sequences, initial_state, mask, training)


class WithMask(layers.Layer):
    """A layer whose mask says something of its own."""

    def call(self, x, mask=None):
        return ops.where(mask, x[:, None], 0)


class ExplicitMasksTest(testing.TestCase):
    def assert_refused(self, layer, args, masks, says):
        (name,) = masks
        fitting, owner = says
        with self.assertRaises(ValueError) as caught:
            layer(*args, **masks)
        message = str(caught.exception)
        for part in (
            f"Layer '{layer.name}' (of type {type(layer).__name__})",
            f"`{name}` of shape",
            f"its argument `{owner}` of shape",
            f"its shape must be {fitting}, in which",
        ):
            self.assertIn(part, message)

    @parameterized.parameters(*REFUSED)
    def test_what_does_not_fit_is_refused_by_name(self, name):
        make, *call = REFUSED[name]
        self.assert_refused(make(), *call)

    @parameterized.parameters(
        *(name for name in REFUSED if name not in ("no_axes", "sequential"))
    )
    def test_what_does_not_fit_is_refused_in_a_graph(self, name):
        make, args, masks, (fitting, owner) = REFUSED[name]

        def symbol(x):
            return None if x is None else backend.KerasTensor(x.shape, x.dtype)

        args, masks = keras.tree.map_structure(symbol, (args, masks))
        self.assert_refused(make(), args, masks, (fitting, owner))

    def test_sizes_that_are_not_known_fit(self):
        x = layers.Input((None, 4))
        for shape in ((None,), (None, 4)):
            mask = layers.Input(shape, dtype="bool")
            y = layers.LSTM(3, return_sequences=True)(x, mask=mask)
            self.assertEqual(y._mask_spec.shape, (None, None))
        with self.assertRaisesRegex(ValueError, r"of shape \(None, None, 3\)"):
            layers.LSTM(3)(x, mask=layers.Input((None, 3), dtype="bool"))

    @parameterized.parameters("bool", "int32", "float32")
    def test_masks_of_any_dtype(self, dtype):
        layer = layers.LSTM(3, return_sequences=True)
        y = layer(X, mask=STEPS.astype(dtype))
        self.assertAllEqual(y.mask, STEPS)

    @parameterized.parameters(
        *(((2,), (2, 1), (1, 5), (2, 5, 1), (1, 5, 4)) if ALL else ((2, 1),))
    )
    def test_what_broadcasts_is_broadcast(self, *shape):
        mask = np.random.default_rng(1).uniform(size=shape) < 0.6
        cells = np.broadcast_to(mask, X.shape[: len(shape)])
        cells = u.over_all_axes(cells, X.shape)
        for layer in (
            layers.LSTM(3, return_sequences=True),
            layers.Bidirectional(layers.GRU(3, return_sequences=True)),
        ):
            found = layer(X, mask=mask)
            expected = layer(backend.MaskedTensor(X, cells))
            self.assertAllEqual(found.mask, cells.any(-1))
            self.assertAllClose(found.values, expected.values)

    def test_queries_of_one_mask_for_all(self):
        layer = layers.MultiHeadAttention(2, 3)
        for masks in (
            {"query_mask": STEPS[:1], "value_mask": STEPS[:1]},
            {"query_mask": STEPS[:1]},
            {"value_mask": STEPS[:1]},
        ):
            found = layer(X, X, **masks)
            whole = {k: np.broadcast_to(m, (2, 5)) for k, m in masks.items()}
            expected = layer(X, X, **whole)
            self.assertAllClose(*(ops.filled(y) for y in (found, expected)))
            self.assertEqual(ops.is_masked(found), "query_mask" in masks)

    @parameterized.named_parameters(TOLD)
    def test_a_mask_beside_its_values_is_a_masked_tensor(self, case):
        """But the mask of a `Softmax` is no tensor's; its result is plain."""
        layer = case.make()
        args = u.masked(u.draw(case.args, seed=1, share=0.6))
        layer(*args)
        plain, told = taken_apart(layer, args)
        self.assertTrue(told)
        for training in (False, True):
            kwargs = {}
            if layer._call_has_training_arg:
                kwargs = {"training": training}
            found, expected = (
                self.call_and_put_back(layer, *call, **kwargs)
                for call in ((plain, told), (args, {}))
            )
            pairs = zip(u.parts(found), u.parts(expected), strict=True)
            for (one, mask), (other, own) in pairs:
                if isinstance(layer, layers.Softmax):
                    self.assertIsNone(mask)
                elif own is None:
                    self.assertIsNone(mask)
                else:
                    self.assertAllEqual(mask, own)
                valid = ... if own is None else own
                self.assertAllClose(one[valid], other[valid], atol=1e-5)

    def call_and_put_back(self, layer, args, told, **kwargs):
        """Results of a call, and the states after it; both are as before."""
        before = [(v, u.array(v.value)) for v in layer.variables]
        # PyTorch's own dropout has its own seed.
        set_random_seed(1)
        results = keras.tree.flatten(layer(*args, **told, **kwargs))
        learned = [v.value for v in layer.variables if "seed" not in v.path]
        learned = [ops.convert_to_tensor(u.array(v)) for v in learned]
        for v, value in before:
            v.assign(value)
        return [*results, *learned]

    @parameterized.parameters(*FILLED)
    def test_nothing_under_an_explicit_mask_matters(self, name):
        """It may be NaN: no constructor has filled it."""
        make, call = FILLED[name]
        layer = make()
        run = u.compiled(lambda x: ops.filled(call(layer, x)))
        call(layer, X)
        results = [u.array(run(x)) for x in poisoned()]
        for one in results[1:]:
            self.assertAllClose(one, results[0])

    @parameterized.parameters(
        "lstm", "multi_head", "keys_of_a_list", "keys_without_a_mask", "heir"
    )
    @pytest.mark.requires_trainable_backend
    def test_no_gradient_of_what_is_under_an_explicit_mask(self, name):
        make, call = FILLED[name]
        layer = make()
        call(layer, X)

        def loss(arrays):
            return ops.sum(ops.square(ops.filled(call(layer, arrays[0]))))

        run = u.compiled(lambda x: u.gradients(loss, [x])[0])
        found = [u.array(run(x)) for x in poisoned()]
        for one in found:
            self.assertAllEqual(one[~STEPS], np.zeros_like(one[~STEPS]))
            self.assertAllClose(one, found[0])

    def test_a_mask_of_scores_may_be_one_of_steps(self):
        """Where it does not broadcast, as that of a pattern does."""
        softmax = layers.Softmax()
        found = softmax(X, mask=STEPS)
        expected = ops.filled(softmax(backend.MaskedTensor(X, STEPS)))
        self.assertAllClose(found, expected)
        square = np.ones((4, 4, 4), "float32")
        pattern = np.tri(4, dtype=bool)
        found = u.array(softmax(square, mask=pattern))
        self.assertAllClose(found[0], np.tri(4) / pattern.sum(1)[:, None])

    @parameterized.parameters(((2, 5),), ((2, 5, 5),))
    def test_a_pattern_lets_in_no_score_that_is_not_there(self, shape):
        """Whatever is under the mask, each row is as if it were not there."""
        rng = np.random.default_rng(0)
        scores = rng.normal(size=(2, 5, 5)).astype("float32")
        own = rng.uniform(size=shape) < 0.7
        cells = np.broadcast_to(
            own.reshape(*shape, *[1] * (3 - own.ndim)), (2, 5, 5)
        )
        pattern = np.tri(5, dtype=bool)
        takes_part = cells & pattern
        with np.errstate(invalid="ignore"):
            expected = np.exp(scores) * takes_part
            expected /= expected.sum(-1, keepdims=True)
        for hidden in (0.0, 9.0, 1e30, np.nan):
            x = backend.MaskedTensor._wrap(
                ops.convert_to_tensor(np.where(cells, scores, hidden)),
                ops.convert_to_tensor(own),
            )
            found = layers.Softmax()(x, mask=pattern)
            self.assertAllEqual(found.mask, takes_part)
            self.assertAllClose(
                u.array(found.values)[takes_part], expected[takes_part]
            )
        with self.assertRaisesRegex(ValueError, "broadcastable to their"):
            layers.Softmax()(x, mask=ones(2, 1, 4))

    def test_masks_with_a_form_of_their_own_are_not_looked_at(self):
        self.assertEqual(WithMask()(X, mask=ones(2, 3, 5, 4)).shape[1], 3)
        softmax = layers.Softmax()
        self.assertAllClose(
            softmax(X, mask=ones(5, 1)), softmax(X, mask=ones(1, 1, 4))
        )
        with self.assertRaisesRegex(ValueError, "broadcastable"):
            softmax(X, mask=ones(2, 1, 5))
        doubled = layers.Lambda(lambda x, mask=None: x * len(mask.shape))
        self.assertAllClose(doubled(X, mask=ones(7, 7)), 2 * X)
        with self.assertRaisesRegex(ValueError, "batch and time, must match"):
            layers.TimeDistributed(layers.Dense(2))(X, mask=ones(2, 4))

    def test_an_explicit_mask_beats_that_of_the_tensor(self):
        x = backend.MaskedTensor(X, ones(2, 5))
        layer = layers.LSTM(3, return_sequences=True)
        self.assertAllEqual(layer(x, mask=STEPS).mask, STEPS)
        with self.assertRaisesRegex(ValueError, "does not fit"):
            layer(x, mask=STEPS[:, :4])

    def test_a_mask_of_a_masked_tensor_that_does_not_fit_is_refused(self):
        for mask in (ones(2, 4), ones(5), ones(2, 5, 4, 1), ones(1, 5)):
            with self.assertRaisesRegex(ValueError, "cover its leading axes"):
                backend.MaskedTensor(X, mask)
        with self.assertRaisesRegex(ValueError, "leading axes"):
            backend.KerasTensor(
                (None, 5), mask=backend.KerasTensor((None, 4), "bool")
            )
