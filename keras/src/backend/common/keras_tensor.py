"""Gives `KerasTensor` a mask spec, and asks the wider of two questions.

`any_symbolic_tensors` stays upstream's strict question. `needs_dispatch` also
answers yes for masked tensors; only the op functions ask it.
"""

import numpy as np

from keras.src import tree
from keras.src.backend.common import foreign
from patchset.markers import keeps
from patchset.markers import new


class KerasTensor:
    @keeps("_plain_init")
    def __init__(self, *args, mask=None, **kwargs):
        self._plain_init(*args, **kwargs)
        self._mask_spec = _checked_mask_spec(mask, self._shape)
        self._mask_node = None
        self._values_node = None
        self._hung_mask = None

    @new
    @property
    def mask(self):
        """The mask as a symbolic tensor, or None where there is none.

        Asked for the first time, it adds a node to the graph.
        """
        if self._mask_spec is None:
            return None
        if self._mask_node is None:
            # Late: ops import this type.
            from keras.src.ops.masking import GetMask

            self._mask_node = GetMask().symbolic_call(self)
        return self._mask_node

    @new
    @property
    def _keras_mask(self):
        """The mask, by the name that layers of the old kind know."""
        mask = self._hung_mask if self._mask_spec is None else self.mask
        if mask is None:
            raise AttributeError(
                f"{self} has no mask. `keras.ops.get_mask(x)` gives None then."
            )
        return mask

    @new
    @_keras_mask.setter
    def _keras_mask(self, mask):
        self._hung_mask = mask

    @new
    @property
    def values(self):
        """The values without the mask, as a symbolic tensor.

        The tensor itself where it has no mask. Asked for the first time on a
        masked one, it adds a node to the graph.
        """
        if self._mask_spec is None:
            return self
        if self._values_node is None:
            # Late: ops import this type.
            from keras.src.ops.masking import GetValues

            self._values_node = GetValues().symbolic_call(self)
        return self._values_node

    @keeps("_plain_repr")
    def __repr__(self):
        text = self._plain_repr()
        if self._mask_spec is None:
            return text
        return f"{text[:-1]}, mask shape={self._mask_spec.shape}>"


@new
def _checked_mask_spec(mask, shape):
    """The mask spec with the sizes of the values, or an error naming both."""
    if mask is None:
        return None
    # Imported late: variables import random ops, which import this module.
    from keras.src.backend.common.variables import shape_equal

    if mask.dtype != "bool":
        raise TypeError(
            "The mask of a `KerasTensor` must be boolean. Received a mask of "
            f"dtype {mask.dtype} and shape {mask.shape}."
        )
    if not mask.shape or not shape_equal(mask.shape, shape[: len(mask.shape)]):
        raise ValueError(
            "The mask of a `KerasTensor` must cover its leading axes. Received "
            f"a tensor of shape {shape} and a mask of shape {mask.shape}."
        )
    covered = shape[: len(mask.shape)]
    if mask.shape != covered:
        # One of the two knows a size that the other leaves open. Tracing makes
        # up a number for each open size, which have to agree.
        return KerasTensor(covered, "bool", record_history=False)
    return mask


# Types that were seen as leaves and are neither symbolic nor masked. Learned,
# since every backend has its own tensors, tracers and variables.
__added__ = ("_PLAIN_LEAVES", "_DISPATCHED", "_may_learn")
_PLAIN_LEAVES = {int, float, bool, str, type(None), np.ndarray}
_PLAIN_LEAVES |= {slice, type(Ellipsis)}
_DISPATCHED = (KerasTensor, np.ma.MaskedArray)


@new
def _always():
    return True


_may_learn = _always


@new
def learns_if(condition):
    """Lets an engine say by a function whether types may be remembered now.

    PyTorch's compiler guards what is read as it traces, and must not change.
    """
    global _may_learn
    _may_learn = condition


@new
def dispatches(base):
    """Class decorator: operands of this type go through the dispatch."""
    global _DISPATCHED
    _DISPATCHED = (*_DISPATCHED, base)
    return base


@new
def needs_dispatch(args=None, kwargs=None):
    """Whether an op must not hand these operands to the backend as they are.

    Those of pandas, Arrow and others may hold missing entries, as may those
    of `numpy.ma`.

    Args:
        args: Operands, or nests of them.
        kwargs: Operands by name.
    """
    return any_leaf(_DISPATCHED, args, kwargs)


@new
def any_leaf(types, args=None, kwargs=None):
    """Whether an operand, or one inside a nest, is of one of these types.

    The op functions ask on every call, so types of plain tensors and scalars
    are remembered and passed over.

    Args:
        types: Class or tuple of classes, not those of plain tensors. Whatever
            is `foreign` counts as an array of `numpy.ma`.
        args: Operands, or nests of them.
        kwargs: Operands by name.
    """
    for items in (args or (), kwargs.values() if kwargs else ()):
        for x in items:
            if type(x) in _PLAIN_LEAVES:
                continue
            if isinstance(x, types):
                return True
            if isinstance(x, _DISPATCHED):
                # One whose parts, if it has any, may be of these types.
                parts = getattr(x, "_parts", ())
                if parts and any_leaf(types, [getattr(x, n) for n in parts]):
                    return True
            elif isinstance(x, (list, tuple)):
                # Faster than `tree`, which some engines' is slow in.
                if any_leaf(types, x):
                    return True
            elif isinstance(x, dict):
                if any_leaf(types, x.values()):
                    return True
            elif foreign.is_known(type(x)):
                asked = types is _DISPATCHED or types is np.ma.MaskedArray
                if asked and foreign.is_foreign(x):
                    return True
            elif hasattr(x, "dtype"):
                if _may_learn():
                    _PLAIN_LEAVES.add(type(x))
            elif tree.is_nested(x):
                if any_leaf(types, tree.flatten(x)):
                    return True
    return False
