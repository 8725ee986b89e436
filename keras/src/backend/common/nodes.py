"""A masked tensor as a node of the trees of JAX and PyTorch."""

import typing

from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Shape
from keras.src.backend.common.kinds import Tensor

# What a transformation that maps over an axis of leaves has to be told.
_NO_AXIS = (
    "Values of shape {} came back with a mask of shape {}, which does not "
    "cover leading axes of them. A transformation such as `vmap` takes and "
    "makes an axis of both alike, so it has to be one of the mask: move it to "
    "the front with `keras.ops.moveaxis` before or after, or map over "
    "`x.values`."
)


class Nodes:
    """Takes masked tensors apart, and puts them together.

    An axis below 0 is counted from the end of each leaf. So the mask gets as
    many axes as the values, or `vmap` would take different ones of the two.

    Args:
        make: Makes a masked tensor of values and mask, without a check.
        arrays: Types of what has a shape. All else may be put into leaves, as
            `None` or `object()` are.
        dtypes: Those of masks, and of derivatives with respect to them.
        reshape: Function of an array and a shape.
        may_keep: Function that says of an array whether it outlives what is
            being traced.
    """

    def __init__(
        self,
        make: typing.Callable,
        arrays: tuple[type, ...],
        dtypes: tuple,
        reshape: typing.Callable,
        may_keep: typing.Callable[[typing.Any], bool],
    ):
        self.make = make
        self.arrays = arrays
        self.dtypes = dtypes
        self.reshape = reshape
        self.may_keep = may_keep

    def take_apart(self, x: typing.Any) -> tuple[tuple, int]:
        """Values and mask, and how many axes were added to the mask."""
        values, mask = x.values, x.mask
        if not self._are_arrays(values, mask):
            return (values, mask), vars(x).get("_added", 0)
        added = len(values.shape) - len(mask.shape)
        return (values, self._with_axes(x, added) if added else mask), added

    def _with_axes(self, x, added):
        """The mask with axes of size 1 at its end.

        The same array each time: PyTorch's exporter tells inputs by identity.
        """
        wide = vars(x).get("_wide")
        if wide is None:
            wide = self.reshape(x.mask, (*x.mask.shape, *(1,) * added))
            if self.may_keep(wide):
                vars(x)["_wide"] = wide
        return wide

    def put_together(self, parts: typing.Sequence, added: int) -> typing.Any:
        """A masked tensor of what a transformation gives back.

        Raises:
            TypeError: If the mask is not boolean.
            ValueError: If it does not cover leading axes of the values.
        """
        values, mask = parts
        if not self._are_arrays(values, mask):
            x = self.make(values, mask)
            vars(x)["_added"] = added
            return x
        if mask.dtype not in self.dtypes:
            raise TypeError(
                "The mask of a masked tensor must be boolean. It came back "
                f"with dtype {mask.dtype}: a map over a tree goes over values "
                "and mask. Use functions of `keras.ops` or operators on the "
                "masked tensor, or map over `x.values`."
            )
        shape = _without(tuple(mask.shape), added)
        if shape != tuple(values.shape)[: len(shape)]:
            raise ValueError(_NO_AXIS.format(tuple(values.shape), shape))
        if len(shape) != len(mask.shape):
            mask = self.reshape(mask, shape)
        return self.make(values, mask)

    def _are_arrays(self, *leaves):
        return all(isinstance(x, self.arrays) for x in leaves)


_BY_ROWS = (
    "Its steps are stored across the batch, so `jax.vmap`, `torch.vmap` and "
    "`jax.lax.scan` cannot go over its rows. Write `x.padded()` before."
)
_STACKED = (
    "A function that `jax.vmap`, `torch.vmap` or `jax.lax.scan` calls again "
    "and again returned packed tensors, and one of them all would have an axis "
    "more than that. Let the function return `x.padded()`."
)


def check_packed(mask: Mask, index: Tensor) -> None:
    """Raises where a transformation took or added an axis of each part.

    It would take rows of the batch and flat steps alike; and stacked tensors
    have a layout each, which one packed tensor cannot hold.

    Args:
        mask: The mask that came back.
        index: The places of the flat steps that came back.
    """
    rank = len(mask.shape)
    if rank != 2 or len(index.shape) != 1:
        raise ValueError(
            "A packed masked tensor came back with a mask of shape "
            f"{tuple(mask.shape)}, which has to cover `(batch, time)`. "
            + (_STACKED if rank > 2 else _BY_ROWS)
        )


def _without(shape: Shape, added: int) -> Shape:
    """Leaves off the axes that were added, if the last ones are those."""
    own = len(shape) - added
    return shape[:own] if own >= 0 and shape[own:] == (1,) * added else shape
