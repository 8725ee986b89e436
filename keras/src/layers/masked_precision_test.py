"""Masked tensors in other dtypes, quantized, recomputed and unrolled."""

import os

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.cases.layers import CASES
from keras.src.testing.masked.testing_utils import T
from keras.src.utils import set_random_seed
from patchset.markers import when

NAME = backend.backend()
STEPS = T((2, 6, 4), 2)
FULL = T((2, 6, 4), 3)
IDS = T((2, 6), 2, "int32", 0, 8)

# NumPy and JAX compute float64 in float32, as upstream.
POLICIES = ["mixed_float16", "mixed_bfloat16"]
if NAME in ("tensorflow", "torch"):
    POLICIES.append("float64")

SINGLE = ()
if when(">=3.16"):
    # Of double precision upstream's functions of two operands make this.
    SINGLE = ("float32",) if NAME == "torch" else ()

# Engines that compile, or trace, are given these; one dtype each but where all
# are asked for.
FEW = (
    "Attention AveragePooling1D BatchNormalization Conv1D Dense Embedding "
    "GlobalAveragePooling1D GRU LayerNormalization MultiHeadAttention Softmax"
).split()
ALL = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
NOT_THERE = {
    ("torch", "AveragePooling3D"): "PyTorch's has no half precision on a CPU.",
    ("numpy", "SpectralNormalization"): "`np.linalg` has no half precision.",
}


def precision_cases():
    names = CASES if ALL or NAME in ("numpy", "torch") else FEW
    for i, name in enumerate(names):
        if (NAME, name) in NOT_THERE:
            continue
        for j, policy in enumerate(POLICIES):
            if ALL or j == i % len(POLICIES):
                yield f"{name}_{policy}", policy, CASES[name][0]


def total(result):
    """A number that depends on each valid entry of all outputs."""
    return sum(
        ops.sum(ops.square(ops.cast(ops.filled(y), "float32")))
        for y in tree.flatten(result)
    )


class PrecisionTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(
            keras.config.set_dtype_policy, keras.config.dtype_policy()
        )

    @parameterized.named_parameters(precision_cases())
    def test_dtype_mask_and_no_interference(self, policy, case):
        keras.config.set_dtype_policy(policy)
        set_random_seed(1)
        layer = case.make()
        # In the dtype of the layer, for garbage of a size that fits it.
        dtype = u.numpy_dtype(layer.compute_dtype)
        drawn = u.map_leaves(
            lambda x: (
                x._replace(values=x.values.astype(dtype))
                if u.is_float(x.values)
                else x
            ),
            u.draw(case.args, seed=1, share=0.6),
            u.Drawn,
        )
        plain = tree.flatten(layer(*u.plain(drawn, 0)))
        trained = [v.value for v in layer.trainable_variables]
        others = [v.value for v in layer.non_trainable_variables]
        variables = [
            *layer.trainable_variables,
            *layer.non_trainable_variables,
        ]

        def run(args, trained=trained):
            set_random_seed(1)
            kwargs = {}
            if layer._call_has_training_arg:
                kwargs["training"] = True
            pairs = zip(variables, [*trained, *others])
            with backend.StatelessScope(state_mapping=list(pairs)):
                return tree.flatten(layer(*args, **kwargs))

        results = [run(u.masked(drawn, garbage=g)) for g in (None, 1)]
        wanted = case.mask(
            *(x.cells for x in u.leaves(drawn) if x.mask is not None)
        )
        for result in results:
            for x, y in zip(result, plain, strict=True):
                # Upstream's Attention gives float32 of float64 on PyTorch.
                self.assertIn(
                    backend.standardize_dtype(x.dtype),
                    (
                        backend.standardize_dtype(y.dtype),
                        layer.compute_dtype,
                        *(SINGLE if policy == "float64" else ()),
                    ),
                )
            mask = u.parts(result[:1])[0][1]
            if wanted is None:
                self.assertIsNone(mask)
            else:
                self.assertAllEqual(mask, u.over_all_axes(wanted, mask.shape))
        for (one, mask), (other, _) in zip(*map(u.parts, results)):
            self.assertTrue(np.isfinite(one).all())
            self.assertTrue(np.isfinite(other).all())
            if mask is not None:
                one, other = one[mask], other[mask]
            self.assertAllClose(one, other, atol=1e-2, rtol=1e-2)
        if NAME != "numpy":
            self.assert_clean_gradients(run, trained, drawn)

    def assert_clean_gradients(self, run, trained, drawn):
        args = u.masked(drawn, garbage=1)
        floats = [x for x in u.leaves(drawn) if u.is_float(x.values)]
        count = len(floats)

        def loss(arrays):
            own = iter(arrays[:count])

            def one(x):
                if not u.is_float(x):
                    return x
                if not ops.is_masked(x):
                    return next(own)
                return backend.MaskedTensor._wrap(next(own), x.mask)

            return total(run(tree.map_structure(one, args), arrays[count:]))

        flat = [x for x in tree.flatten(args) if u.is_float(x)]
        arrays = [x.values if ops.is_masked(x) else x for x in flat]
        arrays = [*arrays, *trained]
        found = u.compiled(lambda xs: u.gradients(loss, xs))(arrays)
        for g in found:
            self.assertTrue(np.isfinite(u.array(g)).all())
        for g, x in zip(found, floats):
            hidden = np.broadcast_to(u.array(g), x.values.shape)[~x.cells]
            self.assertAllEqual(hidden, 0 * hidden)

    def test_a_dtype_for_each_layer(self):
        x = u.masked(u.draw(STEPS, 1, 0.6), garbage=1)
        model = models.Sequential(
            [
                layers.Dense(3, dtype="mixed_float16"),
                layers.LayerNormalization(dtype="float32"),
                layers.Conv1D(3, 3, padding="same", dtype="mixed_bfloat16"),
                layers.GlobalAveragePooling1D(dtype="float32"),
            ]
        )
        dtypes = []
        for layer in model.layers:
            dtypes.append(layer.compute_dtype)
            again, x = x, layer(x)
            self.assertDType(x, dtypes[-1])
            self.assertEqual(ops.is_masked(x), len(dtypes) < 4)
        self.assertAllClose(x, layer(again))
        self.assertTrue(np.isfinite(u.array(x)).all())

    @pytest.mark.requires_trainable_backend
    def test_numbers_that_a_small_dtype_cannot_hold(self):
        """They are finite before the cast, and would be infinite after it."""
        x = u.masked(u.draw(STEPS, 1, 0.6))
        hidden = ~u.array(x.mask)
        huge = np.where(hidden[..., None], 1e30, u.array(x.values))
        for layer in (
            layers.Dense(3, dtype="mixed_float16"),
            layers.LSTM(3, unroll=True, dtype="mixed_float16"),
        ):
            layer(x)

            def loss(arrays, layer=layer):
                pairs = zip(layer.trainable_variables, arrays[1:])
                masked = backend.MaskedTensor._wrap(arrays[0], x.mask)
                if NAME != "jax":
                    return total(layer(masked))
                with backend.StatelessScope(state_mapping=pairs):
                    return total(layer(masked))

            weights = [v.value for v in layer.trainable_variables]
            for values in (huge.astype("float32"), u.array(x.values)):
                found = u.compiled(lambda xs, f=loss: u.gradients(f, xs))(
                    [values, *weights]
                )
                for g in map(u.array, found):
                    self.assertTrue(np.isfinite(g).all())
                by_values = u.array(found[0])[hidden]
                self.assertAllEqual(by_values, 0 * by_values)
        y = ops.cast(backend.MaskedTensor._wrap(huge, x.mask), "float16")
        self.assertTrue(np.isfinite(u.array(y.values)).all())

    @parameterized.product(kind=("SimpleRNN", "GRU", "LSTM"), dtype=POLICIES)
    def test_unrolled_as_in_a_loop(self, kind, dtype):
        if NAME in ("jax", "tensorflow") and (kind, dtype) != (
            "GRU",
            "mixed_bfloat16",
        ):
            self.skipTest("Each loop is compiled.")
        x = u.masked(u.draw(FULL, 1, 0.4), garbage=1)
        make = getattr(layers, kind)
        results = []
        for unroll in (False, True):
            set_random_seed(1)
            layer = make(3, unroll=unroll, return_sequences=True, dtype=dtype)
            results.append(layer(x))
        one, other = results
        self.assertAllEqual(one.mask, u.array(x.mask).any(-1))
        self.assertAllEqual(other.mask, one.mask)
        self.assertAllClose(
            u.array(one.values), u.array(other.values), atol=2e-2
        )


# A layer, an operand, and the mask of the result.
QUANTIZED = {
    "dense": (lambda: layers.Dense(3), STEPS, lambda m: m),
    "dense_full": (lambda: layers.Dense(3), FULL, lambda m: m.any(-1)),
    "dense_rows": (lambda: layers.Dense(3, "relu"), T((3, 4), 1), lambda m: m),
    "einsum": (
        lambda: layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d"),
        FULL,
        lambda m: m.any(-1),
    ),
    "einsum_of_steps": (
        lambda: layers.EinsumDense("abc,bcd->ad", 3),
        STEPS,
        lambda m: m.any(-1),
    ),
    "einsum_of_no_features": (
        lambda: layers.EinsumDense("abc,bd->acd", (4, 3)),
        FULL,
        lambda m: m.any(1),
    ),
    "embedding": (lambda: layers.Embedding(9, 3), IDS, lambda m: m),
    "reversible_embedding": (
        lambda: layers.ReversibleEmbedding(9, 3),
        IDS,
        lambda m: m,
    ),
}


class QuantizedTest(testing.TestCase):
    @parameterized.product(
        name=tuple(QUANTIZED), mode=("int8", "int4", "float8")
    )
    def test_only_what_is_valid_makes_the_scale(self, name, mode):
        if mode != "int8" and name not in ("dense", "dense_full"):
            self.skipTest("One layer stands for all.")
        make, operand, oracle = QUANTIZED[name]
        drawn = u.draw(operand, 1, 0.6)
        layer = make()
        layer(u.masked(drawn))
        layer.quantize(mode)
        expected = u.array(layer(u.plain(drawn, 0)))
        mask = oracle(drawn.mask)
        for garbage in (None, 1, 2):
            y = layer(u.masked(drawn, garbage=garbage))
            self.assertAllEqual(y.mask, mask)
            self.assertTrue(np.isfinite(u.array(y.values)).all())
            self.assertAllClose(u.array(y.values)[mask], expected[mask])
        spec = layer(u.symbolic(operand, [(0, 0)]))
        self.assertEqual(spec._mask_spec.shape, spec.shape[: mask.ndim])

    def test_the_way_back_of_an_embedding(self):
        layer = layers.ReversibleEmbedding(9, 4)
        layer(np.zeros((2, 6), "int32"))
        layer.quantize("int8")
        drawn = u.draw(STEPS, 1, 0.6)
        expected = u.array(layer(u.plain(drawn, 0), reverse=True))
        for garbage in (None, 1):
            y = layer(u.masked(drawn, garbage=garbage), reverse=True)
            self.assertAllEqual(y.mask, drawn.mask)
            self.assertAllClose(
                u.array(y.values)[drawn.mask], expected[drawn.mask]
            )

    @parameterized.parameters(STEPS, FULL)
    @pytest.mark.requires_trainable_backend
    def test_no_gradient_of_what_is_masked(self, *operand):
        drawn = u.draw(T(*operand), 1, 0.6)
        layer = layers.Dense(3)
        layer(u.masked(drawn))
        layer.quantize("int8")
        found = []
        for garbage in (None, 1):
            x = u.masked(drawn, garbage=garbage)

            def loss(arrays, x=x):
                own = backend.MaskedTensor._wrap(arrays[0], x.mask)
                return total(layer(own))

            (g,) = u.gradients(loss, [x.values])
            found.append(u.array(g))
            self.assertAllEqual(found[-1][~drawn.cells], 0)
        self.assertAllClose(*found)
        self.assertGreater(np.abs(found[0]).max(), 0)


class Counting(layers.Layer):
    """Counts how often it is computed; makes a masked tensor masked anew."""

    count = 0

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 3))

    def call(self, x, scale=None):
        self.count += 1
        return ops.tanh(ops.matmul(x, self.kernel)) * scale


REMAT = {
    "by_type": (Counting, lambda layer, x: layer(x, scale=2.0)),
    "dense": (lambda: layers.Dense(3, "relu"), lambda layer, x: layer(x)),
    "named": (
        lambda: layers.SimpleRNN(3, return_sequences=True, unroll=True),
        lambda layer, x: layer(x),
    ),
    "attention": (
        lambda: layers.MultiHeadAttention(1, 2),
        lambda layer, x: layer(x, x),
    ),
    "makes_a_mask": (
        lambda: layers.Masking(),
        lambda layer, x: layer(ops.filled(x)),
    ),
}


@pytest.mark.requires_trainable_backend
class RematTest(testing.TestCase):
    def gradients_of(self, layer, call, drawn, garbage=None):
        x = u.masked(drawn, garbage=garbage)

        def loss(arrays):
            return total(
                call(layer, backend.MaskedTensor._wrap(*arrays, x.mask))
            )

        return u.gradients(loss, [x.values])[0]

    @parameterized.product(name=tuple(REMAT), mode=("full", "larger_than"))
    def test_computed_again_as_at_first(self, name, mode):
        if NAME == "jax" and (name, mode) not in (
            ("by_type", "full"),
            # One without `training`, which JAX would trace.
            ("dense", "larger_than"),
        ):
            self.skipTest("Each is compiled.")
        make, call = REMAT[name]
        drawn = u.draw(STEPS, 1, 0.6)
        layer = make()
        expected = call(layer, u.masked(drawn))
        gradient = u.array(self.gradients_of(layer, call, drawn))
        with keras.RematScope(mode=mode, output_size_threshold=1):
            again = make()
            found = call(again, u.masked(drawn))
            again.set_weights(layer.get_weights())
            found = call(again, u.masked(drawn, garbage=1))
            if name == "by_type":
                again.count = 0
            by_values = u.array(self.gradients_of(again, call, drawn, 1))
        if name == "by_type" and mode == "full" and NAME != "jax":
            self.assertEqual(again.count, 2)
        self.assertAllEqual(found.mask, expected.mask)
        mask = u.array(found.mask)
        self.assertAllClose(
            u.array(found.values)[mask], u.array(expected.values)[mask]
        )
        self.assertAllClose(by_values, gradient, atol=1e-5)
        self.assertAllEqual(by_values[~drawn.cells], 0)

    def test_a_function_of_several_masked_tensors(self):
        drawn = u.draw((STEPS, STEPS), 1, 0.6)
        x, y = u.masked(drawn)

        @keras.remat
        def function(x, *, y):
            return {"sum": x + y, "number": ops.sum(x)}

        found = function(x, y=y)
        self.assertAllEqual(
            found["sum"].mask, u.array(x.mask) & u.array(y.mask)
        )
        self.assertAllClose(found["number"], ops.sum(x))
        self.assertFalse(ops.is_masked(found["number"]))

    @parameterized.parameters(
        *[(flag,) for flag in ((False,) if NAME == "torch" else (False, True))]
    )
    def test_in_a_model_that_is_compiled_or_not(self, jit_compile):
        """And padding changes nothing that it learns."""
        ids = np.array([[1, 2, 3, 0], [4, 0, 0, 0]])
        results = []
        for more in (0, 2):
            set_random_seed(1)
            with keras.RematScope(mode="full"):
                model = models.Sequential(
                    [
                        layers.Embedding(8, 3, mask_zero=True),
                        layers.Conv1D(3, 3, padding="causal"),
                        layers.Dense(2, "tanh"),
                        layers.GlobalAveragePooling1D(),
                    ]
                )
            model.compile("sgd", "mse", jit_compile=jit_compile)
            wider = np.pad(ids, ((0, 0), (0, more)))
            history = model.fit(wider, np.ones((2, 2)), epochs=2, verbose=0)
            results.append([*history.history["loss"], *model.get_weights()])
        for one, other in zip(*results):
            self.assertAllClose(one, other, atol=1e-5)
        self.assertLess(results[0][1], results[0][0])
