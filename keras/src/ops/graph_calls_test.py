"""A graph computes and promises what the function does.

The operations below were other than their functions upstream.
"""

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src.ops.function import Function
from keras.src.ops.nn import MultiHot

X = np.linspace(-1, 1, 12, dtype="float32").reshape((2, 3, 2))


class GraphCallsTest(testing.TestCase):
    def check(self, function, x, *args):
        symbol = backend.KerasTensor(x.shape, str(x.dtype))
        specs = function(symbol, *args)
        x = backend.convert_to_tensor(x)
        found, expected = Function(symbol, specs)(x), function(x, *args)
        for a, b, spec in zip(*map(_listed, (found, expected, specs))):
            self.assertAllClose(a, b)
            self.assertEqual(tuple(a.shape), spec.shape)

    def test_a_graph_of_plain_tensors_in_one_of_masked_ones(self):
        """It has the shape of its input, and a mask besides."""
        symbol = backend.KerasTensor((2, 3))
        function = Function(symbol, ops.exp(symbol))
        mask = backend.KerasTensor((2,), "bool")
        spec = function(backend.KerasTensor((2, 3), mask=mask))
        self.assertEqual(spec.mask.shape, (2,))
        self.assertIsNone(function(backend.KerasTensor((2, 3))).mask)

    def test_conv_transpose_keeps_both_paddings(self):
        kernel = np.ones((3, 4, 2), "float32")
        for padding in ("same", "valid"):
            self.check(
                ops.conv_transpose, X, kernel, 2, padding, 1, "channels_last"
            )

    def test_histogram_runs(self):
        self.check(ops.histogram, X.reshape(-1), 4)
        self.check(ops.histogram, X.reshape(-1), 4, (-1, 2))

    def test_quantile_keeps_its_method(self):
        for method in ("lower", "higher", "nearest"):
            self.check(ops.quantile, X, 0.4, 1, method)

    def test_multi_hot_has_its_own_dtype(self):
        ids = np.array([[0, 2], [1, 1]], "int32")
        self.check(ops.multi_hot, ids, 4)
        symbol = backend.KerasTensor((2, 2), "int32")
        self.assertEqual(ops.multi_hot(symbol, 4).dtype, "float32")

    def test_multi_hot_is_sparse_where_the_function_is(self):
        ids = np.array([[0, 2], [1, 1]], "int32")
        if backend.SUPPORTS_SPARSE_TENSORS:
            result = MultiHot(4, sparse=True).call(ids)
            self.assertSparse(result)
            return
        with self.assertRaisesRegex(ValueError, "sparse"):
            MultiHot(4, sparse=True).call(ids)

    def test_slogdet_has_a_sign_for_each_matrix(self):
        self.check(ops.slogdet, np.stack([np.eye(2, dtype="float32")] * 3))

    def test_adaptive_pools_with_channels_last(self):
        for data_format in ("channels_last", "channels_first"):
            for size in (2, (2,)):
                self.check(ops.adaptive_max_pool, X, size, data_format)
                self.check(ops.adaptive_average_pool, X, size, data_format)


def _listed(x):
    return list(x) if isinstance(x, (tuple, list)) else [x]
