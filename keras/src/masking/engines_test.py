"""Where an engine handles masked tensors by itself: right, or refused."""

import functools
import io
import operator
import os
import zlib

import numpy as np
import pytest
from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import ops
from keras.src import testing
from keras.src.backend.common.operators import ARITHMETIC
from keras.src.backend.common.operators import BITWISE
from keras.src.backend.common.operators import COMPARISON
from keras.src.masking import packing
from keras.src.testing.masked import packed as of_packed
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.row_checks import EXAMPLES
from keras.src.testing.masked.row_checks import call
from patchset.markers import when


def masked(shape, rank, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape).astype("float32")
    return keras.MaskedTensor(values, rng.uniform(size=shape[:rank]) < 0.6)


def vmap(function, in_axes=0, out_axes=0):
    if backend.backend() == "jax":
        import jax

        return jax.vmap(function, in_axes, out_axes)
    import torch

    return torch.vmap(function, in_axes, out_axes)


@pytest.mark.skipif(
    backend.backend() not in ("jax", "torch"), reason="of JAX and PyTorch"
)
class NodeTest(testing.TestCase):
    @parameterized.product(
        shape=((4, 3, 5), (4, 4, 4), (4, 3, 1)),
        rank=(1, 2, 3),
        axis=(0, 1, 2, -1, -2, -3),
    )
    def test_an_axis_that_vmap_takes_and_makes(self, shape, rank, axis):
        """The same one of values and mask, or an error.

        Also where sizes are equal by chance, so that an axis counted from the
        ends of both would be taken for one.
        """
        x = masked(shape, rank)
        values = backend.convert_to_numpy(x.values)
        mask = u.over_all_axes(backend.convert_to_numpy(x.mask), shape)
        for name in ("in_axes", "out_axes"):

            def run(x, name=name):
                return vmap(lambda x: x * 2.0, **{name: axis})(x)

            if axis % 3 < rank:
                found = run(x)
            elif shape[-1] > 1:
                with self.assertRaises(ValueError):
                    run(x)
                continue
            else:
                # Which entry of an axis of size 1 is meant, is no question.
                try:
                    found = run(x)
                except ValueError:
                    continue
            places = (axis, 0) if name == "in_axes" else (0, axis)
            self.assertAllClose(found.values, np.moveaxis(values * 2, *places))
            found_mask = backend.convert_to_numpy(found.mask)
            self.assertAllEqual(
                u.over_all_axes(found_mask, found.shape),
                np.moveaxis(mask, *places),
            )

    @parameterized.parameters(1, 2, 3)
    def test_gradients_of_each_example(self, rank):
        """What is not differentiated may be masked, within `vmap` and without
        it, seen by the transformation for the first time or not."""
        if backend.backend() == "jax":
            import jax

            grad = jax.grad
        else:
            import torch

            grad = torch.func.grad

        def loss(w, x):
            return ops.sum(ops.filled(ops.square(x * w), 0))

        w = ops.convert_to_tensor(np.arange(1.0, 6.0, dtype="float32"))
        x = masked((4, 3, 5), rank)
        values = backend.convert_to_numpy(x.values)
        mask = u.over_all_axes(backend.convert_to_numpy(x.mask), x.shape)
        expected = 2 * np.arange(1.0, 6.0) * np.square(values) * mask
        found = grad(loss)(w, masked((4, 3, 5), rank))
        self.assertAllClose(found, expected.sum((0, 1)), rtol=1e-5)
        found = vmap(grad(loss), (None, 0))(w, x)
        self.assertAllClose(found, expected.sum(1), rtol=1e-5)

        def total(w, x):
            return ops.sum(vmap(loss, (None, 0))(w, x))

        for y in (x, masked((4, 3, 5), rank)):
            found = grad(total)(w, y)
            self.assertAllClose(found, expected.sum((0, 1)), rtol=1e-5)
            found = grad(lambda w, y=y: total(w, y))(w)
            self.assertAllClose(found, expected.sum((0, 1)), rtol=1e-5)


@pytest.mark.skipif(backend.backend() != "jax", reason="of JAX")
class NodeOfJaxTest(testing.TestCase):
    def test_a_transformation_keeps_the_axes_of_a_mask(self):
        """Also where an axis more would say the same."""
        import jax

        for shape, rank in (((4, 1), 1), ((4, 1), 2), ((1, 1, 1), 1)):
            x = masked(shape, rank)
            for transform in (jax.jit, jax.vmap, jax.checkpoint):
                found = transform(lambda x: x * 2.0)(x)
                self.assertEqual(found.mask.shape, x.mask.shape)
            for found in (
                jax.device_get(x),
                jax.tree.map(lambda x: x, x),
                jax.eval_shape(lambda x: x, x),
                jax.eval_shape(
                    lambda x: x, jax.eval_shape(lambda x: x * 2.0, x)
                ),
            ):
                self.assertEqual(found.mask.shape, x.mask.shape)

    def test_a_map_over_values_and_mask(self):
        import jax
        import jax.numpy as jnp

        x = masked((4, 3, 5), 2)
        for function in (
            lambda a: a / 2.0,
            lambda a: a + 1,
            lambda a: a.astype("float32"),
            jnp.sum,
            lambda a: jnp.concatenate([a, a], -1),
            lambda a: a.reshape(-1),
        ):
            with self.assertRaisesRegex(Exception, "mask"):
                jax.tree.map(function, x)
        found = jax.tree.map(lambda a: a[:2], x)
        self.assertAllEqual(found.mask, x.mask[:2])
        found = jax.tree.map(lambda *a: jnp.stack(a), x, x)
        self.assertAllEqual(found.mask, np.stack([x.mask, x.mask]))

    def test_leaves_that_are_no_arrays(self):
        import jax

        x = masked((4, 3, 5), 2)
        axes = jax.tree.map(lambda _: 0, x)
        found = jax.vmap(lambda x: x * 2.0, in_axes=(axes,))(x)
        self.assertAllEqual(found.mask, x.mask)
        spec = jax.eval_shape(lambda x: x * 2.0, x)
        self.assertEqual(spec.mask.shape, (4, 3))
        gradient = jax.grad(
            lambda x: ops.sum(ops.filled(x * 2.0, 0)), allow_int=True
        )(x)
        expected = np.broadcast_to(2.0 * np.array(x.mask)[..., None], x.shape)
        self.assertAllClose(gradient.values, expected)

    def test_transformations_keep_values_and_mask(self):
        import jax

        for rank in (1, 2, 3):
            x = masked((4, 3, 5), rank)
            found = [
                jax.jit(lambda x: x * 1.0)(x),
                jax.lax.scan(lambda c, y: (c, y * 1.0), 0.0, x)[1],
                jax.lax.cond(True, lambda x: x, lambda x: x * 3.0, x),
                jax.lax.fori_loop(0, 2, lambda _, x: x * 1.0, x),
                jax.device_get(x),
                jax.vjp(lambda x: x * 1.0, x)[0],
            ]
            for y in found:
                self.assertAllEqual(y.mask, x.mask)
                self.assertAllClose(y.values, x.values)


@pytest.mark.skipif(backend.backend() != "torch", reason="of PyTorch")
class TangentOfTorchTest(testing.TestCase):
    @parameterized.parameters(1, 2, 3)
    def test_a_mask_has_none(self, rank):
        """PyTorch would make one, in which nothing is valid."""
        import torch

        w, x = torch.arange(1.0, 6.0), masked((4, 3, 5), rank)
        jvp, jacfwd = torch.func.jvp, torch.func.jacfwd
        for run in (
            lambda: jvp(lambda w: x * w, (w,), (w,)),
            lambda: jacfwd(lambda w: {"x": x * w})(w),
        ):
            with self.assertRaisesRegex(TypeError, "jvp.*filled"):
                run()
        _, tangent = jvp(lambda w: ops.filled(x * w, 0), (w,), (w,))
        self.assertAllClose(tangent, ops.filled(x * w, 0))
        # What is not differentiated is a masked tensor as ever.
        loss = lambda w, x: ops.sum(ops.filled(ops.square(x * w), 0))
        found = torch.func.hessian(loss)(w, x)
        expected = 2 * ops.sum(ops.square(ops.filled(x, 0)), (0, 1))
        self.assertAllClose(found, np.diag(expected), rtol=1e-5)


@pytest.mark.skipif(backend.backend() != "torch", reason="of PyTorch")
class ExportOfTorchTest(testing.TestCase):
    def exported(self, function, x, dynamic_shapes=None):
        import torch

        class Module(torch.nn.Module):
            def forward(self, x):
                return function(x)

        program = torch.export.export(
            Module(), (x,), dynamic_shapes=dynamic_shapes
        )
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        return torch.export.load(file).module()

    def assert_same(self, found, expected):
        self.assertIsInstance(found, keras.MaskedTensor)
        self.assertAllEqual(found.mask, expected.mask)
        self.assertAllClose(ops.filled(found), ops.filled(expected), rtol=1e-5)

    @parameterized.parameters(1, 2, 3)
    def test_what_is_exported_takes_and_gives_masked_tensors(self, rank):
        def function(x):
            return {"mean": ops.mean(x, -1), "softmax": ops.softmax(x + 1.0)}

        run = self.exported(function, masked((4, 3, 5), rank))
        x = masked((4, 3, 5), rank, seed=1)
        found, expected = run(x), function(x)
        for name in ("mean", "softmax"):
            self.assert_same(found[name], expected[name])

    def test_sizes_that_change(self):
        import torch

        sizes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("time")}
        run = self.exported(
            lambda x: x * 2.0 + ops.max(x, 1, keepdims=True),
            masked((4, 3, 5), 2),
            # Of values and mask.
            ((sizes, sizes),),
        )
        x = masked((2, 7, 5), 2)
        self.assert_same(run(x), x * 2.0 + ops.max(x, 1, keepdims=True))

    @parameterized.parameters(None, 12)
    def test_packed_steps(self, capacity):
        """Of one layout: how many there are is a shape."""
        x = masked((4, 3, 5), 2).packed(capacity)
        function = keras.Sequential(
            [keras.layers.Dense(4), keras.layers.LayerNormalization()]
        )
        function(x)
        run = self.exported(function, x)
        y = x.with_flat(x.flat * 2.0 + 1.0)
        self.assertTrue(run(y).is_packed)
        self.assert_same(run(y), function(y))

    def test_a_model(self):
        import torch

        inputs = keras.Input((None, 5))
        x = keras.layers.Dense(4)(inputs)
        model = keras.Model(inputs, keras.layers.LSTM(3)(x))
        x = masked((4, 3, 5), 2)
        program = torch.export.export(model, (x,))
        self.assertAllClose(program.module()(x), model(x), rtol=1e-5)

    @parameterized.parameters(False, True)
    def test_files_of_weights_only(self, is_packed):
        import torch

        x = masked((4, 3, 5), 2)
        x = x.packed() if is_packed else x
        file = io.BytesIO()
        torch.save({"x": x}, file)
        file.seek(0)
        found = torch.load(file, weights_only=True)["x"]
        self.assertIs(found.is_packed, is_packed)
        self.assert_same(found, x)


@pytest.mark.skipif(backend.backend() != "torch", reason="of PyTorch")
class OperatorOfTorchTest(testing.TestCase):
    @parameterized.parameters(*(ARITHMETIC | BITWISE | COMPARISON))
    def test_with_a_tensor_in_one_graph(self, name):
        """On either side. A graph that breaks there is several."""
        import torch

        run = getattr(operator, name, None) or getattr(operator, f"{name}_")
        kind = "int32" if name in BITWISE else "float32"
        x = masked((3, 4, 4), 2)
        x = keras.MaskedTensor(ops.cast(ops.abs(x.values) + 1, kind), x.mask)
        y = ops.cast(ops.arange(1, 17), kind).reshape(4, 4)
        for function in (run, lambda x, y: run(y, x)):
            torch.compiler.reset()
            # Which operand came first, the compiler does not say of matmul.
            compiled = torch.compile(
                function, backend="eager", fullgraph=name != "matmul"
            )
            found, expected = compiled(x, y), function(x, y)
            self.assertAllEqual(found.mask, expected.mask)
            self.assertAllClose(ops.filled(found), ops.filled(expected))
        function = getattr(torch, name, None)
        if function is not None:
            for found, expected in (
                (function(x, y), run(x, y)),
                (function(y, x), run(y, x)),
            ):
                self.assertAllEqual(found.mask, expected.mask)
                self.assertAllClose(ops.filled(found), ops.filled(expected))


@pytest.mark.skipif(backend.backend() != "torch", reason="of PyTorch")
class FunctionOfTorchTest(testing.TestCase):
    def test_a_function_with_a_gradient_of_its_own(self):
        """It would be given a constant, and lose the gradient in silence."""
        import torch

        class Doubled(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2.0

            @staticmethod
            def backward(ctx, gradient):
                return gradient * 2.0

        values = torch.ones((2, 3), requires_grad=True)
        x = keras.MaskedTensor(values, [True, False])
        with self.assertRaisesRegex(TypeError, r"Doubled.apply\(x.values\)"):
            Doubled.apply(x)
        y = keras.MaskedTensor(Doubled.apply(x.values), x.mask)
        ops.sum(y).backward()
        self.assertAllClose(values.grad, [[2.0] * 3, [0.0] * 3])
        compiled = torch.compile(
            lambda x: Doubled.apply(x), backend="eager", fullgraph=True
        )
        self.assertAllClose(compiled(torch.ones(3)), [2.0] * 3)


# What PyTorch's compiler makes one graph of for plain tensors, and not for
# masked ones: it cannot walk the nests of control flow, nor take constants of
# NumPy; and the least of all entries is not one graph for plain tensors either.
BROKEN_UP = {
    "fori_loop", "histogram", "map", "vectorized_map",
    "image.affine_transform", "image.hsv_to_rgb", "image.perspective_transform",
    "image.rgb_to_hsv",
}  # fmt: skip


@pytest.mark.skipif(backend.backend() != "torch", reason="of PyTorch")
class CompiledByTorchTest(testing.TestCase):
    # Until 3.15 no constant of NumPy can be part of a graph.
    @when(">=3.15")
    @parameterized.named_parameters(
        *[
            (name, name)
            for i, name in enumerate(sorted(filter(EXAMPLES.get, EXAMPLES)))
            if i % 8 == 0 or os.environ.get("EVERY_CASE")
            if name not in BROKEN_UP
        ]
    )
    def test_one_graph_for_plain_tensors_is_one_for_masked_ones(self, name):
        example = EXAMPLES[name][0]
        args = u.masked(u.draw(example, zlib.crc32(name.encode()), 0.5))
        args = u.map_leaves(backend.convert_to_tensor, args, np.ndarray)
        kinds = [args]
        of_steps = of_packed.packed(args)
        if any(map(packing.is_packed, u.leaves(of_steps, keras.MaskedTensor))):
            kinds.append(of_steps)
        for kind in kinds:
            try:
                run_as_one_graph(name, kind)
            except Exception as error:
                plain = of_packed.map_nest(lambda x: x.values, args)
                if is_one_graph(name, plain):
                    raise error

    def test_a_metric_that_is_one_of_another(self):
        """Both are wrapped alike, which the compiler mistook for one."""
        import torch

        y = np.ones((4, 3), "int32")
        y_pred = backend.convert_to_tensor(np.eye(4, 3, dtype="float32"))
        eager = functools.partial(torch.compile, backend="eager")
        results = []
        for compiler in (lambda f: f, eager):
            metric = keras.metrics.SparseCategoricalAccuracy()
            compiler(metric.update_state)(y[:, 0], y_pred)
            results.append(metric.result())
        self.assertAllClose(*results)


def is_one_graph(name, args):
    try:
        run_as_one_graph(name, args)
    except Exception:
        return False
    return True


def run_as_one_graph(name, args):
    import torch

    kinds = (keras.MaskedTensor, torch.Tensor)

    def function(*parts):
        parts = iter(parts)
        return call(name, u.map_leaves(lambda x: next(parts), args, kinds))

    torch.compiler.reset()
    with torch.no_grad():
        run = torch.compile(function, backend="eager", fullgraph=True)
        return run(*u.leaves(args, kinds))


@pytest.mark.skipif(backend.backend() != "torch", reason="of PyTorch")
class AutocastOfTorchTest(testing.TestCase):
    @parameterized.parameters("sum", "mean", "var", "logsumexp", "softmax")
    def test_it_leaves_reductions_as_wide_as_plain_ones(self, name):
        import torch

        x = masked((4, 300, 5), 2)
        with torch.autocast("cpu", torch.bfloat16):
            found = getattr(ops, name)(x, axis=1)
            plain = getattr(ops, name)(x.values, axis=1)
        self.assertEqual(found.dtype, plain.dtype)
        wanted = getattr(ops, name)(x, axis=1)
        self.assertAllClose(
            ops.filled(found), ops.filled(wanted), rtol=1e-5, atol=1e-5
        )
