"""A mask without axes, as `jax.vmap` and rows of `tf.data` leave: kept.

Of a mask over `(batch,)` they leave one number for each example. It says of
the whole tensor whether it is there, and so of all that is made of it.
"""

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import registry
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.row_checks import EXAMPLES
from keras.src.testing.masked.row_checks import NO_GRADIENT
from keras.src.testing.masked.row_checks import call

# They ask about the tensor, or take the mask off.
ANSWERS = {"filled", "get_mask", "ndim", "size"}
# What their functions give is theirs to say; a scan skips what is not there.
BY_FUNCTION = {"cond", "map", "scan", "while_loop"}
# The shape of the result depends on entries.
COUNTS = {"bincount"}
# Upstream takes fewer shapes, gives what memory held, or draws otherwise.
NOT_COMPARED = {"average", "cholesky_inverse", "empty_like", "random.shuffle"}
# Upstream gives a Python boolean, and any of several partitions.
NOT_COMPARED |= {"allclose", "argpartition"}
# PyTorch's takes complex numbers only, and TensorFlow's one axis of values.
LEFT_OUT = {"torch": {"imag"}, "tensorflow": {"searchsorted"}}
# How many examples of a row are called, and of how many rows one is
# differentiated. JAX and TensorFlow compile a lot.
COUNT, EACH = (2, 1) if backend.backend() in ("numpy", "torch") else (1, 4)


def rows():
    return [
        (name.replace(".", "_"), name)
        for name in sorted(EXAMPLES)
        if EXAMPLES[name] and name not in LEFT_OUT.get(backend.backend(), ())
    ]


def wrap(values, there):
    """A masked tensor whose mask has no axes."""
    mask = backend.convert_to_tensor(np.array(there))
    return backend.MaskedTensor._wrap(backend.convert_to_tensor(values), mask)


def with_whole_masks(drawn, there):
    def one(x):
        if x.mask is None:
            return backend.convert_to_tensor(x.values)
        return wrap(x.values, there)

    return u.map_leaves(one, drawn, u.Drawn)


def tensors(result):
    return [x for x in tree.flatten(result) if hasattr(x, "shape")]


class WholeMasksTest(testing.TestCase):
    @parameterized.named_parameters(u.part(rows()))
    def test_no_row_drops_it(self, name):
        for i, example in enumerate(EXAMPLES[name][:COUNT]):
            drawn = u.draw(example, i, 1.0)
            for there in (True, False):
                label = f"{name} {example} there={there}"
                try:
                    found = call(name, with_whole_masks(drawn, there))
                except UnsupportedMaskError:
                    continue
                if name in ANSWERS | BY_FUNCTION:
                    continue
                self.check(name, drawn, tensors(found), there, label)

    def check(self, name, drawn, found, there, label):
        self.assertNotEqual(found, [], label)
        for x in found:
            self.assertIsInstance(x, MaskedTensorBase, label)
            self.assertTrue(np.all(u.array(x.mask) == there), label)
            finite = np.isfinite(u.widened(u.array(x.values)))
            self.assertTrue(there or np.all(finite), label)
        if not there or name in NOT_COMPARED:
            return
        plain = tensors(call(name, u.plain(drawn)))
        for x, y in zip(found, plain, strict=True):
            x = x.values
            y = y.values if isinstance(y, MaskedTensorBase) else y
            self.assertAllClose(u.array(x), u.array(y), msg=label)

    # The door sees to it, for all of them alike.
    @parameterized.named_parameters(rows()[::EACH])
    def test_what_is_not_there_has_no_gradient(self, name):
        """Nor has what it meets: nothing of the result is there."""
        skipped = ANSWERS | BY_FUNCTION | NO_GRADIENT | COUNTS | {"histogram"}
        drawn = u.draw(EXAMPLES[name][0], 0, 1.0)
        floats = [x for x in u.leaves(drawn) if u.is_float(x.values)]
        if backend.backend() == "numpy" or name in skipped or not floats:
            self.skipTest("Nothing to differentiate.")

        def loss(arrays):
            arrays = iter(arrays)

            def one(x):
                values = x.values
                if u.is_float(values):
                    # Garbage, out of the domain of many ops.
                    values = next(arrays) * (1 if x.mask is None else -100)
                if x.mask is None:
                    return backend.convert_to_tensor(values)
                return wrap(values, False)

            found = tensors(call(name, u.map_leaves(one, drawn, u.Drawn)))
            parts = [ops.filled(x, 0) for x in found if u.is_float(x)]
            return sum((ops.sum(ops.cast(x, "float32")) for x in parts), 0.0)

        try:
            if isinstance(loss([x.values for x in floats]), float):
                return
        except UnsupportedMaskError:
            return
        for gradient in u.gradients(loss, [x.values for x in floats]):
            self.assertAllEqual(u.array(gradient), 0 * u.array(gradient))

    def test_two_scalars_that_are_masked(self):
        """Neither mask is lost where values have no axes, either."""
        for one, other in ((True, False), (False, True), (True, True)):
            found = ops.add(wrap(1.0, one), wrap(2.0, other))
            self.assertEqual(bool(u.array(found.mask)), one and other)
        found = ops.log(wrap(-1.0, False))
        self.assertTrue(np.isfinite(u.array(found.values)))

    def test_indexing_and_iteration(self):
        for there in (True, False):
            x = wrap(np.ones((3, 2), "float32"), there)
            for y in (x[0], x[:, 1], x[..., None], *x):
                self.assertIsInstance(y, MaskedTensorBase)
                self.assertTrue(np.all(u.array(y.mask) == there))

    def test_beside_a_mask_with_axes(self):
        """Valid where both are."""
        values = np.arange(6, dtype="float32").reshape(2, 3)
        mask = np.array([[True, False, True], [True, True, False]])
        x = keras.MaskedTensor(values, mask)
        for there in (True, False):
            y = wrap(np.ones((3, 4), "float32"), there)
            found = ops.matmul(x, y)
            self.assertAllEqual(found.mask, [there, there])
            found = ops.concatenate([x, wrap(values, there)], axis=0)
            expected = np.concatenate([mask, np.ones_like(mask)]) & there
            self.assertAllEqual(u.parts(found)[0][1], expected)

    def test_every_rule_that_takes_it_is_of_a_family_that_knows(self):
        """The others are given what is there, as plain tensors."""
        takes = {
            row.rule.__module__.rpartition(".")[2]
            for row in registry.rows().values()
            if getattr(row.rule, "takes_whole", False)
        }
        known = {
            "batch",
            "carry",
            "inquire",
            "losses",
            "merge",
            "order",
            "reduce",
        }
        self.assertEqual(takes - known - {"registry"}, set())

    @parameterized.named_parameters(
        ("sum", lambda x: ops.sum(x)),
        ("matmul", lambda x: ops.matmul(x, np.ones((4, 2), "float32"))),
        ("median", lambda x: ops.median(x, axis=-1)),
        ("index", lambda x: x[0]),
        ("softmax", lambda x: ops.softmax(x * 2.0)),
        ("inv", lambda x: ops.inv(x[:, :3] + ops.eye(3))),
        (
            "scatter",
            lambda x: ops.scatter(np.array([[0], [2], [1]]), x, (4, 4)),
        ),
        ("iteration", lambda x: sum(x)),
    )
    def test_under_transformations_of_jax(self, function):
        if backend.backend() != "jax":
            self.skipTest("Of JAX.")
        import jax

        rng = np.random.default_rng(0)
        values = rng.normal(size=(5, 3, 4)).astype("float32")
        mask = np.array([True, False, True, True, False])
        x = keras.MaskedTensor(values, mask)

        def carry_on(carry, x):
            return carry, function(x)

        for found in (
            jax.vmap(function)(x),
            jax.jit(jax.vmap(function))(x),
            jax.lax.map(function, x),
            jax.lax.scan(carry_on, 0.0, x)[1],
        ):
            self.assertIsInstance(found, MaskedTensorBase)
            self.assertAllEqual(found.mask, mask)
            for i in np.flatnonzero(mask):
                row = function(ops.convert_to_tensor(values[i]))
                self.assertAllClose(found.values[i], row, atol=1e-5)

    @pytest.mark.skipif(
        backend.backend() != "tensorflow", reason="of TensorFlow"
    )
    def test_rows_of_tf_data(self):
        import tensorflow as tf

        values = np.arange(12, dtype="float32").reshape(3, 2, 2)
        mask = np.array([True, False, True])
        x = keras.MaskedTensor(values, mask)
        rows = tf.data.Dataset.from_tensor_slices(x)
        for function in (ops.sum, ops.inv, lambda x: x[0], ops.logsumexp):
            found = list(rows.map(function))
            self.assertEqual([bool(y.mask.numpy()) for y in found], [*mask])
            for i in (0, 2):
                self.assertAllClose(
                    found[i].values, function(tf.constant(values[i]))
                )
