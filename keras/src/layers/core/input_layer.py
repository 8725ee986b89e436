"""`Input(mask_shape=...)` declares a masked input."""

from patchset.markers import keeps
from patchset.markers import new


class InputLayer:
    @keeps("_plain_init")
    def __init__(
        self,
        shape=None,
        batch_size=None,
        dtype=None,
        sparse=None,
        ragged=None,
        batch_shape=None,
        input_tensor=None,
        optional=False,
        name=None,
        mask_shape=None,
        **kwargs,
    ):
        if mask_shape is not None and mask_shape is not False:
            if sparse or ragged or input_tensor is not None:
                raise ValueError(
                    "An input with a `mask_shape` can be neither sparse nor "
                    "ragged, nor wrap a tensor. Received: "
                    f"mask_shape={mask_shape}, sparse={sparse}, "
                    f"ragged={ragged}, input_tensor={input_tensor}"
                )
            whole = batch_shape or (batch_size, *shape)
            covered = _covered_shape(tuple(whole), mask_shape)
            input_tensor = backend.KerasTensor(
                whole,
                dtype,
                name=name,
                mask=backend.KerasTensor(covered, "bool"),
            )
            shape = batch_size = batch_shape = dtype = None
        self._plain_init(
            shape,
            batch_size,
            dtype,
            sparse,
            ragged,
            batch_shape,
            input_tensor,
            optional,
            name,
            **kwargs,
        )
        # Of a tensor that was given, too.
        mask = self.output._mask_spec
        self.mask_shape = None if mask is None else mask.shape[1:]

    @keeps("_plain_get_config")
    def get_config(self):
        config = self._plain_get_config()
        if self.mask_shape is not None:
            config["mask_shape"] = self.mask_shape
        return config


@new
def _covered_shape(whole, mask_shape):
    """The leading axes of an input that its mask covers, with the batch."""
    is_true, given = mask_shape is True, mask_shape
    if is_true:
        given = whole[1:2]
    if isinstance(given, (tuple, list)) and len(given) >= is_true:
        covered = whole[: len(given) + 1]
        # The input knows its sizes, and the mask may leave them open.
        if len(covered) == len(given) + 1 and all(
            m in (None, n) for m, n in zip(given, covered[1:])
        ):
            return covered
    raise ValueError(
        "The `mask_shape` of an input, without the batch, must be the leading "
        f"axes of its `shape`. Received: mask_shape={mask_shape}, where the "
        f"shape without the batch is {whole[1:]}. It may leave open a size "
        "that `shape` knows, but not the other way round. For a mask of shape "
        f"(batch, time) write `mask_shape={whole[1:2]}`, or `mask_shape=True`."
    )


@keras_export(["keras.layers.Input", "keras.Input"])
def Input(
    shape=None,
    batch_size=None,
    dtype=None,
    sparse=None,
    ragged=None,
    batch_shape=None,
    name=None,
    tensor=None,
    optional=False,
    *,
    mask_shape=None,
):
    """Makes a symbolic tensor: the entry of a functional model.

    Args:
        shape: Shape without the batch, None for sizes that vary.
        batch_size: Size of the batch, where it is fixed.
        dtype: Dtype, by default `keras.config.floatx()`.
        sparse: Whether the model will be given sparse tensors.
        ragged: Whether the model will be given ragged tensors.
        batch_shape: Shape with the batch, instead of `shape`.
        name: Name of the input, unique in its model.
        tensor: Existing symbolic tensor to use instead of a new one.
        optional: Whether None may be given for it.
        mask_shape: Declares a masked input: shape of its mask without the
            batch, the leading axes of `shape`; True for `(batch, time)`, the
            batch and the first of the axes of `shape`. A model that is given a
            plain tensor there takes all of it for valid.

    Returns:
        A `keras.KerasTensor`.

    Raises:
        ValueError: If `mask_shape` is not the leading axes of `shape`, or goes
            together with `sparse`, `ragged` or `tensor`.

    Example:

    >>> x = keras.Input((None, 8), mask_shape=(None,))
    >>> x.mask.shape
    (None, None)
    """
    # One call for both, by position: `InputLayer` takes `tensor` and
    # `optional` before `name`.
    layer = InputLayer(
        *(shape, batch_size, dtype, sparse, ragged, batch_shape),
        *(tensor, optional, name, mask_shape),
    )
    return layer.output
