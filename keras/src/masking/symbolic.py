"""The symbolic side: specs of masked results, found by tracing the rules."""

from keras.src import backend
from keras.src import tree
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import dispatch
from keras.src.masking.errors import has_mask
from keras.src.masking.masks import wrap


def any_masked(args, kwargs):
    """Whether a masked tensor, eager or symbolic, is among the arguments."""
    items = (*args, *kwargs.values())
    return any(map(has_mask, items)) or any(
        has_mask(leaf)
        for x in items
        if tree.is_nested(x)
        for leaf in tree.flatten(x)
    )


def values_spec(x):
    """The spec of the values of `x`; what has no mask, as it is."""
    if isinstance(x, MaskedTensorBase):
        return x.values
    if has_mask(x):
        # With a history: some operations find their spec by calling others.
        return KerasTensor(x.shape, x.dtype)
    return x


def output_spec(op, args, kwargs, fn=None):
    """Spec of a call with masked operands.

    The values come from the operation's own `compute_output_spec`, the masks
    from tracing what a call does.

    Args:
        op: Operation or layer.
        args: Its operands.
        kwargs: Its operands by name.
        fn: What to trace. Defaults to the dispatch of the operation.

    Returns:
        The structure of `KerasTensor` that the call returns.
    """
    if fn is not None:
        return _traced_spec(op, fn, args, kwargs)

    def run(*args, **kwargs):
        return dispatch.call_of(op, args, kwargs).apply_rule()

    try:
        return _traced_spec(op, run, args, kwargs)
    except Exception as error:
        # With the sizes of the graph: tracing makes up some.
        explained = dispatch.call_of(op, args, kwargs).explained(error)
        if explained is error:
            raise
        raise explained from None


def _traced_spec(op, fn, args, kwargs):
    plain_args, plain_kwargs = tree.map_structure(values_spec, (args, kwargs))
    specs = op.compute_output_spec(*plain_args, **plain_kwargs)
    traced = backend.compute_output_spec(fn, *args, **kwargs)
    # A list on one side may be a tuple on the other.
    pairs = zip(tree.flatten(specs), tree.flatten(traced))
    return tree.pack_sequence_as(specs, [with_mask_of(*p) for p in pairs])


def with_mask_of(spec, traced):
    """The spec of the values, with the mask that tracing found."""
    mask = getattr(traced, "_mask_spec", None)
    if mask is None or not isinstance(spec, KerasTensor):
        return spec
    # Tracing makes up a number for an unknown size, and may compute with it.
    own = KerasTensor(spec.shape[: len(mask.shape)], "bool")
    return masked_spec(spec, own)


def masked_spec(spec, mask):
    """A symbolic tensor like `spec` with this mask spec."""
    return KerasTensor(
        spec.shape,
        spec.dtype,
        sparse=spec.sparse,
        record_history=spec.record_history,
        mask=KerasTensor(mask.shape, "bool", record_history=False),
    )


def carry_masks(compute_output_spec, fn, args, kwargs):
    """Runs a backend's `compute_output_spec` on arguments with masks.

    A backend knows how to make a place holder of a symbolic tensor and a spec
    of a tensor. Masks are passed beside the values, as tensors of their own.

    Args:
        compute_output_spec: The backend's, which knows no masks.
        fn: Function to trace.
        args: Its arguments, with masked `KerasTensor`s among them.
        kwargs: Its arguments by name.

    Returns:
        The structure that `fn` returns, with `KerasTensor`s for tensors and
        masked ones for masked tensors.
    """
    leaves = tree.flatten((args, kwargs))
    places = [i for i, x in enumerate(leaves) if isinstance(x, KerasTensor)]
    symbols = [leaves[i] for i in places]
    found = {}

    # Only symbolic tensors are passed. JAX would take the rest, the slices of
    # an index among them, for arrays to trace.
    def run(values, masks):
        masks = iter(masks)
        flat = list(leaves)
        for i, x, value in zip(places, symbols, values):
            # NumPy runs the code on what memory holds, which is no place to
            # look up. Where nothing is valid, rules put harmless numbers.
            mask = None
            if "int" in x.dtype:
                value = backend.numpy.zeros_like(value)
            if has_mask(x):
                mask = backend.numpy.zeros_like(next(masks))
            flat[i] = wrap(value, mask)
        args_and_kwargs = tree.pack_sequence_as((args, kwargs), flat)
        outputs = fn(*args_and_kwargs[0], **args_and_kwargs[1])
        flat = tree.flatten(outputs)
        found["structure"] = tree.map_structure(lambda _: None, outputs)
        found["masked"] = [isinstance(x, MaskedTensorBase) for x in flat]
        # Not all backends take None among the outputs.
        found["none"] = [x is None for x in flat]
        values = [dispatch.values_of(x) for x in flat if x is not None]
        return values, [x.mask for x in flat if has_mask(x)]

    specs, mask_specs = compute_output_spec(
        run,
        [values_spec(x) for x in symbols],
        [x._mask_spec for x in symbols if has_mask(x)],
    )
    specs, mask_specs = iter(specs), iter(mask_specs)
    flat = []
    for is_none, is_masked in zip(found["none"], found["masked"]):
        spec = None if is_none else next(specs)
        flat.append(masked_spec(spec, next(mask_specs)) if is_masked else spec)
    return tree.pack_sequence_as(found["structure"], flat)


def like_input(x, declared):
    """A tensor for an input of a graph: all valid if declared masked."""
    if x is None or has_mask(x) or not has_mask(declared):
        return x
    ndim = len(declared._mask_spec.shape)
    if isinstance(x, KerasTensor):
        return masked_spec(x, KerasTensor(x.shape[:ndim], "bool"))
    shape = backend.shape(x)[:ndim]
    return backend.MaskedTensor._wrap(x, backend.numpy.ones(shape, "bool"))


def same_spec(x, y):
    """Whether two symbolic tensors agree in shape and in their mask's."""
    return x.shape == y.shape and mask_shape(x) == mask_shape(y)


def mask_shape(x):
    return None if x._mask_spec is None else x._mask_spec.shape


def copy_spec(x):
    """A new symbolic tensor of this spec, part of no graph."""
    spec = KerasTensor(x.shape, x.dtype)
    return spec if x._mask_spec is None else masked_spec(spec, x._mask_spec)
