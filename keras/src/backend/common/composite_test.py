"""The type: fields, constructor, what it is to Python, nests, and operators."""

import copy
import dataclasses
import enum
import functools
import json
import pickle
import sys
import types
import typing
from unittest import mock

import numpy as np
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.backend.common import composite
from keras.src.backend.common import operators
from keras.src.composite import rules

M = np.array([[0.5, 1.0, 2.0], [3.0, 4.0, 5.0]], "float32")
V = M[0]
MASK = np.array([True, False, True])


class Interval(keras.CompositeTensor):
    """An array-like type."""

    low: keras.KerasTensor
    high: keras.KerasTensor
    closed: str = "both"
    shape = property(lambda self: self.low.shape)
    dtype = property(lambda self: self.low.dtype)


class Graph(keras.CompositeTensor):
    """A structure with parts of all kinds."""

    nodes: keras.MaskedTensor
    bounds: Interval
    weights: keras.KerasTensor | None = None
    size: typing.Optional[keras.KerasTensor] = None  # noqa: UP045
    names: tuple = ()
    LIMIT: typing.ClassVar[int] = 3


class Ordered(keras.CompositeTensor):
    """A type that looks at its fields."""

    low: keras.KerasTensor
    high: keras.KerasTensor

    def __check__(self):
        if self.low.shape != self.high.shape:
            raise ValueError("The bounds differ in shape.")


@keras.saving.register_keras_serializable("composite_test")
class Saved(keras.CompositeTensor):
    values: keras.KerasTensor
    inner: Interval | None = None
    sizes: tuple = (1, 2)


# As where all annotations are text, by a statement at the head of a module.
TEXT = """
from __future__ import annotations

import typing
from typing import ClassVar

import keras


class Base(keras.CompositeTensor):
    low: keras.KerasTensor
    high: keras.KerasTensor | None = None
    size: typing.Optional[keras.KerasTensor] = None
    rows: keras.MaskedTensor | None = None
    unit: str = "m"
    KINDS: ClassVar[int] = 2


class Tree(keras.CompositeTensor):
    value: keras.KerasTensor
    left: Tree | None = None
    base: Base | None = None


def local():
    class Inner(keras.CompositeTensor):
        x: keras.KerasTensor

    class Outer(keras.CompositeTensor):
        inner: Inner
        count: int = 0

    return Inner, Outer
"""


def text_module():
    name = f"{__name__}.text"
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(TEXT, "text.py", "exec"), vars(module))
    return vars(module)


def array(x):
    return backend.convert_to_numpy(x)


def interval(**kwargs):
    return Interval(V, V + 1.0, **kwargs)


def graph(**kwargs):
    return Graph(keras.MaskedTensor(V, MASK), interval(), **kwargs)


class FieldsTest(testing.TestCase):
    def assert_fields(self, cls, parts, statics, optional=()):
        self.assertEqual(cls._parts, tuple(parts))
        self.assertEqual(cls._statics, tuple(statics))
        self.assertEqual(cls._optional, frozenset(optional))

    def test_parts_and_statics(self):
        self.assert_fields(Interval, ["low", "high"], ["closed"])
        self.assert_fields(
            Graph,
            ["nodes", "bounds", "weights", "size"],
            ["names"],
            ["weights", "size"],
        )

    def test_array_like_or_structure(self):
        self.assertTrue(composite.is_array_like(interval()))
        self.assertFalse(composite.is_array_like(graph()))
        self.assertFalse(composite.is_array_like(Interval))
        self.assertFalse(composite.is_array_like(V))
        self.assertEqual(interval().ndim, 1)
        with self.assertRaisesRegex(AttributeError, "no array-like type"):
            graph().ndim  # noqa: B018

    def test_fields_may_be_the_shape_and_the_dtype(self):
        class Lazy(keras.CompositeTensor):
            seed: keras.KerasTensor
            shape: tuple
            dtype: str = "float32"

        self.assertTrue(composite.is_array_like(Lazy(1, (2, 3))))
        self.assertEqual(Lazy(1, (2, 3)).ndim, 2)

    def test_annotations_as_text(self):
        names = text_module()
        self.assert_fields(
            names["Base"],
            ["low", "high", "size", "rows"],
            ["unit"],
            ["high", "size", "rows"],
        )
        self.assertEqual(names["Base"].KINDS, 2)
        self.assert_fields(
            names["Tree"], ["value", "left", "base"], [], ["left", "base"]
        )
        leaf = names["Tree"](V)
        self.assertIs(names["Tree"](V, leaf).left, leaf)

    def test_classes_in_functions(self):
        inner, outer = text_module()["local"]()
        self.assert_fields(outer, ["inner"], ["count"])
        self.assertAllClose(outer(inner(V), 2).inner.x, V)

        class Local(keras.CompositeTensor):
            value: "keras.KerasTensor"
            inner: "Local | None" = None

        self.assert_fields(Local, ["value", "inner"], [], ["inner"])

    def test_inheritance_adds_up(self):
        class Weighted(Interval):
            weights: keras.KerasTensor
            unit: str = "m"

        self.assert_fields(
            Weighted, ["low", "high", "weights"], ["closed", "unit"]
        )
        # A default is before it, so it is given by name.
        x = Weighted(V, V, weights=V + 2.0)
        self.assertAllClose(x.weights, V + 2.0)
        self.assertEqual((x.closed, x.unit), ("both", "m"))
        self.assertTrue(composite.is_array_like(x))
        # The base stays as it is.
        self.assert_fields(Interval, ["low", "high"], ["closed"])

    def test_a_subclass_without_fields(self):
        class Narrow(Interval):
            def width(self):
                return self.high - self.low

        self.assert_fields(Narrow, ["low", "high"], ["closed"])
        self.assertAllClose(Narrow(V, V + 2.0).width(), [2.0] * 3)

    def test_of_two_bases(self):
        class Left(keras.CompositeTensor):
            left: keras.KerasTensor
            unit: str = "m"

        class Right(keras.CompositeTensor):
            right: keras.KerasTensor
            more: keras.KerasTensor | None

        class Both(Left, Right):
            count: int = 0

        self.assertEqual(set(Both._parts), {"left", "right", "more"})
        self.assertEqual(Both._optional, {"more"})
        self.assertEqual(set(Both._statics), {"unit", "count"})
        x = Both(left=V, right=V, more=None)
        self.assertLen(tree.flatten(x), 2)

        class Again(Both):
            right: str

        self.assertIn("right", Again._statics)

    def test_types_with_more_to_them(self):
        kind = typing.TypeVar("kind")

        class Of(keras.CompositeTensor, typing.Generic[kind]):
            values: keras.KerasTensor

        class Holder(keras.CompositeTensor):
            of: Of[int]
            noted: typing.Annotated[keras.KerasTensor, "metres"]
            more: typing.Annotated[Of[str] | None, "or not"] = None
            names: list[str] = ()

        self.assertEqual(Holder._parts, ("of", "noted", "more"))
        self.assertEqual(Holder._optional, {"more"})

    def test_a_protocol_for_a_base(self):
        class HasNorm(typing.Protocol):
            def norm(self): ...

        class Vector(keras.CompositeTensor, HasNorm):
            values: keras.KerasTensor

            def norm(self):
                return 3.0

        self.assertEqual(Vector(V).norm(), 3.0)

    @parameterized.parameters("ndim", "_parts", "replace", "get_config")
    def test_a_field_by_the_name_of_something_else(self, name):
        with self.assertRaisesRegex(TypeError, f"a field `{name}`.*another"):
            type(keras.CompositeTensor)(
                "Clash",
                (keras.CompositeTensor,),
                {"__annotations__": {name: keras.KerasTensor}},
            )

    def test_a_field_of_another_kind_than_its_base(self):
        class Base(keras.CompositeTensor):
            low: keras.KerasTensor
            scale: float = 1.0

        class Scaled(Base):
            scale: keras.KerasTensor

        self.assert_fields(Scaled, ["low", "scale"], [])
        self.assertAllClose(Scaled(V, scale=V).scale, V)

    def test_class_variables_are_no_fields(self):
        class Counted(keras.CompositeTensor):
            values: keras.KerasTensor
            kinds: typing.ClassVar = ("a", "b")
            number: typing.ClassVar[int] = 2

        self.assert_fields(Counted, ["values"], [])
        self.assertEqual((Counted.kinds, Counted.number), (("a", "b"), 2))

    def test_methods_of_all_kinds_are_no_fields(self):
        class Full(keras.CompositeTensor):
            values: keras.KerasTensor

            @classmethod
            def zeros(cls, n):
                return cls(np.zeros(n, "float32"))

            @staticmethod
            def two():
                return 2

            @property
            def twice(self):
                return self.values * 2

        self.assert_fields(Full, ["values"], [])
        self.assertAllClose(Full.zeros(2).twice, [0, 0])
        self.assertEqual(Full.two(), 2)

    def test_a_type_without_fields(self):
        class Nothing(keras.CompositeTensor):
            pass

        self.assertEqual(tree.flatten(Nothing()), [])

    @parameterized.named_parameters(
        ("static", 3, "`scale` of `Wrong` has no annotation"),
        ("type", keras.KerasTensor, "Write `scale: keras.KerasTensor`"),
        ("type_of_ones_own", Interval, "has no annotation"),
        ("tuple", (1, 2), "`typing.ClassVar` for what is no field"),
    )
    def test_a_field_without_an_annotation(self, value, text):
        with self.assertRaisesRegex(TypeError, text):
            type(keras.CompositeTensor)(
                "Wrong", (keras.CompositeTensor,), {"scale": value}
            )

    @parameterized.named_parameters(
        (name.strip("_"), name)
        for name in ("__init__", "__post_init__", "__new__")
    )
    def test_a_constructor_of_its_own(self, name):
        with self.assertRaisesRegex(
            TypeError, f"`Wrong` has a `{name}` of its own.*__check__"
        ):
            type(keras.CompositeTensor)(
                "Wrong",
                (keras.CompositeTensor,),
                {name: lambda self: None},
            )

    def test_two_classes_of_one_name(self):
        """As in a notebook, where a cell runs again."""

        def define():
            class Again(keras.CompositeTensor):
                values: keras.KerasTensor

            return Again

        first, second = define(), define()
        for cls in (first, second):
            result = tree.map_structure(lambda x: x * 2.0, cls(V))
            self.assertIs(type(result), cls)


class ConstructorTest(testing.TestCase):
    @parameterized.named_parameters(
        ("list", lambda: V.tolist()),
        ("array", lambda: V),
        ("tensor", lambda: backend.convert_to_tensor(V)),
        ("nested_lists", lambda: [[0.5], [1.0], [2.0]]),
    )
    def test_what_becomes_a_tensor(self, make):
        x = Interval(make(), make())
        self.assertTrue(backend.is_tensor(x.low))
        self.assertAllClose(array(x.low).reshape(3), V)
        self.assertEqual(backend.standardize_dtype(x.low.dtype), "float32")

    def test_a_number(self):
        self.assertEqual(float(Interval(2.0, 3.0).high), 3.0)

    def test_dtypes_stay(self):
        for dtype in ("int32", "bool", "float16", "uint8"):
            x = Interval(V.astype(dtype), V.astype(dtype))
            self.assertEqual(backend.standardize_dtype(x.dtype), dtype)

    def test_a_variable(self):
        x = Interval(backend.Variable(V), V)
        self.assertAllClose(ops.multiply(x.low, 2.0), 2.0 * V)

    def test_a_masked_array_of_numpy(self):
        x = Graph(np.ma.MaskedArray(V, ~MASK), interval())
        self.assertIsInstance(x.nodes, keras.MaskedTensor)
        self.assertAllEqual(x.nodes.mask, MASK)

    def test_what_stays_as_it_is(self):
        masked = keras.MaskedTensor(V, MASK)
        symbolic = backend.KerasTensor((2, 3))
        tensor = backend.convert_to_tensor(V)
        inner = interval()
        for x in (masked, symbolic, tensor, inner):
            self.assertIs(Interval(x, x).low, x)

    def test_a_missing_part(self):
        self.assertIsNone(graph().weights)
        self.assertIsNone(graph(weights=None).weights)
        with self.assertRaisesRegex(
            TypeError, r"`high` of `Interval` is no tensor.*\| None = None`"
        ):
            Interval(V, None)

    @parameterized.named_parameters(
        ("text", "not a tensor"), ("object", object()), ("set", {1, 2})
    )
    def test_what_is_no_tensor(self, value):
        if isinstance(value, str) and backend.backend() == "tensorflow":
            self.skipTest("TensorFlow has tensors of text.")
        with self.assertRaisesRegex(
            TypeError, "`low` of `Interval` is no tensor"
        ):
            Interval(value, V)

    def test_a_missing_field(self):
        with self.assertRaisesRegex(TypeError, "missing 1.*'high'"):
            Interval(V)

    def test_an_unknown_field(self):
        with self.assertRaisesRegex(TypeError, "'middle'"):
            Interval(V, V, middle=V)

    @parameterized.named_parameters(
        ("list", [1]), ("dict", {}), ("set", {1}), ("inside", ([1],))
    )
    def test_a_static_that_is_not_hashable(self, value):
        with self.assertRaisesRegex(
            TypeError, "static field `closed` of `Interval` must be hashable"
        ):
            interval(closed=value)

    def test_a_tensor_for_a_static(self):
        for value in (
            V,
            backend.convert_to_tensor(V),
            keras.MaskedTensor(V, MASK),
            backend.KerasTensor((3,)),
            interval(),
        ):
            with self.assertRaisesRegex(
                TypeError,
                "`closed` of `Interval` is static.*`closed: keras.KerasTensor`",
            ):
                interval(closed=value)

    @parameterized.named_parameters(
        ("array", V),
        ("tensor", backend.convert_to_tensor(V)),
        ("symbolic", backend.KerasTensor((3,))),
        ("masked", backend.MaskedTensor(V, MASK)),
        ("composite", Interval(V, V)),
    )
    def test_a_tensor_inside_a_static(self, x):
        for value in ((x,), (1, ("a", x)), [x], {"a": (x,)}):
            kind = type(value).__name__
            with self.assertRaisesRegex(
                TypeError, f"`closed` of `Interval`.*{kind} with a tensor in it"
            ):
                Interval(V, V, value)

    def test_numbers_of_numpy_are_statics(self):
        for value in (np.int64(2), (np.int64(2), 3), ("a", (np.float32(1),))):
            self.assertEqual(Interval(V, V, value).closed, value)

    def test_what_the_constructor_would_not_keep(self):
        with self.assertRaisesRegex(TypeError, "`scale` of `Wrong`.*`InitVar`"):

            class Wrong(keras.CompositeTensor):
                value: keras.KerasTensor
                scale: dataclasses.InitVar[int] = 3

    def test_the_check(self):
        with self.assertRaisesRegex(ValueError, "differ in shape"):
            Ordered(V, M)
        with self.assertRaisesRegex(ValueError, "differ in shape"):
            Ordered(V, V).replace(high=M)

    def test_no_check_where_nests_are_mapped(self):
        """What walks nests puts anything into the parts."""
        shapes = iter([(1,), (2,)])
        x = tree.map_structure(lambda _: next(shapes), Ordered(V, V))
        self.assertEqual((x.low, x.high), ((1,), (2,)))


class PythonTest(testing.TestCase):
    def test_immutable(self):
        x = interval()
        for name in ("low", "closed", "new"):
            with self.assertRaisesRegex(AttributeError, "is immutable"):
                setattr(x, name, V)
        with self.assertRaisesRegex(AttributeError, r"x.replace\(low="):
            x.low = V
        with self.assertRaisesRegex(AttributeError, "cannot be deleted"):
            del x.low
        self.assertAllClose(x.low, V)

    def test_replace(self):
        x = interval()
        y = x.replace(low=[0.0, 0.0, 0.0], closed="left")
        self.assertAllClose(y.low, [0.0] * 3)
        self.assertIs(y.high, x.high)
        self.assertEqual((x.closed, y.closed), ("both", "left"))
        self.assertAllClose(x.low, V)
        with self.assertRaisesRegex(TypeError, "no field `middle`.*`low`"):
            x.replace(middle=V)
        with self.assertRaisesRegex(TypeError, "must be hashable"):
            x.replace(closed=[])

    def test_repr(self):
        self.assertEqual(
            repr(interval()),
            "Interval(low=<shape=(3,), dtype=float32>, "
            "high=<shape=(3,), dtype=float32>, closed='both')",
        )
        text = repr(graph(names=("a", "b")))
        self.assertIn("nodes=<shape=(3,), dtype=float32, mask=(3,)>", text)
        self.assertIn("bounds=Interval(low=", text)
        self.assertIn("weights=None", text)
        self.assertIn("names=('a', 'b')", text)
        symbolic = Interval(backend.KerasTensor((None, 2)), V)
        self.assertIn("low=<shape=(None, 2), dtype=float32>", repr(symbolic))

    def assert_equal(self, x, y):
        self.assertIs(type(x), type(y))
        tree.assert_same_structure(x, y)
        for a, b in zip(tree.flatten(x), tree.flatten(y), strict=True):
            if isinstance(a, keras.MaskedTensor):
                self.assertAllEqual(a.mask, b.mask)
                a, b = a.values, b.values
            self.assertAllClose(a, b)

    def test_copies(self):
        x = graph(names=("a",))
        for y in (
            copy.copy(x),
            copy.deepcopy(x),
            pickle.loads(pickle.dumps(x)),
        ):
            self.assertIsNot(x, y)
            self.assert_equal(x, y)
            self.assertEqual(y.names, ("a",))

    def test_length(self):
        self.assertLen(interval(), 3)
        # Of a structure, the number of its parts.
        self.assertLen(graph(), 4)
        for shape in ((), (None, 2)):
            low = backend.KerasTensor(shape)
            with self.assertRaisesRegex(TypeError, "known first dimension"):
                len(Interval(low, low))

    def test_no_truth_value(self):
        for x in (interval(), graph(), Interval(1.0, 1.0)):
            with self.assertRaisesRegex(TypeError, "is not defined"):
                bool(x)

    def test_iteration(self):
        with self.assertRaisesRegex(TypeError, "cannot be iterated over"):
            iter(graph())
        with mock.patch.dict(rules._RULES):

            @keras.rule_for(ops.get_item, Interval)
            def get_item(x, key):
                return keras.composite.parts(ops.get_item, x, key)

            found = list(interval())
        self.assertLen(found, 3)
        self.assertEqual([float(x.low) for x in found], V.tolist())

    def test_identity_is_the_equality_of_structures(self):
        x = graph()
        self.assertTrue(x == x)
        self.assertFalse(x == graph())
        self.assertTrue(x != graph())
        self.assertLen({x, graph(), x}, 2)
        self.assertLen({interval(), interval()}, 2)

    def test_numpy_does_not_take_it(self):
        for x in (interval(), graph()):
            for function in (
                np.asarray,
                lambda x: np.asarray(x, "float32"),
                lambda x: np.concatenate([x, V]),
                ops.convert_to_numpy,
                ops.convert_to_tensor,
            ):
                with self.assertRaises(keras.UnsupportedTypeError):
                    function(x)

    def test_numpy_takes_what_has_a_rule_for_it(self):
        class Doubled(keras.CompositeTensor):
            values: keras.KerasTensor

        with mock.patch.dict(rules._RULES):

            @keras.rule_for(ops.convert_to_numpy, Doubled)
            def as_array(x):
                return 2 * ops.convert_to_numpy(x.values)

            self.assertAllClose(np.asarray(Doubled(V)), 2 * V)
            self.assertEqual(np.asarray(Doubled(V), "int32").dtype, "int32")

            @keras.rule_for(ops.convert_to_numpy, Doubled)
            def as_something_else(x):
                return x

            with self.assertRaisesRegex(TypeError, "gives no array of NumPy"):
                np.asarray(Doubled(V))


class Kind(enum.Enum):
    WIDE = 1


# Statics of which a file would have the name alone, or nothing.
UNREADABLE = {
    "class_of_numpy": np.float32,
    "class_of_python": float,
    "class_of_keras": keras.layers.Dense,
    "composite_class": Interval,
    "builtin": len,
    "function_of_ops": ops.add,
    "function_that_is_read_as_another": ops.relu,
    "dtype": np.dtype("float32"),
    "universal_function": np.sin,
    "enum": Kind.WIDE,
    "complex": 1 + 2j,
    "set": frozenset({1}),
}


class ConfigTest(testing.TestCase):
    def round_trip(self, x):
        """Through text, as a file has it."""
        config = keras.saving.serialize_keras_object(x)
        config = json.loads(json.dumps(config))
        return keras.saving.deserialize_keras_object(
            config,
            custom_objects={"Interval": Interval, "Graph": Graph},
        )

    def test_registered(self):
        x = Saved(V, interval(closed="left"), (3, 4))
        config = keras.saving.serialize_keras_object(x)
        self.assertEqual(config["registered_name"], "composite_test>Saved")
        y = self.round_trip(x)
        self.assertIsInstance(y, Saved)
        self.assertAllClose(y.values, V)
        self.assertIsInstance(y.inner, Interval)
        self.assertAllClose(y.inner.high, V + 1.0)
        self.assertEqual(y.inner.closed, "left")
        self.assertEqual(y.sizes, (3, 4))

    def test_a_masked_part(self):
        y = self.round_trip(graph(names=("a", "b")))
        self.assertIsInstance(y.nodes, keras.MaskedTensor)
        self.assertAllEqual(y.nodes.mask, MASK)
        self.assertAllClose(array(y.nodes.values)[MASK], V[MASK])
        self.assertIsNone(y.weights)
        self.assertEqual(y.names, ("a", "b"))

    def test_by_its_own_methods(self):
        y = Interval.from_config(interval(closed="right").get_config())
        self.assertAllClose(y.low, V)
        self.assertEqual(y.closed, "right")

    @parameterized.named_parameters((name, name) for name in UNREADABLE)
    def test_a_static_that_no_file_gives_back(self, name):
        for value in (UNREADABLE[name], ("a", (UNREADABLE[name],))):
            x = interval(closed=value)
            _, description = composite.take_apart(x)
            for write in (
                x.get_config,
                functools.partial(composite.to_text, type(x), description),
            ):
                with self.assertRaises(TypeError) as caught:
                    write()
                text = str(caught.exception)
                for words in (
                    "`closed` of `Interval`",
                    repr(value),
                    type(value).__name__,
                    "register_keras_serializable",
                    "`get_config()` and a `from_config()` of `Interval`",
                ):
                    self.assertIn(words, text)

    def test_a_function_that_custom_objects_name(self):
        def closed(x):
            return x

        closed.__module__ = "of.a.user"
        config = keras.saving.serialize_keras_object(interval(closed=closed))
        y = keras.saving.deserialize_keras_object(
            json.loads(json.dumps(config)),
            custom_objects={"Interval": Interval, "closed": closed},
        )
        self.assertIs(y.closed, closed)

    def test_text_for_engines(self):
        for x in (interval(), interval(closed="left")):
            _, description = composite.take_apart(x)
            text = composite.to_text(type(x), description)
            self.assertIsInstance(text, str)
            self.assertEqual(composite.from_text(text), description)


class NestTest(testing.TestCase):
    def test_flatten(self):
        x = graph(size=1.0)
        leaves = tree.flatten(x)
        self.assertLen(leaves, 4)
        self.assertIs(leaves[0], x.nodes)
        self.assertIs(leaves[1], x.bounds.low)
        self.assertIs(leaves[2], x.bounds.high)
        self.assertIs(leaves[3], x.size)
        self.assertLen(tree.flatten({"a": [x, x], "b": V}), 9)
        self.assertTrue(tree.is_nested(x))

    def test_map_structure(self):
        y = tree.map_structure(lambda x: x * 2.0, interval(closed="left"))
        self.assertIsInstance(y, Interval)
        self.assertAllClose(y.high, 2.0 * V + 2.0)
        self.assertEqual(y.closed, "left")

    def test_map_structure_of_several(self):
        y = tree.map_structure(lambda a, b: a + b, interval(), interval())
        self.assertAllClose(y.low, 2.0 * V)
        with self.assertRaises((ValueError, TypeError)):
            tree.map_structure(
                lambda a, b: a, interval(), interval(closed="left")
            )

    def test_pack_sequence_as(self):
        x = {"graph": graph(), "more": [interval()]}
        numbers = list(range(len(tree.flatten(x))))
        y = tree.pack_sequence_as(x, numbers)
        self.assertIsInstance(y["graph"], Graph)
        self.assertEqual(y["graph"].nodes, 0)
        self.assertEqual((y["graph"].bounds.low, y["more"][0].high), (1, 4))
        self.assertIsNone(y["graph"].weights)
        self.assertEqual(tree.flatten(y), numbers)

    def test_the_same_structure(self):
        tree.assert_same_structure(graph(), graph())
        tree.assert_same_structure(
            interval(), Interval(M, backend.KerasTensor((2,)))
        )

    @parameterized.named_parameters(
        ("static", lambda: interval(closed="left")),
        ("type", lambda: Ordered(V, V)),
        ("tuple", lambda: (V, V)),
        ("tensor", lambda: V),
    )
    def test_another_structure(self, other):
        for pair in ((interval(), other()), (other(), interval())):
            with self.assertRaises((ValueError, TypeError)):
                tree.assert_same_structure(*pair)

    def test_a_missing_part_is_another_structure(self):
        with self.assertRaises((ValueError, TypeError)):
            tree.assert_same_structure(graph(), graph(weights=V))

    def test_an_array_like_as_a_tensor(self):
        x = composite.as_tensors({"a": interval(), "b": graph()})
        self.assertIsInstance(x["a"], backend.KerasTensor)
        self.assertEqual((x["a"].shape, x["a"].dtype), ((3,), "float32"))
        self.assertIsInstance(x["b"], Graph)


# ----------------------------------------------------------------- operators


class Recorded(keras.CompositeTensor):
    """An array-like whose rules say what they were given."""

    values: keras.KerasTensor
    shape = property(lambda self: self.values.shape)
    dtype = property(lambda self: self.values.dtype)


class Plain(keras.CompositeTensor):
    """A structure without rules."""

    values: keras.KerasTensor


BINARY = operators.ARITHMETIC | operators.BITWISE | operators.COMPARISON
# Python asks the other operand for the opposite comparison.
OPPOSITE = {"lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}
SYMBOLS = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "truediv": lambda x, y: x / y,
    "floordiv": lambda x, y: x // y,
    "mod": lambda x, y: x % y,
    "pow": lambda x, y: x**y,
    "matmul": lambda x, y: x @ y,
    "and": lambda x, y: x & y,
    "or": lambda x, y: x | y,
    "xor": lambda x, y: x ^ y,
    "lshift": lambda x, y: x << y,
    "rshift": lambda x, y: x >> y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
}
UNARY = {
    "neg": lambda x: -x,
    "abs": lambda x: abs(x),
    "invert": lambda x: ~x,
}
INTEGERS = np.array([[1, 2], [3, 4]], "int32")
OTHERS = {
    "number": lambda: 2,
    "array": lambda: INTEGERS,
    "numpy_scalar": lambda: np.int32(2),
    "tensor": lambda: backend.convert_to_tensor(INTEGERS),
    "variable": lambda: backend.Variable(
        INTEGERS, dtype="int32", trainable=False
    ),
    "symbolic": lambda: backend.KerasTensor((2, 2), "int32"),
    "masked": lambda: keras.MaskedTensor(INTEGERS, [True, False]),
}


class OperatorsTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.dict(rules._RULES))

    def record(self, name):
        asked = []

        @keras.rule_for(getattr(ops, name), Recorded)
        def rule(*args, **kwargs):
            asked.append(args)
            return args[0] if isinstance(args[0], Recorded) else args[1]

        return asked

    def test_all_operators_are_here(self):
        self.assertEqual(set(SYMBOLS), set(BINARY))
        self.assertEqual(set(UNARY), set(operators.UNARY))

    def assert_operand(self, found, expected):
        """A symbolic operand is traced: the rule is given what stands for it.

        A composite tensor beside it as well.
        """
        if isinstance(found, Recorded) or isinstance(expected, Recorded):
            self.assertIs(type(found), type(expected))
        elif not isinstance(expected, backend.KerasTensor):
            self.assertIs(found, expected)

    @parameterized.product(name=sorted(SYMBOLS), other=sorted(OTHERS))
    def test_the_rule_gets_the_operands_in_order(self, name, other):
        x, y = Recorded(INTEGERS), OTHERS[other]()
        asked = self.record(BINARY[name])
        SYMBOLS[name](x, y)
        ((first, second),) = asked
        self.assert_operand(first, x)
        self.assert_operand(second, y)

    @parameterized.product(name=sorted(SYMBOLS), other=sorted(OTHERS))
    def test_reflected(self, name, other):
        """As it is written; a comparison may come turned around as well."""
        if (backend.backend(), other) == ("tensorflow", "tensor"):
            if name in operators.COMPARISON:
                self.skipTest("TensorFlow's own does not ask yet.")
        x, y = Recorded(INTEGERS), OTHERS[other]()
        asked = self.record(BINARY[name])
        turned = []
        if name in operators.COMPARISON:
            opposite = BINARY[OPPOSITE.get(name, name)]
            turned = asked if name not in OPPOSITE else self.record(opposite)
        elif other == "symbolic" and BINARY[name] in operators.LOGICAL:
            # Those of symbolic tensors are logical for any dtype.
            asked = self.record(operators.LOGICAL[BINARY[name]])
        SYMBOLS[name](y, x)
        if turned and isinstance(turned[0][0], Recorded):
            ((second, first),) = turned
        else:
            ((first, second),) = asked
        self.assert_operand(first, y)
        self.assert_operand(second, x)

    @parameterized.named_parameters((x, x) for x in sorted(UNARY))
    def test_of_one_operand(self, name):
        asked = self.record(operators.UNARY[name])
        x = Recorded(INTEGERS)
        UNARY[name](x)
        self.assertIs(asked[0][0], x)
        self.assertLen(asked[0], 1)

    def test_the_other_ones(self):
        x = Recorded(M)
        self.assertIs(+x, x)
        asked = self.record("get_item")
        x[1:]
        self.assertEqual(asked[0][1], slice(1, None))
        asked = self.record("round")
        round(x, 2)
        self.assertIs(asked[0][0], x)

    def test_of_booleans_they_are_logical(self):
        x = Recorded([True, False])
        for name, symbol in (
            ("logical_and", lambda: x & True),
            ("logical_or", lambda: False | x),
            ("logical_xor", lambda: x ^ x),
            ("logical_not", lambda: ~x),
        ):
            asked = self.record(name)
            symbol()
            self.assertLen(asked, 1)

    @parameterized.product(name=sorted(SYMBOLS), other=sorted(OTHERS))
    def test_a_structure_refuses(self, name, other):
        function, x, y = SYMBOLS[name], Plain(INTEGERS), OTHERS[other]()
        if name in ("eq", "ne"):
            # They ask whether it is the same object.
            self.assertEqual(function(x, 3), name == "ne")
            self.assertEqual(function(x, x), name == "eq")
            return
        for args in ((x, y), (y, x)):
            with self.assertRaises(keras.UnsupportedTypeError):
                function(*args)

    @parameterized.named_parameters((x, x) for x in sorted(UNARY))
    def test_a_structure_refuses_one(self, name):
        with self.assertRaises(keras.UnsupportedTypeError):
            UNARY[name](Plain(INTEGERS))
