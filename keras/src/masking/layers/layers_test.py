"""Every public layer on masked tensors.

Each case is run in inference and in training with other numbers under the
masks, with more masked steps, on rows without a valid entry, and through its
symbolic spec. Gradients are with respect to operands and weights; updates of
variables that are not trained are compared too.
"""

import functools
import inspect
import itertools
import os

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.layers.preprocessing.data_layer import DataLayer
from keras.src.masking.calls import values_of
from keras.src.masking.layers import coverage as layer_coverage
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.cases import layers as other_layers
from keras.src.testing.masked.cases import preprocessing
from keras.src.testing.masked.row_checks import all_traced
from keras.src.testing.masked.row_checks import shapes
from keras.src.testing.masked.testing_utils import Drawn
from keras.src.testing.masked.testing_utils import T
from keras.src.utils import set_random_seed
from patchset.markers import when

# JAX and TensorFlow compile or trace anew for each layer and each length: one
# case of each is enough there, but where all are asked for.
IS_QUICK = backend.backend() in ("numpy", "torch")
ALL = IS_QUICK or os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
CASES = other_layers.CASES | preprocessing.CASES
# There, too, images are left to the other backends, but for these.
LEFT_OUT = set() if ALL else set(preprocessing.IMAGES) - {"MixUp", "RandomFlip"}
ELSEWHERE = other_layers.ELSEWHERE | preprocessing.ELSEWHERE
# Layers that say in no graph what they put out.
WITHOUT_SHAPE = ()
if when("<3.15"):
    WITHOUT_SHAPE = ("Hashing",)

NAMED_CASES = [
    (f"{name}_{i}", case)
    for name, cases in CASES.items()
    if name not in LEFT_OUT
    for i, case in enumerate(cases if ALL else cases[:1])
]
# As their tables say: what `Fill` gives is plain, and the queries' is the mask
# of an attention.
USE_UP = {"Fill"}
ATTEND = {
    *("AdditiveAttention", "Attention"),
    *("GroupQueryAttention", "MultiHeadAttention"),
}
MORE = (1, 5, 17)
# What is under the masks when gradients are compared. Nothing that is not
# finite: layers that take each step by itself put nothing there.
HIDDEN = ({"garbage": 1}, {"hidden": 1e30})


def public_layers():
    """The first names of the classes in `keras.layers`, off the exports."""
    found = set()
    for name, layer in inspect.getmembers(keras.layers, inspect.isclass):
        paths = getattr(layer, "_api_export_path", ())
        paths = [paths] if isinstance(paths, str) else paths
        paths = [path for path in paths if path.startswith("keras.layers.")]
        if paths and paths[0] == f"keras.layers.{name}":
            found.add(name)
    return found


def drawn_of(case, share=0.6):
    return u.draw(case.args, seed=1, share=share)


def over_batch(case):
    """The arguments, with masks over the batch alone."""
    return u.map_leaves(
        lambda t: t if t.mask is None else t._replace(mask=1), case.args, T
    )


def uses_up(name, args):
    """Whether a layer keeps no mask of the batch."""
    name = name.rpartition("_")[0]
    return name in USE_UP or (
        name in ATTEND and u.leaves(args, T)[0].mask is None
    )


def poisoned(drawn):
    """The arguments with other things under the masks, each time others."""
    for poison in (np.nan, np.inf, -np.inf, 1e30):
        yield u.masked(drawn, poison=poison)
    for seed in (1, 2):
        yield u.masked(drawn, garbage=seed)


def hidden(drawn):
    """The arguments with what no op leaves under the masks."""
    for number in u.FINITE[1:3] + u.NOT_FINITE[:2]:
        yield u.masked(drawn, hidden=number)


def with_more_steps(case, drawn, count, side):
    """The arguments with masked steps before or after the others."""
    place = iter(range(9))

    def one(x):
        if next(place) not in case.padded:
            return x
        width = [(0, 0)] * x.values.ndim
        width[1] = (0, count) if side == "right" else (count, 0)
        mask = x.mask
        if mask is not None:
            mask = np.pad(mask, width[: mask.ndim])
        return Drawn(np.pad(x.values, width), mask)

    return u.map_leaves(one, drawn, Drawn)


def to_both_ends(case):
    """Drawn arguments whose rows are as short as their first and last step.

    So the first run is one of rows that are not padded, with holes.
    """
    drawn = drawn_of(case)
    for x in u.leaves(drawn):
        if x.mask is not None and x.mask.ndim > 1:
            x.mask[:, [0, -1]] = True
    return drawn


def sides_and_counts(case):
    """All of them, or one, another for each case, where each is compiled."""
    found = [*itertools.product(case.pads, MORE)]
    if ALL:
        return found
    place = [own for _, own in NAMED_CASES].index(case)
    return [found[place % len(found)]]


def floats(drawn):
    return [x for x in u.leaves(drawn) if u.is_float(x.values)]


def results(result):
    """Values and mask over all axes of each output."""
    return u.parts(tree.flatten(result))


def valid_entries(result):
    """The valid entries of each row of each output, one after the other."""
    return [
        [row if m is None else row[m] for row, m in zip(values, mask)]
        if mask is not None
        else [values]
        for values, mask in results(result)
    ]


class Runner:
    """A built layer whose state never changes."""

    def __init__(self, case, drawn):
        set_random_seed(1)
        self.layer = case.make()
        self.layer(*u.masked(drawn))
        self.trained = [v.value for v in self.layer.trainable_variables]
        self.others = [v.value for v in self.layer.non_trainable_variables]
        # In training, operands of another shape are given other numbers.
        self.is_random = any("seed" in v.path for v in self.layer.variables)
        self.programs = {
            training: self._program(functools.partial(self._run, training))
            for training in (False, True)
        }
        self.differentiate = self._program(self._differentiate)

    def _program(self, function):
        # What changes images takes half a minute to compile, if it can be.
        is_eager = isinstance(self.layer, DataLayer)
        if is_eager or not self.layer.supports_jit:
            return function
        return u.compiled(function)

    def _run(self, training, args, trained):
        # PyTorch's own dropout has its own seed.
        set_random_seed(1)
        kwargs = {}
        if self.layer._call_has_training_arg:
            kwargs["training"] = training
        return self.layer.stateless_call(trained, self.others, *args, **kwargs)

    def __call__(self, args, training):
        """The result, and what the variables that are not trained become."""
        outputs, others = self.programs[training](args, self.trained)
        return outputs, [*map(u.array, others)]

    def _differentiate(self, arrays, args):
        def loss(arrays):
            arrays = iter(arrays)

            def one(x):
                if not u.is_float(x):
                    return x
                return with_values(x, next(arrays))

            mine = tree.map_structure(one, args)
            outputs, _ = self._run(True, mine, list(arrays))
            return sum(
                ops.sum(ops.square(y)) + ops.sum(ops.sin(y))
                for y in map(filled, tree.flatten(outputs))
            )

        return u.gradients(loss, arrays)

    def gradients(self, args):
        """Gradients in training by the operands, and by the weights."""
        operands = [values_of(x) for x in tree.flatten(args) if u.is_float(x)]
        arrays = [u.array(x) for x in (*operands, *self.trained)]
        found = [
            np.broadcast_to(u.array(g), x.shape)
            for g, x in zip(self.differentiate(arrays, args), arrays)
        ]
        return found[: len(operands)], found[len(operands) :]


def with_values(x, values):
    if not isinstance(x, MaskedTensorBase):
        return values
    return backend.MaskedTensor._wrap(values, x.mask)


def filled(x):
    """The valid entries among zeros, as floats: some layers count."""
    x = ops.filled(x, 0) if isinstance(x, MaskedTensorBase) else x
    return x if u.is_float(x) else ops.cast(x, "float32")


class LayersTest(testing.TestCase):
    def assert_same(self, found, expected, label=None):
        self.assertEqual(len(found), len(expected), label)
        for one, other in zip(found, expected):
            self.assertAllClose(one, other, atol=1e-4, rtol=1e-4, msg=label)

    def test_every_public_layer_has_a_case(self):
        """A layer without one is named here, before a user meets it."""
        self.assertEqual(set(CASES) & set(ELSEWHERE), set())
        # By class: releases differ in which of two names comes first.
        public, known = (
            {getattr(keras.layers, name) for name in names}
            for names in (public_layers(), {*CASES, *ELSEWHERE})
        )
        self.assertEqual(public, known)

    @parameterized.named_parameters(NAMED_CASES)
    def test_the_mask(self, case):
        drawn = drawn_of(case)
        operands = [x for x in u.leaves(drawn) if x.mask is not None]
        wanted = case.mask(*(x.cells for x in operands))
        args = u.masked(drawn)
        layer = case.make()
        result = tree.flatten(layer(*args))
        self.assertEqual(ops.is_masked(result[0]), wanted is not None)
        if wanted is not None:
            mask = u.parts(result[:1])[0][1]
            self.assertAllEqual(mask, u.over_all_axes(wanted, mask.shape))
        # What the caller has is as it was.
        for x, one in zip(u.leaves(args, MaskedTensorBase), operands):
            self.assertAllEqual(x.mask, one.mask)
            self.assertAllEqual(
                u.array(x.values), np.where(one.cells, one.values, 0)
            )

    @parameterized.named_parameters(
        u.part((name, name, case) for name, case in NAMED_CASES)
    )
    def test_a_mask_of_the_batch_is_not_used_up(self, name, case):
        """It is that of each result, states as well, also in a graph."""
        args = over_batch(case)
        drawn, layer = u.draw(args, seed=2, share=0.5), case.make()
        for x in u.leaves(drawn):
            if x.mask is not None:
                x.mask[:2] = True, False
        rows = np.logical_and.reduce(
            [x.mask for x in u.leaves(drawn) if x.mask is not None]
        )
        run = Runner(case, drawn)
        expected, _ = run(u.masked(drawn), False)
        for args_again in poisoned(drawn):
            found, _ = run(args_again, False)
            self.assert_same_where_valid(results(found), results(expected))
        if uses_up(name, args):
            return
        for _, mask in results(expected):
            self.assertIsNotNone(mask)
            self.assertFalse(mask[~rows].any())
            self.assertTrue(all(row.any() for row in mask[rows]))
        if type(layer).__name__ in WITHOUT_SHAPE:
            return
        specs = tree.flatten(layer(*u.symbolic(args)))
        for spec, x in zip(specs, tree.flatten(expected), strict=True):
            self.assertIsNotNone(spec._mask_spec)
            self.assert_fits(spec._mask_spec, x.mask)

    @parameterized.named_parameters(u.part(NAMED_CASES))
    def test_nothing_under_the_masks_matters(self, case):
        """Nor is anything infinite or NaN, in rows without a valid entry."""
        drawn, empty = drawn_of(case), u.masked(drawn_of(case, 0), garbage=1)
        run = Runner(case, drawn)
        for training in (False, True):
            result, updates = run(u.masked(drawn), training)
            expected = results(result)
            for args in poisoned(drawn):
                result, again = run(args, training)
                self.assert_finite(x for x, _ in results(result))
                self.assert_same_where_valid(results(result), expected)
                self.assert_same(again, updates)
            for args in hidden(drawn):
                with u.quiet():
                    result, again = run(args, training)
                self.assert_same_where_valid(results(result), expected)
                self.assert_same(again, updates)
            result, updates = run(empty, training)
            self.assert_finite(x for x, _ in results(result))
            self.assert_finite(updates)
        if backend.backend() == "numpy":
            return
        by_operands, by_weights = run.gradients(u.masked(drawn))
        for other in HIDDEN:
            found, found_by_weights = run.gradients(u.masked(drawn, **other))
            self.assert_same(found_by_weights, by_weights)
            self.assert_finite(found)
            for one, other, x in zip(found, by_operands, floats(drawn)):
                self.assertAllEqual(one[~x.cells], 0 * one[~x.cells])
                self.assertAllClose(
                    one[x.cells], other[x.cells], atol=1e-4, rtol=1e-4
                )
        for gradients in run.gradients(empty):
            self.assert_finite(gradients)

    def assert_finite(self, arrays):
        for x in arrays:
            self.assertTrue(np.isfinite(x).all())

    def assert_same_where_valid(self, found, expected):
        for (one, mask), (other, _) in zip(found, expected):
            if mask is not None:
                one, other = one[mask], other[mask]
            self.assertAllClose(one, other, atol=1e-4, rtol=1e-4)

    @parameterized.named_parameters(
        u.part(case for case in NAMED_CASES if case[1].pads)
    )
    def test_more_steps_change_nothing(self, case):
        drawn = to_both_ends(case)
        run = Runner(case, drawn)
        args = u.masked(drawn)
        modes = (False,) if run.is_random else (False, True)
        expected = {training: run(args, training) for training in modes}
        differentiates = backend.backend() != "numpy" and not run.is_random
        if differentiates:
            by_operands, by_weights = run.gradients(args)
        for side, count in sides_and_counts(case):
            label = f"{count} more on the {side}"
            more = with_more_steps(case, drawn, count, side)
            args = u.masked(more, garbage=count)
            for training, (result, updates) in expected.items():
                found, again = run(args, training)
                for one, other in zip(
                    valid_entries(found), valid_entries(result)
                ):
                    self.assert_same(one, other, f"{label}, {training=}")
                self.assert_same(again, updates, label)
            if not differentiates:
                continue
            found, found_by_weights = run.gradients(args)
            self.assert_same(found_by_weights, by_weights, label)
            for one, x, other, old in zip(
                found, floats(more), by_operands, floats(drawn)
            ):
                if x.mask is not None:
                    self.assert_same([one[x.cells]], [other[old.cells]], label)

    @parameterized.named_parameters(u.part(NAMED_CASES))
    def test_the_spec_is_that_of_the_run(self, case):
        layer = case.make()
        if type(layer).__name__ in WITHOUT_SHAPE:
            self.skipTest("Upstream's says no shape.")
        eager = tree.flatten(layer(*u.masked(drawn_of(case))))
        count = len(u.leaves(case.args, T))
        batch = [(i, 0) for i in range(count)]
        if backend.backend() == "tensorflow" and case in CASES["Softmax"][5:]:
            # Upstream's `softmax` over several axes wants all sizes there.
            batch = []
        if backend.backend() == "jax" and case in CASES["MixUp"]:
            # JAX permutes no number of images that is unknown.
            batch = []
        for unknown in ((), batch):
            args = u.symbolic(case.args, unknown)
            specs = tree.flatten(layer(*args))
            if not unknown and layer_coverage.coverage_of(layer, args, {}):
                with all_traced():
                    traced = shapes(layer(*args))
                self.assertEqual(shapes(specs), traced)
            self.assertEqual(len(specs), len(eager))
            for spec, x in zip(specs, eager):
                self.assert_fits(spec, x)
                # What TensorFlow computes for another backend may come back
                # in another dtype than upstream says.
                if layer.supports_jit:
                    self.assertEqual(
                        spec.dtype, backend.standardize_dtype(x.dtype)
                    )
                mask = spec._mask_spec
                self.assertEqual(mask is not None, ops.is_masked(x))
                if mask is not None:
                    self.assert_fits(mask, x.mask)
                    self.assertEqual(mask.dtype, "bool")

    @parameterized.named_parameters(u.part(NAMED_CASES))
    @pytest.mark.skipif(
        backend.backend() != "tensorflow", reason="has sizes known at run time"
    )
    def test_unknown_batch_and_time(self, case):
        import tensorflow as tf

        drawn = drawn_of(case)
        args = u.masked(drawn)
        layer = case.make()
        if not layer.supports_jit:
            self.skipTest("It runs on TensorFlow, whatever the backend.")
        kwargs = {"training": False} if layer._call_has_training_arg else {}
        expected = results(layer(*args, **kwargs))

        def spec(x):
            if isinstance(x, MaskedTensorBase):
                values, mask = spec(x.values), spec(x.mask)
                return backend.MaskedTensor.Spec(values=values, mask=mask)
            known = x.shape[2:] if len(x.shape) > 2 else x.shape[1:]
            unknown = [None] * (len(x.shape) - len(known))
            return tf.TensorSpec([*unknown, *known], x.dtype)

        run = tf.function(lambda *args: layer(*args, **kwargs), autograph=False)
        flat = tree.map_structure(spec, args)
        found = results(run.get_concrete_function(*flat)(*args))
        for (one, mask), (other, wanted) in zip(found, expected, strict=True):
            self.assertEqual(mask is None, wanted is None)
            if mask is not None:
                self.assertAllEqual(mask, wanted)
                one, other = one[mask], other[mask]
            self.assertAllClose(one, other, atol=1e-4, rtol=1e-4)

    def assert_fits(self, spec, x):
        self.assertEqual(len(spec.shape), len(x.shape))
        for known, size in zip(spec.shape, x.shape):
            self.assertIn(known, (None, size))
