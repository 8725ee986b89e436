"""Every row of the tables, against oracles that know no masked tensors."""

import inspect
import zlib

import numpy as np
from absl.testing import parameterized
from hypothesis import Phase
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

import keras
from keras.src import activations
from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import tables
from keras.src.masking import testing_utils as u
from keras.src.masking.cases import batch
from keras.src.masking.cases import carry
from keras.src.masking.cases import layout
from keras.src.masking.cases import normal
from keras.src.masking.cases import order
from keras.src.ops import einops
from keras.src.random import random

POISONS = (np.nan, np.inf, -np.inf, 1e30)
FEW = settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)
# Their results are steps or answers: nothing to differentiate.
NO_GRADIENT = set(
    """argmax argmin empty_like floor_divide get_mask heaviside ndim nextafter
    size""".split()
)
if backend.backend() == "torch":
    # PyTorch's writes in place to what the gradient needs.
    NO_GRADIENT.add("vander")


MODULES = {"activations": activations, "image": ops.image, "random": random}


def function_of(name):
    module, _, own_name = name.rpartition(".")
    found = getattr(MODULES.get(module, ops), own_name, None)
    return found or getattr(einops, own_name)


def united(attribute):
    """One dictionary of those of all families, which must not overlap."""
    found = {}
    for family in (u, batch, carry, layout, normal, order):
        own = getattr(family, attribute, {})
        assert not set(found) & set(own), set(found) & set(own)
        found |= own
    return found


EXAMPLES = united("EXAMPLES")
ORACLES = united("ORACLES")
# Upstream's own specs of these, or of one of their examples, are not what its
# calls give, each for a reason.
SPECS_DIFFER = united("SPECS_DIFFER")
# Names of the arguments that are passed by name, from the second on.
NAMES = united("NAMES") | {
    **dict.fromkeys(u.REDUCTIONS, ("axis", "keepdims")),
    **dict.fromkeys(("concatenate", "stack", "cumsum", "cumprod"), ("axis",)),
    "array_split": ("indices_or_sections", "axis"),
    "average_pool": ("pool_size", "strides", "padding"),
    "conv": ("kernel", "strides", "padding"),
    "layer_normalization": ("gamma", "beta", "axis"),
    "max_pool": ("pool_size", "strides", "padding"),
    "moments": ("axes",),
    "rms_normalization": ("scale", "axis"),
    "unstack": ("num", "axis"),
}


def call(name, args):
    names = NAMES.get(name, ())
    positional = args[: len(args) - len(names)]
    named = dict(zip(names, args[len(positional) :]))
    if name == "count_nonzero":
        del named["keepdims"]
    if "padding" in named:
        named["data_format"] = "channels_last"
    return function_of(name)(*positional, **named)


def all_examples():
    return [
        (f"{name}_{i}", name, example)
        for name, examples in EXAMPLES.items()
        for i, example in enumerate(examples)
    ]


def seed_of(label, seed):
    return zlib.crc32(label.encode()) + seed


draws = given(
    seed=st.integers(0, 9),
    share=st.sampled_from([0.0, 0.6, 1.0]),
    poison=st.sampled_from(POISONS),
)


def public_functions():
    """The names in `keras.ops` and `keras.random`, read off the exports."""
    found = set()
    for module in (keras.ops, keras.ops.image, keras.random):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            paths = getattr(function, "_api_export_path", ())
            paths = [paths] if isinstance(paths, str) else paths
            if any(path.startswith(PUBLIC) for path in paths):
                found.add(name)
    return found


PUBLIC = ("keras.ops.", "keras.random.")


class RowsTest(testing.TestCase):
    def test_every_public_function_has_a_row(self):
        """A function without one is named here, before a user meets it."""
        rows, elsewhere = set(), {}
        for table in tables.TABLES:
            rows |= set(table.RULES)
            elsewhere |= getattr(table, "ELSEWHERE", {})
        self.assertEqual(rows & set(elsewhere), set())
        public = public_functions()
        self.assertEqual(public - rows - set(elsewhere), set())
        self.assertEqual(set(elsewhere) - public, set())
        for name, reason in elsewhere.items():
            self.assertRegex(reason, r"^[A-Z`].+\.$", name)

    def test_every_row_has_examples(self):
        names = set()
        for table in tables.TABLES:
            module = table.__name__.rpartition(".")[2]
            prefix = f"{module}." if module in MODULES else ""
            names |= {prefix + name for name in table.RULES}
        self.assertEqual(names, set(EXAMPLES))

    def assert_same(self, result, expected, label):
        """Masks exactly, values where they are valid, nothing non-finite."""
        pairs, others = u.parts(result), u.parts(expected)
        self.assertEqual(len(pairs), len(others), label)
        for (values, mask), (wanted, wanted_mask) in zip(pairs, others):
            self.compare(values, mask, wanted, wanted_mask, label)

    def compare(self, values, mask, wanted, wanted_mask, label):
        self.assertEqual(mask is None, wanted_mask is None, label)
        self.assertEqual(values.shape, wanted.shape, label)
        valid = np.ones(values.shape, "bool")
        if mask is not None:
            self.assertAllEqual(mask, wanted_mask, label)
            valid = mask
        tolerance = 2e-2 if label.endswith("16") else 1e-4
        self.assertAllClose(
            values[valid].astype("float64"),
            wanted[valid].astype("float64"),
            rtol=tolerance,
            atol=tolerance,
            msg=label,
        )

    def assert_finite(self, result, label):
        for x in tree.flatten(result):
            values = u.array(x.values if hasattr(x, "mask") else x)
            finite = np.all(np.isfinite(values.astype("float64")))
            self.assertTrue(finite, f"{label}: {values}")

    @parameterized.named_parameters(all_examples())
    def test_row(self, name, example):
        @FEW
        @draws
        def check(seed, share, poison):
            label = f"{name} {example} seed={seed} share={share}"
            drawn = u.draw(example, seed_of(name, seed), share)
            result = call(name, u.masked(drawn))
            self.assert_finite(result, label)
            self.check_oracle(name, drawn, result, label)
            poisoned = call(name, u.masked(drawn, poison=poison))
            self.assert_same(poisoned, result, label)
            garbled = call(name, u.masked(drawn, garbage=seed))
            self.assert_finite(garbled, label)
            self.assert_same(garbled, result, label)

        if name == "imag" and backend.backend() == "torch":
            self.skipTest("PyTorch takes complex numbers only")
        check()
        drawn = u.draw(example, seed_of(name, 1), 0.6)
        self.check_gradients(name, drawn, 1, f"{name} {example}")
        self.check_spec(name, example)

    def check_oracle(self, name, drawn, result, label):
        operands = u.leaves(drawn)
        if name in ORACLES:
            found, expected = u.parts(result), ORACLES[name](*drawn)
            self.assertEqual(len(found), len(expected), label)
            for own, wanted in zip(found, expected):
                self.compare(*own, *wanted, label)
        elif name in u.ELEMENTWISE:
            values = u.array(call(name, u.plain(drawn)))
            mask = np.ones((), "bool")
            for x in operands:
                mask = mask & x.cells
            mask = np.broadcast_to(mask, values.shape)
            self.compare(*u.parts(result)[0], values, mask, label)
        elif name in u.REDUCTIONS:
            if name == "count_nonzero":
                drawn = (*drawn[:2], False)
            values, mask = u.reduced(name, *drawn)
            dtype = str(drawn[0].values.dtype)
            label = f"{label} {dtype}"
            self.compare(*u.parts(result)[0], values, mask, label)
        elif name in u.LAYOUT:
            self.check_layout(name, drawn, result, label)
        elif name in u.CONTRACTIONS:
            self.check_contraction(name, drawn, result, label)

    def check_layout(self, name, drawn, result, label):
        values = u.parts(call(name, u.plain(drawn, fill=0)))
        cells = u.map_leaves(
            lambda x: u.Drawn(x.cells.astype("int32"), None), drawn, u.Drawn
        )
        masks = u.parts(call(name, u.plain(cells)))
        if name == "pad":
            widths = np.broadcast_to(drawn[1], (drawn[0].values.ndim, 2))
            own = drawn[0].mask
            mask = np.pad(own, widths[: own.ndim])
            masks = [(u.over_all_axes(mask, values[0][0].shape), None)]
        if name == "stack" and drawn[1] == -1:
            both = np.logical_and(*(x.cells for x in drawn[0]))
            masks = [(np.stack([both, both], -1), None)]
        for (value, mask), (wanted, _), (wanted_mask, _) in zip(
            u.parts(result), values, masks
        ):
            if mask is None:
                self.assertEqual(value.ndim, wanted_mask.ndim)
                self.assertAllClose(value, wanted * wanted_mask, msg=label)
            else:
                wanted_mask = wanted_mask.astype("bool")
                self.compare(value, mask, wanted, wanted_mask, label)

    def check_contraction(self, name, drawn, result, label):
        values = u.array(call(name, u.plain(drawn, fill=0)))
        cells = u.map_leaves(
            lambda x: u.Drawn(x.cells.astype("float32"), None), drawn, u.Drawn
        )
        mask = u.array(call(name, u.plain(cells))) > 0
        value, own = u.parts(result)[0]
        if own is None:
            self.assertAllClose(value, values, atol=1e-4, msg=label)
        else:
            self.compare(value, own, values, mask, label)

    def check_gradients(self, name, drawn, seed, label):
        operands = u.leaves(drawn)
        floats = [x for x in operands if u.is_float(x.values)]
        if backend.backend() == "numpy" or name in NO_GRADIENT or not floats:
            return
        weights = {}

        def loss(arrays, garbage):
            arrays = iter(arrays)

            def one(x):
                values = x.values
                if u.is_float(values):
                    values = next(arrays)
                if x.mask is None:
                    return backend.convert_to_tensor(values)
                result = backend.MaskedTensor(values, x.mask)
                if garbage and u.is_float(x.values):
                    result = result + u.rubbish(x, seed)
                return result

            result = call(name, u.map_leaves(one, drawn, u.Drawn))
            number = 0.0
            for i, x in enumerate(tree.flatten(result)):
                if isinstance(x, MaskedTensorBase):
                    x = ops.filled(x, 0)
                if not u.is_float(x):
                    continue
                shape = tuple(x.shape)
                rng = np.random.default_rng(i)
                weights.setdefault(i, rng.normal(size=shape))
                weight = ops.cast(weights[i], x.dtype)
                number = number + ops.sum(ops.cast(x * weight, "float32"))
            return number

        if isinstance(loss([x.values for x in floats], False), float):
            return
        arrays = [x.values for x in floats]
        poisoned = [
            np.where(x.cells, x.values, np.nan).astype(x.values.dtype)
            for x in floats
        ]
        clean = u.gradients(lambda xs: loss(xs, False), poisoned)
        garbled = u.gradients(lambda xs: loss(xs, True), arrays)
        for x, one, other in zip(floats, clean, garbled):
            one, other = u.array(one), u.array(other)
            one, other = np.broadcast_arrays(one, other, x.values)[:2]
            self.assertTrue(np.all(np.isfinite(one)), f"{label}: {one}")
            self.assertTrue(np.all(np.isfinite(other)), f"{label}: {other}")
            self.assertAllClose(one[~x.cells], 0 * one[~x.cells], msg=label)
            self.assertAllClose(other[~x.cells], 0 * one[~x.cells], msg=label)
            self.assertAllClose(
                one[x.cells], other[x.cells], rtol=2e-2, atol=1e-3, msg=label
            )

    def check_spec(self, name, example):
        """The symbolic result has the shapes and dtypes of the eager one."""
        label = self._testMethodName.removeprefix("test_row_")
        if name in SPECS_DIFFER or label in SPECS_DIFFER:
            return
        if name == "inner" and backend.backend() == "tensorflow":
            return  # Upstream's cannot be traced with two matrices.
        drawn = u.draw(example, 0, 0.6)
        result = call(name, u.masked(drawn))

        def symbolic(t):
            mask = None
            if t.mask is not None:
                mask = backend.KerasTensor(t.shape[: t.mask], "bool")
            return backend.KerasTensor(t.shape, t.dtype, mask=mask)

        specs = call(name, u.map_leaves(symbolic, example, u.T))
        for x, spec in zip(tree.flatten(result), tree.flatten(specs)):
            if not hasattr(x, "shape"):
                continue
            self.assertEqual(tuple(x.shape), tuple(spec.shape), name)
            own = getattr(spec, "_mask_spec", None)
            masked = isinstance(x, MaskedTensorBase)
            self.assertEqual(masked, own is not None, name)
            if masked:
                self.assertEqual(tuple(x.mask.shape), own.shape, name)
            if name in ("size", "sparsemax"):  # Upstream's own differ.
                continue
            dtypes = [backend.standardize_dtype(y.dtype) for y in (x, spec)]
            self.assertEqual(*dtypes, name)
