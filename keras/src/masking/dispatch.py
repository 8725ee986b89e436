"""The one door: looks up the rule of an operation, and runs it, or raises."""

import itertools
import typing

import numpy as np

from keras.src import tree
from keras.src.backend.common import hooks
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Operation
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.composite import rules
from keras.src.masking.calls import Call
from keras.src.masking.calls import as_operand
from keras.src.masking.calls import from_foreign
from keras.src.masking.calls import takes_whole
from keras.src.masking.refusals import is_from_keras
from keras.src.masking.refusals import refuse_masked
from keras.src.masking.refusals import settle
from keras.src.masking.registry import Row
from keras.src.masking.registry import rows
from keras.src.utils.naming import to_snake_case


@hooks.fills("call")
def call(op: Operation, args: typing.Sequence, kwargs: Named) -> Nest:
    """Runs an operation on operands of which at least one is masked.

    Args:
        op: The `Operation` to run.
        args: Its operands.
        kwargs: Its operands by name.

    Returns:
        What the operation's rule gives. An operation of a third party without
        a rule runs its own `call`, whose ops are dispatched in turn.

    Raises:
        UnsupportedMaskError: If there is no rule for an operation of Keras, or
            the rule refuses, unless the setting makes a warning of it.
    """
    if any_composite(args, kwargs):
        return rules.call(op, args, kwargs)
    return run(call_of(op, args, kwargs))


def call_of(op: Operation, args: typing.Sequence, kwargs: Named) -> Call:
    """The `Call` of an operation.

    Args:
        op: The `Operation`.
        args: Its operands.
        kwargs: Its operands by name.
    """
    row = rows().get(type(op)) or _row_without_a_rule(op)
    if any_leaf(np.ma.MaskedArray, args, kwargs):
        args, kwargs = tree.map_structure(from_foreign, (args, kwargs))
        if not any_leaf((MaskedTensorBase, KerasTensor), args, kwargs):
            # A foreign array in which nothing is missing.
            row = row._replace(rule=_own_call)
    args, kwargs = in_order(row, args, kwargs)
    if not row.takes_nests and any(isinstance(x, _LISTS) for x in args):
        args = _as_operands(row, args)
    if row.init_names is not None:
        init_args, init_kwargs = op._init_arguments
        if init_args or init_kwargs:
            statics = dict(zip(row.init_names, init_args), **init_kwargs)
            statics.pop("name", None)
            kwargs = statics | kwargs
    return Call(row, op, args, kwargs)


_LISTS = (list, tuple)
# Operands by their names that are no tensors, or that need not be.
_STATIC = set(
    """axes_lengths bins constant_values dtype noise_shape num_samples
    output_shape q seed shape start_indices""".split()
)


def _as_operands(row, args):
    """The operands, a tensor for each list that stands for one."""
    names = [*row.operands.parameters] if row.operands else []
    pairs = itertools.zip_longest(args, names[: len(args)])
    return [x if name in _STATIC else as_operand(x) for x, name in pairs]


def _row_without_a_rule(op):
    if not is_from_keras(type(op).__module__):
        return Row(type(op).__name__, _own_call, op.call, takes_nests=True)
    # The name of the function, which is what users call.
    return Row(to_snake_case(type(op).__name__), _no_rule, op)


@takes_whole
def _own_call(call):
    return call.pass_on()


def _no_rule(call):
    raise call.refuse(
        "There is no rule yet that says what this operation makes of a mask."
    )


@hooks.fills("call_function")
def call_function(
    function: typing.Callable, args: typing.Sequence, kwargs: Named
) -> Nest:
    """Runs a function that has no operation class, with masked arguments.

    Args:
        function: The function on plain tensors, by which its row is found.
        args: Its arguments.
        kwargs: Its arguments by name.

    Raises:
        UnsupportedMaskError: If an argument is masked and symbolic: without
            an operation there is no node of a graph. As `call` otherwise.
    """
    if any_composite(args, kwargs):
        return rules.apply(rows()[function].public, args, kwargs)
    args, kwargs = tree.map_structure(from_foreign, (args, kwargs))
    if not any_leaf((MaskedTensorBase, KerasTensor), args, kwargs):
        return function(*args, **kwargs)
    if any_leaf(KerasTensor, args, kwargs):
        refuse_masked(
            function.__name__, (args, kwargs), "It cannot be part of a graph."
        )
        return function(*args, **kwargs)
    row = rows()[function]
    return run(Call(row, None, *in_order(row, args, kwargs)))


def in_order(
    row: Row, args: typing.Sequence, kwargs: Named
) -> tuple[typing.Sequence, Named]:
    """The operands by position, those too that were passed by name."""
    if not kwargs or row.operands is None:
        return args, kwargs
    bound = row.operands.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.args, bound.kwargs


def run(call: Call) -> Nest:
    """Runs the rule of a call, or goes on without the masks that it refuses."""
    try:
        return call.apply_rule()
    except Exception as error:
        explained = call.explained(error)
        if explained is error:
            raise
    call.args, call.kwargs = settle(explained, call.args, call.kwargs)
    return call.pass_on()
