"""Every row against the signatures of its function and of its operation.

A rule asks for arguments by name and computes with the public function, while
an operation takes some arguments when it is made and the others when it is
called. That works as long as all of these names and defaults agree, however a
call passes its arguments.
"""

import ast
import collections
import inspect
import pathlib
from unittest import mock

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import calls
from keras.src.masking import registry
from keras.src.masking import rules
from keras.src.ops import numpy as knp
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.row_checks import EXAMPLES
from keras.src.testing.masked.row_checks import NAMES
from keras.src.testing.masked.row_checks import call

# How many examples of a row are called in all ways. JAX and TensorFlow compile
# or trace a lot, and names are the same on all backends.
COUNT = None if backend.backend() in ("numpy", "torch") else 1

# What rules ask for that the function has not, since they are shared with
# functions that have it.
OF_OTHERS = {
    "adaptive_average_pool": {"dilation_rate", "padding", "strides"},
    "adaptive_max_pool": {"dilation_rate", "padding", "strides"},
    "average_pool": {"dilation_rate"},
    "geomspace": {"retstep"},
    "layer_normalization": {"rms_scaling"},  # Among its `**kwargs`.
    "logspace": {"retstep"},
    "max_pool": {"dilation_rate"},
    "median": {"method"},
    "separable_conv": {"kernel"},
}


def parameters(function):
    """The parameters of a function by name, without `self` and `name`."""
    found = dict(inspect.signature(function).parameters)
    return {k: p for k, p in found.items() if k not in ("self", "name")}


def takes_any(function, kind):
    return any(p.kind is kind for p in parameters(function).values())


def cases():
    """For each row its name in `EXAMPLES`, and its operation class or None."""
    keys = {row.fn: key for key, row in registry.rows().items()}
    # Its row computes with a function that takes the operands first.
    keys[ops.einsum] = knp.Einsum
    found = []
    names = {name for name in EXAMPLES if EXAMPLES[name]}
    if backend.backend() == "torch":
        names.discard("imag")  # PyTorch's takes complex numbers only.
    for name in sorted(names):
        key = keys[u.function_of(name)]
        op_class = key if inspect.isclass(key) else None
        found.append((name.replace(".", "_"), name, op_class))
    return found


def arguments_of(name, example):
    """The arguments of an example by name, those of any number as a tuple."""
    own = NAMES.get(name, ())
    args = example[: len(example) - len(own)]
    named = dict(zip(own, example[len(args) :]))
    if "padding" in named:
        named["data_format"] = "channels_last"
    signature = inspect.signature(u.function_of(name))
    return signature.bind(*args, **named).arguments


def passed(function, arguments, how):
    """Positional arguments and those by name, for a call of a function.

    Args:
        function: The function.
        arguments: What to pass, by name.
        how: "by name", the last first; "by position" as far as that goes; or
            "without defaults", which leaves out what the function knows.
    """
    known = inspect.signature(function).parameters
    bound = inspect.signature(function).replace(
        parameters=[p for p in known.values() if p.name != "self"]
    )
    bound = inspect.BoundArguments(bound, dict(arguments))
    if how == "without defaults":
        for k, v in arguments.items():
            default = known[k].default
            if v is default or (np.isscalar(v) and v == default):
                del bound.arguments[k]
        return bound.args, bound.kwargs
    if how == "by position":
        bound.apply_defaults()
        return bound.args, bound.kwargs
    by_name = bound.kwargs
    for k in reversed(bound.arguments):
        if known[k].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            by_name[k] = bound.arguments[k]
    # What comes before any number of operands cannot be named.
    if takes_any(function, inspect.Parameter.VAR_POSITIONAL):
        return bound.args, bound.kwargs
    return (), by_name


WAYS = ("by name", "by position", "without defaults")


def unlike(one, other):
    """The pairs of parts that differ, the rank of the masks included."""
    pairs = zip(tree.flatten(one), tree.flatten(other), strict=True)
    return [pair for pair in pairs if not _is_same(*pair)]


def _is_same(one, other):
    if isinstance(one, MaskedTensorBase):
        return (
            isinstance(other, MaskedTensorBase)
            and _is_same(one.values, other.values)
            and _is_same(one.mask, other.mask)
        )
    if isinstance(other, MaskedTensorBase):
        return False
    return np.array_equal(u.array(one), u.array(other))


def asked_in_source():
    """The names that the rules of a family ask for, by the family's module."""
    found = {}
    for path in pathlib.Path(rules.__file__).parent.glob("*.py"):
        if path.stem.endswith("_test"):
            continue
        found[path.stem] = {
            node.args[0].value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "argument"
            and isinstance(node.args[0], ast.Constant)
        }
    return {family: names for family, names in found.items() if names}


class SignaturesTest(testing.TestCase):
    def test_operations_name_what_their_functions_name(self):
        """With the same defaults: each fills in what a call leaves out."""
        some = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        for op_class, row in registry.rows().items():
            if row.init_names is None:
                continue  # A function of its own, or of a third party.
            public = parameters(row.fn)
            own = parameters(op_class.__init__) | parameters(op_class.call)
            for key, p in own.items():
                label = f"{key} of {row.name}"
                if p.kind in some or key in OF_OTHERS.get(row.name, ()):
                    continue
                self.assertIn(key, public, label)
                if p.default is not p.empty:
                    self.assertEqual(p.default, public[key].default, label)

    @parameterized.named_parameters(u.part(cases()))
    def test_a_rule_asks_for_arguments_of_its_function(self, name, op_class):
        del op_class
        if backend.backend() != "numpy":
            self.skipTest("What rules ask for depends on no engine.")
        asked = collections.defaultdict(set)
        argument = calls.Call.argument

        def recorded(call, key, *default):
            asked[call.row.name].add(key)
            return argument(call, key, *default)

        with mock.patch.object(calls.Call, "argument", recorded):
            for example in EXAMPLES[name]:
                call(name, u.masked(u.draw(example, 0, 0.6)))
        # Rules call other functions, whose rules ask for theirs.
        missing = asked[name.rpartition(".")[2]] - set(
            parameters(u.function_of(name))
        )
        self.assertEqual(missing, OF_OTHERS.get(name, set()))

    def test_what_rules_ask_for_is_an_argument_somewhere(self):
        """In branches that no example takes, too."""
        names = collections.defaultdict(set)
        own = [row for row in registry.rows().values() if row.fn is not None]
        for row in own:
            family = row.rule.__module__.rpartition(".")[2]
            names[family] |= set(parameters(row.fn))
        asked = asked_in_source()
        self.assertGreater(len(asked), 10)
        # Ways with packed tensors are those of all families.
        names["packed"] = set().union(*names.values())
        for family, keys in asked.items():
            unknown = keys - names[family] - {"rms_scaling"}
            self.assertEqual(unknown, set(), family)

    @parameterized.named_parameters(u.part(cases()))
    def test_a_call_may_pass_its_arguments_in_any_way(self, name, op_class):
        """To the function, and to the operation when it is made and called."""
        function = u.function_of(name)
        for example in EXAMPLES[name][:COUNT]:
            drawn = u.masked(u.draw(example, 3, 0.6))
            expected = call(name, drawn)
            arguments = arguments_of(name, drawn)
            for way in WAYS:
                args, kwargs = passed(function, arguments, way)
                label = f"{name} {example} {way}"
                self.assertEqual(
                    unlike(expected, function(*args, **kwargs)), [], label
                )
                if op_class is None:
                    continue
                result = self.operate(op_class, arguments, way)
                self.assertEqual(unlike(expected, result), [], label)

    def operate(self, op_class, arguments, way):
        """Makes the operation and calls it, each with its own arguments."""
        # What upstream's function takes as `**kwargs`.
        arguments = arguments | arguments.get("kwargs", {})
        results = []
        for method in (op_class.__init__, op_class.call):
            own = {
                k: arguments[k] for k in parameters(method) if k in arguments
            }
            results.append(passed(method, own, way))
        (init_args, init_kwargs), (args, kwargs) = results
        return op_class(*init_args, **init_kwargs)(*args, **kwargs)
