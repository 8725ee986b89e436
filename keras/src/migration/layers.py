"""What layers do the old way: flags, `compute_mask`, arguments, raw calls."""

import functools
import re
import typing

import libcst as cst

from keras.src import ops
from keras.src import random
from keras.src.migration.finding import REMOVE
from keras.src.migration.finding import Finding
from keras.src.migration.finding import find
from keras.src.migration.sources import Class
from keras.src.migration.sources import Project
from keras.src.migration.sources import Source
from keras.src.migration.sources import children_of
from keras.src.migration.sources import walk

# Functions that know no masks. The package of Keras that wraps them has the
# functions of `keras.ops`, but is below the place where masks are seen.
RAW = re.compile(r"(?:jax|numpy|torch|tensorflow)\.(?!keras\.)")
BACKEND = re.compile(r"(?:tensorflow\.)?keras\.(?:src\.)?backend\.")
KERAS = re.compile(r"(?:tensorflow\.)?keras\.(?!(?:src\.)?backend\.)")

# What is defined in a function has this in its full name, after the module.
LOCAL = "<locals>"

# Those that `keras.ops` calls otherwise.
OTHER_NAMES = {
    "cat": "concatenate",
    "concat": "concatenate",
    "gather": "take",
    "masked_fill": "where",
    "permute": "transpose",
    "permute_dims": "transpose",
    "reduce_all": "all",
    "reduce_any": "any",
    "reduce_logsumexp": "logsumexp",
    "reduce_max": "max",
    "reduce_mean": "mean",
    "reduce_min": "min",
    "reduce_prod": "prod",
    "reduce_std": "std",
    "reduce_sum": "sum",
    "reduce_variance": "var",
    "unsqueeze": "expand_dims",
}

# What of a tensor is known without its entries.
STATIC = {"shape", "dtype", "ndim"}
STATIC_FUNCTIONS = STATIC | {"len", "isinstance", "type", "hasattr"}
# Methods of lists and dictionaries, which may hold tensors.
OF_CONTAINERS = {"append", "extend", "get", "items", "keys"}


def layers_of(source: Source, project: Project) -> dict[cst.CSTNode, "Layer"]:
    """The layers and models of a file: a `Layer` for each definition."""
    return {
        cls.node: Layer(source, project, cls)
        for cls in source.classes.values()
        if project.is_a("layer", cls.name)
    }


def layer_findings(
    layers: dict[cst.CSTNode, "Layer"],
) -> typing.Iterator[Finding]:
    """Yields what is found in layers and models."""
    for layer in layers.values():
        yield from layer.flags()
        yield from layer.mask_computations()
        yield from layer.mask_arguments()
        yield from layer.raw_calls()


class Layer:
    """A class of layers, as its source has it."""

    def __init__(self, source: Source, project: Project, cls: Class):
        self.source, self.project, self.cls = source, project, cls
        self.name = cls.short_name
        self.call = cls.methods.get("call")

    def _find(self, node, name, change=None, **names):
        return find(self.source, node, name, change, layer=self.name, **names)

    def _walk(self):
        """The nodes of the class, but for those of classes in it."""

        def into(node):
            inner = isinstance(node, cst.ClassDef) and node is not self.cls.node
            return () if inner else children_of(node)

        return walk(self.cls.node.body, into)

    # `supports_masking`.

    def flags(self) -> typing.Iterator[Finding]:
        lines = set()
        for node in self._flag_nodes():
            line = self.source.line_of(node)
            if line in lines:
                continue
            lines.add(line)
            statement = self._statement_of(node)
            can_go = statement is not None and self.goes_by_type
            yield self._find(
                statement if can_go else node,
                "supports_masking",
                REMOVE if can_go else None,
                code=self.source.code_of(getattr(node, "name", node)),
            )

    def _flag_nodes(self):
        """Where the class sets, defines or reads `supports_masking`."""
        name = "supports_masking"
        for node in self._walk():
            match node:
                case cst.Attribute(attr=cst.Name(value=found)):
                    if found == name:
                        yield node
                case cst.AssignTarget() | cst.AnnAssign():
                    if _mentions(node.target, name, whole=True):
                        yield node.target
                case cst.FunctionDef(name=cst.Name(value=found)):
                    if found == name:
                        yield node

    def _statement_of(self, node):
        """The line `supports_masking = True` that a node is in, or None."""
        for line in self.source.around(node, cst.SimpleStatementLine):
            match line.body:
                case [
                    cst.Assign(
                        targets=[cst.AssignTarget(target=target)],
                        value=cst.Name(value="True" | "False"),
                    )
                ] if target is node:
                    return line
            return None

    # `compute_mask`.

    def mask_computations(self) -> typing.Iterator[Finding]:
        method = self.cls.methods.get("compute_mask")
        if method is not None:
            name = f"compute_mask{_kind_of(method)}"
            can_go = name == "compute_mask_identity" and self.goes_by_type
            yield self._find(method, name, REMOVE if can_go else None)
        for node in self._walk():
            match node:
                case cst.Call(
                    func=cst.Attribute(attr=cst.Name(value="compute_mask"))
                ) if method not in self.source.around(node, cst.FunctionDef):
                    code = self.source.code_of(node.func)
                    yield self._find(node, "compute_mask_call", code=code)

    # Mask arguments of `call`.

    @functools.cached_property
    def _mask_parameters(self):
        """Parameters of `call` that get the mask of another, or of the first.

        `padding_mask` is one only beside an argument `padding`.
        """
        if self.call is None:
            return []
        parameters = _parameters(self.call)
        names = {p.name.value for p in parameters}
        return [
            p
            for p in parameters
            if p.name.value == "mask"
            or (
                p.name.value.endswith("_mask")
                and p.name.value.removesuffix("_mask") in names
            )
        ]

    def mask_arguments(self) -> typing.Iterator[Finding]:
        if not self._mask_parameters or self._makes_masked_tensors:
            return
        for parameter in self._mask_parameters:
            argument = parameter.name.value
            used = reads(self.call.body, {argument})
            yield self._find(
                parameter,
                "mask_argument" if used else "unused_mask_argument",
                argument=argument,
            )

    @property
    def _makes_masked_tensors(self):
        return any(
            isinstance(node, cst.Call)
            and self.source.name_of(node.func).endswith(".MaskedTensor")
            for node in walk(self.call.body)
        )

    # Functions that know no masks.

    def raw_calls(self) -> typing.Iterator[Finding]:
        # A layer that asks for masks gets plain values.
        if self.call is None or self._mask_parameters:
            return
        for node, function in tensor_calls(self.source, self.call):
            # A method of what a call returns would tell the same again.
            of_result = any(isinstance(n, cst.Call) for n in walk(node.func))
            if is_raw(function) and not of_result:
                code = self.source.code_of(node.func)
                op = op_like(function)
                name = (
                    "raw_backend_call" if op else "raw_backend_call_without_op"
                )
                yield self._find(node, name, code=code, op=op)

    # What a patch needs to know.

    @functools.cached_property
    def goes_by_type(self) -> bool:
        """Whether the layer takes masked tensors once the patch is applied.

        That is: nothing is left that makes it one of the old kind, and `call`
        does nothing but what is known to take them. What `self` holds counts
        as layers. No layer of another kind is below or above it.
        """
        bases = self.cls.bases
        plain = all(
            KERAS.match(b) and b.endswith((".Layer", ".Model")) for b in bases
        )
        method = self.cls.methods.get("compute_mask")
        return (
            plain
            and bool(bases)
            and self.call is not None
            and not self._mask_parameters
            and self.name not in self.project.extended
            and not self.cls.has_twins
            and (method is None or _kind_of(method) == "_identity")
            # It is neither called nor defined in another way.
            and self._count("compute_mask") == (method is not None)
            and not self._holds_raw()
            and all(
                self._statement_of(node) is not None
                for node in self._flag_nodes()
            )
            and all(
                self._takes_masked(node, function)
                for method in self._reached_methods()
                for node, function in tensor_calls(self.source, method)
            )
        )

    def _count(self, name):
        return sum(_mentions(n, name, whole=True) for n in self._walk())

    def _holds_raw(self):
        """Whether a function that knows no masks is assigned to a name."""
        return any(
            is_raw(self.source.name_of(node.value))
            for node in self._walk()
            if isinstance(node, cst.Assign)
        )

    def _reached_methods(self):
        """The methods of this class that `call` comes to."""
        reached, pending = {}, ["call"]
        while pending:
            name = pending.pop()
            if name in reached or name not in self.cls.methods:
                continue
            reached[name] = self.cls.methods[name]
            pending += [
                node.attr.value
                for node in walk(reached[name])
                if isinstance(node, cst.Attribute) and _is_of_self(node)
            ]
        return list(reached.values())

    def _takes_masked(self, node, function):
        """Whether a call is known to take masked tensors."""
        known = KERAS.match(function) or function.startswith("builtins.")
        if known and LOCAL not in function:
            return True
        if _is_of_self(node.func):
            return True
        if isinstance(node.func, cst.Attribute):
            of_super = self.source.name_of(node.func.value) == "builtins.super"
            return of_super or node.func.attr.value in OF_CONTAINERS
        # `for layer in self.blocks: x = layer(x)`
        return isinstance(node.func, cst.Name) and any(
            isinstance(loop, (cst.For, cst.CompFor))
            and _mentions(loop.target, node.func.value)
            for method in self.cls.methods.values()
            for loop in walk(method)
        )


def _kind_of(method):
    """What a `compute_mask` does, as the end of the name of its pattern."""
    body = list(method.body.body)
    if body and _is_docstring(body[0]):
        body = body[1:]
    match body:
        case [cst.Return(value=value)]:
            pass
        case [cst.SimpleStatementLine(body=[cst.Return(value=value)])]:
            pass
        case _:
            return ""
    if value is None or _mentions(value, "None", whole=True):
        return "_none"
    masks = [p.name.value for p in _parameters(method)][1:2]
    if masks and _mentions(value, masks[0], whole=True):
        return "_identity"
    return ""


def _is_docstring(statement):
    match statement:
        case cst.SimpleStatementLine(
            body=[cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString())]
        ):
            return True
    return False


def _parameters(function):
    """The named parameters of a method, without `self`."""
    parameters = function.params
    positional = [*parameters.posonly_params, *parameters.params]
    return [*positional[1:], *parameters.kwonly_params]


def _mentions(node, name, whole=False):
    nodes = (node,) if whole else walk(node)
    return any(isinstance(n, cst.Name) and n.value == name for n in nodes)


def _is_of_self(node):
    """Whether an expression is an attribute or an item of `self`."""
    depth = 0
    while isinstance(node, (cst.Attribute, cst.Subscript)):
        node, depth = node.value, depth + 1
    return bool(depth) and _mentions(node, "self", whole=True)


# Calls on what comes from the arguments of a function.


def tensor_calls(source: Source, function: cst.FunctionDef) -> typing.Iterator:
    """Yields the calls in a method that are given tensors, and their names.

    Whatever is computed from its arguments counts as a tensor, but for shapes
    and dtypes.
    """
    tensors = tensors_in(function)
    for node in walk(function.body):
        if isinstance(node, cst.Call) and not _is_static(node):
            if reads(node, tensors):
                yield node, source.name_of(node.func)


def tensors_in(function: cst.FunctionDef) -> set[str]:
    """Names in a method of what is computed from its arguments."""
    names = {p.name.value for p in _parameters(function)} - {"training"}
    for star in (function.params.star_arg, function.params.star_kwarg):
        if isinstance(star, cst.Param):
            names.add(star.name.value)
    nodes = list(walk(function.body))
    for node in nodes:
        if isinstance(node, (cst.FunctionDef, cst.Lambda)):
            names |= {p.name.value for p in node.params.params}
    size = -1
    while size != len(names):
        size = len(names)
        for node in nodes:
            value, targets = _assignment(node)
            if value is not None and reads(value, names):
                names |= {
                    n.value
                    for target in targets
                    for n in walk(target, _into_values)
                    if isinstance(n, cst.Name) and n.value != "self"
                }
    return names


def _assignment(node):
    """What is assigned by a node, and to what."""
    match node:
        case cst.Assign():
            return node.value, [t.target for t in node.targets]
        case cst.AnnAssign() | cst.AugAssign() | cst.NamedExpr():
            return node.value, [node.target]
        case cst.For() | cst.CompFor():
            return node.iter, [node.target]
    return None, ()


def reads(node: cst.CSTNode, names: typing.Container[str]) -> bool:
    """Whether an expression reads entries of what has one of these names."""
    return any(
        isinstance(n, cst.Name) and n.value in names
        for n in walk(node, _into_values)
    )


def _into_values(node):
    """The children of a node that stand for values."""
    match node:
        case cst.Attribute(attr=cst.Name(value=name)):
            return () if name in STATIC else (node.value,)
        case cst.Call() if _is_static(node):
            return ()
        case cst.Arg():
            return (node.value,)
        case cst.Param():
            return () if node.default is None else (node.default,)
    return children_of(node)


def _is_static(call):
    match call.func:
        case cst.Name(value=name) | cst.Attribute(attr=cst.Name(value=name)):
            return name in STATIC_FUNCTIONS
    return False


def is_raw(function: str) -> bool:
    """Whether a function of this full name takes tensors and knows no masks."""
    if LOCAL in function:
        return False
    if BACKEND.match(function):
        return op_like(function) is not None
    return bool(RAW.match(function))


def op_like(function: str) -> str | None:
    """The function of Keras that does what one of a backend does, or None."""
    path, _, name = function.rpartition(".")
    name = OTHER_NAMES.get(name, name)
    if path.endswith("random") or name == "dropout":
        return f"keras.random.{name}" if hasattr(random, name) else None
    return f"keras.ops.{name}" if hasattr(ops, name) else None
