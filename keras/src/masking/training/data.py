"""Masked data on its way into a model.

An adapter slices, shuffles and batches plain arrays. So masked ones are taken
apart before, and put together again batch by batch. The mask of a target is
data: there it becomes a sample weight.
"""

import collections
import contextlib
import contextvars
import functools
import inspect
import sys
import types
import typing

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src.backend.common import composite
from keras.src.backend.common import foreign
from keras.src.backend.common import hooks
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.kinds import Mask
from keras.src.backend.common.kinds import Model
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Tensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.ragged import is_ragged
from keras.src.composite import fields
from keras.src.masking import masks
from keras.src.masking import packing
from keras.src.masking.calls import check_text
from keras.src.masking.calls import tensor_of
from keras.src.masking.parts import Parts
from keras.src.masking.training import ragged
from keras.src.masking.training import scoring
from keras.src.trainers.data_adapters import data_adapter_utils

hooks.fills("data", sys.modules[__name__])


# The parts of a `numpy.ma` array, whose mask is True where nothing is valid.
HiddenParts = collections.namedtuple("HiddenParts", ["values", "hidden"])
# Parts of a packed tensor that is a batch; and of one of which rows are taken,
# whose flat steps are kept aside.
PackedParts = collections.namedtuple(
    "PackedParts", ["flat", "mask", "index", "there", "times"]
)
PackedRows = collections.namedtuple("PackedRows", ["mask", "starts"])
# What is known of a target, whose values are a part of the data themselves. Of
# a packed one it is `PackedParts` or `PackedRows`, and a number stands there.
Valid = collections.namedtuple("Valid", ["mask"])
Hidden = collections.namedtuple("Hidden", ["mask"])
# The inputs, and the masks of those targets that have one, by their place.
_Inputs = collections.namedtuple("_Inputs", ["x", "targets"])
# The names of a model's inputs, if it has several, and of its outputs, if they
# go by name.
Names = collections.namedtuple("Names", ["inputs", "outputs"])
_NO_NAMES = Names((), ())
# Those of the model that is being given data: adapters that are made meanwhile
# know the batches alone.
_names = contextvars.ContextVar("_names", default=_NO_NAMES)


def of_foreign(structure: Nest, always: bool = False) -> Nest:
    """The structure with arrays of NumPy for those of other libraries.

    Args:
        structure: Structure of arrays, or of anything else.
        always: Whether all that could hold missing entries is masked, as in
            one of many batches, which must not differ in type.
    """
    if not any(map(foreign.is_foreign, tree.flatten(structure))):
        return structure

    def array_of(x):
        if not foreign.is_foreign(x):
            return x
        array = foreign.as_numpy(x, always)
        if isinstance(array, dict):
            return _with_text(array)
        array = _text(array)
        if foreign.is_column(x):
            # As upstream has it of those without missing entries.
            array = array[:, None]
        return array

    return tree.map_structure(array_of, structure)


def names_of(model: Model) -> Names:
    """The `Names` of a model, by which columns of tables are taken."""
    inputs = getattr(model, "_inputs_struct", None)
    outputs = getattr(model, "_outputs_struct", None)
    names = tuple(inputs) if isinstance(inputs, dict) else ()
    if not names and len(tree.flatten(inputs)) > 1:
        names = tuple(x.name for x in tree.flatten(inputs))
    return Names(names, tuple(outputs) if isinstance(outputs, dict) else ())


@contextlib.contextmanager
def named(names: Names) -> typing.Iterator[None]:
    """Within it, adapters are made for a model with these `Names`."""
    token = _names.set(names)
    try:
        yield
    finally:
        _names.reset(token)


def by_name(names: Names, data: Nest, always: bool = False) -> Nest:
    """Inputs and targets, with columns by name for tables where names go.

    Args:
        names: The `Names` of a model.
        data: Inputs, or a tuple of them, the targets and the rest.
        always: As in `of_foreign`.
    """
    if type(data) not in (list, tuple):
        return inputs_by_name(names, data, always)
    x, *rest = data
    if rest:
        rest[0] = targets_by_name(names, rest[0], always)
    return type(data)((inputs_by_name(names, x, always), *rest))


def inputs_by_name(names: Names, x: Nest, always: bool = False) -> Nest:
    """Inputs, with columns by name for a table if a model has several.

    Raises:
        ValueError: If the table lacks a column.
    """
    if not names.inputs or not foreign.is_known(type(x)):
        return x
    columns = foreign.as_columns(x, always)
    chosen = _chosen(columns, names.inputs)
    if chosen is not None:
        return _with_text(chosen)
    if len(names.inputs) == 1 or not isinstance(columns, dict):
        return x
    lacking = [name for name in names.inputs if name not in columns]
    raise ValueError(
        f"The model has the inputs {list(names.inputs)}, and no columns are "
        f"named {lacking}. Received {type(x).__name__} with the columns "
        f"{list(columns)}. Rename columns, or pass a dictionary from inputs to "
        "columns."
    )


def targets_by_name(names: Names, y: Nest, always: bool = False) -> Nest:
    """Targets, with columns by name for a table that has one of each output."""
    if not names.outputs or not foreign.is_known(type(y)):
        return y
    columns = _chosen(foreign.as_columns(y, always), names.outputs)
    return y if columns is None else _with_text(columns)


def _chosen(columns, names):
    """The columns of these names, None if it has not all of them."""
    if not isinstance(columns, dict) or not set(names) <= set(columns):
        return None
    return {name: columns[name] for name in names}


def _with_text(columns):
    if not isinstance(columns, dict):
        return columns
    return {name: _text(one, name) for name, one in columns.items()}


def _text(array, name=None):
    """Strings as tensors, which adapters slice; other arrays as they are."""
    if array.dtype.kind not in "OSU":
        return array
    check_text(array, name)
    array = tensor_of(array)
    return array if has_mask(array) else backend.convert_to_tensor(array)


def is_masked_array(x: typing.Any) -> bool:
    """Whether this is a masked tensor or a `numpy.ma` array."""
    return has_mask(x) or isinstance(x, np.ma.MaskedArray)


def any_masked_array(*data: Nest) -> bool:
    """Whether there is a masked tensor or a `numpy.ma` array in the data."""
    return any(map(is_masked_array, tree.flatten(data)))


def is_to_take_apart(*data: Nest) -> bool:
    """Whether an adapter cannot slice these data as they are."""
    return any_masked_array(data) or any_composite(data)


def to_arrays(x: Nest, y: Nest, sample_weight: Nest) -> tuple:
    """Data in plain arrays, which an adapter can slice.

    Args:
        x: Structure of inputs.
        y: Structure of targets, or None.
        sample_weight: Structure of weights, or None.

    Returns:
        The three. The inputs hold the masks of inputs and targets.
    """
    x, y, sample_weight = map(fields.apart, (x, y, sample_weight))
    sample_weight = fields.weights_spread(y, sample_weight)
    leaves = tree.flatten(y)
    targets = {
        str(i): _target_mask(one)
        for i, one in enumerate(leaves)
        if is_masked_array(one) or isinstance(one, _Packed)
    }
    leaves = [
        targets[str(i)].mask[:, 0]
        if packing.is_packed(one) or isinstance(one, _Packed)
        else scoring.plain(one)[0]
        for i, one in enumerate(leaves)
    ]
    return (
        _Inputs(tree.map_structure(_parts, x), targets),
        tree.pack_sequence_as(y, leaves),
        scoring.weights(sample_weight),
    )


def rows_apart(x: Nest, y: Nest = None) -> tuple[Nest, Nest, list]:
    """Data to be sliced by rows, with the flat steps of packed ones aside.

    Args:
        x: Structure of inputs.
        y: Structure of targets.

    Returns:
        The structures, with what `to_arrays` makes `PackedRows` of for packed
        tensors; and the flat steps of each as an array, in their order.
    """
    flats = []

    def one(x):
        if not packing.is_packed(x):
            return x
        flats.append(backend.convert_to_numpy(x.flat))
        mask = backend.convert_to_numpy(x.mask)
        return _Packed(PackedRows(mask, packing.starts(x)))

    x, y = (tree.map_structure(one, nest) for nest in (x, y))
    return x, y, flats


class _Packed:
    """A leaf that stands for a packed tensor, until it is taken apart."""

    def __init__(self, rows):
        self.rows = rows


def from_arrays(data: Nest, flats: typing.Sequence = ()) -> Nest:
    """What a step takes, of a batch of what `to_arrays` gave.

    Args:
        data: The inputs, or a tuple of them, the targets and the weights.
        flats: Flat steps that `rows_apart` put aside.

    Returns:
        The same with masked tensors for inputs, and targets whose masks are
        in the weights.
    """
    data = data if type(data) in (list, tuple) else (data,)
    x, y, sample_weight = data_adapter_utils.unpack_x_y_sample_weight(data)
    left = iter(flats)
    inputs = _all_whole(x.x, left)
    if x.targets:
        targets = tree.flatten(y)
        masks_of = [None] * len(targets)
        for place in sorted(map(int, x.targets)):
            target = x.targets[str(place)]
            masks_of[place] = _valid(target)
            if isinstance(target, (PackedParts, PackedRows)):
                targets[place] = _all_whole(target, left)
        y = tree.pack_sequence_as(y, targets)
        y, sample_weight = _weigh(y, masks_of, sample_weight)
    return data_adapter_utils.pack_x_y_sample_weight(
        fields.together(inputs),
        fields.together(y),
        fields.together(sample_weight),
    )


def batch_apart(
    batch: Nest, class_weight: dict | None = None, names: Names = _NO_NAMES
) -> Nest:
    """A batch as it comes from a source of batches, in plain arrays.

    Args:
        batch: Inputs, or a tuple of them, the targets and the weights.
        class_weight: Dictionary from classes to weights, or None.
        names: The `Names` of the model.

    Returns:
        The batch itself if nothing in it is masked; else a tuple for
        `batch_together`.
    """
    batch = by_name(names, batch, always=True)
    batch = of_foreign(of_ragged(batch), always=True)
    if not is_to_take_apart(batch):
        return batch
    x, y, weights = data_adapter_utils.unpack_x_y_sample_weight(batch)
    *whole, _ = whole_batch(x, y, weights, class_weight)
    parts = to_arrays(*whole)
    return tuple(one for one in parts if one is not None)


def for_model(function: typing.Callable) -> typing.Callable:
    """`batch_apart` or `batch_together`, for the model that is given data."""
    names = _names.get()
    if names == _NO_NAMES:
        return function
    return functools.partial(function, names=names)


def batches_apart() -> typing.Callable:
    """`batch_apart` for the batches of one source.

    A pipeline of TensorFlow holds elements of one type.
    """
    one_kind = fields.OneKind(_ONE_TYPE)
    apart = for_model(batch_apart)
    if backend.backend() != "tensorflow":
        return apart
    return lambda *args: one_kind(apart(*args))


_ONE_TYPE = (
    "TensorFlow goes through batches of one type, of which static fields are a "
    "part, and which parts are there. Annotate what changes with "
    "`keras.KerasTensor`, and give parts that may be missing in each batch; or "
    "pass one batch after another to `train_on_batch`."
)


def batch_together(batch: Nest, names: Names = _NO_NAMES) -> Nest:
    """The batch that a step takes, of one that is masked or apart."""
    if is_apart(batch):
        return from_arrays(batch)
    apart = batch_apart(batch, names=names)
    if apart is batch or not is_apart(apart):
        return apart
    return from_arrays(apart)


def is_apart(batch: Nest) -> bool:
    """Whether a batch is what `batch_apart` gives of one that is masked."""
    is_tuple = type(batch) in (list, tuple)
    return isinstance(batch[0] if is_tuple and batch else batch, _Inputs)


def dataset_together(dataset: typing.Any) -> typing.Any:
    """A `tf.data.Dataset` of batches, with masked ones as steps take them."""
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or not isinstance(spec[0], _Inputs):
        return dataset
    return dataset.map(lambda *batch: from_arrays(batch))


def stacked(stack: typing.Callable, batches: typing.Sequence) -> typing.Any:
    """Rows, or one leaf of several batches, along a new first axis.

    Args:
        stack: Function of a sequence of arrays.
        batches: Arrays; composite tensors of one type, which are stacked part
            by part; or masked tensors, in all places or in none.

    Raises:
        TypeError: If types, static fields, the parts that are there, or shapes
            of masked tensors differ.
        ValueError: If they are packed, since capacities differ, or only some
            are masked.
    """
    first = batches[0]
    if any(isinstance(x, CompositeBase) for x in batches):
        _check_one_type(batches)
        parts, descriptions = zip(*map(composite.take_apart, batches))
        parts = [stacked(stack, part) for part in zip(*parts)]
        return composite.put_together(type(first), descriptions[0], parts)
    if not any(map(has_mask, batches)):
        return stack(batches)
    if any(map(packing.is_packed, batches)) or not all(map(has_mask, batches)):
        raise ValueError(
            "These batches do not stack: some are packed, or not all masked. "
            "Go through them one by one."
        )
    if len({(tuple(x.shape), tuple(x.mask.shape)) for x in batches}) > 1:
        other = next(
            x
            for x in batches
            if (x.shape, x.mask.shape) != (first.shape, first.mask.shape)
        )
        raise TypeError(
            "Masked tensors make a batch where their values agree in shape, "
            f"and their masks. Received {composite.describe(first)}, and "
            f"{composite.describe(other)}. If lengths differ, let the rows be "
            "arrays, and give a `DataLoader` of PyTorch a `collate_fn=`, or "
            "`.batch()` of grain a `batch_fn=`, that makes the batch of a list "
            "of rows: `lambda rows: keras.MaskedTensor.from_ragged(rows)`."
        )
    return backend.MaskedTensor._wrap(
        stack([x.values for x in batches]), stack([x.mask for x in batches])
    )


def _check_one_type(batches):
    first = batches[0]
    for x in batches:
        if fields.difference(first, x) is not None:
            raise TypeError(
                "A batch takes composite tensors of one type whose static "
                "fields agree, and which have the same parts. Received: "
                f"{first!r} and {x!r}."
            )


def of_rows(
    function: typing.Callable, args: tuple, kwargs: dict[str, typing.Any]
) -> typing.Any:
    """The batch of masked or composite rows that a loader asks NumPy for.

    Grain stacks what it takes for leaves by `np.stack`, and makes a batch of
    one row by `np.expand_dims`.

    Returns:
        A masked or composite tensor; None if it is another call.
    """
    if kwargs.get("axis", 0) != 0 or set(kwargs) - {"axis"}:
        return None
    if function is np.stack and len(args) == 1:
        return stacked(ops.stack, list(args[0]))
    if function is np.expand_dims and args[1:] in ((), (0,)):
        return stacked(ops.stack, [args[0]])
    return None


def teach_pytorch() -> None:
    """Lets a `DataLoader` of PyTorch collate masked and composite rows."""
    # Late: PyTorch may be missing.
    from torch.utils.data._utils import collate

    def collated(rows, *, collate_fn_map=None):
        stack = ops.stack
        if backend.backend() == "torch":
            # In a worker process it stacks in memory that is shared.
            stack = functools.partial(
                collate.collate, collate_fn_map=collate_fn_map
            )
        return stacked(stack, rows)

    for type_ in (CompositeBase, MaskedTensorBase):
        collate.default_collate_fn_map.setdefault(type_, collated)


if backend.backend() == "torch":
    teach_pytorch()


class Batches:
    """What a function makes of the batches of a source, time and again."""

    def __init__(self, function: typing.Callable, source: typing.Any):
        self._function = function
        self._source = source

    def __iter__(self):
        return map(self._function, self._source)

    def __len__(self):
        return len(self._source)


def of_ragged(
    structure: Nest, is_taken: typing.Callable = ragged.is_foreign
) -> Nest:
    """The structure, with masked tensors for ragged ones.

    Args:
        structure: Structure of tensors and of anything else.
        is_taken: Function of a leaf: whether it is a ragged one to take.
    """
    if not any(map(is_taken, tree.flatten(structure))):
        return structure

    def masked(x):
        return backend.MaskedTensor.from_ragged(x) if is_taken(x) else x

    return tree.map_structure(masked, structure)


def of_ragged_for(model: Model, source: typing.Any) -> typing.Any:
    """Data for a model, with masked tensors for ragged ones.

    On TensorFlow, ragged tensors stay what they are for a model that may be
    made for them.

    Args:
        model: The model.
        source: Structure of arrays, or a `tf.data.Dataset` or a generator of
            batches of them. Any other source stays as it is.
    """
    if not ragged.takes_no_ragged(model):
        return of_ragged(source)
    taken = functools.partial(of_ragged, is_taken=is_ragged)
    if isinstance(source, types.GeneratorType):
        return (taken(batch) for batch in source)
    if backend.SUPPORTS_RAGGED_TENSORS and ragged.is_ragged_dataset(source):
        return source.map(lambda *batch: taken(batch))
    return taken(source)


def batch_for(model: Model, x: Nest, y: Nest = None) -> tuple:
    """Inputs and targets of one batch, without ragged ones, by their names."""
    x, y = by_name(names_of(model), (x, y), always=True)
    return of_ragged_for(model, (x, y))


def takes_ragged(method: typing.Callable) -> typing.Callable:
    """Decorator: a model's method that takes ragged and foreign data.

    What is missing in a column is looked for before it is cut in pieces.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    def with_masked(self, *args, **kwargs):
        bound = signature.bind(self, *args, **kwargs)
        given, names = bound.arguments, names_of(self)
        if "x" in given:
            given["x"] = inputs_by_name(names, given["x"])
        if "y" in given:
            given["y"] = targets_by_name(names, given["y"])
        if type(given.get("validation_data")) in (list, tuple):
            given["validation_data"] = by_name(names, given["validation_data"])
        for name in {"x", "y", "sample_weight", "validation_data"} & set(given):
            given[name] = of_ragged_for(self, of_foreign(given[name]))
        with named(names):
            return method(*bound.args, **bound.kwargs)

    return with_masked


def whole_batch(
    x: Nest,
    y: Nest = None,
    sample_weight: Nest = None,
    class_weight: dict | None = None,
) -> tuple:
    """What a step takes, of a batch as it is passed to `train_on_batch`.

    Args:
        x: Structure of inputs.
        y: Structure of targets, or None.
        sample_weight: Weights in the structure of `y`; one array for all
            targets; or None.
        class_weight: Dictionary from classes to weights, or None.

    Returns:
        The four, with masked tensors for inputs and, where anything is masked,
        the masks of targets and the weights of classes in the weights.
    """
    x, y, sample_weight = of_foreign((x, y, sample_weight), always=True)
    if not is_to_take_apart(x, y, sample_weight):
        return x, y, sample_weight, class_weight
    if class_weight is not None:
        sample_weight = weights_of_classes(y, sample_weight, class_weight)
    # A model takes tensors, or arrays, but not both.
    x = tree.map_structure(_tensor_of_array, x)
    whole = from_arrays(to_arrays(x, y, sample_weight))
    return *data_adapter_utils.unpack_x_y_sample_weight(whole), None


def weights_of_classes(
    y: Nest, sample_weight: Nest, class_weight: dict
) -> Nest:
    """The weights of targets by their classes.

    Where a target is masked, its mask tells what is a class: each entry that
    may be masked by itself is one, and has a weight. A last axis beyond those
    of the mask has a number for each class.

    Args:
        y: Target, whose masked entries are taken to be of class 0.
        sample_weight: Must be None.
        class_weight: Dictionary from classes to weights.

    Raises:
        ValueError: If there are weights besides, or several targets, or if it
            is not clear what is a class.
    """
    if sample_weight is not None:
        raise ValueError(
            "`sample_weight` and `class_weight` cannot be used together. "
            "Multiply the weights of the classes into `sample_weight`."
        )
    if tree.is_nested(y):
        raise ValueError(
            "`class_weight` is only supported for models with a single "
            "output. Pass a `sample_weight` for each output."
        )
    if not is_masked_array(y):
        return data_adapter_utils.class_weight_to_sample_weights(
            y, class_weight
        )
    return _weights_by_table(_classes(y), class_weight)


def _classes(y):
    """The classes that a masked target has, one for each entry of the mask."""
    mask = _target_mask(y).mask
    values = ops.convert_to_tensor(scoring.weights(y))
    ndim, covered = len(values.shape), len(mask.shape)
    if covered == ndim:
        return values
    if values.shape[-1] == 1:
        return ops.squeeze(values, -1)
    if not backend.is_float_dtype(values.dtype):
        raise ValueError(
            f"`class_weight` for a target of shape {tuple(values.shape)} and "
            f"dtype {backend.standardize_dtype(values.dtype)}, whose mask has "
            f"the shape {tuple(mask.shape)}: are these numbers of classes, or "
            "one number for each class? For numbers of classes, give the "
            "target a mask of its full shape, and for one number for each "
            "class a floating point dtype. Or pass a `sample_weight`."
        )
    return ops.argmax(values, -1)


def _weights_by_table(classes, class_weight):
    """The weight of each class, 1 for those that have none."""
    least, most = min(class_weight, default=0), max(class_weight, default=0)
    # Any other class is at one of the ends.
    known = range(least - 1, most + 2)
    table = [class_weight.get(c, 1.0) for c in known]
    if backend.is_float_dtype(classes.dtype):
        classes = ops.round(classes)
    places = ops.cast(classes, "int32") - known.start
    return ops.take(
        ops.convert_to_tensor(table, backend.floatx()),
        ops.clip(places, 0, len(table) - 1),
    )


def _weigh(y, masks_of, sample_weight):
    """Targets that are 0 where a mask is False, and weights that are, too."""
    targets, given = tree.flatten(y), tree.flatten(sample_weight)
    if sample_weight is None or len(given) != len(targets):
        given = [sample_weight] * len(targets)
    weights = []
    for target, mask, weight in zip(targets, masks_of, given, strict=True):
        if mask is not None:
            weight = times_mask(weight, mask)
        elif weight is None:
            weight = ops.ones((ops.shape(target)[0],), backend.floatx())
        weights.append(weight)
    targets = [
        target
        if mask is None or packing.is_packed(target)
        else masks.fill(ops.convert_to_tensor(target), mask, 0)
        for target, mask in zip(targets, masks_of)
    ]
    return (
        tree.pack_sequence_as(y, targets),
        tree.pack_sequence_as(y, weights),
    )


def times_mask(weight: Tensor, mask: Mask) -> Tensor:
    """The weights with 0 where the mask is False, over all axes of either.

    Args:
        weight: Weights over leading axes of a target, or None for 1.
        mask: Mask over leading axes of the target.
    """
    mask = ops.cast(mask, backend.floatx())
    if weight is None:
        return mask
    weight = ops.convert_to_tensor(weight)
    ndim = max(len(weight.shape), len(mask.shape))
    mask = ops.cast(masks.expand(mask, ndim), weight.dtype)
    return ops.multiply(masks.expand(weight, ndim), mask)


def _tensor_of_array(x):
    plain = isinstance(x, np.ndarray) and not isinstance(x, np.ma.MaskedArray)
    return ops.convert_to_tensor(x) if plain else x


def _all_whole(structure, flats):
    def whole(x):
        if isinstance(x, PackedRows):
            return packing.of_rows(next(flats), *x)
        if isinstance(x, PackedParts):
            return packing.of_parts(*x)
        return _whole(x) if isinstance(x, (Parts, HiddenParts)) else None

    return tree.traverse(whole, structure)


def _whole(parts):
    values, mask = map(ops.convert_to_tensor, parts)
    if isinstance(parts, HiddenParts):
        return backend.MaskedTensor(values, ops.logical_not(mask))
    # Of a masked tensor, which hides nothing that is not finite.
    return backend.MaskedTensor._wrap(values, mask)


def _parts(x):
    if isinstance(x, np.ma.MaskedArray):
        hidden = x.mask
        if hidden is np.ma.nomask:
            # A view of one number.
            hidden = np.broadcast_to(np.False_, x.shape)
        return HiddenParts(x.data, hidden)
    if isinstance(x, _Packed):
        return x.rows
    if packing.is_packed(x):
        # Of which the number alone is used. A number itself would be data.
        times = None if x.limit is None else np.zeros(x.limit, "bool")
        return PackedParts(x.flat, x.mask, x.index, x.there, times)
    return Parts(x.values, x.mask) if has_mask(x) else x


def _target_mask(x):
    """The mask of a target, over the axes that it has by its type.

    That of a `numpy.ma` array has all of them. What becomes of it, a loss
    tells: only there it is known which axes have one.
    """
    if isinstance(x, np.ma.MaskedArray):
        return Hidden(_parts(x).hidden)
    if isinstance(x, _Packed) or packing.is_packed(x):
        return _parts(x)
    return Valid(x.mask)


def _valid(target_mask):
    if isinstance(target_mask, Hidden):
        return ops.logical_not(target_mask.mask)
    return target_mask.mask
