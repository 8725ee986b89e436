"""`set_unsupported_mask`: a warning at the user's line, and a plain result."""

import threading
import types
import warnings

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.masking import UnsupportedMaskError
from keras.src.masking import refusals
from keras.src.masking.errors_test import filled
from keras.src.masking.errors_test import masked
from keras.src.masking.errors_test import outcome
from keras.src.masking.refusals import UnsupportedMaskWarning
from keras.src.masking.refusals import set_unsupported_mask
from keras.src.masking.refusals import unsupported_mask
from keras.src.masking.registry import rule_for
from keras.src.ops.operation import Operation
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.cases.refused import CASES
from patchset.markers import when

every_case = parameterized.named_parameters(
    (f"{i}_{case.name}", case) for i, case in enumerate(CASES)
)
SPECTRUM = "`rfft` cannot take this masked tensor"


def signal(rows=2):
    """Its mask covers the axis that a Fourier transform works on."""
    mask = np.ones((rows, 4), "bool")
    mask[:, 2:] = False
    values = np.arange(rows * 4, dtype="float32").reshape(rows, 4) + 1
    return backend.MaskedTensor(values, mask)


def real_spectrum(x):
    return ops.rfft(x)[0]


class Spectrum(layers.Layer):
    """A user's layer."""

    def call(self, x):
        return ops.rfft(x)[0]


LINE_IN_LAYER = Spectrum.call.__code__.co_firstlineno + 1
LINE_IN_FUNCTION = real_spectrum.__code__.co_firstlineno + 1


def compiled(function):
    if backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    import torch

    return torch.compile(function, backend="eager")


class TestCase(testing.TestCase):
    def setUp(self):
        super().setUp()
        refusals._warned.clear()
        self.addCleanup(set_unsupported_mask, "raise")

    def warnings_of(self, function, *args):
        """What a call gives, and the warnings of our kind."""
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            result = function(*args)
        ours = (w for w in found if w.category is UnsupportedMaskWarning)
        return result, list(ours)

    def assert_place(self, warning, line, text=SPECTRUM):
        self.assertEqual(warning.filename, __file__)
        self.assertEqual(warning.lineno, line)
        self.assertIn(text, str(warning.message))


class SettingTest(TestCase):
    def test_it_raises_unless_told_otherwise(self):
        self.assertEqual(keras.config.unsupported_mask(), "raise")
        with self.assertRaises(UnsupportedMaskError):
            ops.rfft(signal())

    def test_as_a_setting(self):
        keras.config.set_unsupported_mask("warn")
        self.assertEqual(keras.config.unsupported_mask(), "warn")
        keras.config.set_unsupported_mask("raise")
        self.assertEqual(keras.config.unsupported_mask(), "raise")

    def test_as_a_context_manager(self):
        with set_unsupported_mask("warn"):
            self.assertEqual(unsupported_mask(), "warn")
            with set_unsupported_mask("raise"):
                self.assertEqual(unsupported_mask(), "raise")
            self.assertEqual(unsupported_mask(), "warn")
        self.assertEqual(unsupported_mask(), "raise")

    def test_an_error_inside_restores_what_was_set(self):
        with self.assertRaises(ZeroDivisionError):
            with set_unsupported_mask("warn"):
                raise ZeroDivisionError
        self.assertEqual(unsupported_mask(), "raise")

    def test_another_value_is_refused_and_sets_nothing(self):
        set_unsupported_mask("warn")
        for value in ("ignore", None, True):
            with self.assertRaisesRegex(
                ValueError, f"'raise', 'warn'. Received: {value!r}"
            ):
                set_unsupported_mask(value)
        self.assertEqual(unsupported_mask(), "warn")

    def test_it_belongs_to_the_thread(self):
        found = []
        set_unsupported_mask("warn")
        other = threading.Thread(
            target=lambda: found.append(unsupported_mask())
        )
        other.start()
        other.join()
        self.assertEqual(found, ["raise"])

    def test_clearing_the_session_ends_it(self):
        set_unsupported_mask("warn")
        keras.utils.clear_session()
        self.assertEqual(unsupported_mask(), "raise")


class GoingOnTest(TestCase):
    @every_case
    def test_the_result_is_plain_and_that_of_filled_operands(self, case):
        expected = outcome(case.call, filled)
        with set_unsupported_mask("warn"):
            found, warned = self.warnings_of(outcome, case.call, masked)
        (warning,) = warned
        with self.assertRaises(UnsupportedMaskError) as caught:
            case.call(masked)
        name = case.name.rpartition(".")[2]
        self.assertEqual(
            str(warning.message),
            f"{caught.exception} Instead, `{name}` goes on with 0 in place of "
            "masked entries and gives a plain result, as "
            '`keras.config.set_unsupported_mask("warn")` asks for.',
        )
        if isinstance(expected, type):
            # Upstream cannot do it with plain tensors on this backend.
            self.assertEqual(found, expected)
            return
        self.assertEqual(len(found), len(expected))
        for (values, mask), (wanted, _) in zip(found, expected):
            self.assertIsNone(mask)
            self.assertAllClose(values, wanted)

    @every_case
    def test_a_graph_does_so_when_it_runs(self, case):
        """Whatever is set then."""
        if case.name.startswith("random."):
            return  # See `test_a_random_draw_in_a_graph`.

        def run(declare, make):
            inputs = []

            def one(t):
                inputs.append(declare(t))
                return inputs[-1]

            outputs = case.call(one)
            operands = u.leaves((case.args, *case.kwargs.values()), u.T)
            with set_unsupported_mask("raise"):
                return models.Model(inputs, outputs)([*map(make, operands)])

        def plain_input(t):
            return keras.Input(batch_shape=t.shape, dtype=t.dtype)

        def masked_input(t):
            if not t.mask:
                return plain_input(t)
            return keras.Input(
                batch_shape=t.shape,
                dtype=t.dtype,
                mask_shape=t.shape[1 : t.mask],
            )

        try:
            expected = u.parts(run(plain_input, filled))
        except Exception as error:
            self.skipTest(f"upstream, of plain tensors: {str(error)[:90]}")
        with set_unsupported_mask("warn"):
            result, warned = self.warnings_of(run, masked_input, masked)
        self.assertEqual(len(warned), 1)
        for (values, mask), (wanted, _) in zip(u.parts(result), expected):
            self.assertIsNone(mask)
            self.assertAllClose(values, wanted)

    def test_a_graph_that_is_loaded_does_so(self):
        inputs = keras.Input((4,), mask_shape=(4,))
        with set_unsupported_mask("warn"):
            outputs, warned = self.warnings_of(real_spectrum, inputs)
        self.assertEqual(len(warned), 1)
        self.assertFalse(ops.is_masked(outputs))
        model = models.Model(inputs, outputs)
        copy = models.Model.from_config(model.get_config())
        expected = np.fft.rfft(u.array(ops.filled(signal(), 0))).real
        for m in (model, copy):
            self.assertAllClose(m(signal()), expected)

    def test_nothing_becomes_of_what_is_under_the_mask(self):
        x = signal()
        garbage = np.where(u.array(x.mask), 0, 500).astype("float32")
        x = backend.MaskedTensor._wrap(x.values + garbage, x.mask)
        with set_unsupported_mask("warn"):
            found = real_spectrum(x)
            expected = real_spectrum(signal())
        self.assertAllClose(found, expected)

    @when(">=3.15")  # Which has `unique`.
    def test_a_numpy_masked_array(self):
        x = np.ma.MaskedArray([3.0, 7.0, 3.0], [False, True, False])
        with set_unsupported_mask("warn"):
            found, warned = self.warnings_of(ops.unique, x)
        self.assertEqual(len(warned), 1)
        self.assertAllClose(found, [0.0, 3.0])

    def test_an_op_of_keras_without_a_row(self):
        class ToCome(Operation):
            def call(self, x):
                return x * 2.0

            def compute_output_spec(self, x):
                return backend.KerasTensor(x.shape, x.dtype)

        ToCome.__module__ = "keras.src.ops.to_come"
        inputs = keras.Input((4,), mask_shape=(4,))
        with set_unsupported_mask("warn"):
            found, warned = self.warnings_of(ToCome(), signal())
            outputs = ToCome()(inputs)
        self.assertIn("`to_come` cannot take", str(warned[0].message))
        expected = u.array(ops.filled(signal(), 0)) * 2
        self.assertAllClose(found, expected)
        model = models.Model(inputs, outputs)
        self.assertAllClose(model(signal()), expected)

    @pytest.mark.skipif(
        backend.backend() == "numpy", reason="NumPy does not compile"
    )
    def test_a_compiled_function(self):
        function = compiled(real_spectrum)
        with set_unsupported_mask("warn"):
            found, warned = self.warnings_of(function, signal())
            again, silent = self.warnings_of(function, signal())
        self.assertEqual((len(warned), len(silent)), (1, 0))
        self.assertEqual(warned[0].filename, __file__)
        if backend.backend() != "tensorflow":
            # There the function is rewritten into a file that is gone, and
            # the line is the one that calls it.
            self.assert_place(warned[0], LINE_IN_FUNCTION)
        expected = np.fft.rfft(u.array(ops.filled(signal(), 0))).real
        self.assertAllClose(found, expected)
        self.assertAllClose(again, expected)

    @pytest.mark.requires_trainable_backend
    def test_a_model_trains(self):
        """One warning, though batches and their shapes are several."""
        model = models.Sequential(
            [
                layers.Embedding(5, 1, mask_zero=True),
                layers.Reshape((4,)),
                Spectrum(),
                layers.Dense(1),
            ]
        )
        model.compile("sgd", "mse")
        ids = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [1, 1, 4, 0]])
        with set_unsupported_mask("warn"):
            history, warned = self.warnings_of(
                lambda: model.fit(
                    ids, np.ones((3, 1)), batch_size=2, epochs=2, verbose=0
                )
            )
        (warning,) = warned
        self.assert_place(warning, LINE_IN_LAYER)
        losses = history.history["loss"]
        self.assertTrue(np.all(np.isfinite(losses)), losses)


class PlaceTest(TestCase):
    def setUp(self):
        super().setUp()
        set_unsupported_mask("warn")

    def test_each_place_warns_once(self):
        def loop():
            for rows in (1, 2, 1):
                ops.rfft(signal(rows))
            ops.rfft(signal())

        _, warned = self.warnings_of(loop)
        first = loop.__code__.co_firstlineno
        self.assertEqual([w.lineno for w in warned], [first + 2, first + 3])
        self.assertEqual(self.warnings_of(loop)[1], [])

    @when(">=3.15")  # Which has `unique`.
    def test_each_op_of_a_place_warns(self):
        def two(x):
            return ops.rfft(x), ops.unique(x)

        _, warned = self.warnings_of(two, signal())
        texts = [str(w.message).partition(" ")[0] for w in warned]
        self.assertEqual(texts, ["`rfft`", "`unique`"])

    def test_the_line_inside_a_layer(self):
        (warning,) = self.warnings_of(Spectrum(), signal())[1]
        self.assert_place(warning, LINE_IN_LAYER)

    def test_the_line_inside_a_model(self):
        inputs = keras.Input((4,), mask_shape=(4,))
        model, warned = self.warnings_of(
            lambda: models.Model(inputs, Spectrum()(inputs))
        )
        self.assert_place(warned[0], LINE_IN_LAYER)
        refusals._warned.clear()
        (warning,) = self.warnings_of(model, signal())[1]
        self.assert_place(warning, LINE_IN_LAYER)

    def test_the_line_inside_a_function_that_an_op_calls(self):
        (warning,) = self.warnings_of(ops.map, real_spectrum, signal())[1]
        self.assert_place(warning, LINE_IN_FUNCTION)

    def test_the_line_that_calls_an_op_whose_rule_calls_the_one(self):
        def call():
            return ops.cross(x, x, axis=0)

        x = backend.MaskedTensor(np.ones((3, 2), "float32"), [[True] * 2] * 3)
        (warning,) = self.warnings_of(call)[1]
        line = call.__code__.co_firstlineno + 1
        self.assert_place(warning, line, "`cross` cannot take")

    def test_code_of_a_third_party_is_a_users(self):
        module = types.ModuleType("third_party.layers")
        source = "\n\ndef f(x):\n    return ops.rfft(x)\n"
        vars(module)["ops"] = ops
        exec(compile(source, "third_party/layers.py", "exec"), vars(module))
        (warning,) = self.warnings_of(module.f, signal())[1]
        self.assertEqual(warning.filename, "third_party/layers.py")
        self.assertEqual(warning.lineno, 4)

    def test_a_filter_can_make_an_error_of_it(self):
        for _ in range(2):
            with warnings.catch_warnings():
                warnings.simplefilter("error", UnsupportedMaskWarning)
                with self.assertRaises(UnsupportedMaskWarning):
                    ops.rfft(signal())

    def test_it_can_be_filtered_by_module(self):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            warnings.filterwarnings("ignore", module=__name__)
            ops.rfft(signal())
        self.assertEqual(found, [])


class WhatStillRaisesTest(TestCase):
    def setUp(self):
        super().setUp()
        set_unsupported_mask("warn")

    def test_what_is_no_call_of_an_op(self):
        class ByName(layers.Layer):
            def call(self, x, y, x_mask=None):
                return x

        x = signal()
        variable = backend.Variable(np.ones((2, 4)))
        for text, function in (
            ("Variable.assign", lambda: variable.assign(x)),
            ("no argument `y_mask`", lambda: ByName()(x, x)),
            ("masked index", lambda: ops.switch(x, [lambda: 1.0])),
            (
                "have to be of one kind",
                lambda: ops.fori_loop(0, 1, lambda i, state: state.values, x),
            ),
        ):
            with self.assertRaisesRegex(UnsupportedMaskError, text):
                function()
        with self.assertRaisesRegex(TypeError, "plain array by itself"):
            np.asarray(x)

    def test_errors_of_a_function_of_the_user(self):
        def says_no(x):
            raise UnsupportedMaskError("mine")

        def asks_for_errors(x):
            with set_unsupported_mask("raise"):
                return ops.rfft(x)

        class Own(Operation):
            def call(self, x):
                return x

        class Ruled(Own):
            pass

        @rule_for(Ruled)
        def rule(op, x):
            return asks_for_errors(x)

        x = keras.Input((2, 4), mask_shape=(2, 4))
        Own.call = lambda self, x: says_no(x)
        for text, function in (
            ("mine", lambda: ops.map(says_no, signal())),
            ("`rfft`", lambda: ops.map(asks_for_errors, signal())),
            ("mine", lambda: ops.map(says_no, x)),
            ("`rfft`", lambda: ops.map(asks_for_errors, x)),
            ("mine", lambda: Own()(signal())),
            ("mine", lambda: Own()(x)),
            ("`rfft`", lambda: Ruled()(signal())),
        ):
            with self.assertRaisesRegex(UnsupportedMaskError, text):
                function()

    def test_a_random_draw_in_a_graph(self):
        x = keras.Input((4,), mask_shape=(4,))
        with self.assertRaisesRegex(UnsupportedMaskError, "part of a graph"):
            keras.random.gamma((2, 4), x)
