"""Losses read no masks any more; the rest of upstream's tests stand."""

import numpy as np
import pytest

from keras.src import backend
from keras.src import layers
from keras.src import losses
from keras.src import models


class LayerTest:
    @pytest.mark.skipif(
        backend.backend() == "numpy",
        reason="compute_output_spec not supported with numpy",
    )
    def test_end_to_end_masking(self):
        """Masks still survive compilation, but a loss does not read them:
        `sample_weight` says which entries count. Upstream's expected loss of 0
        is that with weights; without them the padded targets count, against
        predictions that say nothing: a half for each of two numbers.
        """
        embedding = layers.Embedding(
            2, 2, mask_zero=True, embeddings_initializer="ones"
        )
        model = models.Sequential([embedding])
        loss = losses.MeanSquaredError(reduction="mean_with_sample_weight")
        model.compile(loss=loss)
        ids = np.array([[1, 0, 0, 1]])
        targets = np.array([[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [1.0, 1.0]]])
        weighted = model.evaluate(ids, targets, sample_weight=ids, verbose=0)
        self.assertAllClose(weighted, 0.0)
        self.assertAllClose(
            model.evaluate(ids, targets, verbose=0), (0 + 1.5**2 + 2.5**2) / 4
        )
        self.assertAllEqual(model(ids).mask, ids == 1)
