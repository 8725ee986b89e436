"""Operands for the tests of the tables, and what is done with them."""

import itertools
import os
import typing

import ml_dtypes
import numpy as np

from keras.src import activations
from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.ops import einops
from keras.src.ops import masking
from keras.src.random import random

# The engines that compile or trace each new function and shape.
COMPILING = ("jax", "tensorflow")


def part(cases):
    """The cases that this engine runs: all, or a third where it compiles.

    JAX and TensorFlow run different ones. With `EVERY_CASE` in the environment
    each engine runs all.
    """
    cases = list(cases)
    if backend.backend() not in COMPILING or os.environ.get("EVERY_CASE"):
        return cases
    return cases[COMPILING.index(backend.backend()) :: 3]


class T(typing.NamedTuple):
    """What an operand looks like.

    Attributes:
        shape: Its shape.
        mask: Number of leading axes that its mask covers, None for a plain
            operand.
        dtype: Its dtype.
        low: Smallest entry.
        high: Largest entry.
    """

    shape: tuple
    mask: int | None = None
    dtype: str = "float32"
    low: float = -3.0
    high: float = 3.0


class Drawn(typing.NamedTuple):
    """An operand with its entries.

    Attributes:
        values: Array, all of it in the domain of the op.
        mask: Mask over leading axes, None for a plain operand.
    """

    values: np.ndarray
    mask: np.ndarray | None

    @property
    def cells(self):
        """The mask over all axes, all True for a plain operand."""
        if self.mask is None:
            return np.ones(self.values.shape, "bool")
        return over_all_axes(self.mask, self.values.shape)


def over_all_axes(mask, shape):
    mask = np.asarray(mask)
    mask = mask.reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
    return np.broadcast_to(mask, shape)


def numpy_dtype(dtype):
    return ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)


def draw(structure, seed, share):
    """Entries for all operands of a nest.

    Args:
        structure: Nest with `T` in it.
        seed: Seed of the entries.
        share: Share of the entries that are valid.
    """
    rng = np.random.default_rng(seed)

    def one(t):
        if not isinstance(t, T):
            return t
        entries = rng.uniform(t.low, t.high, t.shape)
        if t.dtype == "bool":
            entries = entries > 0
        elif "int" in t.dtype:
            entries = np.clip(np.round(entries), np.ceil(t.low), t.high)
        elif t.dtype.startswith("complex"):
            entries = entries + 1j * rng.uniform(t.low, t.high, t.shape)
        mask = None
        if t.mask is not None:
            mask = rng.uniform(size=t.shape[: t.mask]) < share
        return Drawn(entries.astype(numpy_dtype(t.dtype)), mask)

    return map_leaves(one, structure, T)


MODULES = {"activations": activations, "image": ops.image, "random": random}


def function_of(name):
    """The public function of a row, by its name in `EXAMPLES`."""
    module, _, own_name = name.rpartition(".")
    found = getattr(MODULES.get(module, ops), own_name, None)
    return found or getattr(einops, own_name)


def is_there(name):
    """Whether this release has the public function of a row."""
    module, _, own_name = name.rpartition(".")
    places = MODULES.get(module, ops), einops, masking
    return any(hasattr(place, own_name) for place in places)


def map_leaves(function, structure, kind):
    """As `tree.map_structure`, with the named tuples `kind` as leaves."""
    if isinstance(structure, kind):
        return function(structure)
    if type(structure) in (list, tuple):
        mapped = [map_leaves(function, x, kind) for x in structure]
        return type(structure)(mapped)
    return structure


def leaves(structure, kind=Drawn):
    found = []
    map_leaves(found.append, structure, kind)
    return found


def plain(drawn, fill=None):
    """The nest with plain tensors; `fill` takes the place of masked entries."""

    def one(x):
        values = x.values
        if fill is not None:
            values = np.where(x.cells, values, np.asarray(fill, values.dtype))
        return backend.convert_to_tensor(values)

    return map_leaves(one, drawn, Drawn)


def masked(drawn, poison=None, garbage=None, hidden=None):
    """The nest with masked and plain tensors.

    Args:
        drawn: Nest with `Drawn` in it.
        poison: Number to put under the masks before the constructor.
        garbage: Seed of numbers, some hundreds of both signs, to put there
            after it.
        hidden: Number to put there past it, as an op may leave it.
    """

    def one(x):
        if x.mask is None:
            return backend.convert_to_tensor(x.values)
        values = x.values
        if hidden is not None:
            values = backend.convert_to_tensor(with_hidden(x, hidden))
            return backend.MaskedTensor._wrap(
                values, backend.convert_to_tensor(x.mask)
            )
        if poison is not None and is_float(values):
            values = np.where(x.cells, values, np.asarray(poison, values.dtype))
        result = backend.MaskedTensor(values, x.mask)
        return result if garbage is None else garbled(result, x, garbage)

    return map_leaves(one, drawn, Drawn)


LARGEST = float(np.finfo("float32").max)
# Finite numbers, which ops may leave under a mask, and others, which none does.
FINITE = (1e30, -1e30, LARGEST, -LARGEST)
NOT_FINITE = (np.nan, np.inf, -np.inf)


def quiet():
    """Scope in which NumPy says nothing of what is infinite under a mask.

    No op leaves such a thing there, so none is asked to be silent about it.
    """
    return np.errstate(over="ignore", invalid="ignore")


def with_hidden(x, number):
    """The values of a drawn operand with a number under the mask.

    Or with the one next to it that the dtype has: in float16 that is infinite.
    """
    dtype = x.values.dtype
    if dtype == "bool":
        hidden = not np.isfinite(number) or number > 0
    elif np.issubdtype(dtype, np.integer):
        info = np.iinfo(dtype)
        hidden = np.clip(np.nan_to_num(number), info.min, info.max)
        hidden = info.max if hidden > 0 else info.min
    else:
        with np.errstate(over="ignore"):
            hidden = np.asarray(number).astype(dtype)
    return np.where(x.cells, x.values, np.asarray(hidden, dtype))


def garbled(result, x, seed):
    """The masked tensor of a drawn operand with numbers under the mask."""
    if x.values.dtype == "bool":
        return result
    # Not by adding to the result: merging would put 0 there again.
    noise = backend.convert_to_tensor(rubbish(x, seed))
    return backend.MaskedTensor._wrap(result.values + noise, result.mask)


def rubbish(x, seed):
    """A plain array that is 0 at valid entries, with hundreds elsewhere.

    With tens in float16, in which the square of hundreds is infinite.
    """
    rng = np.random.default_rng(seed)
    numbers = rng.integers(100, 900, x.values.shape)
    numbers = numbers * rng.choice([-1, 1], x.values.shape)
    if x.values.dtype == "float16":
        numbers = numbers / 10
    return np.where(x.cells, 0, numbers).astype(x.values.dtype)


def symbolic(structure, unknown=()):
    """The nest with symbolic tensors.

    Args:
        structure: Nest with `T` in it.
        unknown: Pairs of an operand's place and of an axis of it, whose size
            is unknown.
    """
    places = itertools.count()

    def one(t):
        place = next(places)
        shape = tuple(
            None if (place, a) in unknown else n for a, n in enumerate(t.shape)
        )
        mask = None
        if t.mask is not None:
            mask = backend.KerasTensor(shape[: t.mask], "bool")
        return backend.KerasTensor(shape, t.dtype, mask=mask)

    return map_leaves(one, structure, T)


def widened(x):
    """The array in a type that compares without loss."""
    return x.astype(np.result_type(x.dtype, "float64"))


def is_float(x):
    return backend.is_float_dtype(backend.standardize_dtype(x.dtype))


def array(x):
    """A NumPy array of a plain tensor, in a dtype that NumPy knows."""
    x = backend.convert_to_numpy(x)
    return x.astype("float32") if x.dtype == ml_dtypes.bfloat16 else x


def parts(result):
    """Values and mask over all axes of each tensor of a result."""
    pairs = []
    for x in tree.flatten(result):
        if isinstance(x, MaskedTensorBase):
            values = array(x.values)
            pairs.append((values, over_all_axes(array(x.mask), values.shape)))
        else:
            values = array(x)
            pairs.append((values, None))
    return pairs


def gradients(function, arrays):
    """Gradients of a number with respect to arrays, None without an engine."""
    name = backend.backend()
    if name == "jax":
        # Late: only the engine that runs is imported.
        import jax

        return jax.grad(lambda xs: function(xs))(list(arrays))
    if name == "torch":
        tensors = [backend.convert_to_tensor(x) for x in arrays]
        tensors = [x.detach().clone().requires_grad_() for x in tensors]
        number = function(tensors)
        if number.requires_grad:
            number.backward()
        zero = np.zeros(())
        return [zero if x.grad is None else x.grad for x in tensors]
    if name == "tensorflow":
        # Late: only the engine that runs is imported.
        import tensorflow as tf

        tensors = [backend.convert_to_tensor(x) for x in arrays]
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            number = function(tensors)
        found = tape.gradient(number, tensors)
        return [np.zeros(()) if g is None else g for g in found]
    return None


def compiled(function):
    """The function, as one program on JAX.

    There, loops are compiled each time anew otherwise.
    """
    if backend.backend() != "jax":
        return function
    # Late: only the engine that runs is imported.
    import jax

    return jax.jit(function)


# ----------------------------------------------------------------- operands

X = T((2, 3), 2)
STEPS = T((2, 3, 4), 2)
FULL = T((2, 3, 4), 3)
