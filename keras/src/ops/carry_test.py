"""What the table's examples of control flow cannot show.

There masked tensors come as operands, in eager calls and in specs. Here they
come out of closures, go through compiled functions and graphs, or disagree.
"""

import numpy as np
import pytest
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import models
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import UnsupportedMaskError
from keras.src.testing.masked import testing_utils as u
from patchset.markers import when

VALUES = np.arange(6, dtype="float32").reshape(2, 3) + 1
MASK = np.array([[True, True, False], [True, False, False]])
LONG = np.arange(24, dtype="float32").reshape(2, 3, 4) + 1


def masked(values=VALUES, mask=MASK):
    return backend.MaskedTensor(values, mask)


def symbol(x):
    mask = backend.KerasTensor(tuple(x.mask.shape), "bool")
    return backend.KerasTensor(tuple(x.shape), "float32", mask=mask)


needs_vectorize = pytest.mark.skipif(
    backend.backend() == "tensorflow",
    reason="upstream's `vectorize` has no loop axes there",
)


def compiled(function):
    """The function as the backend compiles it, or as it is."""
    if backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if backend.backend() == "tensorflow":
        import tensorflow as tf

        # AutoGraph would put an error of its own in the place of ours.
        return tf.function(function, autograph=False)
    return function


class CarryTest(testing.TestCase):
    def assert_masked(self, x, values, mask):
        self.assertIsInstance(x, MaskedTensorBase)
        self.assertAllEqual(x.mask, mask)
        shape = mask.shape + (1,) * (values.ndim - mask.ndim)
        valid = np.broadcast_to(mask.reshape(shape), values.shape)
        self.assertAllClose(
            backend.convert_to_numpy(x.values)[valid], values[valid]
        )

    # ------------------------------------------------------------- closures

    @parameterized.named_parameters(
        ("map", ops.map), ("vectorized_map", ops.vectorized_map)
    )
    def test_a_closure_brings_a_mask(self, over_elements):
        def add(x):
            return x + masked(VALUES[0], MASK[0])

        result = over_elements(add, backend.convert_to_tensor(VALUES))
        mask = np.stack([MASK[0], MASK[0]])
        self.assert_masked(result, VALUES + VALUES[0], mask)

    def test_a_closure_brings_a_mask_into_a_branch(self):
        for choose in (True, False):
            result = compiled(
                lambda pred: ops.cond(
                    pred, lambda: masked() + 1.0, lambda: masked() * 2.0
                )
            )(ops.convert_to_tensor(choose))
            expected = VALUES + 1 if choose else VALUES * 2
            self.assert_masked(result, expected, MASK)
            result = compiled(
                lambda i: ops.switch(
                    i, [lambda: masked() + 1.0, lambda: masked() * 2.0]
                )
            )(ops.convert_to_tensor(0 if choose else 1))
            self.assert_masked(result, expected, MASK)

    @parameterized.parameters(True, False)
    def test_packed_tensors_go_through_branches_and_loops(self, compiles):
        """As operands and in closures, and come out with values and mask."""
        flows = {
            "cond": lambda x: ops.cond(
                ops.sum(x) > 0, lambda: x + 1.0, lambda: x * 2.0
            ),
            "cond, one as it is": lambda x: ops.cond(
                ops.sum(x) < 0, lambda: ops.exp(x), lambda: x
            ),
            "switch": lambda x: ops.switch(
                1, [lambda: x + 1.0, lambda: x * 2.0]
            ),
            "switch of operands": lambda x: ops.switch(
                0, [lambda y: y + x, lambda y: y * 2.0], x
            ),
            "fori_loop": lambda x: ops.fori_loop(0, 2, lambda i, y: y + x, x),
            "while_loop": lambda x: ops.while_loop(
                lambda y: ops.sum(y) < 100, lambda y: y + ops.exp(x), x
            ),
            "scan": lambda x: ops.scan(
                lambda y, i: (y + i, y), x, ops.ones((2,)) * ops.sum(x)
            ),
            "map": lambda x: ops.map(lambda y: x * y, ops.ones((2,))),
        }
        long = masked(LONG)
        for name, flow in flows.items():
            run = compiled(flow) if compiles else flow
            wanted, found = (
                tree.flatten(f(x))
                for f, x in ((flow, long), (run, long.packed()))
            )
            for one, other in zip(found, wanted, strict=True):
                with self.subTest(name):
                    mask = backend.convert_to_numpy(other.mask)
                    values = backend.convert_to_numpy(other.values)
                    self.assert_masked(one, values, mask)

    def test_a_closure_brings_a_mask_into_a_graph(self):
        x = backend.KerasTensor((5, 2, 3))
        spec = ops.map(lambda y: y + masked(), x)
        self.assertEqual(spec._mask_spec.shape, (5, 2, 3))
        pred = backend.KerasTensor((), "bool")
        spec = ops.cond(pred, masked, masked)
        self.assertEqual(spec._mask_spec.shape, (2, 3))

    # --------------------------------------------------------- disagreement

    def test_branches_that_disagree_are_both_named(self):
        pred = backend.KerasTensor((), "bool")
        with self.assertRaisesRegex(
            UnsupportedMaskError,
            "`cond` cannot .*`true_fn` has a mask over 2 axes where `false_fn` "
            "has no mask.*both the same kind of mask",
        ):
            ops.cond(pred, masked, lambda: ops.convert_to_tensor(VALUES))
        with self.assertRaisesRegex(
            UnsupportedMaskError,
            "branch 0 has a mask over 2 axes where branch 1 has a mask over 1",
        ):
            ops.switch(
                0,
                [lambda x: x, lambda x: backend.MaskedTensor(LONG, MASK[:, 0])],
                symbol(masked(LONG)),
            )

    @pytest.mark.skipif(
        backend.backend() in ("numpy", "torch"),
        reason="runs the branch that is taken, and no other",
    )
    def test_compiled_branches_that_disagree(self):
        with self.assertRaisesRegex(UnsupportedMaskError, "`false_fn` has no"):
            compiled(
                lambda pred: ops.cond(
                    pred, masked, lambda: ops.convert_to_tensor(VALUES)
                )
            )(ops.convert_to_tensor(True))

    def test_a_state_that_becomes_masked_is_named(self):
        plain = backend.convert_to_tensor(VALUES)
        for call, name in (
            (
                lambda: ops.while_loop(
                    lambda x: ops.all(x < 9), lambda x: ops.filled(x), masked()
                ),
                "`loop_vars` has a mask over 2 axes where what `body` returns",
            ),
            (
                lambda: ops.scan(
                    lambda c, x: (ops.filled(c + x), None),
                    masked(VALUES[0], MASK[0]),
                    plain,
                ),
                "`init` has a mask over 1 axis where the carry",
            ),
            (
                lambda: ops.associative_scan(
                    lambda a, b: a + masked(np.ones((1, 3)), MASK[:1]), plain
                ),
                "`elems` has no mask where what `f` returns",
            ),
        ):
            with self.assertRaisesRegex(UnsupportedMaskError, name):
                call()

    def test_a_mask_that_is_dropped_is_named(self):
        with self.assertRaisesRegex(
            UnsupportedMaskError, "has a mask over 2 axes where .* has no mask"
        ):
            ops.fori_loop(0, 2, lambda i, x: ops.filled(x, 0), masked())

    def test_masked_conditions_are_refused(self):
        with self.assertRaisesRegex(UnsupportedMaskError, "condition"):
            ops.while_loop(lambda x: x[0, :1] < 9, lambda x: x + 1.0, masked())
        index = backend.MaskedTensor(np.array([1]), np.array([True]))
        with self.assertRaisesRegex(UnsupportedMaskError, "predicate"):
            ops.cond(index, masked, masked)
        with self.assertRaisesRegex(UnsupportedMaskError, "index"):
            ops.switch(index, [masked, masked])
        with self.assertRaisesRegex(UnsupportedMaskError, "bounds"):
            ops.fori_loop(index, 3, lambda i, x: x, masked())

    @pytest.mark.skipif(
        backend.backend() != "tensorflow",
        reason="makes room for other outputs than those like the carry",
    )
    def test_an_output_unlike_the_carry_is_refused(self):
        with self.assertRaisesRegex(UnsupportedMaskError, "what a step puts"):
            ops.scan(
                lambda c, x: (c + 1.0, x),
                backend.convert_to_tensor(VALUES[0]),
                masked(LONG[0].T, np.ones((4, 3), "bool")),
            )

    # ----------------------------------------------------------------- loops

    def test_a_loop_goes_on_until_what_is_valid_is_large(self):
        def grow(x):
            return ops.while_loop(
                lambda x: ops.any(x < 100.0), lambda x: x * 3.0, x
            )

        expected = VALUES * 3**5
        for function in (grow, compiled(grow)):
            self.assert_masked(function(masked()), expected, MASK)

    @parameterized.product(
        name=("sums", "states", "nest"),
        loop=("fori_loop", "while_loop", "scan"),
    )
    def test_a_state_that_begins_plain_is_all_valid(self, name, loop):
        """If steps make it masked: as it is in `h + x[:, t]`."""
        x, h = masked(LONG), ops.zeros((2, 4))
        there = np.array([[True, False], [True, True], [False, True]])

        def step(t, state, x):
            if name == "sums":
                return state + x[:, t]
            if name == "states":
                old = ops.expand_dims(ops.convert_to_tensor(there)[t], -1)
                return ops.where(old, state + x[:, t], state)
            return {"h": state["h"] + x[:, t], "count": state["count"] + 1.0}

        def run(x, h):
            init = h if name != "nest" else {"h": h, "count": ops.zeros(())}
            if loop == "fori_loop":
                end = ops.fori_loop(0, 3, lambda t, s: step(t, s, x), init)
            elif loop == "while_loop":
                end, _ = ops.while_loop(
                    lambda s, t: t < 3,
                    lambda s, t: (step(t, s, x), t + 1),
                    (init, 0),
                )
            else:

                def both(state, t):
                    new = step(t, state, x)
                    return new, new

                end, _ = ops.scan(both, init, ops.arange(3))
            return end if name != "nest" else end["h"]

        for function in (run, compiled(run)):
            end = function(x, h)
            takes = there.T if name == "states" else np.ones((2, 3), "bool")
            valid = np.all(MASK | ~takes, axis=1)
            total = np.sum(LONG * takes[..., None], axis=1)
            self.assert_masked(end, total, valid)

    def test_a_number_gets_no_mask(self):
        """One without axes has none for a mask of the first step to cover."""
        with self.assertRaisesRegex(UnsupportedMaskError, "has no mask where"):
            ops.fori_loop(0, 2, lambda i, x: x + masked(), ops.zeros(()))

    def test_a_graph_knows_what_begins_plain(self):
        x = layers.Input(batch_shape=(2, 3, 4), mask_shape=(3,))
        h = layers.Input(batch_shape=(2, 4))

        def fori_loop(h, x):
            return ops.fori_loop(
                0, 3, lambda t, s: (s[0] + s[1][:, t], s[1]), (h, x)
            )

        def while_loop(h, x):
            return ops.while_loop(
                lambda h, x, t: t < 3,
                lambda h, x, t: (h + x[:, t], x, t + 1),
                (h, x, ops.zeros((), "int32")),
            )

        for function in (fori_loop, while_loop):
            spec, *_ = function(h, x)
            self.assertEqual(tuple(spec.mask.shape), (2,))
            model = models.Model([h, x], spec)
            ones = np.ones((2, 4), "float32")
            result = model([ops.convert_to_tensor(ones), masked(LONG)])
            self.assert_masked(result, LONG.sum(1) + 1, np.all(MASK, 1))

    def test_a_loop_over_a_nest(self):
        def body(state, i):
            return {"a": state["a"] + state["b"], "b": state["b"]}, i + 1

        state = {"a": masked(), "b": masked(VALUES, MASK)}
        out, i = ops.while_loop(
            lambda state, i: i < 2, body, (state, 0), maximum_iterations=9
        )
        self.assert_masked(out["a"], VALUES * 3, MASK)
        self.assertEqual(int(i), 2)

    def test_a_masked_recurrence_is_the_loop_over_its_valid_steps(self):
        def step(h, x):
            # Small, or all of it would be 1, with steps left out or not.
            h = ops.tanh(h * 0.5 + x / 20.0)
            return h, h

        def run(x):
            init = ops.zeros((4,))
            return ops.scan(step, init, x)

        mask = np.array([True, False, True])
        h, ys = np.zeros(4), np.zeros((3, 4))
        for i in np.flatnonzero(mask):
            h = np.tanh(h * 0.5 + LONG[0, i] / 20)
            ys[i] = h
        for function in (run, compiled(run)):
            last, outputs = function(backend.MaskedTensor(LONG[0], mask))
            self.assertAllClose(last, h)
            self.assert_masked(outputs, ys, mask)

    def test_an_element_is_there_if_all_are(self):
        """Of those that are gone through together."""
        a = backend.MaskedTensor(LONG[0], np.array([True, False, True]))
        mask = np.array([[True] * 4, [True] * 4, [False, True, True, True]])
        b = masked(LONG[1], mask)
        c = backend.MaskedTensor(LONG[1], np.array([True, True, False]))
        both = ops.map(lambda x: x[0] + x[1], (a, b))
        expected = LONG[0] + LONG[1]
        self.assert_masked(both, expected, mask & [[True], [False], [True]])
        alone = ops.map(lambda x: x[0] + x[1], (a, c))
        self.assert_masked(alone, expected, np.array([True, False, False]))

    @pytest.mark.requires_trainable_backend
    def test_no_gradient_through_a_step_that_is_not_there(self):
        mask = np.array([True, False, True])
        hidden = np.where(mask[:, None], LONG[0] / 20, np.nan)
        x = backend.MaskedTensor._wrap(
            *map(backend.convert_to_tensor, (hidden.astype("float32"), mask))
        )

        def last(arrays):
            end, _ = ops.scan(
                lambda h, x: (h * arrays[0] * x + x, h), ops.zeros((4,)), x
            )
            return ops.sum(end)

        (found,) = u.gradients(last, [np.float32(0.5)])
        first, _, third = LONG[0] / 20
        self.assertAllClose(found, first @ third, rtol=1e-5)

    @pytest.mark.requires_trainable_backend
    def test_a_gradient_of_ones_own_wants_one_mask_over_leading_axes(self):
        function = ops.custom_gradient(lambda *x: (x[0], lambda *y: y))
        rows = backend.MaskedTensor(VALUES, np.array([True, False]))
        for args in ((masked(),), (rows, rows)):
            with self.assertRaisesRegex(UnsupportedMaskError, "last axis has"):
                function(*args)

    def test_what_a_missing_element_gives_is_finite(self):
        x = backend.MaskedTensor(VALUES, np.array([True, False]))
        for over in (ops.map, ops.vectorized_map):
            result = over(ops.log, x)
            values = backend.convert_to_numpy(result.values)
            self.assertTrue(np.all(np.isfinite(values)))
            self.assertAllClose(values[0], np.log(VALUES[0]))

    def test_a_recurrence_in_two_numbers(self):
        def compose(a, b):
            return a[0] * b[0], b[1] + b[0] * a[1]

        x = masked(VALUES.T / 9, MASK.T)
        slopes, offsets = ops.associative_scan(compose, (x, x))
        values, total = VALUES.T / 9, np.zeros((3, 2))
        for i in range(3):
            total[i] = values[i] + (values[i] * total[i - 1] if i else 0)
        valid = np.logical_and.accumulate(MASK.T, 0)
        self.assert_masked(slopes, np.cumprod(values, 0), valid)
        self.assert_masked(offsets, total, valid)

    # ---------------------------------------------------------------- graphs

    def test_graphs_run_what_their_specs_say(self):
        def scan(x):
            return ops.scan(lambda c, x: (c + x, c + x), ops.zeros((4,)), x[0])[
                1
            ]

        def loop(x):
            return ops.fori_loop(0, 3, lambda i, y: y * 2.0, x)

        for function in (
            lambda x: ops.map(lambda y: ops.softmax(y, axis=0), x),
            lambda x: ops.vectorized_map(lambda y: ops.mean(y, axis=0), x),
            lambda x: ops.switch(1, [lambda y: y, lambda y: -y], x),
            lambda x: ops.while_loop(
                lambda y: ops.any(y < 50.0), lambda y: y * 2.0, x
            ),
            scan,
            lambda x: ops.fori_loop(0, 3, lambda i, y: y * 2.0, x),
            lambda x: ops.associative_scan(ops.add, x, axis=1),
        ):
            x = layers.Input(batch_shape=(2, 3, 4), mask_shape=(3,))
            spec = function(x)
            model = models.Model(x, spec)
            result, expected = model(masked(LONG)), function(masked(LONG))
            self.assertEqual(
                ops.is_masked(spec), isinstance(expected, MaskedTensorBase)
            )
            self.assertEqual(tuple(spec.shape), tuple(expected.shape))
            if ops.is_masked(spec):
                mask_shape = tuple(expected.mask.shape)
                self.assertEqual(tuple(spec.mask.shape), mask_shape)
                self.assertAllEqual(result.mask, expected.mask)
                result, expected = result.values, expected.values
            self.assertAllClose(result, expected)

    def test_unknown_dimensions_in_specs(self):
        mask = backend.KerasTensor((None, None), "bool")
        x = backend.KerasTensor((None, None, 4), mask=mask)
        for y in (
            ops.map(lambda x: x + 1.0, x),
            ops.vectorized_map(lambda x: x + 1.0, x),
            ops.while_loop(lambda x: ops.any(x < 1), lambda x: x + 1.0, x),
            ops.fori_loop(0, 2, lambda i, x: x + 1.0, x),
            ops.switch(0, [lambda x: x + 1.0], x),
        ):
            self.assertEqual(y.shape, (None, None, 4))
            self.assertEqual(y._mask_spec.shape, (None, None))

    # ------------------------------------------------------------- vectorize

    @needs_vectorize
    def test_vectorize_merges_masks(self):
        f = ops.vectorize(lambda a, b: a * 2.0 + b)
        result = f(masked(), backend.convert_to_tensor(VALUES[0]))
        self.assert_masked(result, VALUES * 2 + VALUES[0], MASK)
        both = f(masked(), masked(VALUES[0], MASK[1]))
        self.assert_masked(both, VALUES * 2 + VALUES[0], MASK & MASK[1])
        plain = f(ops.convert_to_tensor(VALUES), ops.convert_to_tensor(VALUES))
        self.assertAllClose(plain, VALUES * 3)

    @needs_vectorize
    def test_vectorize_keeps_masks_off_core_axes(self):
        f = ops.vectorize(lambda v: ops.sum(v), signature="(n)->()")
        result = f(masked(LONG))
        self.assert_masked(result, LONG.sum(-1), MASK)
        with self.assertRaisesRegex(UnsupportedMaskError, "core axes"):
            f(masked())

    @needs_vectorize
    def test_vectorize_refuses_by_name(self):
        f = ops.vectorize(lambda v: masked(), signature="(n)->()")
        with self.assertRaisesRegex(UnsupportedMaskError, "plain tensors"):
            f(backend.convert_to_tensor(VALUES))
        f = ops.vectorize(lambda a: a)
        with self.assertRaisesRegex(UnsupportedMaskError, "eager"):
            f(symbol(masked()))

    # ----------------------------------------------------------- derivatives

    @when(">=3.16")
    @pytest.mark.skipif(
        backend.backend() == "numpy", reason="has no derivatives"
    )
    def test_grad_has_the_mask_of_its_argument(self):
        """And is 0 where it has none; a masked result is summed as it is."""
        weight = backend.convert_to_tensor([1.0, 2.0, 3.0])

        def f(x, nest):
            return ops.square(x) * nest["weight"]

        dx = ops.grad(f)(masked(), {"weight": weight})
        slope = 2 * VALUES * [1.0, 2.0, 3.0]
        self.assert_masked(dx, slope, MASK)
        self.assertAllEqual(backend.convert_to_numpy(dx.values)[~MASK], 0)
        dx, nest = ops.grad(f, argnums=(0, -1))(masked(), {"weight": weight})
        self.assert_masked(dx, slope, MASK)
        self.assertAllClose(nest["weight"], (VALUES**2 * MASK).sum(0))

    @pytest.mark.skipif(
        backend.backend() == "numpy", reason="has no derivatives"
    )
    def test_jvp_returns_what_else_there_is(self):
        def function(x):
            return ops.mean(x * x, axis=1), x + 1.0

        mean, slope, aux = ops.jvp(
            function, (masked(LONG),), (ops.ones((2, 3, 4)),), has_aux=True
        )
        count, batch = MASK.sum(1)[:, None], np.ones(2, "bool")
        squares = LONG**2 * MASK[..., None]
        self.assert_masked(mean, squares.sum(1) / count, batch)
        slopes = 2 * LONG * MASK[..., None]
        self.assert_masked(slope, slopes.sum(1) / count, batch)
        self.assert_masked(aux, LONG + 1, MASK)
        with self.assertRaisesRegex(UnsupportedMaskError, "where its primal"):
            ops.jvp(ops.sin, (backend.convert_to_tensor(VALUES),), (masked(),))

    def test_writing_leaves_the_operand_as_it_was(self):
        x = masked()
        ops.scatter_update(x, [[0]], VALUES[1:])
        ops.slice_update(x, (0, 0), ops.convert_to_tensor(VALUES[1:]))
        self.assertAllEqual(x.mask, MASK)
        self.assertAllClose(x.values, VALUES * MASK)
