"""One call with masked operands, as rules see it, and what operands are."""

import functools
import operator
import typing

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common import foreign
from keras.src.backend.common import hooks
from keras.src.backend.common.composite import describe
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Operation
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.masked_tensor import check_parts
from keras.src.masking import masks
from keras.src.masking import packing
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.masking.errors import refuse
from keras.src.ops.arguments import with_integers

if typing.TYPE_CHECKING:
    # It imports us.
    from keras.src.masking.registry import Row

# What a row names: a function of a `Call`, which gives the result. Decorators
# note on it what else they know.
Rule: typing.TypeAlias = typing.Any


class Call:
    """One call of an operation with masked operands, as rules see it.

    Attributes:
        row: The `Row` of the operation.
        op: The `Operation`, None where a function has no class.
        args: Operands, however they were passed. NumPy masked arrays are
            masked tensors.
        kwargs: Static arguments by name.
    """

    __slots__ = ("row", "op", "args", "kwargs")

    def __init__(
        self,
        row: "Row",
        op: Operation | None,
        args: typing.Sequence,
        kwargs: Named,
    ):
        self.row = row
        self.op = op
        self.args = args
        self.kwargs = kwargs

    def operands(self) -> list[AnyTensor]:
        """All tensors among the arguments, flat."""
        found = []

        def look_at(x):
            # PyTorch's compiler asks no slice whether it has an attribute.
            if not isinstance(x, slice) and hasattr(x, "shape"):
                found.append(x)

        for x in (*self.args, *self.kwargs.values()):
            if isinstance(x, MaskedTensorBase):
                found.append(x)
            elif isinstance(x, (list, tuple, dict)):
                map_nest(look_at, x)
            else:
                look_at(x)
        return found

    def argument(self, name: str, default: typing.Any = None) -> typing.Any:
        """The argument of this name, however it was passed.

        Args:
            name: Its name.
            default: What to give where the function has no such parameter.

        Returns:
            The argument, with integers for those of NumPy.
        """
        if name in self.kwargs:
            return with_integers(self.kwargs[name])
        names = self.row.call_names or self.row.fn_names
        position = names.index(name) if name in names else len(self.args)
        if position < len(self.args):
            return with_integers(self.args[position])
        return self.row.defaults.get(name, default)

    def compute(self, *args: typing.Any) -> Nest:
        """Runs the public function on plain tensors.

        Args:
            *args: Operands to put in place of the first ones of this call.
                Masked tensors among all operands count by their values.
        """
        operands = map(_trusted, (*args, *self.args[len(args) :]))
        kwargs = {k: _trusted(v) for k, v in self.kwargs.items()}
        return self.call_function(operands, kwargs)

    def pass_on(self) -> Nest:
        """Runs the public function on the operands as they are."""
        return self.call_function(self.args, self.kwargs)

    def call_function(self, args: typing.Iterable, kwargs: Named) -> Nest:
        if self.row.call_names is not None:
            kwargs = kwargs | dict(zip(self.row.call_names, args))
            args = ()
        return self.row.fn(*args, **kwargs)

    def refuse(self, reason: str) -> UnsupportedMaskError:
        """The error that says why this call cannot be done."""
        return refuse(self.row.name, self.operands(), reason, is_open=True)

    def apply_rule(self) -> Nest:
        """What the rule gives. Whatever it calls finds this on the stack.

        A mask without axes says of a whole tensor whether it is there, and so
        of all that is made of it. Most rules never see one.
        """
        rule = self.row.rule
        operands = self.operands()
        packed = packing.first_packed(operands)
        if packed is not None:
            return packing.apply(self, packed)
        found = [x.mask for x in operands if _is_whole(x)]
        if not found or getattr(rule, "takes_whole", False):
            if getattr(rule, "is_one", False):
                return backend.masked_kernels.run_as_one(rule, self)
            return rule(self)
        self.args, self.kwargs = map_nest(_present, (self.args, self.kwargs))
        is_masked = any_leaf(MaskedTensorBase, self.args, self.kwargs)
        result = rule(self) if is_masked else self.pass_on()
        there = functools.reduce(operator.and_, found)
        return map_nest(lambda x: _if_there(x, there), result)

    def explained(self, error: Exception) -> Exception:
        """The error to raise for one that came from the rule.

        It gains a note that tells which call it was. A refusal, perhaps by an
        op that the rule calls, is made anew: users know the op they called.
        """
        if isinstance(error, UnsupportedMaskError) and error.is_open:
            return self.refuse(error.reason)
        note = f"In `{self.row.name}` of " + ", ".join(
            describe(x) for x in self.operands() if has_mask(x)
        )
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        return error


def as_operand(x: typing.Any) -> typing.Any:
    """One tensor for a list of tensors or numbers, as upstream makes it.

    Args:
        x: Operand. A list that holds anything else is given back, as is what
            is no list.
    """
    if not isinstance(x, (list, tuple)):
        return x
    if any_leaf(MaskedTensorBase, x):
        return ops.stack([ops.convert_to_tensor(as_operand(y)) for y in x])
    leaves = tree.flatten(x)
    are_numbers = all(isinstance(y, (int, float)) for y in leaves)
    return backend.convert_to_tensor(x) if leaves and are_numbers else x


def map_nest(function: typing.Callable, x: Nest) -> Nest:
    """`function` of each leaf; lists, tuples and dicts of any kind are walked.

    What comes back are plain ones: a list that a layer tracks, or a named
    tuple, is to an op what a list or tuple is.
    """
    if isinstance(x, dict):
        return {k: map_nest(function, v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        kind = list if isinstance(x, list) else tuple
        return kind(map_nest(function, y) for y in x)
    return function(x)


def _trusted(x):
    """As `values_of`, with 0 under the mask where nothing there is trusted."""
    return _unmasked(x, masks.trusted)


def values_of(x: Nest) -> Nest:
    """`x` without masks; nests are walked."""
    return _unmasked(x, operator.attrgetter("values"))


def _unmasked(x, values):
    if isinstance(x, MaskedTensorBase):
        return values(x)
    if isinstance(x, (list, tuple, dict)):
        return map_nest(lambda y: _unmasked(y, values), x)
    return x


def takes_whole(rule: Rule) -> Rule:
    """Decorator: the rule itself knows what a mask without axes means."""
    rule.takes_whole = True
    return rule


def as_one(rule: Rule) -> Rule:
    """Decorator: the rule computes with its tensors alone.

    It looks at no entry, so that an engine may compile it as a whole.
    """
    rule.is_one = True
    return rule


def _is_whole(x):
    return isinstance(x, MaskedTensorBase) and not len(x.mask.shape)


def _present(x):
    """The values of a masked tensor whose mask has no axes, safe to compute.

    Where it is not there they are 1, of which no op that gets here makes
    anything but a number; indices are 0.
    """
    if not _is_whole(x):
        return x
    return masks.fill(x.values, x.mask, int(backend.is_float_dtype(x.dtype)))


def _if_there(x, there):
    """A result, masked wherever `there`, a mask without axes, is False."""
    if isinstance(x, MaskedTensorBase):
        return masks.wrap(x.values, backend.numpy.logical_and(x.mask, there))
    if not hasattr(x, "shape"):
        return x
    return masks.wrap(masks.fill(x, there, 0), there)


@hooks.fills("from_foreign")
def from_foreign(x: typing.Any, always: bool = False) -> typing.Any:
    """A masked tensor for an array that says what is missing in it.

    Args:
        x: Array of `numpy.ma`, or of another library that `foreign` knows;
            anything else is returned as it is.
        always: Whether one that could hold missing entries, and holds none,
            is masked as well.

    Returns:
        A masked tensor, or a NumPy array where nothing is missing.

    Raises:
        TypeError: If it is a table of numbers and strings, or holds strings
            and the backend has no tensors of these.
    """
    array = host_array(x, always)
    is_masked = isinstance(array, np.ma.MaskedArray)
    if is_masked or array is not x:
        check_text(array)
    if not is_masked:
        return array
    valid = ~np.ma.getmaskarray(array)
    check_parts(array, valid)
    values = backend.masked_kernels.filled_copy(array.data, valid)
    return backend.MaskedTensor._wrap(values, backend.convert_to_tensor(valid))


@hooks.fills("host_array")
def host_array(x: typing.Any, always: bool = False) -> typing.Any:
    """What `foreign.as_numpy` gives, if it is one array."""
    array = foreign.as_numpy(x, always)
    if isinstance(array, dict) and foreign.is_foreign(x):
        raise TypeError(
            "A table of columns of several kinds is no tensor but a dictionary "
            f"of them. Received {type(x).__name__} with the columns "
            f"{list(array)}. Models and layers take it as it is; "
            "`keras.MaskedTensor.from_missing(table)` gives the dictionary."
        )
    return array


def parts_of(
    values: typing.Any, mask: typing.Any = None
) -> tuple[typing.Any, Mask]:
    """Values and a mask of arrays of which one is foreign.

    Args:
        values: Array; what it says itself to be missing is missing.
        mask: Boolean array over leading axes, or None.

    Returns:
        Values and mask, which need not fit.

    Raises:
        TypeError: If nothing says what is missing.
        ValueError: If entries of the mask are missing.
    """
    if foreign.is_foreign(mask):
        given, mask = mask, foreign.as_numpy(mask)
        if isinstance(mask, np.ma.MaskedArray):
            if np.ma.getmaskarray(mask).any():
                raise ValueError(
                    "The mask of a masked tensor has missing entries itself, "
                    f"{np.ma.count_masked(mask)} of {mask.size}, in a "
                    f"{type(given).__name__}. Say what these mean: fill them "
                    "with False."
                )
            mask = mask.data
    if not foreign.is_foreign(values):
        if mask is None:
            raise TypeError(
                "A plain array does not say which of its entries are missing. "
                f"Received values of type {type(values).__name__} and no mask. "
                "Pass a boolean mask, True where valid; or write "
                "`keras.MaskedTensor.from_missing(values)` where NaN, NaT or "
                "None, or a number of your own, stand for what is missing."
            )
        return values, mask
    array = host_array(values, always=True)
    check_text(array)
    own = ~np.ma.getmaskarray(array)
    if mask is None:
        return array.data, own
    if not hasattr(mask, "shape"):
        mask = np.asarray(mask)
    ndim = len(mask.shape)
    if (
        1 <= ndim <= array.ndim
        and backend.standardize_dtype(mask.dtype) == "bool"
        and tuple(mask.shape) == array.shape[:ndim]
    ):
        mask = backend.convert_to_tensor(mask)
        mask = masks.expand(mask, array.ndim)
        mask = backend.numpy.logical_and(mask, own)
    return array.data, mask


def tensor_of(array: typing.Any, name: str | None = None) -> typing.Any:
    """A masked tensor for a `numpy.ma` array, anything else as it is.

    Args:
        array: What `foreign.as_numpy` gives.
        name: Name of the column that it is, for an error.
    """
    if not isinstance(array, np.ma.MaskedArray):
        return array
    check_text(array, name)
    return backend.MaskedTensor(array.data, ~np.ma.getmaskarray(array))


def check_text(array: np.ndarray, name: str | None = None) -> None:
    """Raises where the backend has no tensors of what is in an array.

    Args:
        array: NumPy array.
        name: Name of the column that it is, for the error.
    """
    if array.dtype.kind in "OSU" and backend.backend() != "tensorflow":
        raise TypeError(
            f"The {backend.backend()} backend has no tensors of strings. "
            + ("Received an array" if name is None else f"Column `{name}` is")
            + f" of shape {array.shape} and dtype {array.dtype}. Make numbers "
            "of them first, with `keras.layers.StringLookup`, "
            "`keras.layers.Hashing` or `keras.utils.FeatureSpace`, which take "
            "such an array."
        )
