"""Every public function, on a type without rules and on one with a rule.

No list decides which functions have rules: the public ones are walked. Each
asks the rule of a type in each operand, with the arguments as they were given,
and refuses by name a type that has none.
"""

import inspect
import itertools
import types
from unittest import mock

import numpy as np
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import testing
from keras.src import tree
from keras.src.composite import rules
from keras.src.masking import door_test
from keras.src.masking.door_test import IDS
from keras.src.masking.door_test import M
from keras.src.masking.door_test import V
from patchset.markers import when


class ArrayLike(keras.CompositeTensor):
    values: keras.KerasTensor
    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.values.dtype)


class Structure(keras.CompositeTensor):
    values: keras.KerasTensor


def symbolic(x):
    """A structure in a functional model."""
    return Structure(backend.KerasTensor(x.shape, str(x.dtype)))


KINDS_BY_NAME = {x.__name__: x for x in (ArrayLike, Structure)}
KINDS = {"array_like": ArrayLike, "structure": Structure, "symbolic": symbolic}


MODULES = (
    keras.ops,
    keras.ops.image,
    keras.ops.linalg,
    keras.ops.nn,
    keras.ops.numpy,
    keras.random,
)


def public_functions():
    """All names of each function of `keras.ops` and `keras.random`."""
    found = {}
    for module in MODULES:
        for name, x in vars(module).items():
            if name.startswith("_") or isinstance(x, types.ModuleType):
                continue
            if not inspect.isclass(x):
                found.setdefault(x, []).append(f"{module.__name__}.{name}")
    return found


NAMES = public_functions()
FUNCTIONS = {
    min(names, key=len).removeprefix("keras."): function
    for function, names in NAMES.items()
}

RANDOM = {
    "random.beta": ((3,), V, V),
    "random.binomial": ((3,), door_test.COUNTS, V),
    "random.categorical": (M, 2),
    "random.dropout": (M, 0.5),
    "random.gamma": ((3,), V),
    "random.normal": ((3,), V, V),
    "random.randint": ((3,), IDS, IDS),
    "random.shuffle": (M,),
    "random.truncated_normal": ((3,), V, V),
    "random.uniform": ((3,), V, V),
}

# Operands that may be left out.
MORE = {
    "ops.dot_product_attention": {
        "bias": np.zeros((2, 4, 4, 4), "float32"),
        "mask": np.ones((2, 4, 4, 4), "bool"),
    },
    "ops.filled": {"value": 1.0},
    "ops.layer_normalization": {"gamma": V, "beta": V},
    "ops.max": {"initial": 0.0},
    "ops.min": {"initial": 0.0},
    "ops.nan_to_num": {"nan": 0.0, "posinf": 1.0, "neginf": -1.0},
    "ops.pad": {"constant_values": 1.0},
    "ops.rms_normalization": {"scale": V},
    "ops.select": {"default": 0.0},
    "ops.trapezoid": {"x": V},
    "ops.where": {"x1": M, "x2": M},
}

# Functions that take no tensor: there is no operand to put a composite into.
_NUMBERS = "Takes numbers and makes a tensor of them."
WITHOUT_OPERAND = {
    "ops.arange": _NUMBERS,
    "ops.custom_gradient": "Takes a function.",
    "ops.empty": _NUMBERS,
    "ops.eye": _NUMBERS,
    "ops.identity": _NUMBERS,
    "ops.ones": _NUMBERS,
    "ops.tri": _NUMBERS,
    "ops.vectorize": "Takes a function.",
    "ops.zeros": _NUMBERS,
}

# Functions that ask about any object, and what they answer.
QUESTIONS = {
    "ops.dtype": "float32",
    "ops.get_mask": None,
    "ops.is_masked": False,
    "ops.is_tensor": False,
    "ops.shape": (3, 3),
}

if when(">=3.16"):
    WITHOUT_OPERAND["ops.grad"] = "Takes a function."
    QUESTIONS = {**QUESTIONS, "ops.ndim": 2, "ops.size": 9}

# Functions of functions: what is inside of the nest that they carry refuses.
CARRIES = {
    "ops.associative_scan": "ops.add",
    "ops.fori_loop": "ops.add",
    "ops.jvp": "ops.add",
    "ops.map": "ops.add",
    "ops.scan": "ops.add",
    "ops.switch": "ops.add",
    "ops.vectorized_map": "ops.add",
    "ops.while_loop": "ops.less",
}

# Functions without rules: they ask, or they carry what they are given.
WITHOUT_RULES = {
    "ops.cond",
    "ops.custom_gradient",
    "ops.vectorize",
    *({"ops.grad"} & set(FUNCTIONS)),
    *CARRIES,
    *QUESTIONS,
}

# Operands of which no rule is asked, by their places. These are numbers, and
# to ask what they are would cost every plain call.
NOT_ASKED = {
    "ops.clip": (1, 2),
    "ops.max": (1,),
    "ops.min": (1,),
    "ops.nan_to_num": (1, 2, 3),
    "ops.threshold": (1, 2),
}
if backend.backend() == "tensorflow":
    # Its tensor is the left operand, and what it traces wraps errors.
    NOT_ASKED |= {"ops.scan": (2,), "ops.vectorized_map": (1,)}
# In a graph upstream looks at the operands of the branches alone.
NOT_ASKED_SYMBOLIC = {"ops.switch"}
# Functions that fill in a dtype before they make their operation.
NOT_AS_GIVEN = {"ops.multi_hot", "ops.one_hot"}

# Functions that are another one under a second name.
SAME = {"ops.abs": "ops.absolute", "ops.conj": "ops.conjugate"}


def arguments_of(name):
    """Arguments of a function: by position, operands by name, and the rest."""
    function = FUNCTIONS[name]
    if name in RANDOM:
        args, kwargs = RANDOM[name], {}
        if "seed" in inspect.signature(function).parameters:
            kwargs = {"seed": 1}
    elif name == "ops.custom_gradient":
        args, kwargs = (lambda x: x,), {}
    else:
        short = name.rpartition(".")[2]
        args, kwargs = door_test.arguments_of(short, function)
    return list(args), MORE.get(name, {}), kwargs


def places(name):
    """The places of a function's operands among its flat arguments."""
    args, more, _ = arguments_of(name)
    return [
        place
        for place, x in enumerate(tree.flatten((args, more)))
        if isinstance(x, (np.ndarray, np.generic, float))
    ]


def given(name, place=None, make=None):
    """The arguments of a function, with a composite tensor at a place."""
    args, more, kwargs = arguments_of(name)
    here = itertools.count()

    def one(x):
        if next(here) == place:
            return make(np.asarray(x, getattr(x, "dtype", "float32")))
        is_array = isinstance(x, np.ndarray)
        return backend.convert_to_tensor(x) if is_array else x

    args, more = tree.map_structure(one, (args, more))
    return args, more | kwargs


def by_function():
    return [(x.replace(".", "_"), x) for x in sorted(FUNCTIONS)]


class EveryFunctionTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.dict(rules._RULES))

    def test_no_function_is_forgotten(self):
        """A new one is walked by itself, with matrices if nothing is said."""
        covered = {name for name in FUNCTIONS if places(name)}
        self.assertEqual(set(FUNCTIONS) - covered, set(WITHOUT_OPERAND))
        for table in (RANDOM, MORE, QUESTIONS, CARRIES, SAME, NOT_ASKED):
            self.assertEqual(set(table) - covered, set())
        self.assertGreater(len(covered), 300)

    @parameterized.named_parameters(by_function())
    def test_the_arguments_are_right(self, name):
        """What is refused below is refused for the type of an operand."""
        if backend.backend() not in ("numpy", "torch"):
            self.skipTest("The arguments are the same on all engines.")
        args, kwargs = given(name)
        if name == "ops.jvp" and backend.backend() == "numpy":
            self.skipTest("NumPy has no derivatives.")
        if name in ("random.normal", "random.randint"):
            self.skipTest("Not all engines take tensors for these.")
        if name == "ops.dot_product_attention":
            del kwargs["mask"]  # There may be one beside a bias on some only.
        FUNCTIONS[name](*args, **kwargs)

    @parameterized.named_parameters(by_function())
    def test_a_rule_that_is_shown_can_be_pasted(self, name):
        if backend.backend() not in ("numpy", "torch"):
            self.skipTest("The texts are the same on all engines.")
        calls = [
            given(name, place, KINDS[kind])
            for place in places(name)
            for kind in ("array_like", "structure")
        ]
        # What takes no tensor is refused as well.
        calls = calls or [((ArrayLike(V),), {})]
        for args, kwargs in calls:
            try:
                FUNCTIONS[name](*args, **kwargs)
            except keras.UnsupportedTypeError as error:
                text = str(error)
            except Exception:
                continue
            else:
                continue
            shown, *_ = text.partition("or call the function")
            if "@keras" in shown:
                code = shown[shown.index("@keras") :]
                exec(code, {"keras": keras, **KINDS_BY_NAME})

    @parameterized.named_parameters(by_function())
    def test_a_type_without_rules_is_refused_by_name(self, name):
        if name in QUESTIONS:
            self.check_answer(name)
            return
        for place, kind in itertools.product(places(name), KINDS):
            if place in NOT_ASKED.get(name, ()):
                continue
            if kind == "symbolic" and name in NOT_ASKED_SYMBOLIC:
                continue
            args, kwargs = given(name, place, KINDS[kind])
            label = f"{name} {place} {kind}"
            try:
                result = FUNCTIONS[name](*args, **kwargs)
            except keras.UnsupportedTypeError as error:
                names = {name, SAME.get(name, name), CARRIES.get(name, name)}
                told = "|".join(f"`keras.{x}`" for x in names)
                self.assertRegex(str(error), told, label)
                continue
            # A loop in a graph knows by itself what it gives.
            self.assertIn(name, ("ops.fori_loop", "ops.while_loop"), label)
            self.assertEqual((kind, type(result)), ("symbolic", Structure))

    def check_answer(self, name):
        x = ArrayLike(M)
        self.assertEqual(FUNCTIONS[name](x), QUESTIONS[name])
        if name in ("ops.dtype", "ops.ndim", "ops.shape", "ops.size"):
            with self.assertRaises(
                (AttributeError, keras.UnsupportedTypeError)
            ):
                FUNCTIONS[name](Structure(M))
        else:
            self.assertEqual(FUNCTIONS[name](Structure(M)), QUESTIONS[name])

    @parameterized.parameters(*sorted(WITHOUT_OPERAND))
    def test_what_takes_no_operand_takes_no_rule(self, name):
        with self.assertRaisesRegex(TypeError, "asks for no rules"):
            keras.rule_for(FUNCTIONS[name], ArrayLike)

    @parameterized.parameters("gelu", "softmax", "linear")
    def test_an_activation_that_calls_a_function_takes_no_rule(self, name):
        function = getattr(keras.activations, name)
        with self.assertRaisesRegex(TypeError, f"activations.{name}.*others"):
            keras.rule_for(function, ArrayLike)

    @parameterized.named_parameters(
        (label, name)
        for label, name in by_function()
        if name not in WITHOUT_RULES and name not in WITHOUT_OPERAND
    )
    def test_the_rule_of_the_function_is_asked(self, name):
        """In each operand, with the arguments as they were given."""
        function = FUNCTIONS[name]
        asked, answer = [], "the result"

        @keras.rule_for(function, ArrayLike, Structure)
        def rule(*args, **kwargs):
            asked.append((args, kwargs))
            return answer

        for place, make in itertools.product(
            places(name), (ArrayLike, Structure)
        ):
            if place in NOT_ASKED.get(name, ()):
                continue
            args, kwargs = given(name, place, make)
            label = f"{name} {place} {make.__name__}"
            self.assertEqual(function(*args, **kwargs), answer, label)
            found = asked.pop()
            if name not in NOT_AS_GIVEN:
                self.assert_same(function, found, (args, kwargs), label)

    @parameterized.named_parameters(
        (name.replace(".", "_"), name) for name in sorted(WITHOUT_RULES)
    )
    def test_a_rule_that_would_not_be_asked_is_refused(self, name):
        with self.assertRaisesRegex(TypeError, "asks for no rules: it "):
            keras.rule_for(FUNCTIONS[name], Structure)(lambda x: x)
        self.assertNotIn(Structure, {type_ for _, type_ in rules._RULES})

    def assert_same(self, function, found, expected, label):
        """Two calls have the same arguments, by whatever way."""
        signature = inspect.signature(function)
        bound = []
        for args, kwargs in (found, expected):
            arguments = signature.bind(*args, **kwargs)
            arguments.apply_defaults()
            bound.append(flat(arguments.arguments))
        self.assertEqual(len(bound[0]), len(bound[1]), label)
        for x, y in zip(*bound):
            is_tensor = hasattr(x, "dtype") or isinstance(x, Structure)
            self.assertTrue(x is y or (not is_tensor and x == y), label)


def flat(nest):
    """The leaves of a nest, of which composite tensors are some."""
    if isinstance(nest, dict):
        nest = nest.values()
    elif not isinstance(nest, (list, tuple)):
        return [nest]
    return [leaf for x in nest for leaf in flat(x)]
