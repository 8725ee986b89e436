"""What is known of each operation: its row, by the class or the function."""

import inspect
import typing

from keras.src.api_export import keras_export
from keras.src.masking.calls import Rule
from keras.src.masking.calls import takes_whole
from keras.src.masking.refusals import is_from_keras


class Row(typing.NamedTuple):
    """What is known of one operation.

    Attributes:
        name: Name of the public function.
        rule: Function of a `Call`, which gives the result.
        fn: The public function, to compute with on plain tensors.
        init_names: Names of the static arguments (those of `__init__`).
        call_names: Names of the operands, where `fn` does not take them first
            and in this order; else None.
        fn_names: Names of the parameters of `fn`.
        operands: Signature of a call of the operation, of `fn` without one.
        defaults: Defaults of the parameters of `fn`.
        takes_nests: Whether an operand is a nest of tensors. Elsewhere a list
            of tensors stands for one tensor, in which they are stacked.
        public: The public function itself, by which users know it.
    """

    name: str
    rule: typing.Callable
    fn: typing.Callable | None = None
    init_names: tuple | None = None
    call_names: tuple | None = None
    fn_names: tuple = ()
    operands: inspect.Signature | None = None
    defaults: dict = {}
    takes_nests: bool = False
    public: typing.Callable | None = None


_ROWS = {}


def rows() -> dict[typing.Any, Row]:
    """All rows: the tables and what was registered.

    By operation class, or by the function where there is none.
    """
    # The tables import every ops module, so not before the first masked call.
    # No `functools.cache`: PyTorch's compiler looks through it, and would
    # trace the making of the tables for minutes.
    if not _ROWS:
        # Late: the tables import this.
        from keras.src.masking.tables import all_rows

        _ROWS.update(all_rows())
    return _ROWS


def make_row(
    name: str,
    rule: Rule,
    op_class: typing.Any,
    fn: typing.Callable,
    takes_nests: bool = False,
    public: typing.Callable | None = None,
) -> Row:
    """A `Row`, with the names of its arguments read off the signatures.

    Args:
        name: Name of the public function.
        rule: Its rule.
        op_class: Its operation class, None where it has none.
        fn: The public function.
        takes_nests: Whether an operand is a nest of tensors.
        public: The function that users call, where `fn` is another one.
    """
    signature = inspect.signature(fn)
    fn_names = tuple(signature.parameters)
    defaults = {
        p.name: p.default
        for p in signature.parameters.values()
        if p.default is not p.empty
    }
    init_names, call_names, operands = None, None, signature
    if op_class is not None:
        init_names = tuple(inspect.signature(op_class.__init__).parameters)[1:]
        operands = inspect.signature(op_class.call)
        call = list(operands.parameters.values())[1:]
        operands = operands.replace(parameters=call)
        names = tuple(p.name for p in call)
        variadic = any(p.kind is p.VAR_POSITIONAL for p in call)
        if fn_names[: len(names)] != names and not variadic:
            call_names = names
    return Row(
        name,
        rule,
        fn,
        init_names,
        call_names,
        fn_names,
        operands,
        defaults,
        takes_nests,
        public or fn,
    )


@keras_export("keras.masking.rule_for")
def rule_for(op_class: type) -> typing.Callable:
    """Decorator: gives an `Operation` of one's own a rule for masks.

    An operation whose `call` uses nothing but `keras.ops` needs none: its ops
    have theirs. A rule is for one that leaves Keras, or that has a better
    answer than its ops. It holds for eager and compiled calls and in graphs,
    where it is traced to find the mask of the result; shape and dtype of the
    result are those that the operation gives of plain tensors. A subclass has
    a rule of its own, or none.

    Args:
        op_class: A subclass of `keras.Operation`. Not a layer, which takes
            masked tensors in its `call`.

    Returns:
        A decorator of the rule: a function of the operation and its operands,
        some of them `keras.MaskedTensor`, which returns what the call gives.
        The decorator returns the rule as it is.

    Raises:
        TypeError: If `op_class` is no subclass of `keras.Operation`, a layer,
            or an operation of Keras itself, whose rules stand.

    Example:

    >>> class Halve(keras.Operation):
    ...     def call(self, x):
    ...         return x / 2
    >>> @keras.masking.rule_for(Halve)
    ... def halve(op, x):
    ...     return keras.MaskedTensor(op.call(x.values), x.mask)
    """
    # Late: layers and operations import this.
    from keras.src.layers.layer import Layer
    from keras.src.ops.operation import Operation

    if not inspect.isclass(op_class) or not issubclass(op_class, Operation):
        raise TypeError(
            "`keras.masking.rule_for()` takes a subclass of "
            f"`keras.Operation`. Received: {op_class!r}. Write "
            "`@keras.masking.rule_for(MyOperation)` above the rule."
        )
    if issubclass(op_class, Layer):
        raise TypeError(
            "`keras.masking.rule_for()` takes a subclass of "
            f"`keras.Operation`. Received the layer class {op_class!r}, which "
            "needs no rule: its `call` is given masked tensors and returns one."
        )
    if is_from_keras(op_class.__module__):
        raise TypeError(
            "`keras.masking.rule_for()` takes an operation of your own. "
            f"Received: {op_class!r}, which has Keras's rule: `x + y` and "
            "`keras.ops.add(x, y)` would not agree any more. Make a subclass "
            "of it, or a `keras.Operation` of your own, and give that a rule."
        )

    def register(rule):
        @takes_whole
        def adapted(call):
            return rule(call.op, *call.args, **call.kwargs)

        rows()[op_class] = Row(op_class.__name__, adapted, takes_nests=True)
        return rule

    return register
