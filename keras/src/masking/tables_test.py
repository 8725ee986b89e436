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
from keras.src import backend
from keras.src import testing
from keras.src import tree
from keras.src.masking import tables
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.row_checks import EXAMPLES
from keras.src.testing.masked.row_checks import ORACLES
from keras.src.testing.masked.row_checks import SPECS_DIFFER
from keras.src.testing.masked.row_checks import WITHOUT_ORACLE
from keras.src.testing.masked.row_checks import RowChecks
from keras.src.testing.masked.row_checks import call
from keras.src.testing.masked.row_checks import shapes
from keras.src.testing.masked.row_checks import traced
from patchset.markers import when

POISONS = (np.nan, np.inf, -np.inf, 1e30)
FEW = settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
)


def all_examples():
    return [
        (f"{name}_{i}", name, example)
        for name, examples in EXAMPLES.items()
        for i, example in enumerate(examples)
    ]


# Rows whose families do not tell what masks cover: of functions, of which only
# tracing tells, and those that are written in terms of other ops.
TRACED = set(
    """average column_stack trace trapezoid bincount searchsorted append
    dsplit dstack full geomspace hsplit hstack linspace logspace meshgrid
    rot90 select view vsplit vstack cross psnr multi_hot
    categorical_crossentropy ctc_decode ctc_loss
    sparse_categorical_crossentropy cdist in_top_k scatter_update slice_update
    associative_scan cond fori_loop map scan switch vectorized_map while_loop
    cholesky_inverse jvp crop_images pad_images""".split()
)


# Functions that some release lacks; their rows wait for one that has them.
NEWER = set(
    """cdist column_stack copysign cov dsplit erfc fabs float_power fmax fmin
    gammainc lgamma matrix_power matrix_rank nanpercentile percentile pinv
    reconstruct_patches segment_min segment_prod sobel_edges ssim
    unique""".split()
)
if when(">=3.16"):
    NEWER = {"amax", "amin"}  # They are other names.


# A mask is an answer of its own. Of the others, NumPy makes float64 of numbers
# in Python, and PyTorch float32 of integers that it adds up.
DTYPES_DIFFER = {"get_mask"}
if backend.backend() == "numpy":
    DTYPES_DIFFER |= {"associative_scan", "histogram", "cdist_4"}
    DTYPES_DIFFER |= {f"segment_{k}_{i}" for k in ("max", "min") for i in "456"}
if backend.backend() == "torch":
    DTYPES_DIFFER |= {"associative_scan_3"}


# Their first axis is split, walked along or counted, or broadcast to a shape
# that is given; NumPy's own frames are of no use without a signal.
WITHOUT_EMPTY_BATCH = set(
    """associative_scan bincount fori_loop full stft trapezoid vectorized_map
    vsplit""".split()
)
NESTS = set(
    """associative_scan cond fori_loop jvp map scan switch vectorized_map
    while_loop""".split()
)
# Python's numbers have these dtypes.
LISTED = ("bool", "float32", "int32")


def with_list(make, drawn, x):
    """What `make` gives of the operands, with a list for one of them."""
    return u.map_leaves(
        lambda y: x.values.tolist() if y is x else make(y), drawn, u.Drawn
    )


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


class RowsTest(testing.TestCase, RowChecks):
    def test_every_public_function_has_a_row(self):
        """A function without one is named here, before a user meets it."""
        rows, elsewhere = set(), {}
        for table in tables.TABLES:
            rows |= set(tables.rules_of(table))
            elsewhere |= getattr(table, "ELSEWHERE", {})
            lacking = set(table.RULES) - set(tables.rules_of(table))
            self.assertEqual(lacking - NEWER, set(), table.__name__)
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
            prefix = f"{module}." if module in u.MODULES else ""
            names |= {prefix + name for name in tables.rules_of(table)}
        self.assertEqual(names, set(EXAMPLES))

    def test_every_row_has_an_oracle(self):
        """Or no examples for a reason: a poisoned call tells only half."""
        self.assertEqual(set(ORACLES) | set(WITHOUT_ORACLE), set(EXAMPLES))
        for name in WITHOUT_ORACLE:
            self.assertEqual(EXAMPLES[name], [], name)

    @parameterized.named_parameters(u.part(all_examples()))
    def test_row(self, name, example):
        @FEW
        @draws
        def check(seed, share, poison):
            label = f"{name} {example} seed={seed} share={share}"
            drawn = u.draw(example, seed_of(name, seed), share)
            self.check_call(name, drawn, poison, seed, label)

        if name == "imag" and backend.backend() == "torch":
            self.skipTest("PyTorch takes complex numbers only")
        check()
        drawn = u.draw(example, seed_of(name, 1), 0.6)
        self.check_gradients(name, drawn, 1, f"{name} {example}")
        own = self._testMethodName.removeprefix("test_row_")
        if name in SPECS_DIFFER or own in SPECS_DIFFER:
            return
        if name == "inner" and backend.backend() == "tensorflow":
            return  # Upstream's cannot be traced with two matrices.
        self.check_spec(name, example)
        self.check_told(name, example)

    @parameterized.named_parameters(u.part(all_examples()))
    def test_dtypes_are_those_of_plain_operands(self, name, example):
        """Indices, counts and all else: a mask changes no dtype."""
        own = self._testMethodName.partition("operands_")[2]
        if {name, own} & DTYPES_DIFFER:
            self.skipTest("Upstream's plain result has another dtype here.")
        drawn = u.draw(example, 0, 0.6)
        try:
            plain = call(name, u.plain(drawn, 1))
        except Exception:
            self.skipTest("Plain operands like these are no operands.")
        found, wanted = (
            [
                str(getattr(x, "dtype", type(x).__name__))
                for x in tree.flatten(result)
            ]
            for result in (call(name, u.masked(drawn)), plain)
        )
        self.assertEqual(found, wanted)

    @parameterized.named_parameters(u.part(all_examples()))
    def test_an_empty_batch(self, name, example):
        """What plain operands give something for gives something masked."""
        own = self._testMethodName.removeprefix("test_an_empty_batch_")
        if {name, own} & WITHOUT_EMPTY_BATCH:
            self.skipTest("Its first axis is none of a batch.")

        def empty(x):
            mask = x.mask if x.mask is None else x.mask[:0]
            return u.Drawn(x.values[:0], mask) if x.values.ndim else x

        drawn = u.map_leaves(empty, u.draw(example, 0, 0.6), u.Drawn)
        try:
            call(name, u.plain(drawn))
        except Exception:
            self.skipTest("Plain operands like these are no operands.")
        try:
            result = call(name, u.masked(drawn))
        except UnsupportedMaskError:
            return
        self.assert_finite(result, name)

    @parameterized.named_parameters(u.part(all_examples()))
    def test_a_list_beside_a_masked_operand(self, name, example):
        """It is what the tensor of its numbers is."""
        if name in NESTS:
            self.skipTest("There a list is a nest.")
        drawn = u.draw(example, 0, 0.6)
        operands = u.leaves(drawn)
        for place, x in enumerate(operands):
            others = (y for y in operands if y is not x)
            if x.mask is not None or all(y.mask is None for y in others):
                continue
            if not x.values.ndim or str(x.values.dtype) not in LISTED:
                continue

            try:
                call(name, with_list(u.plain, drawn, x))
            except Exception:
                continue  # Plain operands go with no list there.
            label = f"{name} {example} {place}"
            found = call(name, with_list(u.masked, drawn, x))
            expected = u.parts(call(name, u.masked(drawn)))
            self.assert_same(found, expected, label, 1e-4)

    def check_told(self, name, example):
        """What the family tells is what tracing finds, sizes unknown or not."""
        args = u.symbolic(example)
        expected = shapes(traced(name, args))
        self.assertEqual(shapes(call(name, args)), expected, name)

    def test_which_rows_are_traced(self):
        """The others tell what their masks cover: graphs are built fast."""
        found = {
            name
            for table in tables.TABLES
            for name, rule in tables.rules_of(table).items()
            # What has no operation is part of no graph.
            if not hasattr(table, "KEYED_BY_FUNCTION")
            and not hasattr(rule, "coverage")
        }
        there = {name for name in TRACED if u.is_there(name)}
        there |= {x for x in TRACED if u.is_there(f"image.{x}")}
        self.assertEqual(found, there)
