"""Merge layers follow the rule of the op that they stand for.

`mask_mode="union"` keeps the other rule reachable: valid where any operand is,
with masked entries as the op's identity.
"""

from keras.src import ops
from keras.src.backend.common import composite
from keras.src.backend.common.composite import has_mask
from keras.src.masking import masks
from keras.src.masking.rules.reduce import bound
from patchset.markers import keeps
from patchset.markers import new
from patchset.markers import when

if when(">=3.16"):
    from keras.src.masking.door import backend  # noqa: F401


class Merge:
    """Generic merge layer for elementwise merge functions.

    Used to implement `Add`, `Average`, etc.

    Args:
        mask_mode: What becomes of the masks of masked inputs. With
            `"intersection"`, the default and the rule of the operators, an
            entry is valid where it is valid in all masked inputs; plain ones
            are neutral. With `"union"`, it is where it is valid in any input,
            a plain one being valid everywhere; masked entries then count as
            the identity of the operation: 0 in a sum, 1 in a product.
        **kwargs: standard layer keyword arguments.

    Example:

    >>> x = keras.MaskedTensor([[1.0, 2.0]], [[True, False]])
    >>> y = keras.MaskedTensor([[10.0, 20.0]], [[True, True]])
    >>> keras.layers.Add()([x, y])
    <MaskedTensor shape=(1, 2), dtype=float32, mask shape=(1, 2)
    [[11.0 --]]>
    >>> keras.layers.Add(mask_mode="union")([x, y])
    <MaskedTensor shape=(1, 2), dtype=float32, mask shape=(1, 2)
    [[11.0 20.0]]>
    """

    __added__ = ("_identity",)
    # What a masked entry counts as in a union; None where there is none.
    _identity = None

    @keeps("_plain_init")
    def __init__(self, mask_mode="intersection", **kwargs):
        self._plain_init(**kwargs)
        if mask_mode not in ("intersection", "union"):
            raise ValueError(
                '`mask_mode` must be "intersection" or "union". Received: '
                f"mask_mode={mask_mode}"
            )
        if mask_mode == "union" and self._identity is None:
            raise ValueError(
                f'`{type(self).__name__}` has no `mask_mode="union"`: its '
                "operation has no identity to take the place of masked "
                'entries. Use `mask_mode="intersection"`, or fill the inputs '
                "with `keras.ops.filled`."
            )
        self.mask_mode = mask_mode

    @new
    def _assert_input_compatibility(self, inputs):
        if composite.DEFINED and isinstance(inputs, (list, tuple)):
            for x in inputs:
                composite.check_array_like(self, x)
        super()._assert_input_compatibility(inputs)

    @keeps("_merge_inputs")
    def call(self, inputs):
        if self.mask_mode == "intersection" or not isinstance(
            inputs, (list, tuple)
        ):
            return self._merge_inputs(inputs)
        masked = [x for x in inputs if has_mask(x)]
        if not masked:
            return self._merge_inputs(inputs)
        plain = self._merge_inputs([self._with_identity(x) for x in inputs])
        if len(masked) < len(inputs):
            return plain
        # Valid in any: masked only where masked in all of them.
        hidden = [masks.wrap(x.values, ops.logical_not(x.mask)) for x in inputs]
        valid = ops.logical_not(self._merge_inputs(hidden).mask)
        return masks.wrap(masks.fill(plain, valid, 0), valid)

    @new
    def _with_identity(self, x):
        if not has_mask(x):
            return x
        return ops.filled(x, bound(x.dtype, self._identity))

    @keeps("_plain_get_config")
    def get_config(self):
        config = self._plain_get_config()
        if self.mask_mode != "intersection":
            config["mask_mode"] = self.mask_mode
        return config


del Merge._apply_merge_op_and_or_mask
