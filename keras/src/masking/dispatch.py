"""The one door: looks up the rule of an operation, and runs it, or raises."""

import functools
import inspect
import operator
import typing

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.api_export import keras_export
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import masks
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.masking.errors import describe
from keras.src.masking.errors import has_mask
from keras.src.masking.errors import refuse
from keras.src.masking.errors import refuse_masked
from keras.src.masking.refusals import is_from_keras
from keras.src.masking.refusals import settle
from keras.src.utils.naming import to_snake_case


class Row(typing.NamedTuple):
    """What is known of one operation.

    Attributes:
        name: Name of the public function.
        rule: Function of a `Call`, which gives the result.
        fn: The public function itself, to compute with on plain tensors.
        init_names: Names of the static arguments (those of `__init__`).
        call_names: Names of the operands, where `fn` does not take them first
            and in this order; else None.
        fn_names: Names of the parameters of `fn`.
        operands: Signature of a call of the operation, of `fn` without one.
        defaults: Defaults of the parameters of `fn`.
        takes_nests: Whether an operand is a nest of tensors. Elsewhere a list
            of tensors stands for one tensor, in which they are stacked.
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


class Call:
    """One call of an operation with masked operands, as rules see it.

    Attributes:
        row: The `Row` of the operation.
        op: The `Operation`, None where a function has no class.
        args: Operands, however they were passed. NumPy masked arrays are
            masked tensors.
        kwargs: Static arguments by name.
    """

    __slots__ = ("row", "op", "args", "kwargs")

    def __init__(self, row, op, args, kwargs):
        self.row = row
        self.op = op
        self.args = args
        self.kwargs = kwargs

    def operands(self):
        """All tensors among the arguments, flat."""
        found = []

        def look_at(x):
            if hasattr(x, "shape"):
                found.append(x)

        for x in (*self.args, *self.kwargs.values()):
            if isinstance(x, MaskedTensorBase):
                found.append(x)
            elif isinstance(x, (list, tuple, dict)):
                _map_nest(look_at, x)
            else:
                look_at(x)
        return found

    def argument(self, name, default=None):
        """The argument of this name, however it was passed.

        Args:
            name: Its name.
            default: What to give where the function has no such parameter.

        Returns:
            The argument, with integers for those of NumPy.
        """
        if name in self.kwargs:
            return with_integers(self.kwargs[name])
        names = self.row.call_names or self.row.fn_names
        position = names.index(name) if name in names else len(self.args)
        if position < len(self.args):
            return with_integers(self.args[position])
        return self.row.defaults.get(name, default)

    def compute(self, *args):
        """Runs the public function on plain tensors.

        Args:
            *args: Operands to put in place of the first ones of this call.
                Masked tensors among all operands count by their values.
        """
        args = map(_trusted, (*args, *self.args[len(args) :]))
        kwargs = {k: _trusted(v) for k, v in self.kwargs.items()}
        return self._call_function(args, kwargs)

    def pass_on(self):
        """Runs the public function on the operands as they are."""
        return self._call_function(self.args, self.kwargs)

    def _call_function(self, args, kwargs):
        if self.row.call_names is not None:
            kwargs = kwargs | dict(zip(self.row.call_names, args))
            args = ()
        return self.row.fn(*args, **kwargs)

    def refuse(self, reason):
        """The error that says why this call cannot be done."""
        return refuse(self.row.name, self.operands(), reason, is_open=True)

    def apply_rule(self):
        """What the rule gives. Whatever it calls finds this on the stack.

        A mask without axes says of a whole tensor whether it is there, and so
        of all that is made of it. Most rules never see one.
        """
        rule = self.row.rule
        found = [x.mask for x in self.operands() if _is_whole(x)]
        if not found or getattr(rule, "takes_whole", False):
            return rule(self)
        self.args, self.kwargs = _map_nest(_present, (self.args, self.kwargs))
        is_masked = any_leaf(MaskedTensorBase, self.args, self.kwargs)
        result = rule(self) if is_masked else self.pass_on()
        there = functools.reduce(operator.and_, found)
        return _map_nest(lambda x: _if_there(x, there), result)

    def explained(self, error):
        """The error to raise for one that came from the rule.

        It gains a note that tells which call it was. A refusal, perhaps by an
        op that the rule calls, is made anew: users know the op they called.
        """
        if isinstance(error, UnsupportedMaskError) and error.is_open:
            return self.refuse(error.reason)
        note = f"In `{self.row.name}` of " + ", ".join(
            describe(x) for x in self.operands() if has_mask(x)
        )
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        return error


def _map_nest(function, x):
    """`function` of each leaf; lists, tuples and dicts of any kind are walked.

    What comes back are plain ones: a list that a layer tracks, or a named
    tuple, is to an op what a list or tuple is.
    """
    if isinstance(x, dict):
        return {k: _map_nest(function, v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        kind = list if isinstance(x, list) else tuple
        return kind(_map_nest(function, y) for y in x)
    return function(x)


def _trusted(x):
    """As `values_of`, with 0 under the mask where nothing there is trusted."""
    return _unmasked(x, masks.trusted)


def values_of(x):
    """`x` without masks; nests are walked."""
    return _unmasked(x, operator.attrgetter("values"))


def _unmasked(x, values):
    if isinstance(x, MaskedTensorBase):
        return values(x)
    if isinstance(x, (list, tuple, dict)):
        return _map_nest(lambda y: _unmasked(y, values), x)
    return x


def with_integers(x):
    """An argument with integers for those of NumPy, as axes and sizes are."""
    if isinstance(x, np.integer):
        return int(x)
    if type(x) in (list, tuple):
        return type(x)(map(with_integers, x))
    return x


def takes_whole(rule):
    """Decorator: the rule itself knows what a mask without axes means."""
    rule.takes_whole = True
    return rule


def _is_whole(x):
    return isinstance(x, MaskedTensorBase) and not len(x.mask.shape)


def _present(x):
    """The values of a masked tensor whose mask has no axes, safe to compute.

    Where it is not there they are 1, of which no op that gets here makes
    anything but a number; indices are 0.
    """
    if not _is_whole(x):
        return x
    return masks.fill(x.values, x.mask, int(backend.is_float_dtype(x.dtype)))


def _if_there(x, there):
    """A result, masked wherever `there`, a mask without axes, is False."""
    if isinstance(x, MaskedTensorBase):
        return masks.wrap(x.values, backend.numpy.logical_and(x.mask, there))
    if not hasattr(x, "shape"):
        return x
    return masks.wrap(masks.fill(x, there, 0), there)


def call(op, args, kwargs):
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
    return run(call_of(op, args, kwargs))


def call_of(op, args, kwargs):
    """The `Call` of an operation.

    Args:
        op: The `Operation`.
        args: Its operands.
        kwargs: Its operands by name.
    """
    if any_leaf(np.ma.MaskedArray, args, kwargs):
        args, kwargs = tree.map_structure(from_numpy_ma, (args, kwargs))
    row = rows().get(type(op)) or _row_without_a_rule(op)
    args, kwargs = in_order(row, args, kwargs)
    if not row.takes_nests:
        args = [_as_operand(x) for x in args]
    if row.init_names is not None:
        init_args, init_kwargs = op._init_arguments
        if init_args or init_kwargs:
            statics = dict(zip(row.init_names, init_args), **init_kwargs)
            statics.pop("name", None)
            kwargs = statics | kwargs
    return Call(row, op, args, kwargs)


def _as_operand(x):
    """One masked tensor for a list of them, as upstream stacks plain ones."""
    if not isinstance(x, (list, tuple)) or not any_leaf(MaskedTensorBase, x):
        return x
    return ops.stack([ops.convert_to_tensor(_as_operand(y)) for y in x])


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


def call_function(function, args, kwargs):
    """Runs a function that has no operation class, with masked arguments.

    Args:
        function: The function on plain tensors, by which its row is found.
        args: Its arguments.
        kwargs: Its arguments by name.

    Raises:
        UnsupportedMaskError: If an argument is masked and symbolic: without
            an operation there is no node of a graph. As `call` otherwise.
    """
    args, kwargs = tree.map_structure(from_numpy_ma, (args, kwargs))
    if any_leaf(KerasTensor, args, kwargs):
        refuse_masked(
            function.__name__, (args, kwargs), "It cannot be part of a graph."
        )
        return function(*args, **kwargs)
    row = rows()[function]
    return run(Call(row, None, *in_order(row, args, kwargs)))


def in_order(row, args, kwargs):
    """The operands by position, those too that were passed by name."""
    if not kwargs or row.operands is None:
        return args, kwargs
    bound = row.operands.bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.args, bound.kwargs


def run(call):
    """Runs the rule of a call, or goes on without the masks that it refuses."""
    try:
        return call.apply_rule()
    except Exception as error:
        explained = call.explained(error)
        if explained is error:
            raise
    call.args, call.kwargs = settle(explained, call.args, call.kwargs)
    return call.pass_on()


def from_numpy_ma(x):
    """A masked tensor for a `numpy.ma` array, anything else as it is."""
    if not isinstance(x, np.ma.MaskedArray):
        return x
    return backend.MaskedTensor(x.data, ~np.ma.getmaskarray(x))


_ROWS = {}


def rows():
    """All rows: the tables and what was registered.

    By operation class, or by the function where there is none.
    """
    # The tables import every ops module, so not before the first masked call.
    # No `functools.cache`: PyTorch's compiler looks through it, and would
    # trace the making of the tables for minutes.
    if not _ROWS:
        # Late: it imports the door.
        from keras.src.masking.tables import all_rows

        _ROWS.update(all_rows())
    return _ROWS


def make_row(name, rule, op_class, fn, takes_nests=False):
    """A `Row`, with the names of its arguments read off the signatures.

    Args:
        name: Name of the public function.
        rule: Its rule.
        op_class: Its operation class, None where it has none.
        fn: The public function.
        takes_nests: Whether an operand is a nest of tensors.
    """
    public = inspect.signature(fn)
    fn_names = tuple(public.parameters)
    defaults = {
        p.name: p.default
        for p in public.parameters.values()
        if p.default is not p.empty
    }
    init_names, call_names, operands = None, None, public
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
    )


@keras_export("keras.masking.rule_for")
def rule_for(op_class):
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
    # Late: it imports the door.
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
