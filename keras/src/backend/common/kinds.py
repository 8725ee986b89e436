"""Names for what our functions take and give, where no class says it."""

import typing

# A plain tensor of the engine, whose class depends on the backend.
Tensor: typing.TypeAlias = typing.Any
# A boolean tensor over leading axes of values, True where they are valid.
Mask: typing.TypeAlias = typing.Any
# A plain tensor, or a masked one, eager or symbolic.
AnyTensor: typing.TypeAlias = typing.Any
# What `keras.tree` walks: a tensor, or lists, tuples and dicts of such.
Nest: typing.TypeAlias = typing.Any
# Sizes of which some may be unknown.
Shape: typing.TypeAlias = typing.Sequence[int | None]
# Places of axes, counted from the first one.
Axes: typing.TypeAlias = tuple[int, ...]
# The name of a dtype, or what an engine has for it.
DType: typing.TypeAlias = typing.Any
# What a composite tensor is beside its parts: names of these, and statics.
Description: typing.TypeAlias = tuple[tuple[str, ...], tuple]
# Arguments of a call by their names.
Named: typing.TypeAlias = dict[str, typing.Any]
# These import us, and upstream's text says no types.
Layer: typing.TypeAlias = typing.Any
Model: typing.TypeAlias = typing.Any
Operation: typing.TypeAlias = typing.Any
