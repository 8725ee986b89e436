"""What is computed block by block is what is computed in one go.

Tensors as large as tests draw them are one block; here a block is small.
"""

from unittest import mock

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src.backend.common import masked_kernels

# The last block has fewer rows than the others, of which each has two.
SHAPE = (11, 5, 3)
ROW_BYTES = 5 * 3 * 4
OPS = {
    "amax": np.max,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
    "std": np.std,
    "var": np.var,
    "logsumexp": lambda x, axis: np.log(np.sum(np.exp(x), axis)),
    "softmax": lambda x, axis: np.exp(x) / np.sum(np.exp(x), axis),
}


class BlocksTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        rng = np.random.default_rng(0)
        self.values = rng.normal(size=SHAPE).astype("float32")
        self.mask = rng.random(SHAPE[:2]) < 0.6
        self.mask[4] = False
        self.x = backend.MaskedTensor(self.values, self.mask)

    def small_blocks(self):
        return mock.patch.object(masked_kernels, "BLOCK_BYTES", 2 * ROW_BYTES)

    def test_blocks_are_small_where_there_are_any(self):
        with self.small_blocks():
            rows = [
                len(block.mask)
                for block in backend.masked_kernels.blocks(self.x)
            ]
        if backend.backend() in ("numpy", "torch"):
            self.assertEqual(rows, [2, 2, 2, 2, 2, 1])
        else:
            # They compile what they run, and choose such blocks themselves.
            self.assertEqual(rows, [11])

    @parameterized.parameters(*[name for name in OPS if hasattr(ops, name)])
    def test_equals_what_the_valid_entries_of_each_row_give(self, name):
        with self.small_blocks():
            result = getattr(ops, name)(self.x, axis=1)
        mask = backend.convert_to_numpy(result.mask)
        found = backend.convert_to_numpy(result.values)
        self.assertEqual(len(found), 11)
        for row, (values, valid) in enumerate(zip(self.values, self.mask)):
            if name == "softmax":
                self.assertAllEqual(mask[row], valid)
                self.assertAllEqual(found[row][~valid], 0.0 * values[~valid])
                one = found[row][valid]
            else:
                self.assertEqual(mask[row], valid.any())
                one = found[row]
            if valid.any():
                self.assertAllClose(one, OPS[name](values[valid], 0))

    @parameterized.parameters("max", "var", "softmax")
    def test_keepdims_and_dtype_are_the_same(self, name):
        function = getattr(ops, name)
        kwargs = {} if name == "softmax" else {"keepdims": True}
        x = ops.cast(self.x, "bfloat16")
        with self.small_blocks():
            found = function(x, axis=1, **kwargs)
        wanted = function(x, axis=1, **kwargs)
        self.assertEqual(found.dtype, wanted.dtype)
        self.assertEqual(found.shape, wanted.shape)
        self.assertAllClose(
            backend.convert_to_numpy(ops.cast(found, "float32").values),
            backend.convert_to_numpy(ops.cast(wanted, "float32").values),
        )
