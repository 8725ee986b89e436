"""The symbolic `slogdet` gives a sign for each matrix of a batch."""

import numpy as np

from keras.src import backend
from keras.src.ops import numpy as knp


class NumpyOneInputOpsCorrectnessTest:
    def test_slogdet(self):
        """Replaced: the signs of a batch have its shape, as the values do.

        Upstream promises one sign for the whole batch, and computes one for
        each matrix.
        """
        x = np.stack([2 * np.eye(3), -np.eye(3)])
        for out in (knp.slogdet(x), knp.Slogdet()(x)):
            self.assertAllClose(out[0], [1, -1])
            self.assertAllClose(out[1], [np.log(8), 0])
        for batch in ((), (2, 4)):
            out = knp.slogdet(backend.KerasTensor((*batch, 3, 3)))
            self.assertEqual(out[0].shape, batch)
            self.assertEqual(out[1].shape, batch)
