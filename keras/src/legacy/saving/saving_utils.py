"""Graphs with masks in them can be read from `.h5` files."""

from patchset.markers import keeps


@keeps("_plain_model_from_config")
def model_from_config(config, custom_objects=None):
    # Late: ops import saving.
    from keras.src.ops import masking

    # Those that `.mask`, `.values`, `MaskedTensor()` and `filled()` leave in a
    # graph. The format has no modules in it to find them by.
    known = (
        masking.MakeMasked,
        masking.GetMask,
        masking.GetValues,
        masking.Filled,
    )
    known = {op.__name__: op for op in known}
    return _plain_model_from_config(config, {**known, **(custom_objects or {})})
