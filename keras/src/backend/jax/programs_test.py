"""A rule as one program gives what the rule itself gives."""

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import testing
from keras.src.masking.errors import UnsupportedMaskError


def masked(shape=(3, 4, 2), rank=2, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape).astype("float32")
    return keras.MaskedTensor(values, rng.uniform(size=shape[:rank]) < 0.6)


@pytest.mark.skipif(backend.backend() != "jax", reason="of JAX")
class ProgramsTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        # Late: other engines are not imported.
        from keras.src.backend.jax import programs

        self.programs = programs
        programs._PROGRAMS.clear()

    def assert_one(self, function, *args):
        """One program, and what comes without it."""
        found = function(*args)
        function(*args)
        self.assertLen(self.programs._PROGRAMS, 1)
        (program,) = self.programs._PROGRAMS.values()
        self.assertEqual(program._cache_size(), 1)
        run = self.programs.run_as_one
        with self.patched(lambda rule, call: rule(call)):
            wanted = function(*args)
        self.assertIs(self.programs.run_as_one, run)
        self.assertEqual(type(found), type(wanted))
        if isinstance(wanted, keras.MaskedTensor):
            self.assertAllEqual(found.mask, wanted.mask)
        self.assertAllClose(ops.filled(found), ops.filled(wanted))

    def patched(self, function):
        from unittest import mock

        return mock.patch.object(backend.masked_kernels, "run_as_one", function)

    @parameterized.named_parameters(
        ("sum", lambda x: ops.sum(x, axis=1)),
        ("mean of all", ops.mean),
        ("var", lambda x: ops.var(x, axis=(0, 1), keepdims=True)),
        ("max", lambda x: ops.max(x, axis=[1])),
        ("argmax", lambda x: ops.argmax(x, axis=1)),
        ("logsumexp", lambda x: ops.logsumexp(x, axis=1)),
        ("softmax", lambda x: ops.softmax(x, axis=1)),
        ("exp", ops.exp),
        ("matmul", lambda x: ops.matmul(x, ops.ones((2, 3)))),
        ("of two", lambda x: ops.maximum(x, ops.ones((4, 1)))),
    )
    def test_one_program(self, function):
        self.assert_one(function, masked())

    def test_a_mask_that_stays_is_the_same_object(self):
        x, y = masked(), masked(seed=1)
        for found in (
            ops.exp(x),
            ops.softmax(x, axis=-1),
            ops.matmul(x, ops.ones((2, 3))),
            layers.LayerNormalization()(x),
        ):
            self.assertIs(found.mask, x.mask)
        y = keras.MaskedTensor._wrap(y.values, x.mask)
        self.assertIs(ops.maximum(x, y).mask, x.mask)

    def test_settings_are_told_apart(self):
        """1 is True, and 1.0, to a dictionary."""
        x = masked()
        for keepdims, shape in ((True, (3, 1, 2)), (False, (3, 2))):
            found = ops.sum(x, axis=1, keepdims=keepdims)
            self.assertEqual(found.shape, shape)
        self.assertEqual(ops.sum(x, axis=True).shape, (3, 2))
        self.assertEqual(ops.sum(x, axis=0).shape, (4, 2))
        self.assertEqual(ops.sum(masked(rank=1), axis=1).mask.shape, (3,))
        ids = keras.MaskedTensor(np.arange(4), [True, True, False, True])
        for kind, dtype in ((int, "int32"), (float, "float32")):
            self.assertDType(ops.clip(ids, kind(0), kind(2)), dtype)
        for dtype in ("float32", "float16", "float32"):
            with self.subTest(dtype):
                keras.config.set_floatx(dtype)
                try:
                    found = ops.mean(ids)
                finally:
                    keras.config.set_floatx("float32")
                self.assertDType(found, dtype)

    def test_variables_have_the_values_of_now(self):
        x, variable = masked(), keras.Variable(np.ones((2, 3), "float32"))
        for number in (1.0, 5.0):
            variable.assign(np.full((2, 3), number))
            found = ops.filled(ops.matmul(x, variable))
            wanted = ops.filled(x) @ np.full((2, 3), number, "float32")
            self.assertAllClose(found, wanted, rtol=1e-5)

    def test_numbers_among_operands_are_not_compiled_for(self):
        x = masked()
        for number in (1.0, 1.5, 2, 3):
            found = ops.maximum(x, number)
            wanted = np.maximum(ops.filled(x), number)
            self.assertAllClose(
                ops.filled(found), wanted * np.array(x.mask)[..., None]
            )
        self.assertEqual(self.programs._PROGRAMS, {})

    def test_within_transformations_there_is_none(self):
        import jax

        x = masked()
        jax.jit(lambda x: ops.mean(x, axis=1))(x)
        jax.grad(
            lambda v: ops.sum(
                ops.mean(keras.MaskedTensor(v, x.mask), axis=1).values
            )
        )(x.values)
        self.assertEqual(self.programs._PROGRAMS, {})

    def test_errors_are_those_of_the_rule(self):
        for _ in range(2):
            with self.assertRaisesRegex(ValueError, "axes -3 to 2"):
                ops.mean(masked(), axis=3)
            with self.assertRaises(UnsupportedMaskError):
                ops.max(masked() * 1j, axis=1)

    def test_what_is_not_finite_under_the_mask(self):
        x = masked()
        hidden = ops.where(x.mask[..., None], x.values, np.inf)
        y = keras.MaskedTensor._wrap(hidden, x.mask)
        for function in (ops.sum, ops.mean, ops.var, ops.max, ops.logsumexp):
            self.assertAllClose(function(y), function(x), rtol=1e-5)
