"""Calls in which plain tensors carry their masks as an attribute."""

import contextlib
import threading
import typing

from keras.src import tree
from keras.src.backend.common import masking as attributes
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.kinds import AnyTensor
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import symbolic


def mask_as_given(x: AnyTensor) -> Mask:
    """The mask of a tensor in the form in which an old layer gave it.

    Args:
        x: Masked tensor, plain one with a mask hung on it, or symbolic one, of
            which the spec of the mask is given.
    """
    if isinstance(x, KerasTensor):
        return symbolic.mask_as_given(x)
    return attributes.as_given(attributes.get_keras_mask(x))


class Scope:
    """A call in which plain tensors carry their masks as an attribute.

    Layers that are called meanwhile hand out their results in that form too:
    all of them where the layer is of the old kind, else those that were given
    it. When the call ends, nothing carries the attribute any more.
    """

    def __init__(self, is_old: bool = True):
        self.is_old = is_old
        self.carriers = []

    def hang(self, x: AnyTensor) -> AnyTensor:
        """The values of a masked tensor, with the mask hung on them."""
        if not isinstance(x, MaskedTensorBase):
            return x
        self.carriers.append(
            (x.values, attributes._get_mask_attribute(x.values))
        )
        attributes._set_mask_attribute(x.values, mask_as_given(x))
        return x.values

    def clear(self) -> None:
        for x, mask in reversed(self.carriers):
            attributes._set_mask_attribute(x, mask)


class _State(threading.local):
    scope: "Scope | None" = None


_state = _State()


def current_scope() -> "Scope | None":
    """The scope of the old layer whose `call` is running, or None."""
    scope = _state.scope
    return scope if scope is not None and scope.is_old else None


def handed_out(outputs: Nest, args: typing.Sequence, kwargs: Named) -> Nest:
    """What a layer returns, in the form that its caller works with.

    Args:
        outputs: Nest of tensors.
        args: What the layer was called with by position.
        kwargs: What it was called with by name.
    """
    scope = _state.scope
    if scope is None or not (scope.is_old or _is_old_form(args, kwargs)):
        return outputs
    return tree.map_structure(scope.hang, outputs)


def _is_old_form(args, kwargs):
    """Whether masks come as an attribute of plain tensors, and only so."""
    tensors = [x for x in tree.flatten((args, kwargs)) if x is not None]
    if kwargs.get("mask") is not None or any(map(has_mask, tensors)):
        return False
    return any(attributes.get_keras_mask(x) is not None for x in tensors)


@contextlib.contextmanager
def in_scope(scope: "Scope | None") -> typing.Iterator["Scope | None"]:
    """Runs what is inside in the scope of an old layer, or in none."""
    outer, _state.scope = _state.scope, scope
    try:
        yield scope
    finally:
        _state.scope = outer
        if scope is not None:
            scope.clear()


def all_plain() -> typing.ContextManager:
    """The scope of a layer to which those that it calls give plain tensors."""
    return in_scope(Scope())


def without_scope(
    run: typing.Callable, args: typing.Sequence, kwargs: Named
) -> Nest:
    """Runs the `call` of a layer that is not an old one."""
    if _state.scope is None:
        return run(*args, **kwargs)
    with in_scope(None):
        return run(*args, **kwargs)
