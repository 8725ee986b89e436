"""The masked tensor that every backend's `MaskedTensor` is built on."""

import builtins
import copyreg
import typing

import numpy as np

from keras.src import backend
from keras.src.backend.common import foreign
from keras.src.backend.common import hooks
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.keras_tensor import dispatches
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Shape
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.operators import Operators
from keras.src.backend.common.variables import standardize_dtype

_NOT_AN_ARRAY = (
    "A masked tensor does not turn into a plain array by itself: that would "
    "lose its mask (values of shape {shape}, mask of shape {mask_shape}). "
    "Use a function of `keras.ops` on it, or go out of the mask on purpose: "
    "`keras.ops.filled(x, 0)` puts a value under the mask, `x.values` drops "
    "the mask, `keras.ops.convert_to_numpy(x)` gives a `numpy.ma` array. A "
    "loader that cannot put masked rows together takes plain ones, and a "
    "`batch_fn=` (grain) or `collate_fn=` (PyTorch) that makes a masked tensor "
    "of a list of them, as `keras.MaskedTensor.from_ragged(rows)` does."
)


def check_parts(values: Tensor, mask: Mask) -> None:
    """Raises unless `mask` is boolean and covers leading axes of `values`.

    Args:
        values: Tensor of any dtype.
        mask: Tensor, `True` where valid.

    Raises:
        TypeError: If `mask` is not boolean.
        ValueError: If `mask.shape` is not `values.shape[:mask.ndim]`, with at
            least one axis.
    """
    if standardize_dtype(mask.dtype) != "bool":
        raise TypeError(
            "The mask of a masked tensor must be boolean, True where valid. "
            f"Received a mask of dtype {standardize_dtype(mask.dtype)} and "
            f"shape {tuple(mask.shape)}. Write `mask != 0` to make it so."
        )
    shape, mask_shape = tuple(values.shape), tuple(mask.shape)
    fits = 1 <= len(mask_shape) <= len(shape) and builtins.all(
        m is None or n is None or m == n for m, n in zip(mask_shape, shape)
    )
    if not fits:
        raise ValueError(
            "The mask of a masked tensor must cover its leading axes: "
            "`mask.shape == values.shape[:mask.ndim]` with at least one axis. "
            f"Received values of shape {shape} and a mask of shape "
            f"{mask_shape}."
        )


def checked_and_filled(
    values: typing.Any, mask: typing.Any
) -> tuple[Tensor, Mask]:
    """The parts as backend tensors, with 0 under the mask."""
    # Late: it imports the backend.
    from keras.src.backend.common import masked_kernels
    from keras.src.masking import calls
    from keras.src.masking import registry

    registry.rows()  # Made here, and not under a compiler's eyes later on.
    if mask is None or foreign.is_foreign(values) or foreign.is_foreign(mask):
        values, mask = calls.parts_of(values, mask)
    is_array = isinstance(values, np.ndarray)
    # On the NumPy backend it is a tensor, and converting makes 32 bits of 64.
    if not (is_array and backend.is_tensor(values)):
        if is_array and isinstance(mask, np.ndarray):
            check_parts(values, mask)
            filled = backend.masked_kernels.filled_copy(values, mask)
            return filled, backend.convert_to_tensor(np.array(mask))
        try:
            values = backend.convert_to_tensor(values)
        except NotImplementedError as error:
            raise NotImplementedError(
                "No masked tensor of the "
                f"{backend.backend()} backend can be made of {values!r}. In a "
                "pipeline of TensorFlow's, let values and mask be a pair, and "
                "make the masked tensor of a batch that comes out."
            ) from error
    # Some engines would look at the caller's memory, which may change.
    mask = np.array(mask) if isinstance(mask, np.ndarray) else mask
    mask = backend.convert_to_tensor(mask)
    check_parts(values, mask)
    return masked_kernels.fill(values, mask, 0), mask


# Constants up to this size, written under a mask or multiplied in there, leave
# what it holds far from infinite. It is far from the squares of larger ones.
ORDINARY = 1e6


@dispatches
class MaskedTensorBase(Operators):
    """Values and a mask: a tensor of which some entries are not there.

    The mask is boolean, `True` where an entry is valid, and covers the leading
    axes of the values: a mask of shape `(batch, time)` over values of shape
    `(batch, time, features)` says which steps are there. All functions of
    `keras.ops` and all operators take masked tensors, and no valid entry of
    their result, nor any gradient, depends on what lies under the mask.

    What lies under the mask is finite and means nothing. The constructor puts
    0 there.

    A `vmap` over the only axis of a mask, `jax.lax.map`, `jax.lax.scan` and
    the rows of a `tf.data.Dataset` leave a mask without axes. It says of the
    whole tensor whether it is there, and ops keep it.

    Masked tensors are immutable: the mask is a copy where the caller could
    write to what it was made of. They pass through `jax.jit`, `tf.function`,
    `torch.compile`, `torch.export`, `tf.data`, `jax.vmap`, `torch.vmap` and
    gradient tapes; one differentiates with respect to plain tensors or to
    `x.values`.

    Args:
        values: Tensor, NumPy array or `keras.Variable`, of at least one axis.
            An array of pandas, Polars, Arrow, xarray or `numpy.ma` says itself
            which entries are missing.
        mask: Boolean tensor of shape `values.shape[:mask.ndim]`, `True` where
            valid. May be left out where `values` say it themselves; if both
            do, both must say that an entry is there.

    Raises:
        TypeError: If `mask` is not boolean, or nothing says what is missing.
        ValueError: If `mask` does not cover leading axes of `values`.

    Example:

    >>> x = keras.MaskedTensor([[1.0, 2.0, 3.0]], [[True, False, True]])
    >>> x + 1.0
    <MaskedTensor shape=(1, 3), dtype=float32, mask shape=(1, 3)
    [[2.0 -- 4.0]]>
    >>> float(keras.ops.mean(x))
    2.0
    """

    if typing.TYPE_CHECKING:
        # Fields, of which each engine makes what it has for such.
        values: Tensor
        mask: Mask
        # Of a packed one.
        flat: Tensor
        with_flat: typing.Callable[[Tensor], "MaskedTensorBase"]
        clearable: typing.Callable[[], "MaskedTensorBase"]

    # Whether it stores valid steps alone; see `packed`.
    is_packed = False

    def __new__(cls, values=None, mask=None):
        if isinstance(values, KerasTensor) or isinstance(mask, KerasTensor):
            # Late: ops import this type.
            from keras.src.ops.masking import MakeMasked

            return MakeMasked().symbolic_call(values, mask)
        return object.__new__(cls)

    def __init__(self, values: typing.Any, mask: typing.Any = None):
        values, mask = checked_and_filled(values, mask)
        self.__dict__.update(values=values, mask=mask)

    @classmethod
    def _wrap(cls, values, mask):
        """Makes one of parts that are right: no check, no fill.

        For values that are computed, and so finite under the mask already, and
        for the place holders that engines put into the parts while tracing.
        """
        self = object.__new__(cls)
        parts = self.__dict__
        parts["values"] = values
        parts["mask"] = mask
        return self

    def __reduce__(self):
        # Its parts, and not a function, which PyTorch would not load.
        parts = {"values": self.values, "mask": self.mask}
        return copyreg.__newobj__, (type(self),), parts

    def __setattr__(self, name, value):
        if name == "_keras_mask" and value is self.mask:
            return
        raise AttributeError(
            f"A masked tensor is immutable: `{name}` cannot be set. Its mask "
            "is not to be set or cleared in place, since the caller's tensor "
            "would change with it. Write `keras.MaskedTensor(x.values, mask)` "
            "for another mask, or `x.values` to drop it."
        )

    def __delattr__(self, name):
        raise AttributeError(
            f"A masked tensor is immutable: `{name}` cannot be deleted. Write "
            "`x.values` to go on without the mask."
        )

    @classmethod
    def from_missing(cls, x: typing.Any, missing: typing.Any = None) -> Nest:
        """Makes a masked tensor of an array in which something means missing.

        Args:
            x: Tensor, array, nested list or table. In it NaN, NaT, None, and
                what its library takes for missing, are.
            missing: Number or string that means missing as well, or a list of
                these.

        Returns:
            A masked tensor of the shape of `x`, with a mask of the same shape.
            Dates become days since 1970, and spans of time days. A table of
            numbers and strings gives a dictionary by the names of its columns,
            of shape `(rows, 1)` each. Strings stay with NumPy, as a `numpy.ma`
            array, but on TensorFlow: layers such as
            `keras.layers.StringLookup` take it.

        Raises:
            TypeError: If something is neither a number nor a string, nor a
                date.

        Example:

        >>> keras.MaskedTensor.from_missing([[1.0, None], [-9.0, 4.0]], -9)
        <MaskedTensor shape=(2, 2), dtype=float32, mask shape=(2, 2)
        [[1.0 --]
         [-- 4.0]]>
        """
        # Late: it imports the backend.
        from keras.src.masking import missing as room

        return room.from_missing(x, missing)

    def to_pandas(
        self, columns: typing.Any = None, index: typing.Any = None
    ) -> typing.Any:
        """A Series, or a DataFrame of two axes, in which masked entries are NA.

        Args:
            columns: Names of the columns, or that of the Series. Defaults to
                their numbers.
            index: Index of the rows. Defaults to their numbers.

        Returns:
            A `pandas.Series` or `pandas.DataFrame` of nullable dtypes
            (`Int64`, `Float32`, `boolean`, `string`).

        Raises:
            ImportError: If pandas is not installed.
            ValueError: If there are more than two axes, or not as many names
                as columns.

        Example:

        >>> keras.MaskedTensor([1.5, 2.5], [True, False]).to_pandas("size")
        0     1.5
        1    <NA>
        Name: size, dtype: Float32
        """
        # Late: it imports the backend.
        from keras.src.masking import missing

        return missing.to_pandas(self, columns, index)

    def to_arrow(
        self, columns: typing.Sequence[str] | None = None
    ) -> typing.Any:
        """An array of Arrow, or a table of two axes, in which masked are null.

        Args:
            columns: Names of the columns. Defaults to their numbers.

        Returns:
            A `pyarrow.Array` or `pyarrow.Table`.

        Raises:
            ImportError: If pyarrow is not installed.
            ValueError: If there are more than two axes, or not as many names
                as columns.

        Example:

        >>> keras.MaskedTensor([1, 2], [True, False]).to_arrow().to_pylist()
        [1, None]
        """
        # Late: it imports the backend.
        from keras.src.masking import missing

        return missing.to_arrow(self, columns)

    @classmethod
    def from_ragged(
        cls,
        rows: typing.Any,
        length: int | tuple[int, ...] | None = None,
        ragged_rank: int | None = None,
        packed: bool = False,
    ) -> "MaskedTensorBase":
        """Makes a masked tensor of arrays of unequal length.

        Args:
            rows: List of arrays that agree in all but their first axis; lists
                of such lists, as of documents, sentences and words; a column
                of lists of Arrow, Polars or pandas; a `tf.RaggedTensor`; or a
                nested tensor of PyTorch; on any backend. Entries of a row that
                are missing are masked as well.
            length: Length of the time axis of the result, or a tuple of those
                of all ragged axes. Defaults to that of the longest row.
            ragged_rank: Number of ragged axes of nested lists: 2 for words in
                sentences in documents. Defaults to the number of axes in which
                the lists differ. Give it where a batch may be regular by
                chance, and its mask would have an axis less.
            packed: Whether to store the valid steps alone; see `packed()`.

        Returns:
            A masked tensor of shape `(len(rows), length, ...)` with a mask of
            shape `(len(rows), length)`, valid where there is a row's entry.
            The mask has an axis more for each further ragged one. Floating
            point values are of the dtype `keras.config.floatx()`, all others
            of that of the rows.

        Raises:
            ValueError: If the rows differ in more than their length, one is
                longer than `length`, or is missing.

        Example:

        >>> x = keras.MaskedTensor.from_ragged([[1.0, 2.0, 3.0], [4.0]])
        >>> x
        <MaskedTensor shape=(2, 3), dtype=float32, mask shape=(2, 3)
        [[1.0 2.0 3.0]
         [4.0 -- --]]>
        >>> documents = [[[1, 2], [3]], [[4]]]
        >>> x = keras.MaskedTensor.from_ragged(documents, ragged_rank=2)
        >>> tuple(x.shape), tuple(x.mask.shape)
        ((2, 2, 2), (2, 2, 2))
        """
        # Late: it imports the backend.
        from keras.src.backend.common import ragged

        x = cls(*ragged.padded(rows, length, ragged_rank))
        return x.packed() if packed else x

    def packed(self, capacity: int | None = None) -> "MaskedTensorBase":
        """The same, stored as its valid steps one after another.

        Nothing else changes: it has the same shape, mask, values and type, and
        every function and layer gives the same results. Those that treat steps
        one by one compute with the valid steps alone, and so cost as much as
        is valid; others compute with all steps, as ever.

        Args:
            capacity: For how many steps there is to be room, at least as many
                as are valid. Defaults to their number; on JAX and TensorFlow,
                which compile for each shape, to that number made larger by at
                most an eighth, so that few numbers occur. Within a compiled
                function of JAX it has to be `batch * time`, since what is
                valid is not known there.

        Returns:
            A masked tensor, for which `is_packed` is True.

        Raises:
            TypeError: If the capacity is no integer.
            ValueError: If the mask is not one over `(batch, time)`, or the
                capacity is too small.

        Example:

        >>> x = keras.MaskedTensor.from_ragged([[1.0, 2.0, 3.0], [4.0]])
        >>> x = x.packed()
        >>> x.is_packed, tuple(x.shape)
        (True, (2, 3))
        >>> (x + 1).padded()
        <MaskedTensor shape=(2, 3), dtype=float32, mask shape=(2, 3)
        [[2.0 3.0 4.0]
         [5.0 -- --]]>
        """
        # Late: it imports the backend.
        from keras.src.masking import packing

        return packing.pack(self, capacity)

    def padded(self) -> "MaskedTensorBase":
        """The same, stored as values and mask.

        Returns:
            A masked tensor, for which `is_packed` is False.

        Example:

        >>> x = keras.MaskedTensor.from_ragged([[1, 2, 3], [4]], packed=True)
        >>> x.is_packed, x.padded().is_packed
        (True, False)
        """
        return self

    def to_ragged(self) -> list[np.ndarray]:
        """The valid steps of each row, as `from_ragged` takes them.

        Returns:
            List of NumPy arrays, one for each entry of the first axis, of
            shape `(number of valid steps, ...)`. A row that is masked as a
            whole has no steps.

        Raises:
            ValueError: If there is no second axis, or the mask says different
                things of the entries of one step.

        Example:

        >>> x = keras.MaskedTensor.from_ragged([[1, 2, 3], [4]])
        >>> [row.tolist() for row in x.to_ragged()]
        [[1, 2, 3], [4]]
        """
        values = backend.convert_to_numpy(self.values)
        mask = backend.convert_to_numpy(self.mask)
        if values.ndim > 1 and mask.ndim == 1:
            mask = np.broadcast_to(mask[:, None], values.shape[:2])
        steps = mask.reshape(*mask.shape[:2], -1)
        if values.ndim < 2 or (steps != steps[..., :1]).any():
            raise ValueError(
                "`to_ragged` takes the valid steps of each row: the mask must "
                "cover `(batch, time)`, or say the same of all entries of a "
                f"step. Received values of shape {values.shape} and a mask of "
                f"shape {mask.shape}. Write `keras.ops.convert_to_numpy(x)` "
                "for a `numpy.ma` array."
            )
        return [x[valid] for x, valid in zip(values, steps.any(-1))]

    @property
    def shape(self) -> Shape:
        return self.values.shape

    @property
    def dtype(self) -> typing.Any:
        return self.values.dtype

    @property
    def ndim(self) -> int:
        return len(self.values.shape)

    @property
    def _keras_mask(self):
        """The mask, under the name by which old code looks for it."""
        return self.mask

    def __array__(self, dtype=None, copy=None):
        raise TypeError(
            _NOT_AN_ARRAY.format(
                shape=tuple(self.shape), mask_shape=tuple(self.mask.shape)
            )
        )

    # PyTorch would read what has a length, and neither of these, entry by
    # entry.

    def __dlpack__(self, **kwargs):
        return self.__array__()

    def __dlpack_device__(self):
        return self.__array__()

    def __array_function__(self, func, types, args, kwargs):
        if func in (np.shape, np.ndim, np.size):
            shape = tuple(self.shape)
            if func is np.shape:
                return shape
            return len(shape) if func is np.ndim else int(np.prod(shape))
        batch = hooks.data.of_rows(func, args, kwargs)
        return self.__array__() if batch is None else batch

    def __bool__(self):
        raise TypeError(
            "The truth value of a masked tensor is not defined: some of its "
            "entries are not there. Use `keras.ops.any(x)` or "
            "`keras.ops.all(x)`, which look at valid entries only."
        )

    def __float__(self):
        return self.__array__()

    def __int__(self):
        return self.__array__()

    def __index__(self):
        return self.__array__()

    def __hash__(self):
        return id(self)

    def __len__(self):
        if not len(self.shape) or self.shape[0] is None:
            raise TypeError(
                "`len()` needs a known first dimension. Received a masked "
                f"tensor of shape {tuple(self.shape)}."
            )
        return int(self.shape[0])

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __contains__(self, item):
        raise TypeError(
            "`in` is not defined for masked tensors. Write "
            "`keras.ops.any(x == item)`."
        )

    def __setitem__(self, key, value):
        raise TypeError(
            "Masked tensors are immutable. Write `keras.ops.where(condition, "
            "new, x)` or `keras.ops.scatter_update(x, indices, updates)`."
        )

    def __repr__(self):
        head = (
            f"<MaskedTensor shape={tuple(self.shape)}, "
            f"dtype={standardize_dtype(self.dtype)}, "
            f"mask shape={tuple(self.mask.shape)}"
        )
        content = _entries(self)
        return f"{head}>" if content is None else f"{head}\n{content}>"

    def __copy__(self):
        return self

    def to_numpy(self) -> np.ma.MaskedArray:
        """The `numpy.ma` array with these entries (its mask is inverted).

        Returns:
            An array of the same shape and dtype, with a mask of all axes.

        Example:

        >>> x = keras.MaskedTensor([[1.0, 2.0], [3.0, 4.0]], [True, False])
        >>> float(x.to_numpy().mean())
        1.5
        """
        values = backend.convert_to_numpy(self.values)
        valid = backend.convert_to_numpy(self.mask)
        valid = valid.reshape(valid.shape + (1,) * (values.ndim - valid.ndim))
        hidden = np.broadcast_to(~valid, values.shape)
        return np.ma.MaskedArray(values, mask=hidden.copy())


def _entries(x):
    """The entries as text, or None where they are not there to be read.

    Under tracing and on meta devices there are none, and fetching them from an
    accelerator for an error message would stall it.
    """
    try:
        if not type(x).is_concrete(x):
            return None
        return str(x.to_numpy())
    except Exception:
        return None
