"""The masked tensor of the PyTorch backend: a class with `__torch_function__`.

It is a node of `torch.utils._pytree`, and a leaf of `keras.tree`.
"""

import dataclasses
import functools
import math
import typing

import torch
from keras.src.backend.common.keras_tensor import learns_if
from keras.src.backend.common.kinds import Shape
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.nodes import Nodes
from keras.src.backend.common.nodes import check_packed
from keras.src.backend.common.packed_tensor import PackedBase
from keras.src.backend.torch import operators
from keras.src.composite.errors import UnsupportedTypeError
from keras.src.tree import torch_nodes
from torch.autograd import forward_ad
from torch.utils import _pytree

learns_if(lambda: not torch.compiler.is_dynamo_compiling())


def _check_devices(values, mask):
    """Raises where a mask would be moved to the values, or made up there."""
    tensors = isinstance(values, torch.Tensor) and isinstance(
        mask, torch.Tensor
    )
    # While a layer is traced, the values have no device.
    if tensors and mask.device != values.device and not values.is_meta:
        raise ValueError(
            "The mask of a masked tensor must be on the device of its values. "
            f"Received values of shape {tuple(values.shape)} on "
            f"{values.device}, and a mask of shape {tuple(mask.shape)} on "
            f"{mask.device}. Write `mask.to(values.device)`."
        )


# Where `DistributedDataParallel` looks for the tensors in what a model returns.
@dataclasses.dataclass(init=False, repr=False, eq=False)
class MaskedTensor(MaskedTensorBase):
    __doc__ = MaskedTensorBase.__doc__

    values: torch.Tensor
    mask: torch.Tensor

    def __init__(self, values: typing.Any, mask: typing.Any = None):
        _check_devices(values, mask)
        if isinstance(mask, torch.Tensor):
            # Not one that the caller may write to.
            mask = mask.clone()
        super().__init__(values, mask)

    @staticmethod
    def is_concrete(x: MaskedTensorBase) -> bool:
        return not (x.values.is_meta or torch.compiler.is_compiling())

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        found = operators.run(func, args, kwargs)
        if found is not NotImplemented:
            return found
        name = func.__name__.strip("_")
        raise TypeError(
            f"`torch.{name}` was given a masked tensor. PyTorch's own functions"
            " do not know masks. Use the function of `keras.ops` of that name,"
            " or go out of the mask on purpose: `keras.ops.filled(x, 0)` puts"
            " a value under the mask, `x.values` drops it."
        )


def _reshaped(x, shape):
    """A view of `x`, of the levels of transformations that `x` has.

    An operation gives results of the level that is being entered, and that a
    transformation lifts its operands to.
    """
    found = x.reshape(shape)
    # PyTorch's compiler knows neither function.
    if not torch.compiler.is_dynamo_compiling():
        level = torch._C._functorch.maybe_get_level
        while level(found) > level(x):
            found = torch._C._functorch.get_unwrapped(found)
    return found


_nodes = Nodes(
    MaskedTensor._wrap,
    (torch.Tensor,),
    (torch.bool,),
    _reshaped,
    may_keep=lambda _: not torch.compiler.is_dynamo_compiling(),
)


def _take_apart(x):
    _check_no_tangent(x, x.values)
    return _nodes.take_apart(x)


def _check_no_tangent(x, values):
    """Raises where a tangent is made of the mask, too: nothing would be valid.

    That is so of the results of `torch.func.jvp`.
    """
    # PyTorch's compiler knows no level of a transformation.
    if torch.compiler.is_dynamo_compiling():
        return
    level = torch._C._functorch.peek_interpreter_stack()
    if level is None or not isinstance(values, torch.Tensor):
        return
    is_forward = level.key() == torch._C._functorch.TransformType.Jvp
    if is_forward and forward_ad.unpack_dual(values).tangent is not None:
        raise TypeError(
            "`torch.func.jvp` makes a tangent of each part of a masked tensor, "
            "and the mask has none. Return `keras.ops.filled(x, 0)` or "
            "`x.values` from the function that is differentiated, and give a "
            "transformation within it values and mask apart. Received values "
            f"of shape {tuple(x.shape)} with a tangent, and a mask of "
            f"shape {tuple(x.mask.shape)}."
        )


def _parts_with_keys(x):
    (values, mask), added = _take_apart(x)
    key = _pytree.GetAttrKey
    return [(key("values"), values), (key("mask"), mask)], added


torch_nodes.LEAVES.add(MaskedTensor)
_pytree.register_pytree_node(
    MaskedTensor,
    _take_apart,
    _nodes.put_together,
    serialized_type_name="keras.MaskedTensor",
    flatten_with_keys_fn=_parts_with_keys,
)


@dataclasses.dataclass(init=False, repr=False, eq=False)
class PackedTensor(PackedBase, MaskedTensor):
    flat: torch.Tensor
    index: torch.Tensor
    there: torch.Tensor | None
    limit: int

    @property
    def shape(self) -> Shape:
        return self.mask.shape + self.flat.shape[1:]

    @staticmethod
    def is_concrete(x: MaskedTensorBase) -> bool:
        return not (x.flat.is_meta or torch.compiler.is_compiling())

    @staticmethod
    def _may_keep(values):
        # What was computed without a gradient is no use to one, and a compiler
        # would have to hand it out.
        return torch.is_grad_enabled() and not (
            torch.compiler.is_compiling()
            or torch._C._functorch.is_batchedtensor(values)
            or values.is_inference()
            or (values.requires_grad and _is_computed_anew())
        )

    @staticmethod
    def _may_group(x):
        # Another device would have to be waited for.
        return x.is_concrete(x) and x.flat.device.type == "cpu"

    @staticmethod
    def _if(condition, function, otherwise):
        # A compiler would end its graph here.
        if torch.compiler.is_compiling() or condition:
            return function()
        return otherwise()

    @staticmethod
    def _on_host(function, flat, *arrays):
        return function(*(x.cpu().numpy() for x in arrays))

    @staticmethod
    def _sums(flat, rows, batch):
        # `ops.segment_sum` makes an index for each entry.
        sums = flat.new_zeros((batch, *flat.shape[1:]))
        return sums.index_add(0, rows, flat)

    @staticmethod
    def _extremes(name, flat, rows, batch):
        bound = -math.inf if name == "max" else math.inf
        bounds = flat.new_full((batch, *flat.shape[1:]), bound)
        rows = rows.reshape(-1, *[1] * (flat.ndim - 1)).expand_as(flat)
        return bounds.scatter_reduce(0, rows, flat, f"a{name}")

    def _recurrent(self, kind):
        # Late: the backend's functions import this type.
        from keras.src.backend.torch import packed_rnn

        if not self.is_concrete(self) or self.dtype in (
            torch.float16,
            torch.bfloat16,
        ):
            return None
        return packed_rnn.RUN.get(kind)

    @staticmethod
    def _places(mask):
        return mask.nonzero().squeeze(1)

    @staticmethod
    def _gather(x, index):
        return x.index_select(0, index)

    @staticmethod
    def _scatter(flat, index, size):
        # One row more, for what is written nowhere.
        zeros = flat.new_zeros((size + 1, *flat.shape[1:]))
        return zeros.index_copy(0, index, flat)[:size]


def _is_computed_anew():
    """Whether someone else keeps what gradients need, as checkpoints do.

    These compute anew, and count: the second time nothing may be known that
    was not the first time.
    """
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None


def _take_packed_apart(x):
    """Its tensors, and their names beside the limit: one may be missing."""
    _check_no_tangent(x, x.flat)
    *names, _ = x._parts_and_limit
    names = [name for name in names if getattr(x, name) is not None]
    return [getattr(x, name) for name in names], (x.limit, *names)


def _put_packed_together(parts, limit_and_names):
    limit, *names = limit_and_names
    parts = dict(zip(names, parts))
    mask, index = parts["mask"], parts["index"]
    if isinstance(mask, torch.Tensor) and isinstance(index, torch.Tensor):
        check_packed(mask, index)
    *names, _ = PackedTensor._parts_and_limit
    return PackedTensor._of_parts(*map(parts.get, names), limit)


def _packed_parts_with_keys(x):
    parts, (limit, *names) = _take_packed_apart(x)
    keys = map(_pytree.GetAttrKey, names)
    return list(zip(keys, parts)), (limit, *names)


torch_nodes.LEAVES.add(PackedTensor)
_pytree.register_pytree_node(
    PackedTensor,
    _take_packed_apart,
    _put_packed_together,
    serialized_type_name="keras.PackedTensor",
    to_dumpable_context=list,
    from_dumpable_context=tuple,
    flatten_with_keys_fn=_packed_parts_with_keys,
)

# What `torch.export` writes has examples in it.
torch.serialization.add_safe_globals([MaskedTensor, PackedTensor])


def _of_masked(x, name):
    return (
        f"`{name}.apply` was given a masked tensor, which PyTorch would take "
        "for a constant: nothing would have a gradient. Write `y = "
        f"{name}.apply(x.values)`, and `keras.MaskedTensor(y, x.mask)` for a "
        "result that is valid where `x` is."
    )


# Types that are no constants, and what to write: a function of an operand and
# of the name of the function it was given to.
NO_CONSTANTS = {MaskedTensor: _of_masked}


def _refusing(apply):
    """`torch.autograd.Function.apply`, which asks no type that it is given.

    It takes what is no tensor for a constant, so that the values would have no
    gradient, and nobody would be told.
    """

    @functools.wraps(apply)
    def checked(cls, *args, **kwargs):
        # `DistributedDataParallel` hands on what is no tensor as it is.
        is_parallel = cls.__module__.startswith("torch.nn.parallel.")
        for x in (*args, *kwargs.values()):
            if isinstance(x, tuple(NO_CONSTANTS)) and not is_parallel:
                found = next(t for t in NO_CONSTANTS if isinstance(x, t))
                raise UnsupportedTypeError(NO_CONSTANTS[found](x, cls.__name__))
        return apply(cls, *args, **kwargs)

    return classmethod(checked)


torch.autograd.Function.apply = _refusing(
    vars(torch.autograd.Function)["apply"].__func__
)
