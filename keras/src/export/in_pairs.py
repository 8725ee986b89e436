"""Exported models take and give a masked tensor as two plain ones.

No exporter knows masked tensors. So what is exported is a model around the
model: a masked input `x` comes in as `x` and `x_mask`, a masked output goes
out as `output_0` and `output_0_mask`. A composite tensor comes and goes as its
parts by their names.
"""

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import tree
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.composite import mask_or_spec
from keras.src.backend.common.composite import take_apart
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.kinds import Model
from keras.src.backend.common.kinds import Named
from keras.src.backend.common.kinds import Nest
from keras.src.export.export_utils import get_input_signature
from keras.src.export.export_utils import make_input_spec
from keras.src.masking.symbolic import values_spec


class InPairs(models.Model):
    """A model of plain tensors around one of masked or composite ones.

    Args:
        model: The other model.
        signature: Its positional inputs, as symbolic tensors.
        is_named: Whether the outputs have names; else they are a tuple.
        is_one_graph: Whether no output may have the name of an input.
    """

    def __init__(
        self,
        model: Model,
        signature: Nest,
        is_named: bool,
        is_one_graph: bool = False,
    ):
        super().__init__(name=model.name, dtype=model.dtype_policy)
        self.model = model
        # Hidden from what tracks the state of layers, which changes lists.
        self._of_model = lambda: signature
        self._is_named = is_named
        self._is_one_graph = is_one_graph
        self.built = True

    @property
    def of_model(self) -> tuple:
        """The positional inputs of the other model, as symbolic tensors."""
        return self._of_model()

    @property
    def takes_composites(self) -> bool:
        return any_composite((self.of_model,))

    @property
    def has_named_inputs(self) -> bool:
        """Whether its inputs are a dictionary, unlike those of the model."""
        return _is_apart(self.of_model)

    def call(self, *args: Nest) -> Nest:
        if self.has_named_inputs:
            args = self._to_whole(*args)
        outputs = self.model(*args)
        if not _is_apart(outputs):
            return outputs
        named = _to_pairs(_outputs_by_name(outputs), "outputs")
        if not self._is_named:
            return tuple(named.values())
        if self._is_one_graph and self.has_named_inputs:
            taken = _to_pairs(self._inputs_by_name(), "inputs")
            named = {f"{k}_out" if k in taken else k: named[k] for k in named}
        return named

    def _to_whole(self, named):
        flat = [
            backend.MaskedTensor(named[name], named[f"{name}_mask"])
            if has_mask(x)
            else named[name]
            for name, x in self._inputs_by_name()
        ]
        return tree.pack_sequence_as(self.of_model, flat)

    def _inputs_by_name(self):
        return [
            (part or x.name, x)
            for part, x in zip(
                _names_of_parts(self.of_model), tree.flatten(self.of_model)
            )
        ]

    def input_signature(self) -> list:
        """What this model takes, where anything is masked: a dictionary."""
        named = _to_pairs(self._inputs_by_name(), "inputs")
        specs = {
            name: layers.InputSpec(dtype=x.dtype, shape=x.shape, name=name)
            for name, x in named.items()
        }
        return [specs]

    def polymorphic_shapes(self) -> list:
        """The shapes as JAX takes them, with letters for open sizes.

        The values and the mask of an input have the same ones, which JAX does
        not find out by itself.
        """
        shapes = {}
        for i, (name, x) in enumerate(self._inputs_by_name()):
            sizes = ["batch"] + [
                f"d{i}_{axis}" if size is None else str(size)
                for axis, size in enumerate(x.shape[1:])
            ]
            shapes[name] = f"({', '.join(sizes)})"
            if has_mask(x):
                sizes = sizes[: len(x._mask_spec.shape)]
                shapes[f"{name}_mask"] = f"({', '.join(sizes)},)"
        return [shapes]


def _is_apart(nest):
    """Whether something in the nest is exported in parts."""
    return any_composite((nest,)) or any(map(has_mask, tree.flatten(nest)))


def _names_of_parts(nest, name=None):
    """For each tensor the name of the part that it is, None of others."""
    if isinstance(nest, CompositeBase):
        parts, (names, _) = take_apart(nest)
        prefix = "" if name is None else f"{name}_"
        for part, of_part in zip(parts, names):
            yield from _names_of_parts(part, prefix + of_part)
    elif isinstance(nest, dict):
        for key in sorted(nest):
            yield from _names_of_parts(nest[key])
    elif isinstance(nest, (list, tuple)):
        for x in nest:
            yield from _names_of_parts(x)
    else:
        yield name


def _outputs_by_name(outputs):
    """Outputs with their keys, or the names that TensorFlow gives them."""
    flat = tree.flatten(outputs)
    names = [f"output_{i}" for i in range(len(flat))]
    if isinstance(outputs, dict) and len(outputs) == len(flat):
        names = tree.flatten({name: name for name in outputs})
    parts = _names_of_parts(outputs)
    names = [part or name for part, name in zip(parts, names)]
    return zip(names, flat)


def _to_pairs(tensors, what):
    """Plain tensors by name: the values, and the masks beside them.

    Args:
        tensors: Pairs of a name and a tensor.
        what: What they are, for the error where two get one name.
    """
    named = {}
    for name, x in tensors:
        parts = {name: x}
        if has_mask(x):
            parts = {name: values_spec(x), f"{name}_mask": mask_or_spec(x)}
        for part in parts.keys() & named.keys():
            raise ValueError(
                f"The model would be exported with two {what} '{part}': the "
                "mask of 'x' is called 'x_mask'. Give one of them another name."
            )
        named |= parts
    return named


def for_export(
    model: Model,
    input_signature: Nest,
    is_named: bool,
    is_one_graph: bool = False,
) -> tuple[Model, Nest]:
    """What to export of a model: the model itself, where nothing is masked.

    Args:
        model: The model.
        input_signature: Its positional inputs, as its user describes them, or
            None.
        is_named: Whether the outputs may have names.
        is_one_graph: Whether these have to differ from those of the inputs;
            `x` goes out as `x_out` then.

    Returns:
        A model and its `input_signature`.
    """
    signature = input_signature
    if signature is None:
        signature = get_input_signature(model)
    flat = tree.flatten(signature)
    flat = [_symbol(x, f"input_{i}") for i, x in enumerate(flat)]
    symbols = tree.pack_sequence_as(signature, flat)
    if _is_apart(symbols):
        around = InPairs(model, symbols, is_named, is_one_graph)
        return around, around.input_signature()
    if _gives_parts(model, symbols):
        return InPairs(model, symbols, is_named, is_one_graph), signature
    return model, input_signature


def with_shapes(model: Model, kwargs: Named) -> Named:
    """The arguments of an export from JAX, with the shapes of pairs."""
    if not isinstance(model, InPairs) or not model.has_named_inputs:
        return kwargs
    shapes = {"polymorphic_shapes": model.polymorphic_shapes()}
    given = kwargs.get("jax2tf_kwargs") or {}
    return {**kwargs, "jax2tf_kwargs": {**shapes, **given}}


def _symbol(spec, name):
    """A symbolic tensor of whatever may describe an input.

    Args:
        spec: The description.
        name: What to call it if it has no name.
    """
    is_whole = isinstance(spec, KerasTensor) and has_mask(spec)
    # TensorFlow need not be there to ask whether it is one of its own.
    if not is_whole and type(spec).__name__ != "TensorSpec":
        spec = make_input_spec(spec)
    mask = None
    if has_mask(spec):
        mask = KerasTensor(mask_or_spec(spec).shape, "bool")
    return KerasTensor(
        tuple(spec.shape),
        backend.standardize_dtype(spec.dtype),
        name=getattr(spec, "name", None) or name,
        mask=mask,
    )


def _gives_parts(model, symbols):
    graph = getattr(model, "_functional", None) or model
    outputs = getattr(graph, "_outputs_struct", None)
    if outputs is None:
        outputs = backend.compute_output_spec(model, *symbols)
    return _is_apart(outputs)
