"""The masks along the graph of a model, as summaries and plots show them."""

import types
import typing

from keras.src import tree
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.kinds import Model
from keras.src.ops import specs

UNKNOWN = "?"
NOTE = (
    "?: not part of a graph, so what becomes of a mask shows in a call only. "
    "Try `keras.utils.explain_mask(model, x)`."
)


def along_graph(model: Model) -> dict:
    """What becomes of masks in each operation of the graph of a model.

    Nested models are walked with the masks that they are called with here,
    which need not be those that they were made with.

    Args:
        model: A model, or anything else, which has no graph.

    Returns:
        A dictionary from the `id` of an operation to its calls, each a pair:
        the mask shapes of the tensors that go in, and of those that come out,
        with None for a plain one. It is empty where there is no graph.
    """
    calls = {}
    graph = _graph_of(model)
    if graph is not None:
        _walk(graph, graph.inputs, calls)
    return calls


def mask_text(
    calls: typing.Sequence, format_shape: typing.Callable = str
) -> str:
    """The masks that come out of an operation, as text.

    Args:
        calls: Its calls, as `along_graph` gives them, or None.
        format_shape: Function that gives the text of a shape.

    Returns:
        A shape, `-` for a plain tensor, a list of these for several outputs;
        a line for each of the calls that differ; `?` without calls.
    """
    if not calls:
        return UNKNOWN
    lines = dict.fromkeys(
        _call_text(ins, outs, format_shape) for ins, outs in calls
    )
    return "\n".join(lines)


def with_names(
    function: types.FunctionType, **names: typing.Any
) -> types.FunctionType:
    """A copy of a function for which some names of its module mean others.

    So that one call of upstream's code can be given another table or another
    helper, and no other call, in no other thread, is touched.

    Args:
        function: A function of a module, no closure.
        **names: What the names mean to the copy.
    """
    copy = types.FunctionType(
        function.__code__,
        function.__globals__ | names,
        function.__name__,
        function.__defaults__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _graph_of(op):
    """The graph that a model runs, or None."""
    # Late: models import this.
    from keras.src.models import Functional
    from keras.src.models import Sequential

    if isinstance(op, Sequential):
        return op._functional
    return op if isinstance(op, Functional) else None


def _walk(graph, inputs, calls):
    """Runs a graph on symbolic inputs, and adds to `calls` what it sees."""

    def see(op, ins, outs):
        calls.setdefault(id(op), []).append((_shapes(ins), _shapes(outs)))

    def watched(op):
        def run(*args, **kwargs):
            inner = _graph_of(op)
            if inner is None:
                outputs = op._call_spec(*args, **kwargs)
            else:
                outputs = _walk(inner, (args, kwargs), calls)
            see(op, (args, kwargs), outputs)
            return outputs

        return run

    symbols = _symbols(inputs)
    inputs = [specs.like_input(*p) for p in zip(symbols, graph.inputs)]
    for x, declared in zip(inputs, graph.inputs):
        see(declared._keras_history.operation, (), x)
    return graph._run_through_graph(inputs, operation_fn=watched)


def _symbols(nest):
    return [x for x in tree.flatten(nest) if isinstance(x, KerasTensor)]


def _shapes(nest):
    return tuple(specs.mask_shape(x) for x in _symbols(nest))


def _call_text(ins, outs, format_shape):
    texts = ["-" if shape is None else format_shape(shape) for shape in outs]
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    return f"{text} (ends)" if any(ins) and not any(outs) else text
