"""What tests of packed storage share: operands, and what is counted."""

import contextlib
import importlib
from unittest import mock

import numpy as np

from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import tree
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking import packing
from keras.src.testing.masked import testing_utils as u

MaskedTensor = backend.MaskedTensor
BATCH, TIME, FEATURES = 4, 6, 3
MASK = np.array(
    [
        [1, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 1, 0, 1, 1, 0],
        [1, 0, 0, 0, 0, 0],
    ],
    "bool",
)
VALUES = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES))
VALUES = VALUES.astype("float32")


def is_packable(x):
    return isinstance(x, MaskedTensorBase) and len(x.mask.shape) == 2


def packed(args):
    """The operands, packed where they can be; of one layout if they agree.

    Where the flat steps make up a capacity, what is none of them holds a large
    number, as an op may leave one there.
    """
    found = []

    def one(x):
        if not is_packable(x):
            return x
        for other in found:
            if other.mask is x.mask:
                return hidden(other.with_flat(packing.packed(x.values, other)))
        found.append(x.packed())
        return hidden(found[-1])

    return map_nest(one, args)


def hidden(x):
    if x.there is None or not u.is_float(x.flat):
        return x
    large = ops.cast(1e30 if x.dtype != "float16" else 6e4, x.dtype)
    there = ops.expand_dims(x.there, tuple(range(1, len(x.flat.shape))))
    return x.with_flat(ops.where(there, x.flat, large))


@contextlib.contextmanager
def counted():
    """The shapes of flat steps that are padded meanwhile."""
    found = []

    def noting(name, shape_of):
        plain = getattr(packing, name)

        def padding(x, layout):
            found.append(tuple(shape_of(x)))
            return plain(x, layout)

        return mock.patch.object(packing, name, padding)

    with (
        noting("unpacked", lambda flat: flat.shape),
        noting("padded_groups", lambda x: x.flat.shape),
    ):
        yield found


def map_nest(function, x):
    return u.map_leaves(function, x, MaskedTensorBase)


def with_one_mask(args):
    """The operands, those whose masks have one shape with one mask."""
    known = {}

    def one(x):
        mask = known.setdefault(tuple(x.mask.shape), x.mask)
        return MaskedTensor(x.values, mask)

    return map_nest(one, args)


def padded_and_packed(mask=MASK, values=VALUES):
    x = MaskedTensor(values, mask)
    return x, hidden(x.packed())


class SameResults:
    def assert_same(self, result, expected, tolerance, label):
        """The same masks, and the same values where they are True."""
        found, wanted = tree.flatten(result), tree.flatten(expected)
        self.assertEqual(len(found), len(wanted), label)
        ranks = ([masks.covered(x) for x in nest] for nest in (found, wanted))
        self.assertEqual(*ranks, label)
        for one, other in zip(u.parts(found), u.parts(wanted)):
            values, mask = one
            right, right_mask = other
            self.assertEqual(values.shape, right.shape, label)
            self.assertEqual(values.dtype, right.dtype, label)
            self.assertEqual(mask is None, right_mask is None, label)
            if mask is not None:
                np.testing.assert_array_equal(mask, right_mask, label)
                values, right = values[mask], right[mask]
            if values.dtype.kind in "SUOb":
                np.testing.assert_array_equal(values, right, label)
                continue
            np.testing.assert_allclose(
                values, right, rtol=tolerance, atol=tolerance, err_msg=label
            )


class Block(layers.Layer):
    """Attention and a feed-forward part, as users write it."""

    def __init__(self):
        super().__init__()
        self.attention = layers.MultiHeadAttention(2, 3)
        self.normalization = layers.LayerNormalization()
        self.hidden = layers.Dense(8, "gelu")
        self.outer = layers.Dense(FEATURES)

    def call(self, x):
        x = x + self.attention(x, x)
        return x + self.outer(self.hidden(self.normalization(x)))


def compiled(function, *static):
    """The function as the engine compiles it."""
    engine = None
    if backend.backend() != "numpy":
        # Late: only the engine that runs is imported.
        engine = importlib.import_module(backend.backend())
    if backend.backend() == "jax":
        return engine.jit(function, static_argnums=static)
    if backend.backend() == "tensorflow":
        return engine.function(function)
    if backend.backend() == "torch":
        return engine.compile(function, backend="aot_eager", fullgraph=True)
    return function
