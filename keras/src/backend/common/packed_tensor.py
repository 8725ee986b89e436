"""A masked tensor that stores its valid steps alone, one after another.

Packing is storage, not a type: everything that is true of a masked tensor is
true of a packed one. What does not know of it asks for `values` and `mask`.
"""

import copyreg

import numpy as np

from keras.src.backend.common.kinds import DType
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.operators import ARITHMETIC
from keras.src.backend.common.operators import COMPARISON
from keras.src.backend.common.operators import Operators
from keras.src.backend.common.variables import standardize_dtype

SEVERAL_DEVICES = (
    "Several devices get a part of each batch by its rows, and a packed masked "
    "tensor stores its steps across the rows. Received one of shape {shape}. "
    "Write `x.padded()`."
)


class PackedBase(MaskedTensorBase):
    """Valid steps one after another, and where each belongs.

    Parts:
        flat: Tensor of shape `(capacity, ...)`, the valid steps in the order
            of rows and times, then those that make up the capacity.
        mask: Boolean tensor of shape `(batch, time)`.
        index: Integer tensor of shape `(capacity,)`: the place of each flat
            row among the `batch * time` steps, and `batch * time` for those
            that are none. Tensors of one layout share this object.
        there: Boolean tensor of shape `(capacity,)`, False for flat rows that
            are no steps; None where the engine packs without any.
        limit: Number, static: no valid step has a larger time. At most the
            length, which it is where it is not known.
    """

    _parts_and_limit = ("flat", "mask", "index", "there", "limit")

    is_packed = True

    # Of one that was flipped: its layout before, and the order of the flat
    # rows there.
    _way_back = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        # Packing is no type to users, who read this name in messages. What
        # is pickled goes by the qualified name.
        cls.__name__ = "MaskedTensor"

    @classmethod
    def _of_parts(cls, flat, mask, index, there, limit):
        """Makes one of parts that are right, or of an engine's placeholders."""
        self = object.__new__(cls)
        parts = flat, mask, index, there, limit
        self.__dict__.update(zip(cls._parts_and_limit, parts))
        return self

    @classmethod
    def _wrap(cls, values, mask):
        """What is made of both parts is padded."""
        # Late: it is the backend that chooses.
        from keras.src import backend

        return backend.MaskedTensor._wrap(values, mask)

    def __reduce__(self):
        parts = {name: getattr(self, name) for name in self._parts_and_limit}
        return copyreg.__newobj__, (type(self),), parts

    def with_flat(self, flat: Tensor) -> "PackedBase":
        """The same layout with other flat rows."""
        other = self._of_parts(
            flat, self.mask, self.index, self.there, self.limit
        )
        if self._way_back is not None:
            other.__dict__["_way_back"] = self._way_back
        return other

    def clearable(self) -> "PackedBase":
        """The same without the attribute of a mask, which old code clears.

        For code that is given the mask apart, and would find it twice.
        """
        copy = self.with_flat(self.flat)
        copy.__dict__["_is_clearable"] = True
        return copy

    @property
    def _keras_mask(self):
        return None if "_is_clearable" in self.__dict__ else self.mask

    def __setattr__(self, name, value):
        if name == "_keras_mask" and "_is_clearable" in self.__dict__:
            return
        super().__setattr__(name, value)

    @property
    def values(self) -> Tensor:
        """The padded values, with 0 where nothing is. Kept once computed."""
        values = self.__dict__.get("_values")
        if values is None:
            # Late: it imports the backend.
            from keras.src.masking import packing

            values = packing.unpacked(self.flat, self)
            if self._may_keep(values):
                self.__dict__["_values"] = values
        return values

    @property
    def shape(self) -> tuple:
        return (*self.mask.shape, *self.flat.shape[1:])

    @property
    def dtype(self) -> DType:
        return self.flat.dtype

    @property
    def ndim(self) -> int:
        return 1 + len(self.flat.shape)

    def packed(self, capacity: int | None = None) -> "PackedBase":
        # Late: it imports the backend.
        from keras.src.masking import packing

        capacity = packing.checked_capacity(capacity)
        if capacity is None or capacity == self.flat.shape[0]:
            return self
        return self.padded().packed(capacity)

    def padded(self) -> MaskedTensorBase:
        return self._wrap(self.values, self.mask)

    def __repr__(self):
        head = (
            f"<MaskedTensor shape={tuple(self.shape)}, "
            f"dtype={standardize_dtype(self.dtype)}, packed in "
            f"{self.flat.shape[0]} steps"
        )
        rows = self._rows_as_text()
        return f"{head}>" if rows is None else f"{head}\n{rows}>"

    def _rows_as_text(self):
        """A line for each row, None where the entries cannot be read."""
        try:
            if not self.is_concrete(self):
                return None
            rows = [
                " ".join(str(row).split())
                for row in self._wrap(self.values, self.mask).to_ragged()
            ]
        except Exception:
            return None
        if len(rows) > 6:
            rows = [*rows[:3], "...", *rows[-3:]]
        return "\n".join(rows)

    @staticmethod
    def _may_keep(values):
        """Whether padded values serve whoever asks for them next."""
        return True

    # How an engine stores.

    # Whether it packs the valid steps alone: one that compiles for each shape
    # packs up to a capacity, of which there are few.
    _is_exact = True

    # Whether a compiled function may find out how many steps there are.
    _is_dynamic = False

    # The dtype of places, in which the engine indexes.
    _index_dtype = "int64"

    @staticmethod
    def _may_group(x):
        """Whether rows of about one length are computed apart from the others.

        Where the mask is known, and a call costs little beside what it does.
        """
        return x.is_concrete(x)

    @staticmethod
    def _if(condition, function, otherwise):
        """What one of two functions without operands gives, both scalars.

        The first is right in any case; what the condition saves is its time.
        """
        # Late: it is the backend that chooses.
        from keras.src import backend

        return backend.cond(condition, function, otherwise)

    @staticmethod
    def _on_host(function, flat, *arrays):
        """Two results of a function of NumPy arrays, the first like `flat`."""
        return function(*map(np.asarray, arrays))

    # Whether padding costs less than extremes of segments do.
    _pads_for_extremes = False

    @staticmethod
    def _sums(flat, rows, batch):
        """The sum of each row of the batch; `rows` has one for each step."""
        # Late: they import this type.
        from keras.src import ops

        return ops.segment_sum(flat, rows, num_segments=batch)

    @staticmethod
    def _extremes(name, flat, rows, batch):
        """The "max" or "min" of each row, any number where it has no step.

        Those that share it share its gradient. None where the engine has no
        gradient of it.
        """
        return None

    def _recurrent(self, kind):
        """How the engine runs a recurrent layer, of its usual form.

        Args:
            kind: The name of the layer, "LSTM" or "GRU".

        Returns:
            A function of packed sequences of shape `(batch, time, features)`,
            of the list of first states, each of shape `(batch, units)`, and of
            the list of kernel, recurrent kernel, and bias or None. It gives
            the outputs for the flat steps and the list of last states. None
            where the engine has none.
        """
        return None

    @staticmethod
    def _places(mask):
        """Where the valid steps of a flat mask are, as many as there are.

        Returns:
            A tensor of integers; None where a compiler does not know them.
        """
        raise NotImplementedError

    @staticmethod
    def _gather(x, index):
        """The rows of a tensor at these places, any row for one too large."""
        raise NotImplementedError

    @staticmethod
    def _scatter(flat, index, size):
        """Rows at these places of `size`, 0 elsewhere.

        A place that is too large is not written to.
        """
        raise NotImplementedError


# The fast path of a padded one, `rules.merge.shortcut`, reads both parts.
for _name in ARITHMETIC | COMPARISON:
    setattr(PackedBase, f"__{_name}__", getattr(Operators, f"__{_name}__"))
