"""Shape inference carries masks beside the values."""

from patchset.markers import keeps


@keeps("_plain_compute_output_spec")
def compute_output_spec(fn, *args, **kwargs):
    # Late: it imports the backend.
    from keras.src.masking import symbolic

    return symbolic.carry_masks(_plain_compute_output_spec, fn, args, kwargs)
