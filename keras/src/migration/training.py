"""Models with masks that are compiled or fitted without weights."""

import typing

import libcst as cst

from keras.src.migration.finding import Finding
from keras.src.migration.finding import find
from keras.src.migration.sources import TRAINING_HINTS
from keras.src.migration.sources import Project
from keras.src.migration.sources import Source
from keras.src.migration.sources import children_of
from keras.src.migration.sources import has_all
from keras.src.migration.sources import walk

# Methods that take `sample_weight`.
FITS = {"fit", "evaluate", "train_on_batch", "test_on_batch"}
# What is set up for every method of a class.
SET_UP = {"__init__", "build", "setUp"}


def training_findings(
    source: Source, project: Project
) -> typing.Iterator[Finding]:
    """Yields `compile` and `fit` of models with masks, where weights lack."""
    if not has_all(source.data, TRAINING_HINTS):
        return
    makers = [
        _Place(source, node)
        for node in walk(source.tree)
        if isinstance(node, cst.Call) and _makes_masks(source, node)
    ]
    if not makers:
        return
    calls = [n for n in walk(source.tree) if _is_method_call(n)]
    models = _models(source, project, calls)
    compiled = {}
    for node in calls:
        if node.func.attr.value == "compile":
            compiled.setdefault(_receiver(source, node), []).append(node)
    for node in calls:
        receiver, method = _receiver(source, node), node.func.attr.value
        if receiver not in models or method not in {"compile", *FITS}:
            continue
        place = _Place(source, node)
        if not any(place.comes_after(maker) for maker in makers):
            continue
        code = source.code_of(node.func)
        if method == "compile":
            if _passes(node, "metrics") and not _passes(
                node, "weighted_metrics"
            ):
                yield find(source, node, "unweighted_metrics", code=code)
        elif not _passes(node, "sample_weight"):
            # Of one argument, a dataset, only `compile` tells.
            weighted = any(
                _passes(n, "weighted_metrics")
                for n in compiled.get(receiver, ())
            )
            if not (weighted and _is_one_argument(node)):
                yield find(source, node, "unweighted_fit", code=code)


def _makes_masks(source, node):
    """Whether a call makes masked tensors, or a layer that does."""
    last = source.name_of(node.func).rpartition(".")[2]
    if last == "Embedding":
        return _passes(node, "mask_zero")
    return last in ("Masking", "MaskedTensor")


def _passes(call, keyword):
    """Whether a call passes something by this name, as far as can be seen."""
    for argument in call.args:
        if argument.star == "**":
            return True
        if argument.keyword is not None and argument.keyword.value == keyword:
            match argument.value:
                case cst.Name(value="None" | "False") | cst.List(elements=[]):
                    return False
            return True
    return False


def _is_one_argument(call):
    positional = [a for a in call.args if a.keyword is None]
    return len(positional) == 1 and not _passes(call, "y")


def _is_method_call(node):
    return isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute)


def _receiver(source, call):
    return source.code_of(call.func.value)


def _models(source, project, calls):
    """The code of the expressions that are models."""
    models = {
        _receiver(source, node)
        for node in calls
        if node.func.attr.value == "compile"
        and (_passes(node, "optimizer") or _passes(node, "loss"))
    }
    for node in walk(source.tree):
        match node:
            case cst.Assign(value=cst.Call(func=function)):
                if project.is_a("model", source.name_of(function)):
                    models |= {source.code_of(t.target) for t in node.targets}
    return models


class _Place:
    """Where in a file a call is: in which function, of which class."""

    def __init__(self, source, node):
        functions = list(source.around(node, cst.FunctionDef))
        classes = list(source.around(node, cst.ClassDef))
        self.function = functions[-1] if functions else None
        self.cls = classes[-1] if classes else None
        self.source = source

    def comes_after(self, maker):
        """Whether what is made in another place may be at hand here.

        It is made here, or at the top of the file, or a function or class of
        its name is mentioned here.
        """
        if maker.function is None and maker.cls is None:
            return True
        if (self.function, self.cls) == (maker.function, maker.cls):
            return True
        function = maker.function and maker.function.name.value
        if maker.cls is not None and self.cls is maker.cls:
            if function in SET_UP:
                return True
        names = {function}
        if maker.cls is not None:
            names.add(maker.cls.name.value)
        return not names.isdisjoint(self._mentioned())

    def _mentioned(self):
        if self.function is not None:
            nodes = walk(self.function)
        else:

            def into(node):
                inner = isinstance(node, (cst.FunctionDef, cst.ClassDef))
                return () if inner else children_of(node)

            nodes = walk(self.source.tree, into)
        return {n.value for n in nodes if isinstance(n, cst.Name)}
