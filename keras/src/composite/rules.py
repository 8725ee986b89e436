"""The rules of composite tensors, and the door that finds and runs them."""

import functools
import inspect
import typing

from keras.src import backend
from keras.src.api_export import get_name_from_symbol
from keras.src.api_export import keras_export
from keras.src.backend.common import composite
from keras.src.backend.common import hooks
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import take_apart
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.composite.errors import unsupported
from keras.src.masking import registry
from keras.src.masking.refusals import is_from_keras
from keras.src.utils.naming import to_snake_case
from patchset.markers import when

# By the function, or the operation class of one's own, and the type.
_RULES = {}

# Functions that are another one under a second name. The rule of either is
# that of both.
_TWINS = {}
_SAME = (
    ("absolute", "abs"),
    ("bitwise_invert", "bitwise_not"),
    ("conjugate", "conj"),
    ("divide", "true_divide"),
    ("left_shift", "bitwise_left_shift"),
    ("right_shift", "bitwise_right_shift"),
)


@keras_export("keras.rule_for")
def rule_for(function: typing.Callable, *types: type) -> typing.Callable:
    """Decorator: says what a function makes of tensors of one's own types.

    The rule is given what the function was given, operands as they are and
    arguments that differ from their defaults by name, and returns the result:
    a composite tensor, or anything else. Where it cannot say, for the other
    operands, it returns `NotImplemented`, and the rule of another operand's
    type is asked: that of the more derived type first, then from left to
    right. A subclass has the rules of its bases. Operators and layers meet
    rules as the functions do that they call; `1 < x` asks for the rule of
    `greater`, as Python does.

    An activation, `keras.activations.relu` say, has the rule of the function
    of `keras.ops` of its name; `true_divide`, which is `/`, that of `divide`.

    Args:
        function: A function of `keras.ops` or `keras.random`, or an operation
            class of one's own. The rule of a class is given the operation
            first, then its operands.
        *types: Subclasses of `keras.CompositeTensor`, one or more. For an
            operation class, `keras.MaskedTensor` as well, as
            `keras.masking.rule_for` has it.

    Returns:
        A decorator of the rule, which returns it as it is.

    Raises:
        TypeError: If `function` is neither, or asks for no rules, or a type
            is none of one's own.

    Example:

    >>> class Metres(keras.CompositeTensor):
    ...     values: keras.KerasTensor
    >>> @keras.rule_for(keras.ops.sum, Metres)
    ... def sum(x, axis=None, keepdims=False):
    ...     return Metres(keras.ops.sum(x.values, axis, keepdims))
    >>> float(keras.ops.sum(Metres([1.0, 2.0])).values)
    3.0
    """
    _check_function(function)
    if not types:
        raise TypeError(
            "`keras.rule_for()` takes the types that the rule is for: "
            f"`@keras.rule_for({_name(function)}, MyType)`."
        )
    for type_ in types:
        _check_type(function, type_)

    def register(rule):
        for type_ in types:
            if issubclass(type_, MaskedTensorBase):
                registry.rule_for(function)(rule)
            else:
                _RULES[function, type_] = _RULES[_root(function), type_] = rule
        return rule

    return register


def _check_function(function):
    # Late: operations import this.
    from keras.src.ops.operation import Operation

    if inspect.isclass(function) and issubclass(function, Operation):
        _check_operation(function)
    elif not callable(function) or not is_from_keras(
        getattr(function, "__module__", None) or ""
    ):
        raise TypeError(
            "`keras.rule_for()` takes a function of Keras, such as "
            "`keras.ops.add`, or a subclass of `keras.Operation`. Received: "
            f"{function!r}. A function of your own needs no rule: what it "
            "calls has its rules, and it may look at the type itself."
        )
    elif not _asks(function):
        reason = _without_rules().get(
            function,
            "it is made of others. Write rules for those that it calls.",
        )
        raise TypeError(f"`{_name(function)}` asks for no rules: {reason}")


def _asks(function):
    """Whether a function of Keras looks for a rule of its own."""
    if function in _without_rules():
        return False
    asking = (row.public for row in registry.rows().values())
    asking = {_root(f) for f in asking if f is not None}
    return any(
        _root(f) in asking | composite.ASKING
        for f in (function, _twins().get(function))
        if f is not None
    )


# Functions that look for no rule, and why.
_NEST = "it carries composite tensors as the nests that they are."
_ASKS = "it asks for the type of its argument."
_READS = "it reads an attribute, which an array-like type defines."
WITHOUT_RULES = {
    "associative_scan": _NEST,
    "cond": _NEST,
    "custom_gradient": _NEST,
    "dtype": _READS,
    "fori_loop": _NEST,
    "get_mask": _ASKS,
    "is_masked": _ASKS,
    "is_tensor": _ASKS,
    "jvp": _NEST,
    "map": _NEST,
    "scan": _NEST,
    "shape": _READS,
    "switch": _NEST,
    "vectorize": "it takes a function, and what it returns asks.",
    "vectorized_map": _NEST,
    "while_loop": _NEST,
}


if when(">=3.16"):
    WITHOUT_RULES = {
        **WITHOUT_RULES,
        "grad": "it takes a function, and what it returns carries nests.",
        "ndim": _READS,
        "size": _READS,
    }


def _without_rules():
    # Late: ops import this.
    from keras.src import ops

    return {
        getattr(ops, name): reason for name, reason in WITHOUT_RULES.items()
    }


def _check_operation(op_class):
    # Late: layers import this.
    from keras.src.layers.layer import Layer

    if issubclass(op_class, Layer):
        raise TypeError(
            "`keras.rule_for()` takes no layers: the `call` of a layer is "
            f"given composite tensors as they are. Received: {op_class!r}."
        )
    if is_from_keras(op_class.__module__):
        row = registry.rows().get(op_class)
        name = "its function" if row is None else f"`{_name(row.public)}`"
        raise TypeError(
            "`keras.rule_for()` takes an operation class of your own. "
            f"Received: {op_class!r}, an operation of Keras. Give {name}."
        )


def _check_type(function, type_):
    if not inspect.isclass(type_):
        problem = "no class"
    elif issubclass(type_, CompositeBase):
        if type_ is not backend.CompositeTensor:
            return
        problem = "the base of all"
    elif not issubclass(type_, MaskedTensorBase):
        problem = "no subclass of it"
    elif inspect.isclass(function):
        return
    else:
        raise TypeError(
            f"`{_name(function)}` has Keras's rule for masked tensors: "
            "operators would not agree with another one. Make a "
            "`keras.Operation` of your own, and give that a rule."
        )
    raise TypeError(
        "`keras.rule_for()` takes types that are subclasses of "
        f"`keras.CompositeTensor`. Received: {type_!r}, {problem}."
    )


def _name(function):
    """The name by which users write a function."""
    if inspect.isclass(function):
        return function.__name__
    while hasattr(function, "__wrapped__"):
        name = get_name_from_symbol(function)
        if name is not None:
            return name
        # It was wrapped after it was exported.
        function = function.__wrapped__
    name = get_name_from_symbol(function)
    return name or f"keras.ops.{function.__name__}"


def _find(function, type_):
    """The rule of a function for a type or one of its bases, or None."""
    rule = _RULES.get((function, type_))
    if rule is not None:
        return rule
    for candidate in map(_root, _candidates(function)):
        for base in type_.__mro__:
            rule = _RULES.get((candidate, base))
            if rule is not None:
                return rule
    return None


def _root(function):
    """What a function was before decorators, the same for all of them."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return function


def _twins():
    # Late: ops import this.
    from keras.src import ops

    if not _TWINS:
        for pair in _SAME:
            one, other = (getattr(ops, name) for name in pair)
            _TWINS[one], _TWINS[other] = other, one
    return _TWINS


def _candidates(function):
    """The functions of which a rule will do, the function itself first."""
    # Late: ops import this.
    from keras.src import ops

    yield function
    if function in _twins():
        yield _twins()[function]
    if getattr(function, "__module__", "").startswith("keras.src.activations"):
        yield getattr(ops, function.__name__, None)


def _operands(nest):
    """All operands, flat; composite tensors are not walked."""
    for x in nest:
        if isinstance(x, (list, tuple)):
            yield from _operands(x)
        elif isinstance(x, dict):
            yield from _operands(x.values())
        else:
            yield x


def _types(operands):
    """The types of composite operands in the order in which they are asked."""
    found = []
    for x in operands:
        type_ = type(x)
        if not isinstance(x, CompositeBase) or type_ in found:
            continue
        bases = (i for i, t in enumerate(found) if issubclass(type_, t))
        found.insert(next(bases, len(found)), type_)
    return found


@hooks.fills("apply_rule")
def apply(
    function: typing.Callable,
    args: typing.Sequence,
    kwargs: Named,
    otherwise: typing.Callable | None = None,
) -> Nest:
    """Runs the rule of a function for operands of which some are composite.

    Args:
        function: Public function, or operation class.
        args: Its arguments.
        kwargs: Its arguments by name.
        otherwise: What to run if there is no rule; else that is an error.

    Raises:
        UnsupportedTypeError: If no type has a rule that gives a result.
    """
    operands = list(_operands((*args, *kwargs.values())))
    types = _types(operands)
    tried = []
    for type_ in types:
        rule = _find(function, type_)
        if rule is not None:
            result = rule(*args, **kwargs)
            if result is not NotImplemented:
                return result
            tried.append(type_)
    if otherwise is not None and not tried:
        return otherwise()
    if all(hasattr(type_, "to_dense") for type_ in types):
        return function(*_dense(args), **_dense(kwargs))
    to_write = (
        function if inspect.isclass(function) or _asks(function) else None
    )
    raise unsupported(_name(function), operands, to_write, tried)


def _dense(x):
    if isinstance(x, (list, tuple)):
        return [_dense(y) for y in x]
    if isinstance(x, dict):
        return {k: _dense(v) for k, v in x.items()}
    return x.to_dense() if isinstance(x, CompositeBase) else x


def call(op: typing.Any, args: typing.Sequence, kwargs: Named) -> Nest:
    """Runs an operation on operands of which some are composite.

    Args:
        op: The `Operation`.
        args: Its operands.
        kwargs: Its operands by name.
    """
    row = registry.rows().get(type(op))
    if row is not None and getattr(row.rule, "carries_nests", False):
        return op.call(*args, **kwargs)
    if not is_from_keras(type(op).__module__):
        # One without a rule runs its `call`, whose ops have their rules.
        run = functools.partial(op.call, *args, **kwargs)
        return apply(type(op), (op, *args), kwargs, run)
    if row is None:
        name = to_snake_case(type(op).__name__)
        raise unsupported(f"keras.ops.{name}", list(_operands(args)))
    args, kwargs = _as_given(row, op, args, kwargs)
    return apply(row.public, args, kwargs)


def _as_given(row, op, args, kwargs):
    """The arguments that the public function of an operation was given.

    Args:
        row: The row of the operation.
        op: The operation, which keeps static arguments.
        args: Its operands.
        kwargs: Its operands by name.
    """
    init_args, init_kwargs = op._init_arguments
    if row.call_names is None and not (init_args or init_kwargs or kwargs):
        return args, {}
    statics = dict(zip(row.init_names, init_args), **init_kwargs) | kwargs
    statics.pop("name", None)
    parameters = _parameters(row.public)
    for p in parameters:
        if p.name in statics and _is_same(statics[p.name], p.default):
            del statics[p.name]
    # The rest is between the function and its operation.
    own = {p.name: p.default for p in _parameters(type(op).__init__)}
    for name in own.keys() - {p.name for p in parameters}:
        if name in statics and _is_same(statics[name], own[name]):
            del statics[name]
    before = []
    for p in parameters:
        if p.kind is p.VAR_POSITIONAL:
            # What comes before these is given by position, too.
            before = [statics.pop(n) for n in before if n in statics]
            return (*before, *args), statics
        before.append(p.name)
    if row.call_names is not None:
        return (), statics | dict(zip(row.call_names, args))
    return args, statics


_PARAMETERS = {}


def _parameters(function):
    if function not in _PARAMETERS:
        signature = inspect.signature(function)
        _PARAMETERS[function] = tuple(signature.parameters.values())
    return _PARAMETERS[function]


def _is_same(value, default):
    if value is default:
        return True
    return (
        type(value) is type(default)
        and not hasattr(value, "shape")
        and (value == default)
    )


def output_spec(op: typing.Any, args: typing.Sequence, kwargs: Named) -> Nest:
    """Spec of a call of an operation with symbolic composite operands."""

    def run(*args, **kwargs):
        return call(op, args, kwargs)

    return backend.compute_output_spec(run, *args, **kwargs)


@keras_export("keras.composite.parts")
def parts(
    function: typing.Callable, *operands: typing.Any, **kwargs: typing.Any
) -> CompositeBase:
    """Applies a function part by part, for the commonest rules.

    Args:
        function: Function of as many tensors as there are operands.
        *operands: Composite tensors of one type, and others, which the
            function is given with each part as they are.
        **kwargs: Arguments of the function by name.

    Returns:
        A composite tensor like the first one, with the results for parts.

    Raises:
        TypeError: If no operand is composite, or two differ in their type, in
            a static field, or in the parts that are there.

    Example:

    >>> class Pair(keras.CompositeTensor):
    ...     left: keras.KerasTensor
    ...     right: keras.KerasTensor
    >>> @keras.rule_for(keras.ops.reshape, Pair)
    ... def reshape(x, newshape):
    ...     return keras.composite.parts(keras.ops.reshape, x, newshape)
    >>> pair = keras.ops.reshape(Pair([1.0, 2.0], [3.0, 4.0]), (2, 1))
    >>> tuple(pair.left.shape), tuple(pair.right.shape)
    ((2, 1), (2, 1))
    """
    composites = [x for x in operands if isinstance(x, CompositeBase)]
    if not composites:
        raise TypeError(
            "`keras.composite.parts()` takes a composite tensor among its "
            f"operands. Received: {operands!r}."
        )
    first, *others = composites
    names, _ = take_apart(first)[1]
    for other in others:
        if type(other) is not type(first) or (
            take_apart(other)[1] != take_apart(first)[1]
        ):
            raise TypeError(
                "`keras.composite.parts()` takes composite tensors of one type "
                "whose static fields agree, and which have the same parts. "
                f"Received: {first!r} and {other!r}."
            )
    results = {}
    for name in names:
        of_part = [
            getattr(x, name) if isinstance(x, CompositeBase) else x
            for x in operands
        ]
        results[name] = function(*of_part, **kwargs)
    return first.replace(**results)
