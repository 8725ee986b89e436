"""Trains a masked model, and looks whether padding changes what it says.

Run by `releases_test.py` on the fork of each release.
"""

import sys

import numpy as np

import keras
from keras import layers
from keras import ops

IDS = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0], [6, 7, 8, 0, 0]])


def model():
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(10, 4, mask_zero=True)(inputs)
    x = x + layers.MultiHeadAttention(2, 4)(x, x)
    x = layers.GlobalAveragePooling1D()(layers.Dense(4)(x))
    return keras.Model(inputs, layers.Dense(1)(x))


def main(version):
    assert keras.__version__ == version, keras.__version__
    x = keras.MaskedTensor(
        np.array([1.0, np.nan, 3.0], "float32"), np.array([True, False, True])
    )
    np.testing.assert_allclose(ops.convert_to_numpy(ops.mean(x)), 2.0)
    trained = model()
    trained.compile("adam", "mse")
    after = before = trained.predict(IDS, verbose=0)
    if keras.backend.backend() != "numpy":  # It has no gradients.
        trained.fit(IDS, np.ones((3, 1)), verbose=0)
        after = trained.predict(IDS, verbose=0)
        assert np.abs(after - before).max() > 1e-5, "nothing was learned"
    short = trained.predict(IDS[:, :3], verbose=0)
    np.testing.assert_allclose(after, short, atol=1e-5)


if __name__ == "__main__":
    main(sys.argv[1])
