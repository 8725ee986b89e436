"""Rules as one compiled program each, outside of a compiler.

JAX dispatches operations one by one there, and a rule is made of some; each
takes longer than what it computes of a batch.
"""

import typing

import jax
from keras.src.backend import config
from keras.src.backend.common.variables import Variable
from keras.src.backend.jax.masked_tensor import MaskedTensor

_PROGRAMS: dict = {}


class _NotOne(Exception):
    """The call has an operand with which no program can be found again."""


def run_as_one(rule: typing.Callable, call: typing.Any) -> typing.Any:
    """What a rule gives for a call.

    Args:
        rule: Rule that computes with its tensors alone, by no more than their
            shapes and dtypes.
        call: The `Call`.
    """
    arrays: list = []
    try:
        operands = (
            # Of numbers among operands there are many, of settings few.
            _taken_apart(tuple(call.args), arrays, (bool, str)),
            _taken_apart(call.kwargs, arrays, (bool, str, int, float)),
        )
        key = rule, call.row.fn, operands, config.floatx(), config.epsilon()
        program = _PROGRAMS.get(key)
        if program is None:
            program = _PROGRAMS[key] = _program(rule, call, operands)
        result = program(arrays)
    except Exception:
        # It says better itself what is wrong.
        return rule(call)
    return _of_result(result, arrays)


def _program(rule, call, operands):
    kind, row = type(call), call.row

    @jax.jit
    def program(arrays):
        args, kwargs = (_put_together(x, arrays) for x in operands)
        return _to_result(rule(kind(row, None, args, kwargs)), arrays)

    return program


def _taken_apart(x, arrays, statics):
    """What is the same for all calls of a program; its arrays are added."""
    if type(x) is MaskedTensor:
        return MaskedTensor, _added(x.values, arrays), _added(x.mask, arrays)
    if isinstance(x, (jax.Array, Variable)):
        array = x.value if isinstance(x, Variable) else x
        return jax.Array, _added(array, arrays)
    # Of any kind: that which layers track, too.
    for kind in (list, tuple):
        if isinstance(x, kind):
            return kind, tuple(_taken_apart(y, arrays, statics) for y in x)
    if isinstance(x, dict):
        names = tuple(sorted(x))
        return names, tuple(_taken_apart(x[k], arrays, statics) for k in names)
    if x is None or type(x) in statics:
        # For 1 is True, to a dictionary.
        return "is", type(x), x
    raise _NotOne


def _added(x, arrays):
    """The place of an array, once for all operands: masks are often one."""
    if isinstance(x, jax.core.Tracer):
        raise _NotOne
    for i, array in enumerate(arrays):
        if array is x:
            return i
    arrays.append(x)
    return len(arrays) - 1


def _put_together(operands, arrays):
    kind, *rest = operands
    if kind is MaskedTensor:
        return MaskedTensor._wrap(*(arrays[i] for i in rest))
    if kind is jax.Array:
        return arrays[rest[0]]
    if kind == "is":
        return rest[1]
    parts = [_put_together(x, arrays) for x in rest[0]]
    return kind(parts) if isinstance(kind, type) else dict(zip(kind, parts))


def _to_result(x, arrays):
    """The arrays of a result, in a tree that says what they are parts of.

    A mask that is an operand's is that very object in the result as well.
    """
    if isinstance(x, tuple):
        return tuple(_to_result(y, arrays) for y in x)
    if not isinstance(x, MaskedTensor):
        return x
    for i, array in enumerate(arrays):
        if array is x.mask:
            return {"values": x.values, "masked as": (None,) * i}
    return {"values": x.values, "mask": x.mask}


def _of_result(x, arrays):
    if isinstance(x, tuple):
        return tuple(_of_result(y, arrays) for y in x)
    if not isinstance(x, dict):
        return x
    mask = arrays[len(x["masked as"])] if "masked as" in x else x["mask"]
    return MaskedTensor._wrap(x["values"], mask)
