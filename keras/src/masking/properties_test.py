"""Properties of every row of a family, whatever the shapes and dtypes are.

The rows are read off the tables, and a row's family off the module of its
rule. How its arguments look is read off its examples: a new row of a family is
tested here as soon as it has one. Each is called with tensors of drawn ranks,
sizes (0 among them), dtypes and masks, along drawn axes, and must

- give what its oracle says, whatever lies under the masks;
- have a gradient of 0 at what is masked, and one elsewhere that is the same
  whatever lies there;
- have a symbolic form, with sizes unknown, that agrees with the result.

What upstream cannot do with plain tensors, and what a rule refuses, is drawn
anew. By default a few examples are drawn, always the same. For many, others
each time, with what it takes to repeat those that fail printed beside them:

    HYPOTHESIS_PROFILE=thorough pytest keras/src/masking/properties_test.py
"""

import inspect
import os

import numpy as np
from absl.testing import parameterized
from hypothesis import HealthCheck
from hypothesis import Phase
from hypothesis import given
from hypothesis import reject
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_st

from keras.src import backend
from keras.src import testing
from keras.src import tree
from keras.src.masking import tables
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.masking.rules import layout
from keras.src.masking.rules.merge import merge
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.row_checks import EXAMPLES
from keras.src.testing.masked.row_checks import NAMES
from keras.src.testing.masked.row_checks import NO_GRADIENT
from keras.src.testing.masked.row_checks import SPECS_DIFFER
from keras.src.testing.masked.row_checks import RowChecks
from keras.src.testing.masked.row_checks import call
from keras.src.testing.masked.testing_utils import T

# JAX and TensorFlow compile or trace anew for each shape.
IS_QUICK = backend.backend() in ("numpy", "torch")
COMMON = dict(deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile(
    "few",
    max_examples=6 if IS_QUICK else 2,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    **COMMON,
)
settings.register_profile(
    "thorough", max_examples=200, print_blob=True, database=None, **COMMON
)
PROFILE = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))

FAMILIES = {
    "elementwise": ("merge",),
    "reductions": ("reduce", "nan"),
    "layout": ("layout", "arrange"),
    "contractions": ("contract",),
    "normalizations": ("normalize",),
    "orders": ("scan", "order", "count"),
}
POISONS = (np.nan, np.inf, -np.inf, 1e30)


def rules():
    """The rules of all rows with examples, by the names of these."""
    found = {}
    for table in tables.TABLES:
        module = table.__name__.rpartition(".")[2]
        prefix = f"{module}." if module in u.MODULES else ""
        found |= {
            prefix + name: rule for name, rule in tables.rules_of(table).items()
        }
    return {name: rule for name, rule in found.items() if EXAMPLES[name]}


RULES = rules()


def rows_of(family):
    """The names of the rows whose rule is made in a module of the family."""
    return sorted(
        (name.replace(".", "_"), name)
        for name, rule in RULES.items()
        if rule.__module__.rpartition(".")[2] in FAMILIES[family]
    )


def some_of(rows):
    """Of the rows that share one rule a part, where compiling takes long.

    The examples of all are called in `tables_test`.
    """
    if IS_QUICK or os.environ.get("HYPOTHESIS_PROFILE") == "thorough":
        return rows
    alike = [row for row in rows if RULES[row[1]] is merge]
    return sorted({*rows} - {*alike} | {*alike[::4]})


NORMALIZATIONS = {name for _, name in rows_of("normalizations")}
ORDERS = {name for _, name in rows_of("orders")}


# ------------------------------------------------------------------ operands

SIZE = 30
FLOATS = ["float32", "float16", "bfloat16", "float64"]
if backend.backend() == "jax":
    FLOATS.remove("float64")  # JAX makes float32 of it.
INTS = ["int32", "int8", "uint8"]
# Rows that take no complex numbers on any backend, or take them for real.
REAL = set("cdist correlate full geomspace linspace logspace norm".split())


# Rows whose other arguments fit the sizes of their examples.
SIZES_STAY = {"bincount", "full", "in_top_k"}
# Rows in terms of the largest entry, or the last.
NEED_ENTRIES = {"histogram", "last"}
# Rows that keep to the dtypes of their examples: one is the size of another
# dtype, one is of floating point numbers alone, one jumps where these are
# rounded.
DTYPES_STAY = {"glu", "sparsemax", "view"}
# Rows whose plain results have other dtypes than upstream's specs say.
SPEC_DIFFERS_FROM_PLAIN = {"top_k"}
if backend.backend() == "numpy":
    # They are traced on memory as it is found, of which there is no count.
    SPEC_DIFFERS_FROM_PLAIN |= {"bincount", "histogram"}
    # It makes float64 of float32.
    SPEC_DIFFERS_FROM_PLAIN.add("sparsemax")
    # Tracing runs them on some hundred thousand rows, one by one.
    SIZES_STAY |= {"nanmedian", "nanpercentile", "nanquantile"}
if backend.backend() == "tensorflow":
    # Upstream's cannot be traced.
    SPEC_DIFFERS_FROM_PLAIN |= {"inner", "kron"}
    # Upstream's makes another number of parts where a size is unknown.
    SIZES_STAY.add("array_split")
    # Upstream's gives all results the dtype of the first.
    DTYPES_STAY.add("meshgrid")
    # Upstream's takes no empty tensor.
    NEED_ENTRIES.add("sparsemax")
if backend.backend() == "torch":
    # Upstream's give other lengths than NumPy, or split nothing at an index.
    SIZES_STAY |= {"correlate", "dsplit", "hsplit", "split", "vsplit"}
    # Upstream's maximum takes no empty tensor, along whatever axis.
    NEED_ENTRIES |= set(
        """argmax argmin logsumexp nanargmax nanargmin nanmax nanmin ptp
        sparsemax""".split()
    )


def dtypes(name, template):
    """The dtypes that may take the place of a template's."""
    if template.dtype in INTS:
        return INTS
    if template.dtype != "float32" or name in DTYPES_STAY:
        return [template.dtype]
    has_integers = np.all(np.ceil(template.low) <= np.floor(template.high))
    if name in NORMALIZATIONS or not has_integers:
        return FLOATS
    if name == "histogram":
        # Keras's `linspace` makes float32 of float64.
        return [*FLOATS[:3], *INTS]
    if name == "power":
        # PyTorch's gradient takes no booleans; complex powers have branches.
        return [*FLOATS, *INTS]
    if name in REAL or name in ORDERS:
        return [*FLOATS, *INTS, "bool"]
    return [*FLOATS, *INTS, "bool", "complex64"]


def shapes(min_dims=1, max_dims=4):
    # The first is what hypothesis begins with. Few tensors are empty.
    sides = st.sampled_from([2, 3, 1] * 3 + [0])
    return (
        st.lists(sides, min_size=min_dims, max_size=max_dims)
        .map(tuple)
        .filter(lambda shape: np.prod(shape) <= SIZE)
    )


@st.composite
def operands(draw, name, template, shape, masked=None):
    """A `T` in the domain of a template, of this shape.

    Args:
        draw: Given by hypothesis.
        name: Name of the row.
        template: The `T` of an example.
        shape: The shape.
        masked: Whether it is masked, None to draw that.
    """
    dtype = draw(st.sampled_from(dtypes(name, template)))
    low, high = template.low, template.high
    if dtype == "uint8" and np.ndim(low) == 0 and low < 0:
        low, high = 0, max(high, 1)
    ranks = list(range(1, len(shape) + 1))
    if masked is None:
        ranks = [*ranks, None]
    rank = draw(st.sampled_from(ranks)) if masked is not False else None
    return T(shape, rank, dtype, low, high)


def seen_masked(name):
    """For each operand of a row whether examples have it masked, or not."""
    seen = {}
    for example in EXAMPLES[name]:
        for i, t in enumerate(u.leaves(example, T)):
            seen.setdefault(i, set()).add(t.mask is not None)
    return seen


@st.composite
def in_place_of(draw, name, example, shapes_of_operands):
    """The example with operands of these shapes, one of them masked."""
    templates = u.leaves(example, T)
    seen = seen_masked(name)
    can_be = [
        i
        for i, shape in enumerate(shapes_of_operands)
        if True in seen[i] and len(shape)
    ]
    if not can_be:
        reject()

    def masked(i, surely):
        if i not in can_be:
            return False
        return True if i == surely or False not in seen[i] else None

    surely = draw(st.sampled_from(can_be))
    drawn = iter(
        [
            draw(operands(name, t, shape, masked(i, surely)))
            for i, (t, shape) in enumerate(zip(templates, shapes_of_operands))
        ]
    )
    return u.map_leaves(lambda _: next(drawn), example, T)


# ----------------------------------------------------------------- arguments


@st.composite
def broadcast(draw, name):
    """Operands whose shapes broadcast, of different ranks too."""
    example = draw(st.sampled_from(EXAMPLES[name]))
    shape = draw(shapes())
    found = []
    for _ in u.leaves(example, T):
        own = [n if draw(st.integers(0, 3)) < 3 else 1 for n in shape]
        found.append(tuple(own[draw(st.integers(0, len(shape))) :]))
    return draw(in_place_of(name, example, found))


@st.composite
def resized(draw, name):
    """An example whose sizes change, equal ones alike; 1 stays."""
    example = draw(st.sampled_from(EXAMPLES[name]))
    found = [t.shape for t in u.leaves(example, T)]
    new = {1: 1}
    for n in sorted({n for shape in found for n in shape} - {1}):
        # An array among the arguments fits the sizes as they are.
        stay = name in SIZES_STAY or u.leaves(example, np.ndarray)
        others = [] if stay else [2, 3, 1, 0]
        new[n] = draw(st.sampled_from([n, *others]))
    found = [tuple(new[n] for n in shape) for shape in found]
    return draw(in_place_of(name, example, found))


def argument_names(name, example):
    """The names of the arguments of an example."""
    own = NAMES.get(name, ())
    parameters = inspect.signature(u.function_of(name)).parameters
    return [*list(parameters)[: len(example) - len(own)], *own]


AXES = ("axis", "axes", "axis1", "axis2")


def alone(name):
    """The examples of a row in which its first argument is the only tensor."""
    return [
        example
        for example in EXAMPLES[name]
        if len(u.leaves(example, T)) == 1 and isinstance(example[0], T)
    ]


@st.composite
def along_axes(draw, name):
    """One operand of any rank, along any axes."""
    examples = alone(name)
    example = draw(st.sampled_from(examples))
    names = argument_names(name, example)
    shape = draw(shapes())
    args = list(draw(in_place_of(name, example, [shape])))
    # Two axes differ.
    left = list(draw(st.permutations(range(len(shape)))))
    for i, own_name in enumerate(names):
        if own_name in AXES:
            kinds = {
                type(e[argument_names(name, e).index(own_name)])
                for e in examples
                if own_name in argument_names(name, e)
            }
            kinds = sorted(kinds, key=lambda kind: kind.__name__)
            kind = draw(st.sampled_from(kinds))
            args[i] = draw(axes_of(kind, left, len(shape)))
        elif own_name == "keepdims":
            args[i] = draw(st.booleans())
    return tuple(args)


@st.composite
def axes_of(draw, kind, left, ndim):
    """An argument of this kind: a number, several, or None."""
    if kind is type(None):
        return None
    if kind is int:
        if not left:
            reject()
        axis = left.pop()
        return axis - ndim if draw(st.booleans()) else axis
    chosen = draw(st.lists(st.sampled_from(left), min_size=1, unique=True))
    return kind(a - ndim if draw(st.booleans()) else a for a in chosen)


def by_examples(name):
    """Arguments as the examples of a row have them."""
    rule = RULES[name]
    if rule in (merge, layout.where) or rule.__name__.startswith("guarded"):
        return broadcast(name)
    if any(set(argument_names(name, e)) & set(AXES) for e in alone(name)):
        return along_axes(name) | resized(name)
    return resized(name)


def axis_of(shape):
    return st.integers(-len(shape), len(shape) - 1)


@st.composite
def joined(draw, new_axis):
    """Up to three operands that differ in size along an axis, if it is old."""
    shape = draw(shapes(max_dims=3))
    ndim = len(shape) + new_axis
    axis = draw(st.integers(-ndim, ndim - 1))
    count = draw(st.integers(1, 3))
    found = []
    for i in range(count):
        own = list(shape)
        if not new_axis:
            own[axis] = draw(st.integers(0, 3))
        found.append(
            draw(operands("stack", T(()), tuple(own), None if i else True))
        )
    return draw(st.permutations(found)), axis


@st.composite
def one(draw, arguments, **limits):
    """One masked operand, and what its shape allows for.

    Args:
        draw: Given by hypothesis.
        arguments: Function of a shape, which gives a strategy of arguments.
        **limits: Of the shape.
    """
    shape = draw(shapes(**limits))
    return (draw(operands("take", T(()), shape, True)), *draw(arguments(shape)))


@st.composite
def new_shapes(draw, shape):
    """Shapes of as many entries."""
    at = draw(st.integers(0, len(shape)))
    cut = draw(st.integers(at, len(shape)))
    together = (*shape[:at], int(np.prod(shape[at:cut])), *shape[cut:])
    return draw(
        st.sampled_from([together, (-1,), (*shape[:at], -1), shape[::-1]])
    )


@st.composite
def keys(draw, shape):
    """Numbers, slices, new axes and dots, or a list of places."""
    if draw(st.booleans()) and shape[0]:
        places = st.integers(-shape[0], shape[0] - 1)
        found = draw(st.lists(places, min_size=1, max_size=3))
        return np.array(found, "int32")
    return draw(numpy_st.basic_indices(shape, allow_newaxis=True, max_dims=5))


@st.composite
def places(draw, shape):
    """Places along an axis, and the axis; None for all of them together."""
    axis = draw(st.none() | axis_of(shape))
    size = int(np.prod(shape)) if axis is None else shape[axis]
    if not size:
        reject()
    own = draw(shapes(min_dims=0, max_dims=2))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    return rng.integers(0, size, own).astype("int32"), axis


@st.composite
def places_beside(draw, shape):
    """A place along an axis for each of several entries."""
    axis = draw(axis_of(shape))
    if not shape[axis]:
        reject()
    own = list(shape)
    own[axis] = draw(st.integers(0, 3))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    return rng.integers(0, shape[axis], own).astype("int32"), axis


@st.composite
def windows(draw, shape):
    starts = [draw(st.integers(0, n)) for n in shape]
    sizes = [draw(st.integers(0, n - i)) for n, i in zip(shape, starts)]
    return tuple(starts), tuple(sizes)


@st.composite
def new_axes(draw, shape):
    """Places of new axes in what they make of a shape, each once."""
    ndim = len(shape) + draw(st.integers(1, 2))
    axes = draw(st.permutations(range(ndim)))[: ndim - len(shape)]
    return (tuple(a - ndim if draw(st.booleans()) else a for a in axes),)


@st.composite
def moves(draw, shape):
    axes = draw(st.lists(axis_of(shape), max_size=len(shape)))
    to = draw(st.permutations(range(len(shape))))[: len(axes)]
    return axes, to


# Rows whose arguments depend on the shape in a way of their own.
ARGUMENTS = {
    # Of one shape.
    "binary_crossentropy": resized("binary_crossentropy"),
    "broadcast_to": one(
        lambda shape: st.tuples(
            st.tuples(
                *(st.just(n) if n != 1 else st.integers(0, 3) for n in shape)
            ).flatmap(
                lambda new: shapes(min_dims=0, max_dims=2).map(
                    lambda lead: lead + new
                )
            )
        ),
        max_dims=3,
    ),
    "concatenate": joined(new_axis=False),
    "expand_dims": one(new_axes, max_dims=3),
    "get_item": one(lambda shape: st.tuples(keys(shape))),
    "moveaxis": one(moves),
    "pad": one(
        lambda shape: st.tuples(
            st.tuples(*[st.tuples(*[st.integers(0, 2)] * 2)] * len(shape))
        )
    ),
    "reshape": one(lambda shape: st.tuples(new_shapes(shape))),
    "slice": one(windows),
    "squeeze": one(
        lambda shape: st.tuples(
            st.sampled_from([None, *(a for a, n in enumerate(shape) if n == 1)])
        )
    ),
    "stack": joined(new_axis=True),
    "swapaxes": one(lambda shape: st.tuples(axis_of(shape), axis_of(shape))),
    "take": one(places),
    "take_along_axis": one(places_beside),
    "tile": one(
        lambda shape: st.tuples(
            st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple)
        ),
        max_dims=3,
    ),
    "transpose": one(
        lambda shape: st.tuples(st.permutations(range(len(shape))).map(tuple))
    ),
}


def over_last(name):
    """Arguments as the examples have them, with the last axis if with one."""
    at = argument_names(name, EXAMPLES[name][0]).index("axis")
    return resized(name).filter(
        lambda args: args[at] in (-1, len(args[0].shape) - 1)
    )


if backend.backend() == "torch":
    # Upstream's takes any axis for the last.
    for each in ("layer_normalization", "rms_normalization"):
        ARGUMENTS[each] = over_last(each)

# ---------------------------------------------------------------------- tests


@st.composite
def unknown_axes(draw, example):
    """Pairs of the place of an operand and of an axis of it."""
    found = [
        (i, a)
        for i, t in enumerate(u.leaves(example, T))
        for a in range(len(t.shape))
    ]
    return draw(st.sets(st.sampled_from(found), max_size=3)) if found else ()


def has_gradient(name):
    """Whether a row makes floating point numbers of such numbers."""
    if backend.backend() == "numpy" or name in NO_GRADIENT:
        return False
    drawn = u.draw(EXAMPLES[name][0], 0, 1.0)
    result = tree.flatten(call(name, u.masked(drawn)))
    return any(u.is_float(x.values) for x in u.leaves(drawn)) and any(
        u.is_float(x) for x in result
    )


class PropertiesTest(testing.TestCase, RowChecks):
    def check_row(self, name):
        """Draws calls of one row, and checks each in all that can be."""
        if name == "imag" and backend.backend() == "torch":
            self.skipTest("PyTorch takes complex numbers only")
        reached = set()

        @PROFILE
        @given(st.data())
        def check(data):
            example = data.draw(ARGUMENTS.get(name, by_examples(name)))
            reached.update(self.check_example(name, example, data))

        check()
        # What upstream cannot do is left out; it must not be everything.
        self.assertIn("values", reached)
        if has_gradient(name):
            self.assertIn("gradient", reached)
        if name not in SPECS_DIFFER and name not in SPEC_DIFFERS_FROM_PLAIN:
            self.assertIn("spec", reached)

    def check_example(self, name, example, data):
        """Checks one call, and names what could be checked of it."""
        share = data.draw(st.sampled_from([0.6, 0.0, 0.3, 1.0]))
        seed = data.draw(st.integers(0, 2**16))
        poison = data.draw(st.sampled_from(POISONS))
        drawn = u.draw(example, seed, share)
        if name in NEED_ENTRIES and any(
            not x.values.size for x in u.leaves(drawn)
        ):
            reject()
        expected = self.upstream(name, u.plain(drawn))
        label = f"{name} {example} seed={seed} share={share} poison={poison}"
        try:
            self.check_call(name, drawn, poison, seed, label)
        except UnsupportedMaskError:
            reject()
        reached = {"values"}
        if self.check_gradients(name, drawn, seed, label):
            reached.add("gradient")
        unknown = data.draw(unknown_axes(example))
        if name in SIZES_STAY:
            unknown = ()
        if self.upstream_has_spec(name, example, unknown, expected):
            self.check_spec(name, example, unknown)
            reached.add("spec")
        return reached

    def upstream(self, name, args):
        """What upstream gives for plain tensors, finite or drawn anew."""
        try:
            result = call(name, args)
            pairs = u.parts(result)
        except Exception:
            reject()
        if not all(np.all(np.isfinite(u.widened(x))) for x, _ in pairs):
            reject()
        return result

    def upstream_has_spec(self, name, example, unknown, result):
        """Whether upstream's symbolic call of plain tensors is right.

        And whether it can be traced, which is how masks are found: backends
        trace with some number in place of each unknown size.
        """
        plain = u.map_leaves(lambda t: t._replace(mask=None), example, T)
        symbols = u.symbolic(plain, unknown)

        def function(*tensors):
            tensors = iter(tensors)
            args = u.map_leaves(lambda _: next(tensors), plain, T)
            return call(name, args)

        tensors = u.leaves(symbols, backend.KerasTensor)
        try:
            backend.compute_output_spec(function, *tensors)
            specs = tree.flatten(call(name, symbols))
        except Exception:
            return False
        return all(
            len(x.shape) == len(spec.shape)
            and all(n in (None, m) for n, m in zip(spec.shape, x.shape))
            and backend.standardize_dtype(x.dtype) == spec.dtype
            for x, spec in zip(tree.flatten(result), specs)
            if hasattr(x, "shape")
        )

    @parameterized.named_parameters(u.part(some_of(rows_of("elementwise"))))
    def test_elementwise(self, name):
        self.check_row(name)

    @parameterized.named_parameters(u.part(rows_of("reductions")))
    def test_reduction(self, name):
        self.check_row(name)

    @parameterized.named_parameters(u.part(rows_of("layout")))
    def test_layout(self, name):
        self.check_row(name)

    @parameterized.named_parameters(u.part(rows_of("contractions")))
    def test_contraction(self, name):
        self.check_row(name)

    @parameterized.named_parameters(u.part(rows_of("normalizations")))
    def test_normalization(self, name):
        self.check_row(name)

    @parameterized.named_parameters(u.part(rows_of("orders")))
    def test_order(self, name):
        self.check_row(name)
