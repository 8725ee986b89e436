"""Runs a model and tells, layer by layer, what becomes of its masks.

A layer's protocol is what runs its `call`, whoever asks for it. For the length
of one run, each layer has a protocol that runs its own and notes the masks.
"""

import contextlib
import functools
import io
import math
import typing

import numpy as np
import rich.console
import rich.table
from rich.markup import escape

from keras.src import backend
from keras.src import tree
from keras.src.api_export import keras_export
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.layers.layer import Layer
from keras.src.masking.layers import protocols
from keras.src.masking.training.ragged import is_of_others
from keras.src.models import Functional
from keras.src.models import Model
from keras.src.ops.function import Function
from keras.src.utils import io_utils


class SeenMask(typing.NamedTuple):
    """The mask on a tensor.

    Attributes:
        shape: Its shape.
        valid: How many of its entries are valid, None where a function that
            is being compiled hides them.
        size: How many entries it has.
    """

    shape: tuple
    valid: int | None
    size: int

    def __str__(self):
        valid = "?" if self.valid is None else self.valid
        return f"{self.shape}: {valid} of {self.size} valid"


class SeenCall(typing.NamedTuple):
    """The call of a layer.

    Attributes:
        name: Name of the layer.
        class_name: Name of its class.
        depth: In how many layers it was called.
        masks_in: A `SeenMask` for each tensor that goes in, None for a plain
            one; masks that are passed by name count as such, at the end.
        masks_out: The same for each tensor that comes out; None if the call
            raised an error.
        error: The error that was raised in this layer, None if there was none,
            or it came from a layer inside.
    """

    name: str
    class_name: str
    depth: int
    masks_in: tuple
    masks_out: tuple | None = None
    error: Exception | None = None

    @property
    def outcome(self) -> str:
        """What became of the mask, in a word; empty if there was none."""
        if self.masks_out is None:
            return "refused" if self.error is not None else "not reached"
        came, left = any(self.masks_in), any(self.masks_out)
        if not came:
            return "made" if left else ""
        if not left:
            return "ends"
        same = set(filter(None, self.masks_in)) == set(
            filter(None, self.masks_out)
        )
        return "kept" if same else "changed"


@keras_export("keras.utils.explain_mask")
def explain_mask(
    model: Model,
    x: Nest,
    print_fn: typing.Callable | None = None,
    line_length: int | None = None,
    **kwargs: typing.Any,
) -> list:
    """Runs a model on real input and prints what becomes of its masks.

    For each layer, in the order of the calls: which masks went in, which came
    out, how many of their entries are valid, and whether the mask was made,
    kept, changed, ended or refused there. Layers inside nested models, and
    inside models and layers of one's own, are indented. The operations between
    the layers of a functional model are shown too.

    The model is run for inference and is the same afterwards: its variables,
    the states of its random numbers among them, do not change.

    Args:
        model: Model or layer, built.
        x: Its input, masked or plain: a tensor or a NumPy array, or a list or
            dictionary of them.
        print_fn: Function that gets the text. Defaults to `print`.
        line_length: Length of the lines. Defaults to that of the terminal.
        **kwargs: Further arguments of its `call`.

    Returns:
        A list with a named tuple for each call of a layer: `name`,
        `class_name`, `depth`, `masks_in`, `masks_out`, `error`, `outcome`.
        Masks are named tuples too: `shape`, `valid`, `size`.

    Raises:
        TypeError: If `model` is no layer.
        ValueError: If it is not built.
        Exception: What a layer raises is shown with the layer, then raised.

    Example:

    >>> model = keras.Sequential([
    ...     keras.layers.Embedding(10, 4, mask_zero=True, name="embedding"),
    ...     keras.layers.GlobalAveragePooling1D(name="pooling"),
    ... ], name="classifier")
    >>> model.build((None, 3))
    >>> ids = np.array([[1, 2, 0], [3, 0, 0]])
    >>> calls = keras.utils.explain_mask(model, ids, print_fn=lambda text: None)
    >>> [(call.name, call.outcome) for call in calls]
    [('classifier', ''), ('embedding', 'made'), ('pooling', 'ends')]
    >>> print(*calls[2].masks_in)
    (2, 3): 3 of 6 valid
    """
    _check(model)
    x = tree.map_structure(_as_tensor, x)
    kwargs.setdefault("training", False)
    notebook = _Notebook()
    try:
        # No assignment to a variable goes beyond this scope.
        with backend.StatelessScope(), notebook.watching(model):
            model(x, **kwargs)
    finally:
        if notebook.calls:
            _print(model, notebook.calls, print_fn, line_length)
    return notebook.calls


def _check(model):
    if not isinstance(model, Layer):
        raise TypeError(
            "`explain_mask` takes a model or a layer and its input. Received "
            f"as the model: {model!r} (of type {type(model).__name__}). Write "
            "`keras.utils.explain_mask(model, x)`."
        )
    if not model.built:
        raise ValueError(
            f"'{model.name}' (of type {type(model).__name__}) is not built, "
            "and running it here would make its variables. Call it on a batch "
            "of data first, or its `build()`."
        )


def _as_tensor(x):
    # Not all layers take arrays inside of lists and dictionaries. Text is a
    # tensor on one backend only.
    is_array = isinstance(x, np.ndarray) and x.dtype.kind in "biufc"
    return backend.convert_to_tensor(x) if is_array else x


class _Notebook:
    """Notes the calls of layers, in the order in which they begin."""

    def __init__(self):
        self.calls = []
        self.depth = 0

    @contextlib.contextmanager
    def watching(self, model):
        """Notes what the operations in a model do while this is open."""
        before = []
        try:
            for op in _operations_in(model):
                for name, watch in self._watches(op).items():
                    before.append((vars(op), name, vars(op).get(name)))
                    vars(op)[name] = watch
            yield
        finally:
            for attributes, name, value in before:
                if value is None:
                    del attributes[name]
                else:
                    attributes[name] = value

    def _watches(self, op):
        """What stands in, in an operation, for what runs its call."""
        if isinstance(op, Layer):
            # What a call sets is put back, too.
            set_by_calls = {
                name: vars(op).get(name)
                for name in ("_called", "_masks_of_call")
            }
            return {"_chosen_protocol": self._watch_layer(op), **set_by_calls}
        return self._watch_op(op)

    def _watch_layer(self, layer):
        # Not through `_mask_protocol`, which would store what it chose.
        protocol = vars(layer).get("_chosen_protocol")
        protocol = protocol or protocols.of(layer)

        def watched(layer, run, args, kwargs):
            def call():
                return protocol(layer, run, args, kwargs)

            return self._note(layer, args, kwargs, call)

        return watched

    def _watch_op(self, op):
        dispatch, run = op._dispatch, op._undispatched_call

        def watched_dispatch(args, kwargs):
            return self._note(op, args, kwargs, lambda: dispatch(args, kwargs))

        def watched_run(*args, **kwargs):
            return self._note(op, args, kwargs, lambda: run(*args, **kwargs))

        if isinstance(op, Function):
            return {"_undispatched_call": watched_run}
        return {
            "_dispatch": watched_dispatch,
            "_undispatched_call": watched_run,
        }

    def _note(self, op, args, kwargs, run):
        place = len(self.calls)
        call = SeenCall(
            op.name, type(op).__name__, self.depth, _masks_in(args, kwargs)
        )
        self.calls.append(call)
        self.depth += 1
        try:
            outputs = run()
        except Exception as error:
            inside = self.calls[place + 1 :]
            if all(other.error is None for other in inside):
                self.calls[place] = call._replace(error=error)
            raise
        finally:
            self.depth -= 1
        self.calls[place] = call._replace(masks_out=_masks_on(outputs))
        return outputs


def _operations_in(model):
    """The operations to watch: those that a user has put together.

    What a built-in layer is made of is its own business.
    """
    found = {}
    pending = [model]
    while pending:
        op = pending.pop()
        if id(op) in found:
            continue
        found[id(op)] = op
        if isinstance(op, Functional):
            pending += op._operations
        if is_of_others(op):
            pending += getattr(op, "_layers", ())
    return list(found.values())


def _masks_in(args, kwargs):
    """The masks on all arguments, then those that are arguments."""
    explicit = {
        name: value
        for name, value in kwargs.items()
        if name == "mask" or name.endswith("_mask")
    }
    rest = {k: v for k, v in kwargs.items() if k not in explicit}
    given = (_seen(x) for x in tree.flatten(explicit) if hasattr(x, "shape"))
    return (*_masks_on((args, rest)), *given)


def _masks_on(nest):
    """A `SeenMask` for each tensor of a nest, None for a plain one."""
    return tuple(
        _seen(x.mask) if isinstance(x, MaskedTensorBase) else None
        for x in tree.flatten(nest)
        if isinstance(x, MaskedTensorBase) or backend.is_tensor(x)
    )


def _seen(mask):
    shape = tuple(mask.shape)
    size = math.prod(n or 0 for n in shape)
    try:
        entries = backend.convert_to_numpy(mask)
    except Exception:
        # Engines differ in how they refuse to show what they trace.
        return SeenMask(shape, None, size)
    return SeenMask(shape, int(np.count_nonzero(entries)), size)


def _print(model, calls, print_fn, line_length):
    """Prints the calls as a table, where a summary would print."""
    if print_fn is None and not io_utils.is_interactive_logging_enabled():
        print_fn = functools.partial(io_utils.print_msg, line_break=False)
    console = rich.console.Console(highlight=False, width=line_length)
    if print_fn is not None:
        console = rich.console.Console(
            file=io.StringIO(), highlight=False, width=line_length
        )
    table = rich.table.Table(
        title=f'Masks of "{escape(model.name)}"', title_justify="left"
    )
    for column in ("Layer (type)", "Mask in", "Mask out", "The mask is"):
        table.add_column(column, overflow="fold")
    for call in calls:
        table.add_row(*map(escape, _fields(call)))
    console.print(table)
    if print_fn is not None:
        print_fn(console.file.getvalue())


def _fields(call):
    indent = "   " * (call.depth - 1) + "└ " if call.depth else ""
    out = call.masks_out
    if out is not None:
        out = _text(out)
    elif call.error is not None:
        out = f"{type(call.error).__name__}: {call.error}"
    else:
        out = "an error inside"
    return (
        f"{indent}{call.name} ({call.class_name})",
        _text(call.masks_in),
        out,
        call.outcome,
    )


def _text(seen):
    return "\n".join("-" if mask is None else str(mask) for mask in seen)
