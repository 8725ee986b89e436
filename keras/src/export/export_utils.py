"""A description of a masked input keeps its mask, which no format can hold."""

from keras.src import layers
from keras.src import tree
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.composite import mask_or_spec
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.masking.refusals import refuse_masked
from patchset.markers import keeps
from patchset.markers import new


@keeps("_plain_input_signature")
def get_input_signature(model):
    """The positional inputs of a model, masked where they are or were.

    A model that does not declare masked inputs has them if it was called with
    masked tensors, and composite ones if it was first called with these.

    Args:
        model: A built model.

    Returns:
        List of structures of `keras.InputSpec`, and of symbolic tensors for
        masked inputs.
    """
    of_call = vars(model).get("_composites_of_call")
    if of_call is not None and getattr(model, "_functional", None) is None:
        of_call = list(of_call.values())
        flat = map(_open_spec, tree.flatten(of_call))
        return tree.pack_sequence_as(of_call, list(flat))
    signature = _plain_input_signature(model)
    flat, ndims = tree.flatten(signature), vars(model).get("_masks_of_call")
    if not ndims or any(map(has_mask, flat)):
        return signature
    if len(ndims) != len(flat):
        raise ValueError(
            f"Model '{model.name}' was called with masked tensors, and which "
            "of its inputs they are is not known. Describe them:\n"
            "    model.export(path, input_signature=[\n"
            "        keras.Input((None, 8), mask_shape=(None,)), ...])"
        )
    flat = [
        _masked_spec(x, ndim, x.name or f"input_{i}") if ndim else x
        for i, (x, ndim) in enumerate(zip(flat, ndims))
    ]
    return tree.pack_sequence_as(signature, flat)


@new
def _open_spec(x):
    """What describes an input like this one in batches of any size."""
    shape = (None, *x.shape[1:]) if x.shape else ()
    if not has_mask(x):
        return layers.InputSpec(shape=shape, dtype=x.dtype)
    open_ = KerasTensor(shape, x.dtype)
    return _masked_spec(open_, len(mask_or_spec(x).shape), x.name)


@new
def _masked_spec(x, ndim, name):
    """A symbolic tensor like `x` with a mask over some leading axes."""
    mask = KerasTensor(x.shape[:ndim], "bool")
    return KerasTensor(x.shape, x.dtype, name=name, mask=mask)


@keeps("_make_plain_input_spec")
def make_input_spec(x):
    if not has_mask(x):
        return _make_plain_input_spec(x)
    plain = x if isinstance(x, KerasTensor) else x.values
    plain = _make_plain_input_spec(plain)
    return _masked_spec(plain, len(mask_or_spec(x).shape), plain.name)


@keeps("_make_plain_tf_tensor_spec")
def make_tf_tensor_spec(x, *args, **kwargs):
    """Makes a `tf.TensorSpec` of what describes an input.

    Args:
        x: `tf.TensorSpec`, `keras.InputSpec`, symbolic or other tensor.
        *args: As upstream takes them.
        **kwargs: The same.

    Raises:
        UnsupportedMaskError: If `x` is masked.
    """
    _refuse_masked(x)
    return _make_plain_tf_tensor_spec(x, *args, **kwargs)


@keeps("_convert_plain_spec_to_tensor")
def convert_spec_to_tensor(spec, *args, **kwargs):
    _refuse_masked(spec)
    return _convert_plain_spec_to_tensor(spec, *args, **kwargs)


@new
def _refuse_masked(x):
    refuse_masked(
        "ExportArchive",
        x,
        "What is exported takes plain tensors.",
        "export the model itself by `model.export(path)`, which makes two "
        "inputs of a masked one, or do so by hand:\n"
        "    def serve(x, x_mask):\n"
        "        y = model(keras.MaskedTensor(x, x_mask))\n"
        "        return {'y': y.values, 'y_mask': y.mask}",
    )
