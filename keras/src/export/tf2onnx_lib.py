"""What lies under a mask stays out of ONNX models that TensorFlow's become."""

import functools

from patchset.markers import keeps


@keeps("_patch_tf2onnx_for_numpy")
@functools.lru_cache
def patch_tf2onnx():
    """Patches `tf2onnx` for NumPy 2, and for masks that hide NaN.

    It makes products of a selection, for speed: NaN times 0 is NaN.
    """
    _patch_tf2onnx_for_numpy()
    # Late: the package may be missing.
    from tf2onnx.handler import tf_op
    from tf2onnx.onnx_opset.controlflow import Select

    def select(ctx, node, **kwargs):
        node.set_attr("handles_nan", True)
        Select.version_9(ctx, node, **kwargs)

    tf_op(["Select", "SelectV2"]).register_compat_handler(select, 9)
