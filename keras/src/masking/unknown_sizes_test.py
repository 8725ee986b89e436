"""Graphs of unknown sizes give what eager calls give, and are built fast."""

import itertools
import math
from unittest import mock

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.masking.rules.layout import split_point
from keras.src.ops.operation import Operation
from keras.src.ops.specs import mask_shape
from keras.src.testing.masked import testing_utils as u


class Gate(layers.Layer):
    """From outside of Keras, with a spec of its own: its masks are traced."""

    def call(self, inputs):
        x, gate = inputs
        return x * gate

    def compute_output_shape(self, shapes):
        return shapes[1]


class Gated(Operation):
    """As `Gate`, an operation without a rule."""

    def call(self, x, gate):
        return ops.multiply(x, gate)

    def compute_output_spec(self, x, gate):
        return backend.KerasTensor(gate.shape, x.dtype)


# Of steps of unknown number with a mask, and of 12 plain ones.
JOINTS = {
    "add": lambda x, y: x + y,
    "multiply": lambda x, y: y * x,
    "divide": lambda x, y: x / (y + 2.0),
    "where": lambda x, y: ops.where(y > 0.5, x, 0.0),
    "concatenate features": lambda x, y: ops.concatenate([x, y], axis=-1),
    "concatenate steps": lambda x, y: ops.concatenate([y, x], axis=1),
    "stack": lambda x, y: ops.stack([x, y], axis=2),
    "matmul": lambda x, y: ops.matmul(ops.swapaxes(y, 1, 2), x),
    "matmul of steps": lambda x, y: ops.matmul(x, ops.swapaxes(y, 1, 2)),
    "einsum": lambda x, y: ops.einsum("btd,bte->bde", y, x),
    "table": lambda x, y: x + ops.ones((1, 12, 6)),
    "attention": lambda x, y: ops.dot_product_attention(
        *(ops.expand_dims(z, 2) for z in (y, x, y))
    ),
    "gated": lambda x, y: Gated()(x, y),
    "Add": lambda x, y: layers.Add()([x, y]),
    "Add, union": lambda x, y: layers.Add(mask_mode="union")([x, y]),
    "Average": lambda x, y: layers.Average()([x, y]),
    "Concatenate": lambda x, y: layers.Concatenate()([x, y]),
    "Maximum": lambda x, y: layers.Maximum()([y, x]),
    "Multiply": lambda x, y: layers.Multiply()([x, y]),
    "Subtract": lambda x, y: layers.Subtract()([x, y]),
    "Attention": lambda x, y: layers.Attention()([x, y]),
    "Dot": lambda x, y: layers.Dot(axes=2)([x, y]),
    "Gate": lambda x, y: Gate()([x, y]),
}
NAMED = [(name.replace(" ", "_"), joint) for name, joint in JOINTS.items()]


def transformer():
    """A model of whose layers all masks are told."""
    ids = layers.Input((None,), dtype="int32")
    x = layers.Embedding(9, 8, mask_zero=True)(ids)
    h = layers.MultiHeadAttention(2, 4, dropout=0.1)(x, x)
    x = layers.LayerNormalization()(layers.Add()([x, layers.Dropout(0.1)(h)]))
    h = layers.Dense(8)(layers.Dense(16, activation="gelu")(x))
    x = layers.LayerNormalization()(x + h * 0.5)
    x = layers.Bidirectional(layers.GRU(4, return_sequences=True))(x)
    x = layers.Conv1D(4, 3, padding="causal", activation="relu")(x)
    x = layers.Concatenate()([x, ops.softmax(ops.matmul(x, ops.ones((4, 4))))])
    x = ops.reshape(ops.transpose(x[:, 1:], (0, 2, 1)), (-1, 8))
    return models.Model(ids, x)


class UnknownSizesTest(testing.TestCase):
    def draw(self, batch=2):
        return u.draw((u.T((batch, 12, 6), 2), u.T((batch, 12, 6))), 1, 0.6)

    def assert_same(self, found, expected):
        for (x, mask), (y, wanted) in zip(
            u.parts(found), u.parts(expected), strict=True
        ):
            self.assertEqual(mask is None, wanted is None)
            if mask is not None:
                self.assertAllEqual(mask, wanted)
                x, y = x[mask], y[mask]
            self.assertAllClose(x, y, atol=1e-5, rtol=1e-5)

    @parameterized.named_parameters(NAMED)
    def test_steps_of_unknown_number_beside_a_known_one(self, joint):
        x = layers.Input((None, 6), mask_shape=(None,))
        y = layers.Input((12, 6))
        model = models.Model([x, y], joint(x, y))
        args = u.masked(self.draw())
        expected = joint(*args)
        found = model(list(args))
        self.assert_same(found, expected)
        self.assertEqual(
            mask_shape(model.output) is None, not ops.is_masked(expected)
        )
        if ops.is_masked(expected):
            spec = model.output._mask_spec
            self.assertEqual(len(spec.shape), len(expected.mask.shape))

    @parameterized.named_parameters(NAMED)
    def test_a_batch_of_unknown_size_beside_a_known_one(self, joint):
        x = layers.Input(batch_shape=(4, 12, 6), mask_shape=(12,))
        y = layers.Input((12, 6))
        model = models.Model([x, y], joint(x, y))
        args = u.masked(self.draw(4))
        self.assert_same(model(list(args)), joint(*args))

    @pytest.mark.skipif(
        backend.backend() != "tensorflow", reason="loses ranks of its own"
    )
    def test_the_rank_is_known_where_the_batch_is_not(self):
        import tensorflow as tf

        def scanned(x):
            return ops.associative_scan(ops.add, x, axis=1) * ops.ones((4,))

        values = np.random.default_rng(0).normal(size=(3, 5, 4))
        x = backend.MaskedTensor(
            values.astype("float32"), np.arange(15).reshape(3, 5) % 3 > 0
        )
        spec = backend.MaskedTensor.Spec(
            values=tf.TensorSpec([None, 5, 4]),
            mask=tf.TensorSpec([None, 5], tf.bool),
        )
        for function in (scanned, lambda x: ops.inner(x, x)):
            run = tf.function(function, autograph=False)
            found = run.get_concrete_function(spec)(x)
            self.assertAllEqual(found.mask, function(x).mask)
            self.assertAllClose(found.values, function(x).values)

    def test_a_mask_has_the_sizes_that_are_known(self):
        x = layers.Input((None, 6), mask_shape=(None,))
        y = layers.Input((12, 6))
        for found in (x + y, layers.Add()([x, y]), Gate()([x, y])):
            self.assertEqual(mask_shape(found), found.shape[:2])
        self.assertEqual(mask_shape(Gate()([x, y])), (None, 12))

    @parameterized.named_parameters(
        ("by_an_op_inside", lambda x: ops.unique(x)),
        ("by_a_shape", lambda x: ops.matmul(x, ops.ones((7, 3)))),
        ("by_a_broadcast", lambda x: x + ops.ones((5, 7))),
        ("by_a_product", lambda x: ops.reshape(x, (-1, 7))),
    )
    def test_errors_name_the_sizes_of_the_graph(self, function):
        class Failing(layers.Layer):
            def call(self, x):
                return function(x)

        x = layers.Input((None, 6), mask_shape=(None,))
        for call in (function, Failing()):
            with self.assertRaises(Exception) as raised:
                call(x)
                raise AssertionError("Nothing was raised.")
            error = raised.exception
            text = "\n".join([str(error), *getattr(error, "__notes__", ())])
            for made_up in ("83", "89", "6889", "7921", "dynamic_dimension"):
                self.assertNotIn(made_up, text)
            if isinstance(error, UnsupportedMaskError):
                self.assertIn("values of shape (None, None, 6)", text)

    def test_sizes_that_are_known_are_not_renamed(self):
        class Failing(layers.Layer):
            def call(self, x):
                raise ValueError(f"{tuple(x.shape)[1:]} are 83 and 0")

        x = layers.Input((83, 5), mask_shape=(83,))
        with self.assertRaisesRegex(ValueError, r"\(83, 5\) are 83 and 0"):
            Failing()(x)

    def test_masks_are_told_without_tracing(self):
        transformer()  # Upstream traces some layers where they are built.

        def refuse(*args, **kwargs):
            raise AssertionError("A mask was traced.")

        with mock.patch(
            "keras.src.masking.symbolic.traced_spec", side_effect=refuse
        ):
            model = transformer()
        self.assertEqual(mask_shape(model.output), (None, 8))

    def test_an_activation_from_outside_of_keras_is_traced(self):
        x = layers.Input((None, 6), mask_shape=(None,))
        for activation, expected in (
            (lambda x: x.values, None),
            (lambda x: x * 2, (None, None)),
            ("softmax", (None, None)),
        ):
            y = layers.Dense(3, activation)(x)
            self.assertEqual(mask_shape(y), expected)

    def test_a_subclass_from_outside_of_keras_is_traced(self):
        class Ends(layers.Dropout):
            def call(self, inputs, training=False):
                return ops.filled(super().call(inputs, training=training), 0)

        x = layers.Input((None, 6), mask_shape=(None,))
        self.assertIsNone(mask_shape(Ends(0.5)(x)))


# What the axes of a tensor and of one with as many entries are made of.
SIZES = {"a": (2, 3, 5), "b": (3, 7, 2), "c": (1, 2, 4)}
RESHAPES = [
    ("abc", "abc"),
    ("ab4", "a,b,2,2"),
    ("ab4", "ab,4"),
    ("ab4", "a,b4"),
    ("ab4", "ab4"),
    ("ab6", "ab3,2"),
    ("ab1", "b,a"),
    ("ab1", "a,b,1"),
    ("a4b", "a,2,2b"),
    ("a4b", "a4,b"),
    ("4ab", "4,ab"),
    ("4ab", "2,2,a,b"),
    ("a44", "a4,4"),
]


def sizes_of(text, values):
    """A shape: an axis a part, or a letter where there are no commas."""
    texts = text.split(",") if "," in text else [*text]
    return tuple(
        math.prod(int(c) if c.isdigit() else values[c] for c in t)
        for t in texts
    )


class Positions(layers.Layer):
    """Adds a table with a last place, and says itself what it gives."""

    def __init__(self, gives=(), **kwargs):
        super().__init__(**kwargs)
        self.gives = gives

    def build(self, input_shape):
        self.table = self.add_weight(shape=(4, 8), name="table")

    def call(self, x):
        found = x + self.table[: ops.shape(x)[1]]
        if self.gives != ():
            # No engine traces this.
            ops.convert_to_numpy(found)
        return found

    def compute_output_shape(self, input_shape):
        return input_shape


class PositionsWithSpec(Positions):
    def compute_output_spec(self, x):
        return backend.KerasTensor(x.shape, x.dtype)


class PositionsThatEndTheMask(Positions):
    def call(self, x):
        return ops.filled(super().call(x), 0)


class PlacesOfRefusal(Positions):
    def call(self, x):
        return ops.fft2((x, x))


class DeclaredSpecsTest(testing.TestCase):
    @parameterized.product(
        kind=(Positions, PositionsWithSpec), gives=((), "an array")
    )
    def test_what_is_declared_need_not_be_traced(self, kind, gives):
        inputs = layers.Input((None,), dtype="int32")
        x = layers.Embedding(10, 8, mask_zero=True)(inputs)
        layer = kind(gives)
        model = models.Model(inputs, layer(x))
        self.assertEqual(mask_shape(model.output), (None, None))
        layer.gives = ()
        ids = ops.convert_to_tensor([[1, 2, 0], [3, 0, 0]], "int32")
        self.assertAllEqual(model(ids).mask, ids != 0)

    def test_a_short_table_is_traced_with_few_steps(self):
        inputs = layers.Input((None, 8), mask_shape=(None,))
        self.assertIsNone(mask_shape(PositionsThatEndTheMask()(inputs)))

    def test_what_refuses_masks_does_so_in_the_graph(self):
        x = layers.Input((4, 4), mask_shape=(4,))
        with self.assertRaisesRegex(UnsupportedMaskError, "fft2"):
            PlacesOfRefusal()(x)


class SplitPointTest(testing.TestCase):
    @parameterized.parameters(*itertools.product(RESHAPES, (1, 2, 3)))
    def test_what_is_told_holds_for_all_sizes(self, shapes, covered):
        old, new = shapes
        variants = [dict(zip(SIZES, values)) for values in zip(*SIZES.values())]
        known = [[sizes_of(text, v) for text in shapes] for v in variants]
        unknown = [
            tuple(sizes[0] if len({*sizes}) == 1 else None for sizes in zip(*x))
            for x in zip(*known)
        ]
        split = split_point(unknown[0], covered, unknown[1])
        if split is None:
            return
        for shape, new_shape in known:
            self.assertEqual(
                math.prod(shape[:covered]), math.prod(new_shape[:split])
            )

    @parameterized.parameters(
        ((None, None, 6), 2, (None, None, 6), 2),
        ((None, None, 6), 2, (None, None, 3, 2), 2),
        ((None, None, 6), 1, (None, None), None),
        ((None, None, None), 2, (None, None, None), None),
        ((None, None, 6), 1, (-1, 6), None),
        ((None, None, 6), 2, (-1, 6), 1),
        ((None, None, 6), 2, (-1,), None),
        ((4, None, 6), 1, (4, None), 1),
        ((2, 3, 4), 2, (6, 4), 1),
        ((2, 3, 4), 2, (2, 12), None),
        ((2, 0), 1, (2, 0, 3), 1),
    )
    def test_examples(self, shape, covered, new_shape, expected):
        self.assertEqual(split_point(shape, covered, new_shape), expected)


@pytest.mark.skipif(
    backend.backend() != "tensorflow", reason="has sizes known at run time"
)
class TensorFlowTest(testing.TestCase):
    def compiled(self, function):
        import tensorflow as tf

        return tf.function(function, reduce_retracing=True, autograph=False)

    def assert_as_eager(self, function, *args):
        """Compiled twice: the second time for sizes that are not known."""
        compiled = self.compiled(function)
        for own in args:
            found, expected = compiled(*own), function(*own)
            self.assertAllEqual(*(u.parts(x)[0][1] for x in (found, expected)))
            self.assertAllClose(*(u.parts(x)[0][0] for x in (found, expected)))

    def test_the_skew_of_relative_attention(self):
        def skew(scores):
            length = ops.shape(scores)[1]
            padded = ops.pad(scores, ((0, 0), (0, 0), (1, 0)))
            skewed = ops.reshape(padded, (-1, length + 1, length))
            return ops.filled(skewed, 0)[:, 1:]

        def masked(batch, length, covered):
            t = u.T((batch, length, length), covered)
            return u.masked(u.draw(t, length, 0.6))

        for covered in (1, 2, 3):
            self.assert_as_eager(
                skew, *([masked(n, n + 2, covered)] for n in (1, 2, 3, 4))
            )

    def test_a_batch_axis_that_broadcasts(self):
        def args(batch, other):
            t = u.T((batch, 3, 4), 2), u.T((other, 4, 5))
            return u.masked(u.draw(t, other, 0.6))

        for function in (
            ops.matmul,
            lambda x, y: x[..., None] + y[:, None],
        ):
            self.assert_as_eager(function, args(1, 2), args(1, 3), args(2, 2))

    def test_an_explicit_mask_with_an_axis_of_size_1(self):
        layer = layers.LSTM(3, return_sequences=True)

        def run(x, mask):
            return layer(x, mask=mask)

        self.assert_as_eager(
            run,
            *(
                (ops.ones((b, t, 4)), ops.ones((b, m)) > 0)
                for b, t, m in ((2, 3, 3), (3, 4, 1), (4, 5, 1), (5, 2, 2))
            ),
        )
