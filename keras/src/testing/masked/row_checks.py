"""Oracles of all rows, and the checks that hold for each, as a mixin."""

import contextlib
from unittest import mock

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import symbolic
from keras.src.ops.specs import mask_shape
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.cases import batch
from keras.src.testing.masked.cases import carry
from keras.src.testing.masked.cases import contract
from keras.src.testing.masked.cases import inquire
from keras.src.testing.masked.cases import layout
from keras.src.testing.masked.cases import merge
from keras.src.testing.masked.cases import normal
from keras.src.testing.masked.cases import order
from keras.src.testing.masked.cases import reduce
from keras.src.testing.masked.cases import window
from patchset.markers import when

# Their results are steps or answers: nothing to differentiate.
NO_GRADIENT = set(
    """argmax argmin empty_like floor_divide get_mask heaviside ndim nextafter
    size""".split()
)
if backend.backend() == "torch":
    # PyTorch's writes in place to what the gradient needs, and has none.
    NO_GRADIENT |= {"vander", "gammainc"}


# Their gradients are NaN if what lies under a mask is: each entry, or each row,
# is by itself, and to put 0 there would cost as much as the op. No op leaves
# anything there that is not finite, `under_masks_test` says.
WANT_FINITE = set(
    """activations.mish average batch_normalization cos dot
    dot_product_attention einsum glu inner jvp kron layer_normalization
    log_softmax logsumexp matmul multiply outer prod rms_normalization silu
    sin softmax softsign sparse_plus std tensordot var""".split()
)

FAMILIES = (
    batch,
    carry,
    contract,
    inquire,
    layout,
    merge,
    normal,
    order,
    reduce,
    window,
)


def united(attribute):
    """One dictionary of those of all families, which must not overlap."""
    found = {}
    for family in FAMILIES:
        own = getattr(family, attribute, {})
        assert not set(found) & set(own), set(found) & set(own)
        found |= own
    return found


def of_this_release(table):
    """The entries of those functions that there are."""
    return {name: x for name, x in table.items() if u.is_there(name)}


EXAMPLES = of_this_release(united("EXAMPLES"))
ORACLES = of_this_release(united("ORACLES"))
# Upstream's own specs of these, or of one of their examples, are not what its
# calls give, each for a reason.
SPECS_DIFFER = united("SPECS_DIFFER")
if when("<3.15"):
    _MENDED = dict.fromkeys(
        ("argpartition", "inner", "matmul", "take_along_axis"),
        "Upstream's is right since 3.15.",
    )
    SPECS_DIFFER = {**SPECS_DIFFER, **_MENDED}
# Names of the arguments that are passed by name, from the second on.
NAMES = united("NAMES")
_REFUSED = "Refused: there is nothing to hold against an oracle."
# Rows that are held against no oracle, with the reason.
WITHOUT_ORACLE = of_this_release(
    {
        "corrcoef": _REFUSED,
        "cov": _REFUSED,
        "get_values": "It gives what lies under the mask, which means nothing.",
        "image.map_coordinates": _REFUSED,
        "lstsq": _REFUSED,
        "nonzero": _REFUSED,
        "random.normal": _REFUSED,
        "random.randint": _REFUSED,
        "random.truncated_normal": _REFUSED,
        "random.uniform": _REFUSED,
        "unique": _REFUSED,
    }
)


def call(name, args):
    """Calls a row's function with the arguments of an example."""
    names = NAMES.get(name, ())
    positional = args[: len(args) - len(names)]
    named = dict(zip(names, args[len(positional) :]))
    if "padding" in named:
        named["data_format"] = "channels_last"
    return u.function_of(name)(*positional, **named)


def traced(name, args):
    """As `call`, of symbolic arguments, with all masks found by tracing."""
    with all_traced():
        return call(name, args)


@contextlib.contextmanager
def all_traced():
    """No family tells what its masks cover, so that all calls are traced."""

    def traced_spec(op, coverage, fn, args, kwargs):
        return symbolic.traced_spec(op, fn, args, kwargs)

    with mock.patch.object(symbolic, "told_spec", traced_spec):
        yield


def shapes(specs):
    """The shapes of the values and of the masks of specs."""
    return [
        (x.shape, mask_shape(x))
        for x in tree.flatten(specs)
        if isinstance(x, backend.KerasTensor)
    ]


def tolerance_of(drawn):
    """The error that the dtypes of the operands allow for."""
    dtypes = {str(x.values.dtype) for x in u.leaves(drawn)}
    if "bfloat16" in dtypes:
        return 4e-2
    return 1e-2 if "float16" in dtypes else 1e-4


def through_door(values, x):
    """The masked tensor of a drawn operand, as users make it."""
    return backend.MaskedTensor(values, x.mask)


def past_door(values, x):
    """The same with what is under the mask, as an op may leave it."""
    return backend.MaskedTensor._wrap(
        backend.convert_to_tensor(values), backend.convert_to_tensor(x.mask)
    )


def with_number(x, number):
    """The values of a drawn operand with a number under the mask, if any."""
    return x.values if x.mask is None else u.with_hidden(x, number)


def hidden_numbers(seed):
    """Two numbers to put under masks, a finite one first."""
    return tuple(xs[seed % len(xs)] for xs in (u.FINITE, u.NOT_FINITE))


class RowChecks:
    """What holds for a call of any row. For test cases to mix in."""

    def check_call(self, name, drawn, poison, seed, label):
        """As the oracle says, and so with anything else under the masks.

        Args:
            name: Name of the row.
            drawn: The arguments, with `Drawn` in them.
            poison: Number to put under the masks before the constructor.
            seed: Seed of the numbers to put there after it.
            label: What messages begin with.
        """
        tolerance = tolerance_of(drawn)
        result = call(name, u.masked(drawn))
        self.assert_finite(result, label)
        self.assert_same(result, ORACLES[name](*drawn), label, tolerance)
        expected = u.parts(result)
        poisoned = call(name, u.masked(drawn, poison=poison))
        self.assert_same(poisoned, expected, label, tolerance)
        garbled = call(name, u.masked(drawn, garbage=seed))
        self.assert_finite(garbled, label)
        self.assert_same(garbled, expected, label, tolerance)
        for hidden in hidden_numbers(seed):
            with u.quiet():
                found = call(name, u.masked(drawn, hidden=hidden))
            self.assert_same(found, expected, f"{label} {hidden}", tolerance)

    def assert_same(self, result, expected, label, tolerance):
        """Masks exactly, and values where they are valid.

        Args:
            result: What a call gives.
            expected: List of values and mask over all axes, or None for it.
            label: What messages begin with.
            tolerance: Absolute and relative, for the values.
        """
        found = u.parts(result)
        self.assertEqual(len(found), len(expected), label)
        for (values, mask), (wanted, wanted_mask) in zip(found, expected):
            self.assertEqual(mask is None, wanted_mask is None, label)
            self.assertEqual(values.shape, np.shape(wanted), label)
            if mask is not None:
                self.assertAllEqual(mask, wanted_mask, label)
                values, wanted = values[mask], wanted[mask]
            self.assertAllClose(
                u.widened(values),
                u.widened(wanted),
                rtol=tolerance,
                atol=tolerance,
                msg=label,
            )

    def assert_finite(self, result, label):
        """No entry is infinite or NaN, what is under a mask included."""
        for values, _ in u.parts(result):
            finite = np.all(np.isfinite(u.widened(values)))
            self.assertTrue(finite, f"{label}: {values}")

    def check_gradients(self, name, drawn, seed, label):
        """0 at masked entries; elsewhere the same, whatever those hold.

        Args:
            name: Name of the row.
            drawn: The arguments, with `Drawn` in them.
            seed: Seed of the numbers to put under the masks.
            label: What messages begin with.

        Returns:
            Whether there was a gradient to check.
        """
        operands = u.leaves(drawn)
        floats = [x for x in operands if u.is_float(x.values)]
        if backend.backend() == "numpy" or name in NO_GRADIENT or not floats:
            return False
        weights = {}

        def loss(arrays, wrap):
            arrays = iter(arrays)

            def one(x):
                values = x.values
                if u.is_float(values):
                    values = next(arrays)
                if x.mask is None:
                    return backend.convert_to_tensor(values)
                return wrap(values, x)

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

        if isinstance(loss([x.values for x in floats], through_door), float):
            return False
        clean = self.gradients_of(
            loss, through_door, [with_number(x, np.nan) for x in floats]
        )
        self.assert_gradients(floats, clean, clean, label)
        finite, other = hidden_numbers(seed)
        for hidden in (finite,) if name in WANT_FINITE else (finite, other):
            found = self.gradients_of(
                loss, past_door, [with_number(x, hidden) for x in floats]
            )
            self.assert_gradients(floats, found, clean, f"{label} {hidden}")
        return True

    def gradients_of(self, loss, wrap, arrays):
        found = u.gradients(lambda xs: loss(xs, wrap), arrays)
        return [
            np.broadcast_to(u.array(x), array.shape)
            for x, array in zip(found, arrays)
        ]

    def assert_gradients(self, operands, found, expected, label):
        """0 at masked entries, as expected elsewhere."""
        for x, one, other in zip(operands, found, expected):
            self.assertTrue(np.all(np.isfinite(one)), f"{label}: {one}")
            self.assertAllClose(one[~x.cells], 0 * one[~x.cells], msg=label)
            self.assertAllClose(
                one[x.cells], other[x.cells], rtol=2e-2, atol=1e-3, msg=label
            )

    def check_spec(self, name, example, unknown=()):
        """The symbolic result has the shapes and dtypes of the eager one.

        Args:
            name: Name of the row.
            example: Its arguments, with `T` in them.
            unknown: Pairs of an operand's place and of an axis of it, whose
                size is unknown.
        """
        drawn = u.draw(example, 0, 0.6)
        result = call(name, u.masked(drawn))
        specs = call(name, u.symbolic(example, unknown))
        for x, spec in zip(tree.flatten(result), tree.flatten(specs)):
            if not hasattr(x, "shape"):
                continue
            self.assert_shape(x, spec, name)
            own = getattr(spec, "_mask_spec", None)
            masked = isinstance(x, MaskedTensorBase)
            self.assertEqual(masked, own is not None, name)
            if masked:
                self.assert_shape(x.mask, own, name)
            if name in ("size", "sparsemax"):  # Upstream's own differ.
                continue
            dtypes = [backend.standardize_dtype(y.dtype) for y in (x, spec)]
            # Upstream's specs make 32 bits of 64, as engines need not.
            narrow = dtypes[0].replace("64", "32")
            self.assertIn(dtypes[1], (dtypes[0], narrow), name)

    def assert_shape(self, x, spec, label):
        """The rank of the spec, and its sizes where they are known."""
        self.assertEqual(len(x.shape), len(spec.shape), label)
        known = [m if n is None else n for n, m in zip(spec.shape, x.shape)]
        self.assertEqual(known, list(x.shape), label)
