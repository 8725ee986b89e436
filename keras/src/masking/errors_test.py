"""What the errors say: which op, which operand, why, and the ways out."""

import ast
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import testing
from keras.src.masking import UnsupportedMaskError
from keras.src.masking import rules
from keras.src.masking import tables
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.cases.refused import CASES
from keras.src.testing.masked.row_checks import EXAMPLES
from keras.src.testing.masked.row_checks import call
from keras.src.testing.masked.testing_utils import T
from patchset.markers import when

WAYS_OUT = (
    "What to do: fill the masked entries (`keras.ops.filled(x, value)`), drop "
    "the mask on purpose (`x.values`), or add a rule for it."
)
# More than this many refusals have ways out that most engines go.
AT_LEAST = 30
if when("<3.15"):  # Which has fewer functions that refuse.
    AT_LEAST = 28
# Operands that have their batch axis alone, by their place.
WITHOUT_CORE = {("ctc_loss", 2), ("ctc_loss", 3)}
every_case = parameterized.named_parameters(
    (f"{i}_{case.name}", case) for i, case in enumerate(CASES)
)


def drawn(t):
    return u.draw(t, 1, 0.6)


def masked(t):
    return u.masked(drawn(t), garbage=2)


def filled(t):
    """What a user passes who fills: a plain tensor, made without our ops."""
    return u.plain(drawn(t), fill=0)


def dropped(t):
    """And one who drops the mask, with what is under it."""
    x = drawn(t)
    values = np.where(x.cells, x.values, np.zeros((), x.values.dtype))
    if t.mask and t.dtype != "bool":
        values = values + u.rubbish(x, 2)
    return ops.convert_to_tensor(values if t.mask else x.values)


def outcome(function, make):
    """What a call gives, or the type of the error if it cannot be done."""
    try:
        return u.parts(function(make))
    except Exception as error:
        return type(error)


def own_name(name):
    return name.rpartition(".")[2]


def text_of(name, operands, reason):
    """The beginning of a message, written anew.

    Args:
        name: Name of the public function.
        operands: All `T` of a call.
        reason: What the reason begins with.
    """
    shapes = ", ".join(
        f"operand {i}: values of shape {t.shape}, mask of shape "
        f"{t.shape[: t.mask]}"
        for i, t in enumerate(operands)
        if t.mask
    )
    return f"`{own_name(name)}` cannot take this masked tensor ({shapes}). " + (
        reason
    )


def reasons_in_the_tables():
    """The reasons of the rows that refuse every mask."""
    return {
        (name, rule.reason)
        for table in tables.TABLES
        for name, rule in tables.rules_of(table).items()
        if hasattr(rule, "reason")
    }


def reasons_in_the_families():
    """The first literal words of each reason that a rule gives."""
    found = []
    for path in pathlib.Path(rules.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_call = isinstance(node, ast.Call) and isinstance(
                node.func, ast.Attribute
            )
            if not is_call or node.func.attr != "refuse":
                continue
            (reason,) = node.args
            if isinstance(reason, ast.JoinedStr):
                reason = reason.values[0]
            # What is passed on comes from the tables, or is made of a `Core`.
            if isinstance(reason, ast.Constant):
                found.append(reason.value)
    return found


class RefusalTest(testing.TestCase):
    @when(">=3.15")  # Which has all functions that refuse.
    def test_no_reason_is_without_a_case(self):
        said = {(own_name(case.name), case.reason) for case in CASES}
        for name, reason in reasons_in_the_tables():
            self.assertTrue(
                any(n == name and reason.startswith(r) for n, r in said),
                f"{name}: {reason}",
            )
        reasons = reasons_in_the_families()
        self.assertGreater(len(reasons), 25)
        for reason in reasons:
            self.assertTrue(any(reason.startswith(r) for _, r in said), reason)

    @every_case
    def test_the_message(self, case):
        operands = u.leaves((case.args, *case.kwargs.values()), u.T)
        with self.assertRaises(UnsupportedMaskError) as caught:
            case.call(masked)
        text = str(caught.exception)
        expected = text_of(case.name, operands, case.reason)
        self.assertEqual(text[: len(expected)], expected)
        self.assertTrue(text.endswith(f". {WAYS_OUT}"), text)
        # The reason is a sentence.
        rest = text[len(expected) - len(case.reason) : -len(WAYS_OUT) - 1]
        self.assertRegex(rest, r"^[A-Z`].+\.$")

    @every_case
    def test_the_ways_out(self, case):
        """Each gives what the function gives of plain tensors."""
        if case.function is not None:
            return  # No function of the user takes these.

        def by_filling(t):
            return ops.filled(masked(t), 0)

        def by_dropping(t):
            x = masked(t)
            return x.values if t.mask else x

        expected = outcome(case.call, filled)
        self.assert_same(outcome(case.call, by_filling), expected)
        expected = outcome(case.call, dropped)
        self.assert_same(outcome(case.call, by_dropping), expected)

    def assert_same(self, found, expected):
        if isinstance(expected, type):
            # Upstream cannot do it with plain tensors on this backend.
            self.assertEqual(found, expected)
            return
        self.assertEqual(len(found), len(expected))
        for (values, mask), (wanted, _) in zip(found, expected):
            self.assertIsNone(mask)
            self.assertAllClose(values, wanted)

    def test_what_the_ways_out_give_on_most_backends(self):
        """Or the last test would pass for any function that always fails."""
        done = [
            case.name
            for case in CASES
            if case.function is None
            and not isinstance(outcome(case.call, filled), type)
        ]
        self.assertGreater(len(done), AT_LEAST)

    @parameterized.named_parameters(
        (name.replace(".", "_"), name)
        for name, rule in (
            (name, rule)
            for table in tables.TABLES
            for name, rule in tables.rules_of(table).items()
        )
        if rule.__name__ == "batch_only"
    )
    def test_a_mask_over_core_axes(self, name):
        """Of each op that works on some axes as a whole."""
        name = name if name in EXAMPLES else f"image.{name}"
        if not EXAMPLES[name]:
            self.skipTest("upstream's is not to be repeated on this backend")
        example = EXAMPLES[name][0]
        for place in range(len(u.leaves(example, u.T))):
            if (name, place) not in WITHOUT_CORE:
                self.check_core(name, example, place)

    def check_core(self, name, example, place):
        places = iter(range(len(u.leaves(example, u.T))))

        def one(t):
            mask = len(t.shape) if next(places) == place else None
            return t._replace(mask=mask)

        example = u.map_leaves(one, example, u.T)
        with self.assertRaises(UnsupportedMaskError) as caught:
            call(name, u.masked(u.draw(example, 1, 0.6)))
        operands = u.leaves(example, u.T)
        expected = text_of(name, operands, "It works on the last ")
        text = str(caught.exception)
        self.assertEqual(text[: len(expected)], expected)
        self.assertRegex(text, r"last (\d )?axe?i?s as a whole, which no mask")
        self.assertIn(WAYS_OUT, text)

    def test_the_op_that_was_called_is_named_not_one_that_its_rule_calls(self):
        matrix = backend.MaskedTensor(
            np.eye(2, dtype="float32"), np.ones((2, 2), "bool")
        )
        with self.assertRaisesRegex(
            UnsupportedMaskError, r"^`cholesky_inverse`.*\(operand 0: [^)]*\)"
        ):
            ops.cholesky_inverse(matrix)

    def test_a_graph_is_told_its_own_sizes(self):
        """Tracing makes up sizes where the graph has none."""
        x = keras.Input((3,), mask_shape=(3,))
        for function in (ops.rfft, lambda x: ops.cross(x, x, axis=1)):
            with self.assertRaises(UnsupportedMaskError) as caught:
                function(x)
            shape = "values of shape (None, 3), mask of shape (None, 3)"
            self.assertIn(f"operand 0: {shape}", str(caught.exception))

    @when(">=3.15")  # Which has `unique`.
    def test_numpy_masked_arrays_are_refused_alike(self):
        x = np.ma.MaskedArray(np.ones(3, "float32"), [True, False, False])
        with self.assertRaisesRegex(UnsupportedMaskError, "^`unique`.*depends"):
            ops.unique(x)


class NotesTest(testing.TestCase):
    """An error inside a rule says which call it was, and says it once."""

    def setUp(self):
        super().setUp()
        if keras.config.is_traceback_filtering_enabled():
            self.addCleanup(keras.config.enable_traceback_filtering)
        else:
            self.addCleanup(keras.config.disable_traceback_filtering)

    def notes_of(self, function, filtering):
        """Keras's filter of tracebacks makes new errors of old ones."""
        if filtering:
            keras.config.enable_traceback_filtering()
        else:
            keras.config.disable_traceback_filtering()
        with self.assertRaises(Exception) as caught:
            function()
        self.assertNotIsInstance(caught.exception, UnsupportedMaskError)
        # JAX has notes of its own.
        notes = getattr(caught.exception, "__notes__", ())
        return [note for note in notes if note.startswith("In `")]

    @parameterized.parameters(True, False)
    def test_eagerly(self, filtering):
        def product():
            return ops.matmul(masked(T((2, 3), 1)), np.ones((4, 5), "float32"))

        self.assertEqual(
            self.notes_of(product, filtering),
            ["In `matmul` of values of shape (2, 3), mask of shape (2,)"],
        )

    @parameterized.parameters(True, False)
    def test_of_all_masked_operands(self, filtering):
        x, y = masked(T((2, 3), 2)), masked(T((2, 4), 1))
        self.assertEqual(
            self.notes_of(lambda: x + y, filtering),
            [
                "In `add` of values of shape (2, 3), mask of shape (2, 3), "
                "values of shape (2, 4), mask of shape (2,)"
            ],
        )

    @parameterized.parameters(True, False)
    def test_when_a_graph_is_made(self, filtering):
        def product():
            x = keras.Input((3,), mask_shape=(3,))
            return ops.matmul(x, np.ones((4, 5), "float32"))

        self.assertEqual(
            self.notes_of(product, filtering),
            [
                "In `matmul` of values of shape (None, 3), "
                "mask of shape (None, 3)"
            ],
        )

    @parameterized.parameters(True, False)
    def test_when_a_model_runs(self, filtering):
        x = keras.Input((None,), mask_shape=(None,))
        y = keras.Input((None,))
        model = keras.Model([x, y], x + y)

        def run():
            return model([masked(T((2, 3), 2)), filled(T((2, 4)))])

        self.assertEqual(
            self.notes_of(run, filtering),
            ["In `add` of values of shape (2, 3), mask of shape (2, 3)"],
        )

    @parameterized.parameters(True, False)
    def test_inside_a_layer(self, filtering):
        class Product(layers.Layer):
            def call(self, x):
                return ops.matmul(x, np.ones((4, 5), "float32"))

        self.assertEqual(
            self.notes_of(lambda: Product()(masked(T((2, 3), 1))), filtering),
            ["In `matmul` of values of shape (2, 3), mask of shape (2,)"],
        )


_SCAN = """
import importlib, json, pkgutil
import keras
from keras.src.layers.layer import Layer
from keras.src.masking.registry import rows
from keras.src.ops.operation import Operation

for module in pkgutil.walk_packages(keras.src.__path__, "keras.src."):
    if not module.name.endswith("_test"):
        importlib.import_module(module.name)

def below(cls):
    for own in cls.__subclasses__():
        yield own
        yield from below(own)

found = [c for c in below(Operation) if not issubclass(c, Layer)]
names = {f"{c.__module__}.{c.__qualname__}": c in rows() for c in found}
print(json.dumps(names))
"""


class OperationClassesTest(testing.TestCase):
    def test_every_operation_of_keras_has_a_row_or_a_reason(self):
        """All of the package, not those alone that the tables know of."""
        if backend.backend() != "numpy":
            self.skipTest("It imports the modules of all backends by itself.")
        path = os.path.dirname(os.path.dirname(keras.__file__))
        # In a process of its own: modules of other backends are imported.
        run = subprocess.run(
            [sys.executable, "-c", _SCAN],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        self.assertEqual(run.returncode, 0, run.stderr)
        has_row = json.loads(run.stdout.splitlines()[-1])
        self.assertGreater(len(has_row), 300)
        without = {name for name, has in has_row.items() if not has}
        self.assertEqual(without, set(tables.WITHOUT_A_ROW))
        for name, reason in tables.WITHOUT_A_ROW.items():
            self.assertRegex(reason, r"^[A-Z`].+\.$", name)
