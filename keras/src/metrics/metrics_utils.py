"""Weights cover leading axes: those of rows weigh all their entries."""

from keras.src import ops
from keras.src.losses.loss import squeeze_or_expand_to_same_rank
from patchset.markers import keeps


@keeps("_update_by_weights_of_entries")
def update_confusion_matrix_variables(
    variables_to_update,
    y_true,
    y_pred,
    thresholds,
    top_k=None,
    class_id=None,
    sample_weight=None,
    multi_label=False,
    label_weights=None,
    thresholds_distributed_evenly=False,
):
    if sample_weight is not None:
        ndim = len(squeeze_or_expand_to_same_rank(y_pred, y_true)[0].shape)
        sample_weight = ops.convert_to_tensor(sample_weight)
        shape = tuple(sample_weight.shape)
        weighs_entries = len(shape) == ndim and shape[-1] != 1
        if class_id is not None and weighs_entries:
            # Those of the class that upstream takes alone.
            sample_weight = sample_weight[..., class_id]
        # Upstream adds the last axis.
        missing = tuple(range(len(sample_weight.shape), ndim - 1))
        if missing:
            sample_weight = ops.expand_dims(sample_weight, missing)
    return _update_by_weights_of_entries(
        variables_to_update,
        y_true,
        y_pred,
        thresholds,
        top_k,
        class_id,
        sample_weight,
        multi_label,
        label_weights,
        thresholds_distributed_evenly,
    )
