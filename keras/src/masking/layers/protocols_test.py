"""The three protocols by which a layer takes masked tensors."""

import warnings

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.backend.common.operators import ARITHMETIC
from keras.src.backend.common.operators import COMPARISON
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.masking.layers import protocols
from keras.src.masking.rules.merge import SHORTCUTS
from keras.src.masking.rules.merge import merge
from keras.src.masking.rules.merge import multiply
from keras.src.masking.rules.merge import straight
from keras.src.masking.tables.numpy import RULES
from keras.src.utils import traceback_utils

MASK = np.array([[True, True, False], [True, False, False]])


def steps(features=4, seed=0):
    """A masked sequence of shape (2, 3, features), with garbage under it."""
    values = np.random.default_rng(seed).normal(size=(2, 3, features))
    x = backend.MaskedTensor(values.astype("float32"), MASK)
    return x + np.where(MASK[..., None], 0, 300.0).astype("float32")


class ByType(layers.Layer):
    def call(self, x):
        return ops.relu(x)


class Named(layers.Layer):
    """Pools over valid steps, and asks for the mask by name."""

    def call(self, x, mask=None):
        self.seen = (type(x), mask)
        weights = ops.cast(ops.expand_dims(mask, -1), x.dtype)
        return ops.sum(x * weights, axis=1)


class TwoArguments(layers.Layer):
    def call(self, x, y, mask=None, y_mask=None):
        self.seen = (mask, y_mask)
        return ops.sum(x) + ops.sum(y)


class OldFlag(layers.Layer):
    def __init__(self):
        super().__init__()
        self.supports_masking = True

    def call(self, x):
        self.seen = backend.get_keras_mask(x)
        return backend.numpy.tanh(x)


class OldComputeMask(layers.Layer):
    """Makes a mask of plain input, and drops the first step."""

    def call(self, x):
        return backend.numpy.multiply(x[:, 1:], 2)

    def compute_mask(self, x, mask=None):
        if mask is None:
            return ops.any(ops.not_equal(x, 0), axis=-1)[:, 1:]
        return mask[:, 1:]


class OldPooling(layers.Layer):
    def call(self, x):
        return ops.sum(x, axis=1)

    def compute_mask(self, x, mask=None):
        return None


class OldOfOthers(layers.Layer):
    """An old layer that calls built-in ones, with raw functions between."""

    def __init__(self):
        super().__init__()
        self.supports_masking = True
        self.dense = layers.Dense(4)
        self.attention = layers.MultiHeadAttention(1, 2)

    def call(self, x):
        y = backend.numpy.tanh(self.dense(x))
        return x + self.attention(self.dense(x), y)


class TakesApart(layers.Layer):
    def call(self, x):
        return backend.MaskedTensor(x.values + 1, ops.logical_not(x.mask))


class ProtocolTest(testing.TestCase):
    def test_a_layer_that_takes_its_input_apart_in_a_graph(self):
        x = layers.Input((3, 4), mask_shape=(3,))
        y = TakesApart()(x)
        self.assertEqual(y._mask_spec.shape, (None, 3))
        found = models.Model(x, y)(steps())
        self.assertAllEqual(found.mask, ~MASK)

    def test_making_a_graph_does_not_warn_of_numbers(self):
        """There are none yet; NumPy traces on whatever memory holds."""

        class Log(layers.Layer):
            def call(self, x):
                return x + ops.log(ops.zeros_like(x.values))

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            y = Log()(layers.Input((3, 4), mask_shape=(3,)))
        self.assertEqual(y._mask_spec.shape, (None, 3))

    def test_choice(self):
        for layer, protocol in (
            (ByType(), protocols.by_type),
            (Named(), protocols.named),
            (OldFlag(), protocols.legacy),
            (OldComputeMask(), protocols.legacy),
            (layers.Dense(1), protocols.by_type),
            (layers.Masking(), protocols.by_type),
            (layers.LSTM(1), protocols.named),
            (layers.MultiHeadAttention(1, 1), protocols.named),
            (layers.Softmax(), protocols.by_type),
            (layers.GlobalMaxPooling1D(), protocols.using_up),
            (layers.Lambda(lambda x: x), protocols.by_type),
            (layers.Lambda(lambda x, mask: x), protocols.named),
            (models.Sequential([layers.Dense(1)]), protocols.by_type),
        ):
            self.assertIs(layer._mask_protocol, protocol, msg=str(layer))

    def test_subclass_of_a_built_in_layer_follows_it(self):
        class Mine(layers.Dense):
            pass

        class MineWithCall(layers.Dense):
            def call(self, x):
                return super().call(x)

        self.assertIs(Mine(2)._mask_protocol, protocols.by_type)
        # It inherits a flag that Keras set, which is not its author's word.
        self.assertIs(MineWithCall(2)._mask_protocol, protocols.by_type)
        self.assertTrue(ops.is_masked(MineWithCall(2)(steps())))

    def test_by_type(self):
        x = steps()
        expected = np.maximum(self.convert_to_numpy(x.values), 0)
        self.assertMaskedClose(ByType()(x), expected, MASK)

    def test_a_raw_function_raises_with_the_layer(self):
        class Raw(layers.Layer):
            def call(self, x):
                return backend.numpy.tanh(x)

        with pytest.raises(TypeError) as info:
            Raw(name="culprit")(steps())
        text = str(info.value) + "".join(getattr(info.value, "__notes__", ()))
        for word in ("culprit", "Raw", "keras.ops", "filled", ".values"):
            self.assertIn(word, text)

    @parameterized.parameters(False, True)
    def test_notes_outlive_the_rewriting_of_messages(self, symbolic):
        """Keras puts arguments into a message by raising another error."""

        class Wrong(layers.Layer):
            def call(self, x):
                return x + np.ones((2, 5, 4), "float32")

        class Around(layers.Layer):
            def __init__(self):
                super().__init__()
                self.inner = Wrong()

            def call(self, x):
                return self.inner(x)

        x = steps()
        if symbolic:
            x = layers.Input((3, 4), batch_size=2, mask_shape=(3,))
        traceback_utils.enable_traceback_filtering()
        try:
            with pytest.raises(Exception) as info:
                Around()(x)
        finally:
            traceback_utils.disable_traceback_filtering()
        notes = [n for n in info.value.__notes__ if "JAX has" not in n]
        of = "of values of shape (2, 3, 4), mask of shape (2, 3)"
        self.assertEqual(notes, [f"In `add` {of}"])
        self.assertIn("Arguments received by Wrong.call()", str(info.value))
        if not symbolic:
            shown = "x=MaskedTensor(shape=(2, 3, 4), dtype=float32"
            self.assertIn(f"{shown}, mask shape=(2, 3))", str(info.value))

    def test_named(self):
        x, layer = steps(), Named()
        result = layer(x)
        self.assertFalse(ops.is_masked(result))
        kind, mask = layer.seen
        self.assertFalse(issubclass(kind, backend.MaskedTensor))
        self.assertAllEqual(mask, MASK)
        values = self.convert_to_numpy(x.values)
        self.assertAllClose(
            result, np.where(MASK[..., None], values, 0).sum(1), atol=1e-5
        )

    def test_an_explicit_mask_beats_the_own_one(self):
        explicit = np.array([[False, True, False]] * 2)
        layer = Named()
        layer(steps(), mask=explicit)
        self.assertAllEqual(layer.seen[1], explicit)

    def test_masks_by_the_names_of_their_arguments(self):
        x, y = steps(), steps(seed=1)
        layer = TwoArguments()
        layer(x, y=y.values)
        self.assertAllEqual(layer.seen[0], MASK)
        self.assertIsNone(layer.seen[1])
        layer(x.values, y=y)
        self.assertIsNone(layer.seen[0])
        self.assertAllEqual(layer.seen[1], MASK)

    def test_a_mask_without_an_argument_is_refused(self):
        class First(layers.Layer):
            def call(self, x, y, mask=None):
                return x

        with self.assertRaisesRegex(
            UnsupportedMaskError, "no argument `y_mask`"
        ):
            First()(steps().values, y=steps())

    def test_losing_the_mask_by_name_warns_once(self):
        class Loses(layers.Layer):
            def call(self, x, mask=None):
                return x * 2.0

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Loses()(steps())
            Loses()(steps())
        messages = [str(w.message) for w in caught if "Loses" in str(w.message)]
        self.assertLen(messages, 1)
        self.assertIn("the mask ends here", messages[0])

    def warnings_of(self, call, *args):
        """What a layer with this `call`, which asks for the mask, warns of."""
        cls = type("Asks", (layers.Layer,), {"call": call})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            cls()(*args)
        return [str(w.message) for w in caught if "Asks" in str(w.message)]

    @parameterized.parameters(False, True)
    def test_losing_the_mask_in_a_nest_or_of_some_steps_warns(self, symbolic):
        def steps_kept(self, x, mask=None):
            return x * 2.0

        def shorter(self, x, mask=None):
            return x[:, :2]

        def listed(self, x, mask=None):
            return [x[:, 0], x * 2.0]

        def named(self, x, mask=None):
            return {"steps": x * 2.0, "last": x[:, -1]}

        def of_list(self, xs, mask=None):
            return xs[0] + xs[1]

        def first(self, x, mask=None):
            return x[:, 0]

        def mean(self, x, mask=None):
            return [ops.mean(x, axis=1), ops.mean(x, axis=1, keepdims=True)]

        def kept(self, x, mask=None):
            return [backend.MaskedTensor(x, mask), x[:, 0]]

        def number_for_each(self, x, mask=None):
            return ops.sum(x, axis=-1)

        def as_wide_as_steps(self, x, mask=None):
            return x[:, 0, :3]

        x = steps()
        for call, count in ((number_for_each, 1), (as_wide_as_steps, 0)):
            self.assertLen(self.warnings_of(call, x), count, call.__name__)
        if symbolic:
            x = layers.Input((3, 4), mask_shape=(3,))
        for call in (steps_kept, shorter, listed, named):
            (message,) = self.warnings_of(call, x)
            self.assertIn("the mask ends here", message)
            self.assertNotIn("83", message)
        for xs in ([x, x], [x, steps(seed=1).values]):
            if not symbolic or xs[0] is xs[1]:
                self.assertLen(self.warnings_of(of_list, xs), 1)
        for call in (first, mean, kept):
            self.assertEmpty(self.warnings_of(call, x), call.__name__)


class SymbolicTest(testing.TestCase):
    def test_the_mask_by_its_old_name(self):
        ids = layers.Input((None,), dtype="int32")
        x = layers.Embedding(9, 2, mask_zero=True)(ids)
        self.assertIn("dtype=bool", repr(x._keras_mask))
        self.assertIs(x._keras_mask, x.mask)
        lengths = ops.sum(ops.cast(x._keras_mask, "int32"), axis=1)
        model = models.Model(ids, lengths)
        found = model.predict(np.array([[1, 2, 0], [3, 0, 0]]), verbose=0)
        self.assertAllEqual(found, [2, 1])
        self.assertFalse(hasattr(ids, "_keras_mask"))
        self.assertIsNone(getattr(ids, "_keras_mask", None))

    @parameterized.parameters(
        (((3, 4),), {"mask_shape": True}, (None, 3)),
        (((None, 4),), {"mask_shape": True}, (None, None)),
        (((3, 4),), {"mask_shape": (None,)}, (None, 3)),
        (((3, 4),), {"mask_shape": [3, 4]}, (None, 3, 4)),
        (((3,),), {"mask_shape": ()}, (None,)),
        ((), {"batch_shape": (2, 3, 4), "mask_shape": True}, (2, 3)),
        (((3, 4),), {"mask_shape": False}, None),
    )
    def test_the_shape_of_a_mask(self, args, kwargs, expected):
        x = layers.Input(*args, **kwargs)
        mask = x._mask_spec
        self.assertEqual(None if mask is None else mask.shape, expected)
        again = (
            type(x._keras_history.operation)
            .from_config(x._keras_history.operation.get_config())
            .output
        )
        mask = again._mask_spec
        self.assertEqual(None if mask is None else mask.shape, expected)

    @parameterized.parameters(
        ((None, 3), (5,)),
        ((4, 3), (5,)),
        ((4,), (4, 3)),
        ((), True),
        ((4, 3), 4),
    )
    def test_a_mask_that_does_not_fit_is_refused(self, shape, mask_shape):
        with self.assertRaisesRegex(ValueError, "leading axes") as info:
            layers.Input(shape, mask_shape=mask_shape)
        self.assertIn(f"mask_shape={mask_shape}", str(info.exception))
        self.assertIn(str(shape), str(info.exception))


class LegacyTest(testing.TestCase):
    def test_flag(self):
        x, layer = steps(), OldFlag()
        result = layer(x)
        self.assertAllEqual(layer.seen, MASK)
        expected = np.tanh(self.convert_to_numpy(x.values))
        self.assertMaskedClose(result, expected, MASK)

    def test_compute_mask_of_masked_input(self):
        result = OldComputeMask()(steps())
        self.assertEqual(tuple(result.shape), (2, 2, 4))
        self.assertAllEqual(result.mask, MASK[:, 1:])

    def test_compute_mask_makes_a_mask(self):
        x = np.array([[[1.0], [0.0], [2.0]]], "float32")
        self.assertMaskedClose(
            OldComputeMask()(x), 2 * x[:, 1:], [[False, True]]
        )

    def test_compute_mask_ends_the_mask(self):
        self.assertFalse(ops.is_masked(OldPooling()(steps())))

    def test_nothing_carries_the_attribute_afterwards(self):
        x = steps()
        result = OldFlag()(x)
        for tensor in (x.values, result.values):
            self.assertIsNone(backend.get_keras_mask(tensor))
        self.assertFalse(ops.is_masked(layers.Identity()(x.values)))

    def test_built_in_layers_inside_an_old_one(self):
        layer, x = OldOfOthers(), steps()
        result = layer(x)
        self.assertAllEqual(result.mask, MASK)
        # What lies under the mask reaches no valid step.
        other = layer(backend.MaskedTensor(x.values, x.mask))
        self.assertMaskedClose(
            result, self.convert_to_numpy(other.values), MASK, atol=1e-5
        )

    def test_one_deprecation_warning_a_class(self):
        class Old(layers.Layer):
            def compute_mask(self, x, mask=None):
                return mask

            def call(self, x):
                return x

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            Old()(steps())
            Old()(steps())
        caught = [w for w in caught if w.category is DeprecationWarning]
        caught = [w for w in caught if "`Old`" in str(w.message)]
        self.assertLen(caught, 1)
        self.assertIn("overrides `compute_mask`", str(caught[0].message))
        self.assertIn("def call(self, x)", str(caught[0].message))

    def test_symbolic(self):
        x = layers.Input((None, 4), mask_shape=(None,))
        for layer, shape in (
            (OldFlag(), (None, None)),
            (OldComputeMask(), (None, None)),
            (OldPooling(), None),
        ):
            y = layer(x)
            mask = None if y._mask_spec is None else y._mask_spec.shape
            self.assertEqual(mask, shape)

    def test_in_a_functional_model(self):
        x = layers.Input((3, 4))
        y = OldComputeMask()(layers.Masking()(x))
        model = models.Model(x, y)
        values = np.array([[[1.0] * 4, [2.0] * 4, [0.0] * 4]], "float32")
        self.assertMaskedClose(
            model(values), 2 * values[:, 1:], [[True, False]]
        )

    def test_an_old_mask_is_taken_at_the_door(self):
        x = backend.convert_to_tensor(np.ones((2, 3, 4), "float32"))
        backend.set_keras_mask(x, backend.convert_to_tensor(MASK))
        self.assertAllEqual(layers.Dense(2)(x).mask, MASK)
        backend.set_keras_mask(x, None)
        self.assertFalse(ops.is_masked(layers.Dense(2)(x)))


class OperatorTest(testing.TestCase):
    def test_the_operators_of_a_merge_row_have_its_shortcut(self):
        for method, name in (ARITHMETIC | COMPARISON).items():
            rule = RULES[name]
            is_short = SHORTCUTS.get(name) is rule
            of_merges = rule in (merge, multiply, straight)
            self.assertEqual(is_short, of_merges, name)
            made_here = getattr(backend.MaskedTensor, f"__{method}__")
            where = "shortcut" if is_short else "_binary"
            self.assertIn(f"{where}.", made_here.__qualname__)

    def test_the_same_mask_over_another_rank_is_no_shortcut(self):
        x = backend.MaskedTensor(np.ones((2, 2, 2)), np.eye(2) > 0)
        y = backend.MaskedTensor._wrap(x.values[0], x.mask)
        # Values align from the last axis, so the masks lie over other axes.
        expected = (np.eye(2) > 0)[:, :, None] & (np.eye(2) > 0)[None]
        self.assertAllEqual((x + y).mask, expected)
