"""Every row of the tables, compiled: the same as called eagerly.

One example a row, so that a new row is covered as soon as it has one. A row
that upstream cannot compile with plain tensors either, since its result is
made in Python or its shape depends on the data, is skipped with what upstream
says.
"""

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import testing
from keras.src.masking.tables_test import seed_of
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.row_checks import EXAMPLES
from keras.src.testing.masked.row_checks import call

BATCH = 2
# What upstream gets wrong with plain tensors, or has no way to do with two.
NOT_OF_UNKNOWN_SIZE = {
    "array_split": "upstream makes one part of an axis of unknown size",
    "associative_scan": "upstream compares unknown sizes as Python numbers "
    "where there are several tensors, as values and a mask are",
    "image.elastic_transform": "upstream takes an unknown batch for one image",
}


def rows():
    """A name and an example with a masked operand for each row."""
    for name, examples in sorted(EXAMPLES.items()):
        for example in examples:
            operands = u.leaves(example, u.T)
            if any(t.mask for t in operands) and all(
                0 not in t.shape for t in operands
            ):
                yield name.replace(".", "_"), name, example
                break


class Case:
    """One example: a function of its tensors alone, and draws of them."""

    def __init__(self, name, example):
        self.name = name
        self.draws = [
            u.draw(example, seed_of(name, seed), 0.6) for seed in range(BATCH)
        ]

    def function(self, *tensors):
        tensors = iter(tensors)
        args = u.map_leaves(lambda _: next(tensors), self.draws[0], u.Drawn)
        return call(self.name, args)

    def tensors(self, i=0, make=u.masked):
        return [make(x) for x in u.leaves(self.draws[i])]

    def batch(self, make=u.masked):
        """All draws, stacked along a new first axis."""
        together = zip(*(u.leaves(drawn) for drawn in self.draws))
        return [make(_stacked(xs)) for xs in together]

    def expected(self):
        return [u.parts(self.function(*self.tensors(i))) for i in range(BATCH)]


def _stacked(xs):
    masks = [x.mask for x in xs]
    mask = None if masks[0] is None else np.stack(masks)
    return u.Drawn(np.stack([x.values for x in xs]), mask)


class CompiledTest(testing.TestCase):
    def run_or_skip(self, compiled, tensors, plain_tensors):
        """The result; a skip if plain tensors cannot be compiled either."""
        try:
            return compiled(*tensors)
        except Exception:
            try:
                compiled(*plain_tensors)
            except Exception as error:
                self.skipTest(f"upstream: {type(error).__name__}: {error}")
            raise

    def assert_same(self, result, expected):
        """Masks exactly, values where they are valid."""
        result = u.parts(result)
        self.assertEqual(len(result), len(expected))
        for (values, mask), (wanted, wanted_mask) in zip(result, expected):
            self.assertEqual(mask is None, wanted_mask is None)
            self.assertEqual(values.shape, wanted.shape)
            if mask is not None:
                self.assertAllEqual(mask, wanted_mask)
                values, wanted = values[mask], wanted[mask]
            self.assertAllClose(values, wanted, rtol=1e-4, atol=1e-4)

    @parameterized.named_parameters(rows())
    @pytest.mark.skipif(backend.backend() != "jax", reason="compiles with JAX")
    def test_jit_and_vmap(self, name, example):
        import jax

        # Compiled for one run, which is not worth much optimization.
        quick = {"xla_backend_optimization_level": 0}
        quick["xla_llvm_disable_expensive_passes"] = True
        case = Case(name, example)
        expected = case.expected()
        result = self.run_or_skip(
            jax.jit(case.function, compiler_options=quick),
            case.tensors(),
            case.tensors(make=u.plain),
        )
        self.assert_same(result, expected[0])
        if name.startswith("random."):
            return  # Generators take seconds to compile, and see no batch.
        result = self.run_or_skip(
            jax.jit(jax.vmap(case.function), compiler_options=quick),
            case.batch(),
            case.batch(make=u.plain),
        )
        rows = [_stacked([u.Drawn(*x) for x in xs]) for xs in zip(*expected)]
        self.assert_same(result, rows)

    @parameterized.named_parameters(rows())
    @pytest.mark.skipif(
        backend.backend() != "tensorflow", reason="compiles with TensorFlow"
    )
    def test_function_of_unknown_dimensions(self, name, example):
        import tensorflow as tf

        if name in NOT_OF_UNKNOWN_SIZE:
            self.skipTest(NOT_OF_UNKNOWN_SIZE[name])

        def spec(t):
            unknown = (None,) * (t.mask or 0)
            values = tf.TensorSpec(unknown + t.shape[len(unknown) :], t.dtype)
            if t.mask is None:
                return values
            mask = tf.TensorSpec(unknown, "bool")
            return backend.MaskedTensor.Spec(values=values, mask=mask)

        def compiled(*tensors):
            signature = [
                getattr(s, "values", s) if isinstance(x, tf.Tensor) else s
                for x, s in zip(tensors, specs)
            ]
            return tf.function(
                case.function, input_signature=signature, autograph=False
            )(*tensors)

        case = Case(name, example)
        specs = [spec(t) for t in u.leaves(example, u.T)]
        result = self.run_or_skip(
            compiled, case.tensors(), case.tensors(make=u.plain)
        )
        self.assert_same(result, u.parts(case.function(*case.tensors())))
