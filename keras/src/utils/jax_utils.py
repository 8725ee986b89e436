"""A masked tensor is traced where its values are."""

from patchset.markers import keeps


@keeps("_plain_is_in_jax_tracing_scope")
def is_in_jax_tracing_scope(x=None):
    # Not above: what defines masked tensors imports this module.
    from keras.src.masking.calls import values_of

    return _plain_is_in_jax_tracing_scope(values_of(x))
