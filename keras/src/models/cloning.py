"""Clones of models have masked inputs where the models have."""

from keras.src import tree
from keras.src.backend.common.composite import has_mask
from keras.src.layers import Input
from keras.src.layers import InputLayer
from patchset.markers import keeps
from patchset.markers import new


@keeps("_clone_plain_sequential_model")
def _clone_sequential_model(model, clone_function, input_tensors=None):
    first = model._layers[0] if model._layers else None
    if input_tensors is None and isinstance(first, InputLayer):
        if first.mask_shape is not None:
            input_tensors = _input_like(first.output)
    return _clone_plain_sequential_model(model, clone_function, input_tensors)


@keeps("_clone_plain_functional_model")
def _clone_functional_model(
    model, clone_function, input_tensors=None, call_function=None
):
    if input_tensors is None:
        input_tensors = tree.map_structure(_input_like, model.input)
    for x, declared in zip(tree.flatten(input_tensors), model.inputs):
        if has_mask(declared) and not has_mask(x):
            raise ValueError(
                f"The input '{declared.name}' of model '{model.name}' is "
                "masked, so what `input_tensors` has for it must be: "
                "`keras.Input(shape, mask_shape=...)`. Received: "
                f"input_tensors={input_tensors}"
            )
    return _clone_plain_functional_model(
        model, clone_function, input_tensors, call_function
    )


@new
def _input_like(x):
    mask_shape = x._mask_spec.shape[1:] if has_mask(x) else None
    return Input(
        batch_shape=x.shape, dtype=x.dtype, name=x.name, mask_shape=mask_shape
    )
