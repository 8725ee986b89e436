"""What existing systems get wrong about masks, each as a test that we do not.

Where the system is at hand the test shows its mistake too: with `numpy.ma`
always, with the engine's own masked tensors on its backend. A line that shows
one that has been mended there since is to be deleted.
"""

import importlib.util
import operator

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import testing
from keras.src.backend import MaskedTensor
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.testing.masked import testing_utils as u

INF, NAN = np.inf, np.nan
BACKEND = backend.backend()
X = np.array([[1.0, 2], [3, 4]], "float32")
LEFT = np.array([[False, False], [True, False]])
ARITHMETIC = "add sub mul truediv floordiv mod pow matmul".split()
COMPARISONS = "lt le gt ge eq ne".split()


def masked(values, mask, dtype="float32"):
    return MaskedTensor(np.array(values, dtype), np.array(mask))


def numpy_ma(values, mask):
    return np.ma.MaskedArray(values, ~np.array(mask))


class KnownMistakesTest(testing.TestCase):
    def assert_masked(self, x, values, mask):
        """The values where they are valid, and the mask over all axes."""
        self.assertIsInstance(x, MaskedTensorBase)
        ((found, own),) = u.parts(x)
        self.assertAllEqual(own, np.array(mask))
        values = np.broadcast_to(values, found.shape)
        self.assertAllClose(found[own], values[own], rtol=1e-5)

    def assert_plain(self, x, values):
        self.assertFalse(ops.is_masked(x))
        self.assertAllClose(u.array(x), values, rtol=1e-5)

    def gradient(self, function, values):
        """Gradient of a number with respect to one array."""
        if BACKEND in ("numpy", "openvino"):
            self.skipTest("no gradients on this backend")
        (found,) = u.gradients(
            lambda xs: function(xs[0]), [np.array(values, "float32")]
        )
        return u.array(found)

    # ------------------------------------------------------ sorts and places

    def test_a_valid_infinity_is_sorted_before_what_is_masked(self):
        """marray puts the masked one between the two: its sentinel ties."""
        values, mask = [1, 7, INF], [True, False, True]
        if importlib.util.find_spec("marray"):
            import marray

            space = marray.masked_namespace(np)
            theirs = space.asarray(np.array(values), mask=~np.array(mask))
            self.assertEqual(space.sort(theirs).mask.tolist(), [0, 1, 0])
        x = masked(values, mask)
        self.assert_masked(ops.sort(x), [1, INF, 0], [True, True, False])
        order = ops.argsort(masked([7, INF], [False, True]))
        self.assert_masked(order, [1, 0], [True, False])

    def test_the_largest_integer_is_sorted_before_what_is_masked(self):
        """`numpy.ma` leaves the masked one first: the sentinel ties with it."""
        largest = np.iinfo("int32").max
        values, mask = np.array([5, largest], "int32"), [False, True]
        theirs = np.ma.sort(numpy_ma(values, mask))
        self.assertEqual(np.ma.getmaskarray(theirs).tolist(), [True, False])
        found = ops.sort(masked(values, mask, "int32"))
        self.assert_masked(found, [largest, 0], [True, False])

    @parameterized.parameters(
        ("argmax", -INF), ("argmin", INF), ("argmax", 5), ("argmin", -5)
    )
    def test_the_place_of_an_extreme_is_valid_and_an_integer(self, name, last):
        """`numpy.ma` finds the masked place 0, as `torch.masked` and marray do.

        The result of `torch.masked.argmax` is a floating point number.
        """
        values, mask = [9, last], [False, True]
        if abs(last) == INF:
            self.assertEqual(getattr(numpy_ma(values, mask), name)(), 0)
            if BACKEND == "torch":
                import torch

                theirs = getattr(torch.masked, name)(
                    torch.tensor([9.0, last]), mask=torch.tensor(mask)
                )
                self.assertEqual(theirs, 0)
                self.assertTrue(theirs.dtype.is_floating_point)
        found = getattr(ops, name)(masked(values, mask))
        self.assert_plain(found, 1)
        self.assertIn("int", backend.standardize_dtype(found.dtype))

    def test_the_place_of_nothing_is_masked(self):
        """`numpy.ma` gives a valid 0, without a mask."""
        values = np.array([[9.0, 7.0], [3, 4]])
        mask = [[False, False], [True, False]]
        theirs = numpy_ma(values, mask).argmax(1)
        self.assertNotIsInstance(theirs, np.ma.MaskedArray)
        found = ops.argmax(masked(values, mask), axis=1)
        self.assert_masked(found, [0, 0], [False, True])

    def test_the_median_of_one_and_infinity_is_infinite(self):
        """`numpy.ma` says 0.5."""
        values, mask = [1, 5, INF], [True, False, True]
        self.assertEqual(np.ma.median(numpy_ma(values, mask)), 0.5)
        self.assert_plain(ops.median(masked(values, mask)), INF)

    # ------------------------------------------------------------ elementwise

    def test_a_masked_condition_masks_the_result(self):
        """`np.where` takes a masked condition of `numpy.ma` for a valid one."""
        theirs = np.where(numpy_ma([True, True], [True, False]), 1.0, 2.0)
        self.assertNotIsInstance(theirs, np.ma.MaskedArray)
        condition = masked([True, True], [True, False], "bool")
        found = ops.where(condition, 1.0, 2.0)
        self.assert_masked(found, [1, 2], [True, False])

    @parameterized.parameters(*ARITHMETIC, *COMPARISONS)
    def test_a_tensor_on_the_left_makes_a_masked_tensor(self, name):
        """Tensors of the engines look at no class that is not their own.

        A class of one's own is walked as a sequence, or has its mask stripped
        by a conversion; `torch.Tensor` raises at a `MaskedTensor` of
        `torch.masked`, and upstream forgets its mask.
        """
        op = getattr(operator, name)
        other = np.array([[2.0, 3], [1, 2]], "float32")
        mask = np.array([True, False])
        x = masked(X, mask)
        values = op(other, X)
        valid = np.broadcast_to(mask[:, None], X.shape)
        if name == "matmul":
            values = op(other, X * valid)
            valid = np.ones_like(valid)
        lefts = [
            other,
            backend.convert_to_tensor(other),
            backend.Variable(other, trainable=False),
        ]
        for left in lefts:
            found = op(left, x)
            if name == "matmul":
                self.assert_plain(found, values)
            else:
                self.assert_masked(found, values, valid)
        # With features on the left of the product, its rows stay masked.
        if name == "matmul":
            batch = np.stack([other, other])
            steps = masked(np.stack([X, X]), [True, False])
            for left in (batch, backend.convert_to_tensor(batch)):
                valid = np.array([True, False])[:, None, None]
                valid = np.broadcast_to(valid, (2, 2, 2))
                self.assert_masked(left @ steps, batch @ X, valid)

    def test_a_comparison_merges_both_masks(self):
        """`<` of `torch.masked` has the mask of the left operand."""
        one, other = [True, False, True], [True, True, False]
        values = np.array([1.0, 2, 3], "float32")
        if BACKEND == "torch":
            import torch

            left, right = (
                torch.masked.masked_tensor(
                    torch.tensor(values), torch.tensor(mask)
                )
                for mask in (one, other)
            )
            self.assertEqual((left < right).get_mask().tolist(), one)
        found = masked(values, one) < masked(values, other)
        self.assert_masked(found, False, [True, False, False])

    def test_equality_is_elementwise_and_masked(self):
        """Objects are compared as a whole, unless a class says otherwise."""
        x = masked([1, 2, 3], [True, False, True])
        self.assert_masked(x == x, True, [True, False, True])
        self.assert_masked(x != x, False, [True, False, True])
        found = x == np.array([1, 2, 4], "float32")
        self.assert_masked(found, [True, True, False], [True, False, True])

    # -------------------------------------------------------------- reductions

    def test_the_mean_is_over_what_is_there(self):
        """Systems that know primitives, not ops, divide 4 by 3.

        So does upstream: `ops.mean` sees a plain tensor. `tf.ragged` has NaN
        for a row without entries, and the lowest number for its maximum.
        """
        self.assert_plain(ops.mean(masked([1, 7, 3], [True, False, True])), 2)
        if BACKEND == "tensorflow":
            import tensorflow as tf

            rows = tf.ragged.constant([[1.0, 3.0], []])
            mean = tf.reduce_mean(rows, axis=1).numpy()
            self.assertTrue(np.isnan(mean[1]))
            self.assertLess(tf.reduce_max(rows, axis=1).numpy()[1], -1e30)
        x = MaskedTensor.from_ragged([[1.0, 3.0], []])
        for found, value in ((ops.mean(x, axis=1), 2), (ops.max(x, axis=1), 3)):
            self.assert_masked(found, [value, 0], [True, False])
            self.assertAllEqual(u.array(found.values)[1], 0)

    def test_a_mask_over_the_batch_is_no_bias_of_the_channels(self):
        """Keras's `add` on TensorFlow takes it for one where both are as long.

        Upstream adds `[[10], [20]]` to a square as if it were `[[10, 20]]`.
        """
        column = np.array([[10.0], [20]], "float32")
        self.assertAllClose(ops.add(X, column), X + column)
        x = masked(X[::-1], [False, True])
        self.assertAllClose(ops.max(x, axis=0), X[0])
        self.assertAllClose(ops.logsumexp(x, axis=0), X[0])

    def test_a_norm_is_over_what_is_there(self):
        """`np.linalg.norm` forgets the mask of `numpy.ma`."""
        values, mask = [3, 100, 4], [True, False, True]
        self.assertGreater(np.linalg.norm(numpy_ma(values, mask)), 100)
        self.assert_plain(ops.norm(masked(values, mask)), 5)

    @parameterized.product(
        name=("var", "std", "norm", "mean", "logsumexp"),
        mask=([True, False, True], [True, False, False], [False] * 3),
    )
    def test_gradients_do_not_see_nan_under_the_mask(self, name, mask):
        """`torch.masked.var`, marray's, and `jnp.var(where=)` give NaN to all.

        With one valid entry the root has an infinite slope, and
        `torch.masked.std` gives NaN whatever is masked.
        """
        values = np.where(mask, [1.0, NAN, 3.0], NAN)
        if BACKEND == "torch" and name in ("var", "std"):
            import torch

            theirs = torch.tensor(values, requires_grad=True)
            function = getattr(torch.masked, name)
            function(theirs, mask=torch.tensor(mask)).backward()
            self.assertTrue(torch.any(torch.isnan(theirs.grad)))
        found = self.gradient(
            lambda x: getattr(ops, name)(MaskedTensor(x, np.array(mask))),
            values,
        )
        expected = {
            ("var", 2): [-1, 0, 1],
            ("std", 2): [-0.5, 0, 0.5],
            ("norm", 2): [0.1**0.5, 0, 0.9**0.5],
            ("mean", 2): [0.5, 0, 0.5],
            ("logsumexp", 2): [
                1 / (1 + np.exp(2)),
                0,
                np.exp(2) / (1 + np.exp(2)),
            ],
            ("norm", 1): [1, 0, 0],
            ("mean", 1): [1, 0, 0],
            ("logsumexp", 1): [1, 0, 0],
        }.get((name, sum(mask)), [0, 0, 0])
        self.assertAllClose(found, expected, atol=1e-6)

    def test_softmax_of_nothing_is_0_and_has_no_slope(self):
        """`torch.masked.softmax` gives NaN; upstream gives equal shares."""
        mask = np.array([[True, True], [False, False]])
        if BACKEND == "torch":
            import torch

            theirs = torch.masked.softmax(
                torch.tensor(X), 1, mask=torch.tensor(mask)
            )
            self.assertTrue(torch.all(torch.isnan(theirs[1])))
        found = ops.softmax(MaskedTensor(X, mask))
        self.assertAllEqual(u.array(found.values)[1], [0, 0])
        self.assertAllEqual(u.array(found.mask), mask)

        def loss(x):
            shares = ops.softmax(MaskedTensor(x, mask))
            return ops.sum(shares.values * ops.convert_to_tensor(X))

        found = self.gradient(loss, np.where(mask, X, NAN))
        self.assertAllEqual(found[1], [0, 0])
        shares = np.exp(X[0]) / np.sum(np.exp(X[0]))
        slope = shares[0] * shares[1] * (X[0, 0] - X[0, 1])
        self.assertAllClose(found[0], [slope, -slope], rtol=1e-4)

    # ---------------------------------------------------- products and joining

    def test_a_product_counts_what_is_masked_as_0(self):
        """`@` of `numpy.ma` multiplies what lies under the mask.

        And masks what has a valid pair; with vectors it raises.
        """
        theirs = numpy_ma(X, LEFT) @ np.ones((2, 2))
        self.assertEqual(theirs.data[1, 0], 7)
        ones = np.ones((2, 2), "float32")
        found = masked(X, LEFT) @ ones
        self.assert_masked(found, 3, [[False, False], [True, True]])
        with self.assertRaises(ValueError):
            numpy_ma([1.0, 9], [True, False]) @ np.ones(2)
        self.assert_plain(masked([1, 9], [True, False]) @ ones[0], 1)

    @parameterized.parameters(
        ("einsum", lambda f, x, y: f("ij,jk->ik", x, y)),
        ("tensordot", lambda f, x, y: f(x, y, 1)),
        ("inner", lambda f, x, y: f(x, y)),
    )
    def test_a_contraction_keeps_the_masks_of_its_rows(self, name, call):
        """`np.einsum` and `np.tensordot` strip those of `numpy.ma`.

        `np.ma.inner` fills with 0, and calls a row of nothing valid.
        """
        ones = np.ones((2, 2), "float32")
        function = np.ma.inner if name == "inner" else getattr(np, name)
        theirs = call(function, numpy_ma(X, LEFT), ones)
        self.assertFalse(np.any(np.ma.getmaskarray(theirs)))
        found = call(getattr(ops, name), masked(X, LEFT), ones)
        self.assert_masked(found, 3, [[False, False], [True, True]])

    def test_vdot_leaves_out_what_is_masked(self):
        """`np.vdot` multiplies what lies under the mask of `numpy.ma`."""
        values, mask = [1.0, 100], [True, False]
        self.assertEqual(np.vdot(numpy_ma(values, mask), np.ones(2)), 101)
        ones = np.ones(2, "float32")
        self.assert_plain(ops.vdot(masked(values, mask), ones), 1)

    @parameterized.parameters("concatenate", "stack")
    def test_joining_with_a_plain_tensor_keeps_the_mask(self, name):
        """NumPy's functions drop the masks of `numpy.ma`.

        Upstream's `Concatenate` has them only if it is a layer, and `torch.cat`
        raises at one plain tensor beside those of `torch.masked`.
        """
        plain = np.zeros_like(X)
        theirs = getattr(np, name)([numpy_ma(X, LEFT), plain])
        self.assertFalse(np.any(np.ma.getmaskarray(theirs)))
        join, all_valid = getattr(np, name), np.ones_like(LEFT)
        for i in (0, 1):
            pair, masks = [plain, plain], [all_valid, all_valid]
            pair[i], masks[i] = masked(X, LEFT), LEFT
            arrays = [plain, plain]
            arrays[i] = X
            found = getattr(ops, name)(pair)
            self.assert_masked(found, join(arrays), join(masks))

    def test_padding_keeps_the_mask(self):
        """`np.pad` drops that of `numpy.ma`, and its padding is valid."""
        values, mask = [1.0, 9], [True, False]
        theirs = np.pad(numpy_ma(values, mask), 1)
        self.assertFalse(np.any(np.ma.getmaskarray(theirs)))
        found = ops.pad(masked(values, mask), 1)
        self.assert_masked(found, [0, 1, 0, 0], [False, True, False, False])

    # ---------------------------------------------------------------- in place

    def test_a_layer_leaves_the_tensor_of_its_caller_as_it_is(self):
        """Upstream's attention clears `_keras_mask` on what it is given."""
        mask = np.array([[True, True, False]])
        x = MaskedTensor(np.ones((1, 3, 4), "float32"), mask)
        layer = layers.MultiHeadAttention(2, 2)
        for _ in range(2):
            found = layer(x, x)
            self.assertAllEqual(u.array(x._keras_mask), mask)
            self.assertAllEqual(u.array(found.mask), mask)
        with self.assertRaisesRegex(AttributeError, "immutable"):
            x._keras_mask = None
        with self.assertRaisesRegex(AttributeError, "immutable"):
            backend.set_keras_mask(x, None)
        self.assertAllEqual(u.array(x.mask), mask)

    def test_assignment_is_refused_or_makes_a_new_tensor(self):
        """`x[0] = 5` of `torch.masked` does nothing, without a word.

        That of a view of `numpy.ma` unmasks an entry of the whole array.
        """
        whole = numpy_ma([1.0, 2, 3], [True, False, True])
        whole[:2][1] = 9
        self.assertFalse(np.any(np.ma.getmaskarray(whole)))
        values, mask = [1, 2, 3], [True, False, True]
        if BACKEND == "torch":
            import torch

            theirs = torch.masked.masked_tensor(
                torch.tensor([1.0, 2, 3]), torch.tensor(mask)
            )
            theirs[0] = 5
            self.assertEqual(theirs.get_data()[0], 1)
        x = masked(values, mask)
        with self.assertRaisesRegex(TypeError, "scatter_update"):
            x[0] = 5
        new = ops.scatter_update(x, [[1]], np.array([5], "float32"))
        self.assert_masked(new, [1, 5, 3], [True] * 3)
        self.assert_masked(x, values, mask)

    def test_a_masked_entry_does_not_become_a_number(self):
        """`float` of a masked one of `numpy.ma` is NaN, with a warning."""
        with self.assertWarns(UserWarning):
            theirs = float(numpy_ma([1.0, 2], [True, False])[1])
        self.assertTrue(np.isnan(theirs))
        x = masked([[1, 2]], [[True, False]])
        with self.assertRaisesRegex(TypeError, "mask"):
            float(x)
        with self.assertRaisesRegex(TypeError, "mask"):
            np.asarray(x)
