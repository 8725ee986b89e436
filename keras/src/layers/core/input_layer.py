"""`Input(mask_shape=...)` declares a masked input."""

import inspect

from patchset.markers import keeps
from patchset.markers import new


class InputLayer:
    @keeps("_plain_init")
    def __init__(self, *args, mask_shape=None, **kwargs):
        if mask_shape is not None and mask_shape is not False:
            given = inspect.signature(self._plain_init).bind(*args, **kwargs)
            args, kwargs = (), _with_mask(mask_shape, **given.arguments)
        self._plain_init(*args, **kwargs)
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
def _with_mask(mask_shape, kwargs=(), **given):
    """The arguments of an input layer that wraps a masked tensor.

    Args:
        mask_shape: Shape of the mask, as users give it.
        kwargs: More arguments.
        **given: Arguments without the mask.
    """
    given |= kwargs
    shape, dtype = given.pop("shape", None), given.pop("dtype", None)
    batch_size = given.pop("batch_size", None)
    whole = given.pop("batch_shape", None) or (batch_size, *shape)
    unfit = {k: given.get(k) for k in ("sparse", "ragged", "input_tensor")}
    if any(x is not None and x is not False for x in unfit.values()):
        told = ", ".join(f"{k}={x}" for k, x in unfit.items())
        raise ValueError(
            "An input with a `mask_shape` can be neither sparse nor ragged, "
            f"nor wrap a tensor. Received: mask_shape={mask_shape}, {told}"
        )
    covered = _covered_shape(tuple(whole), mask_shape)
    mask = backend.KerasTensor(covered, "bool")
    name = given.get("name")
    tensor = backend.KerasTensor(whole, dtype, name=name, mask=mask)
    return {**given, "input_tensor": tensor}


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


@keeps("_plain_input")
@keras_export(["keras.layers.Input", "keras.Input"])
def Input(*args, mask_shape=None, **kwargs):
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
    if mask_shape is None:
        return _plain_input(*args, **kwargs)
    given = inspect.signature(_plain_input).bind(*args, **kwargs).arguments
    given = {_NAMES.get(name, name): x for name, x in given.items()}
    return InputLayer(mask_shape=mask_shape, **given).output


# What the layer calls arguments of the function.
__added__ = ("_NAMES",)
_NAMES = {"tensor": "input_tensor"}
