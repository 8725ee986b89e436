"""Compiled losses get plain targets and weights, and composite ones whole.

What is packed is handed on as it is to each loss and metric.
"""

from keras.src.composite.scoring import as_judged
from keras.src.composite.scoring import check_types
from keras.src.composite.scoring import weights_as_judged
from keras.src.masking.training import scoring
from patchset.markers import keeps


class MetricsList:
    @scoring.takes_packed
    @keeps("_update_each")
    def update_state(self, y_true, y_pred, sample_weight=None):
        self._update_each(y_true, y_pred, sample_weight)


class CompileLoss:
    @keeps("_call_on_plain")
    def call(self, y_true, y_pred, sample_weight=None):
        loss = self._user_loss
        check_types(loss, y_true, y_pred)
        y_true, y_pred = as_judged(loss, y_true), as_judged(loss, y_pred)
        y_true = scoring.plain_or_packed(y_true)
        return self._call_on_plain(
            y_true,
            y_pred,
            scoring.weights(weights_as_judged(loss, sample_weight)),
        )


class CompileMetrics:
    @scoring.takes_packed
    @keeps("_update_leaves")
    def update_state(self, y_true, y_pred, sample_weight=None):
        config = (self._user_metrics, self._user_weighted_metrics)
        config = next((x for x in config if isinstance(x, dict)), config[0])
        self._update_leaves(
            as_judged(config, y_true),
            as_judged(config, y_pred),
            weights_as_judged(config, sample_weight),
        )
