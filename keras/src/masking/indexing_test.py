"""Indexing and assignment, against NumPy's of the values and of the mask."""

import math

import numpy as np
from absl.testing import parameterized
from hypothesis import HealthCheck
from hypothesis import Phase
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.ops import specs
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.row_checks import RowChecks
from keras.src.testing.masked.testing_utils import T

NAME = backend.backend()
PROFILE = settings(
    # JAX and TensorFlow compile anew for each shape.
    max_examples=100 if NAME in ("numpy", "torch") else 25,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
# PyTorch and TensorFlow take numbers first, as slices of one entry. For NumPy
# a number beside an array is an array, which moves the axes that others leave.
NUMBERS_ARE_ARRAYS = NAME in ("numpy", "jax")
STEPS = [1, 2, 3] if NAME == "torch" else [1, 2, -1, -2]

shapes = numpy_st.array_shapes(
    min_dims=1, max_dims=4, min_side=0, max_side=3
).filter(lambda shape: math.prod(shape) <= 40)


def bounds(size):
    return st.none() | st.integers(-size - 1, size + 1)


def slices(size):
    steps = st.none() | st.sampled_from(STEPS)
    return st.builds(slice, bounds(size), bounds(size), steps)


def numbers(size):
    return st.integers(-size, size - 1) if size else slices(size)


@st.composite
def with_dots_and_new_axes(draw, spelled):
    """The key, and the same one without `...`."""
    spelled = list(spelled)
    for _ in range(draw(st.integers(0, 2))):
        spelled.insert(draw(st.integers(0, len(spelled))), None)
    key = list(spelled)
    full = [i for i, k in enumerate(key) if isinstance(k, slice)]
    full = [i for i in full if key[i] == slice(None)]
    if full and draw(st.booleans()):
        i = draw(st.sampled_from(full))
        key[i : i + 1] = [...]
    elif not full and draw(st.booleans()):
        # NumPy does not say what an ellipsis without axes does to arrays.
        if not any(isinstance(k, np.ndarray) for k in key):
            key.insert(draw(st.integers(0, len(key))), ...)
    return tuple(key), spelled


@st.composite
def basic(draw, shape):
    """Numbers and slices, for the first axes or for all."""
    count = draw(st.integers(0, len(shape)))
    full = st.just(slice(None))
    found = [draw(numbers(n) | slices(n) | full) for n in shape[:count]]
    found += [slice(None)] * (len(shape) - count)
    return draw(with_dots_and_new_axes(found))


@st.composite
def with_arrays(draw, shape):
    """One array of places or several that broadcast, beside slices."""
    axes = [a for a, n in enumerate(shape) if n]
    if NAME == "tensorflow" and 0 in shape:
        axes = []  # It gathers nothing from a tensor without entries.
    if not axes:
        return draw(basic(shape))
    chosen = draw(st.lists(st.sampled_from(axes), min_size=1, unique=True))
    common = draw(
        numpy_st.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=3)
    )
    found = []
    for axis, n in enumerate(shape):
        if axis in chosen:
            own = tuple(draw(st.sampled_from([m, 1])) for m in common)
            own = own[draw(st.integers(0, len(own) - 1)) :]
            dtype = draw(st.sampled_from(["int64", "int32", "int8"]))
            places = numpy_st.arrays(dtype, own, elements=numbers(n))
            found.append(draw(places))
        elif NUMBERS_ARE_ARRAYS:
            found.append(draw(numbers(n) | slices(n) | st.just(slice(None))))
        else:
            found.append(draw(slices(n) | st.just(slice(None))))
    return draw(with_dots_and_new_axes(found))


@st.composite
def with_booleans(draw, shape):
    """One boolean array over some axes, beside slices."""
    first = draw(st.integers(0, len(shape) - 1))
    last = draw(st.integers(first + 1, len(shape)))
    chosen = draw(numpy_st.arrays("bool", shape[first:last]))
    before = [draw(slices(n)) for n in shape[:first]]
    after = [draw(slices(n)) for n in shape[last:]]
    return draw(with_dots_and_new_axes([*before, chosen, *after]))


@st.composite
def operands(draw):
    shape = draw(shapes)
    return T(shape, draw(st.integers(1, len(shape))))


def expected(x, key, spelled):
    """What NumPy picks; plain where numbers use up all axes of the mask.

    Args:
        x: A drawn operand.
        key: The key.
        spelled: The same without `...`.
    """
    values, cells = x.values[key], x.cells[key]
    left, own = x.mask.ndim, []
    for k in spelled:
        if left <= 0:
            break
        own.append(k)
        is_bool = isinstance(k, np.ndarray) and k.dtype == "bool"
        left -= k.ndim if is_bool else k is not None
    if all(isinstance(k, int) for k in own):
        return [(values * cells, None)]
    return [(values, cells)]


FORMS = {
    "numpy": lambda k: k,
    "list": lambda k: k.tolist(),
    "tensor": lambda k: backend.convert_to_tensor(k),
}


def in_form(key, form):
    """The key with its arrays in another form."""
    convert = FORMS[form]
    return tuple(convert(k) if isinstance(k, np.ndarray) else k for k in key)


def symbol(shape, mask, dtype="float32", unknown=()):
    shape = tuple(None if a in unknown else n for a, n in enumerate(shape))
    spec = None if mask is None else backend.KerasTensor(shape[:mask], "bool")
    return backend.KerasTensor(shape, dtype, mask=spec)


class GetItemTest(testing.TestCase, RowChecks):
    def check(self, template, key, spelled, seed):
        """As NumPy says, with anything under the mask, and in a graph."""
        x = u.draw(template, seed, 0.6)
        label = f"{template} {key} seed={seed}"
        wanted = expected(x, key, spelled)
        found = u.masked(x)[key]
        self.assert_same(found, wanted, label, 0)
        garbled = u.masked(x, garbage=seed)[key]
        self.assert_same(garbled, wanted, label, 0)
        poisoned = u.masked(x, poison=np.nan)[key]
        self.assert_finite(poisoned, label)
        return found, label

    @parameterized.named_parameters(
        ("basic", basic), ("with_arrays", with_arrays)
    )
    def test_as_numpy_indexes_values_and_mask(self, keys):
        @PROFILE
        @given(st.data())
        def check(data):
            template = data.draw(operands())
            key, spelled = data.draw(keys(template.shape))
            seed = data.draw(st.integers(0, 99))
            found, label = self.check(template, key, spelled, seed)
            spec = symbol(template.shape, template.mask)[key]
            self.assertEqual(spec.shape, tuple(found.shape), label)
            mask = getattr(found, "mask", None)
            if mask is None:
                self.assertIsNone(spec._mask_spec, label)
            else:
                own = spec._mask_spec.shape
                self.assertEqual(own, tuple(mask.shape), label)

        check()

    def test_a_boolean_array_picks_entries_with_their_mask(self):
        @PROFILE
        @given(st.data())
        def check(data):
            template = data.draw(operands())
            key, spelled = data.draw(with_booleans(template.shape))
            seed = data.draw(st.integers(0, 99))
            self.check(template, key, spelled, seed)

        check()

    @parameterized.product(form=list(FORMS), dtype=["int64", "int8", "uint8"])
    def test_places_in_any_form(self, form, dtype):
        for key in (
            (np.array([1, 0, 1], dtype),),
            (slice(None), np.array([2, 0], dtype)),
            (np.array([[0], [1]], dtype), np.array([0, 2], dtype)),
            (..., np.array([3, 1], dtype)),
            (np.array([], dtype),),
        ):
            x = u.draw(T((2, 3, 4), 2), 1, 0.6)
            found = u.masked(x)[in_form(key, form)]
            self.assert_same(found, expected(x, key, key), str(key), 0)
        alone = u.masked(x)[in_form((np.array([1, 0]),), form)[0]]
        self.assert_same(alone, [(x.values[[1, 0]], x.cells[[1, 0]])], form, 0)

    @parameterized.parameters(*FORMS)
    def test_booleans_in_any_form(self, form):
        x = u.draw(T((2, 3, 4), 2), 1, 0.6)
        for chosen in (np.array([True, False]), x.values[..., 0] > 0):
            found = u.masked(x)[in_form((chosen,), form)]
            wanted = [(x.values[chosen], x.cells[chosen])]
            self.assert_same(found, wanted, form, 0)

    @parameterized.named_parameters(
        ("python", int), ("numpy", np.int32), ("tensor", "tensor")
    )
    def test_a_number_in_any_form(self, form):
        if form == "tensor":
            form = FORMS["tensor"]
        x = u.draw(T((2, 3, 4), 2), 1, 0.6)
        found = u.masked(x)[form(1)]
        self.assertEqual(len(found.mask.shape), 1)
        self.assert_same(found, [(x.values[1], x.cells[1])], "row", 0)
        entry = u.masked(x)[form(1), form(2)]
        values = x.values[1, 2] * x.cells[1, 2]
        self.assert_same(entry, [(values, None)], "entry", 0)

    def test_the_mask_stays_over_the_leading_axes(self):
        """Or reaches as far as arrays do, and not over the features."""
        x = u.masked(u.draw(T((2, 3, 4, 5), 2), 1, 0.6))
        index = np.array([1, 0, 1])
        for key, shape in (
            (index, (3, 3)),
            ((slice(None), index), (2, 3)),
            ((index, slice(None), 0), (3, 3)),
            ((slice(None), slice(None), index), (2, 3, 3)),
            ((index[:2, None], index), (2, 3)),
            ((0, index), (3,)),
            ((0, slice(None), index), (3, 3)),
            ((None, index), (1, 3, 3)),
            (np.array([True, False]), (1, 3)),
        ):
            self.assertEqual(tuple(x[key].mask.shape), shape, str(key))

    def test_dots_that_stand_for_no_axis(self):
        drawn = u.draw(T((2, 3), 2), 1, 0.6)
        for key in ((0, ..., 1), (..., 0, 1), (0, 1, ...)):
            wanted = [(drawn.values[0, 1] * drawn.mask[0, 1], None)]
            self.assert_same(u.masked(drawn)[key], wanted, str(key), 0)

    def test_unknown_sizes(self):
        x = symbol((2, 3, 4), 2, unknown=(0, 1))
        index = np.array([1, 0, 1])
        for key, shape, mask_shape in (
            (index, (3, None, 4), (3, None)),
            ((slice(None), [0, 2]), (None, 2, 4), (None, 2)),
            ((..., index), (None, None, 3), (None, None, 3)),
            (slice(1, None), (None, None, 4), (None, None)),
            (..., (None, None, 4), (None, None)),
            (None, (1, None, None, 4), (1, None, None)),
            ((slice(None), 0), (None, 4), (None,)),
        ):
            y = x[key]
            self.assertEqual(y.shape, shape, str(key))
            self.assertEqual(y._mask_spec.shape, mask_shape, str(key))

    def test_a_graph_picks_as_an_eager_call_does(self):
        from keras.src import models
        from keras.src.layers import Input

        x = u.draw(T((2, 3, 4), 2), 1, 0.6)
        for key in (slice(1, None), [0, 0], (slice(None), [2, 0]), (..., 1)):
            inputs = Input(batch_shape=(2, 3, 4), mask_shape=(3,))
            model = models.Model(inputs, inputs[key])
            self.assertEqual(
                tuple(model.output.shape), x.values[key].shape, str(key)
            )
            wanted = [(x.values[key], x.cells[key])]
            self.assert_same(model(u.masked(x)), wanted, str(key), 0)

    def test_symbolic_places(self):
        x = symbol((5, 3, 4), 2)
        places = symbol((7, 2), None, "int32", unknown=(0,))
        y = x[places]
        self.assertEqual(y.shape, (None, 2, 3, 4))
        self.assertEqual(y._mask_spec.shape, (None, 2, 3))


def stacked(xs):
    return ops.stack(xs, axis=1)


def stacked_before(xs):
    return ops.stack(xs, axis=-1 - len(xs[0].shape[1:]))


def with_new_axes(xs):
    return ops.concatenate([x[:, None] for x in xs], axis=1)


def by_layers(xs):
    if len(xs[0].shape) < 2:
        return layers.Concatenate(axis=1)([x[:, None, None] for x in xs])[
            ..., 0
        ]
    return layers.Concatenate(axis=1)([ops.expand_dims(x, 1) for x in xs])


class StepsOfALoopTest(testing.TestCase):
    @parameterized.product(
        join=(stacked, stacked_before, with_new_axes, by_layers),
        shape=((3, 4), (3, 4, 2), (3, 4, 2, 5)),
        symbolic=(False, True),
    )
    def test_they_are_put_together_as_they_were(self, join, shape, symbolic):
        if join is with_new_axes and len(shape) == 2:
            self.skipTest("An axis of size 1 at the end is one of features.")
        mask = np.arange(4) < np.array([4, 2, 0])[:, None]
        values = np.random.default_rng(0).normal(size=shape).astype("float32")
        x = backend.MaskedTensor(values, mask)

        def run(x):
            return join([x[:, t] for t in range(4)])

        if symbolic:
            inputs = layers.Input(shape[1:], mask_shape=(4,))
            model = models.Model(inputs, run(inputs))
            self.assertEqual(specs.mask_shape(model.output), (None, 4))
            found = model(x)
        else:
            found = run(x)
            again = ops.stack(ops.unstack(x, axis=1), axis=1)
            self.assertAllEqual(again.mask, mask)
        self.assertAllEqual(found.mask, mask)
        self.assertAllClose(ops.filled(found, 0), ops.filled(x, 0), rtol=1e-6)

    def test_features_side_by_side_are_merged(self):
        values = np.ones((3, 2), "float32")
        x = backend.MaskedTensor(values, [True, True, False])
        y = backend.MaskedTensor(values, [True, False, False])
        found = ops.concatenate([x, y], axis=1)
        self.assertAllEqual(found.mask, [True, False, False])


class MaskedKeyTest(testing.TestCase, RowChecks):
    def test_it_looks_up_0_and_is_masked(self):
        key = u.draw(T((2, 3), 2, "int32", 0, 4), 1, 0.6)
        table = u.draw(T((5, 4)), 2, 1.0)
        wanted = [
            (table.values[key.values], u.over_all_axes(key.mask, (2, 3, 4)))
        ]
        plain, masked_key = u.plain(table), u.masked(key)
        self.assert_same(ops.get_item(plain, masked_key), wanted, "eager", 0)
        masked_key = u.masked(key, garbage=3)  # Far outside of the table.
        result = ops.get_item(plain, masked_key)
        self.assert_same(result, wanted, "garbled", 0)
        first = np.broadcast_to(table.values[0], (2, 3, 4))[~key.mask]
        self.assertAllClose(u.array(result.values)[~key.mask], first)

    def test_in_a_graph(self):
        y = ops.get_item(symbol((5, 4), None), symbol((2, 3), 1, "int32"))
        self.assertEqual(y.shape, (2, 3, 4))
        self.assertEqual(y._mask_spec.shape, (2,))

    @parameterized.named_parameters(
        ("boolean", "bool", lambda k: k, "unknown number of entries"),
        ("one_of_two", "int32", lambda k: (slice(None), k), "ops.take"),
    )
    def test_other_masked_keys_are_refused(self, dtype, make, text):
        key = u.masked(u.draw(T((3,), 1, dtype, 0, 2), 1, 0.6))
        table = u.plain(u.draw(T((3, 3)), 1, 1.0))
        with self.assertRaisesRegex(UnsupportedMaskError, text):
            ops.get_item(table, make(key))

    def test_of_a_masked_tensor_is_refused(self):
        x = u.masked(u.draw(T((3, 3), 1), 1, 0.6))
        key = u.masked(u.draw(T((3,), 1, "int32", 0, 2), 1, 0.6))
        for own in (key, (slice(None), key)):
            with self.assertRaisesRegex(UnsupportedMaskError, "must be plain"):
                x[own]


class WrongKeyTest(testing.TestCase):
    @parameterized.named_parameters(
        ("text", "a", TypeError, "integers, slices.*'a'"),
        ("float", 1.0, TypeError, "another kind.*1.0"),
        ("floats", np.ones(2, "float32"), TypeError, "float32"),
        ("boolean", True, TypeError, "a boolean number"),
        ("too_many", (0, 0, 0), IndexError, r"shape \(2, 3\) takes 2 indices"),
        ("dots", (..., ...), IndexError, "one `...` at most"),
    )
    def test_it_says_what_is_wrong(self, key, error, text):
        x = u.masked(u.draw(T((2, 3), 1), 1, 0.6))
        with self.assertRaisesRegex(error, text) as caught:
            x[key]
        note = "In `get_item` of values of shape (2, 3), mask of shape (2,)"
        self.assertIn(note, caught.exception.__notes__)

    def test_assignment_names_what_to_call(self):
        x = u.masked(u.draw(T((2, 3), 1), 1, 0.6))
        with self.assertRaisesRegex(TypeError, "scatter_update"):
            x[0] = 1.0


@st.composite
def assigned(draw):
    """What is assigned to, and the rank of the other mask, None if plain."""
    shape = draw(shapes.filter(lambda shape: 0 not in shape))
    ranks = st.none() | st.integers(1, len(shape))
    one, other = draw(st.tuples(ranks, ranks).filter(any))
    return T(shape, one), other


class AssignmentTest(testing.TestCase, RowChecks):
    def check(self, function, x, updates, key, seed, label):
        """As NumPy assigns to the values and to the whole mask.

        Args:
            function: Takes the tensor and what is written there.
            x: `T` of the tensor.
            updates: `T` of what is written.
            key: NumPy's key for the place.
            seed: Seed of the entries.
            label: What messages begin with.
        """
        drawn = u.draw((x, updates), seed, 0.6)
        values, cells = drawn[0].values.copy(), drawn[0].cells.copy()
        values[key], cells[key] = drawn[1].values, drawn[1].cells
        for garbage in (None, seed):
            result = function(*u.masked(drawn, garbage=garbage))
            self.assert_finite(result, label)
            self.assert_same(result, [(values, cells)], label, 0)
        spec = function(*u.symbolic((x, updates)))
        self.assertEqual(spec.shape, tuple(result.shape), label)
        mask = spec._mask_spec.shape
        self.assertEqual(mask, tuple(result.mask.shape), label)

    def test_slice_update(self):
        @PROFILE
        @given(st.data())
        def check(data):
            x, rank = data.draw(assigned())
            sizes = tuple(data.draw(st.integers(1, n)) for n in x.shape)
            starts = tuple(
                data.draw(st.integers(0, n - m)) for n, m in zip(x.shape, sizes)
            )
            key = tuple(slice(i, i + m) for i, m in zip(starts, sizes))
            seed = data.draw(st.integers(0, 99))
            self.check(
                lambda x, updates: ops.slice_update(x, starts, updates),
                x,
                T(sizes, rank),
                key,
                seed,
                f"{x} {rank} {key} seed={seed}",
            )

        check()

    def test_scatter_update(self):
        @PROFILE
        @given(st.data())
        def check(data):
            x, rank = data.draw(assigned())
            depth = data.draw(st.integers(1, len(x.shape)))
            cells = math.prod(x.shape[:depth])
            # In any order, each place once.
            order = data.draw(st.permutations(range(cells)))
            order = order[: data.draw(st.integers(1, cells))]
            places = np.unravel_index(order, x.shape[:depth])
            indices = np.stack(places, -1).astype("int32")
            shape = (len(order), *x.shape[depth:])
            if rank is not None:
                rank = min(rank, len(shape))
            seed = data.draw(st.integers(0, 99))
            self.check(
                lambda x, updates: ops.scatter_update(x, indices, updates),
                x,
                T(shape, rank),
                places,
                seed,
                f"{x} {rank} {indices.tolist()} seed={seed}",
            )

        check()

    def test_what_was_masked_can_be_set(self):
        x = backend.MaskedTensor(np.ones((2, 3), "float32"), [False, True])
        result = ops.slice_update(x, (0, 0), np.full((1, 3), 5.0, "float32"))
        self.assertIsInstance(result, MaskedTensorBase)
        self.assertAllEqual(result.mask, [True, True])
        self.assertAllClose(result.values[0], [5.0, 5.0, 5.0])
