"""Composite tensors as PyTorch takes its own."""

import io
from unittest import mock

import numpy as np
import pytest

import keras
from keras.src import backend
from keras.src import ops
from keras.src.backend.common import keras_tensor
from keras.src.testing.composites import Box
from keras.src.testing.composites import CompositeTestCase
from keras.src.testing.composites import Graph
from keras.src.testing.composites import Interval
from keras.src.testing.composites import Wrapped
from keras.src.testing.composites import arrays
from keras.src.testing.composites import compiled
from keras.src.testing.composites import doubled
from keras.src.testing.composites import graph
from keras.src.testing.composites import interval


@pytest.mark.skipif(backend.backend() != "torch", reason="of PyTorch")
class TorchTest(CompositeTestCase):
    def setUp(self):
        import torch

        super().setUp()
        torch._dynamo.reset()

    def test_a_type_that_is_first_seen_while_compiling(self):
        import torch

        bias = torch.nn.Parameter(torch.ones(4))
        known = keras_tensor._PLAIN_LEAVES - {torch.Tensor, torch.nn.Parameter}

        def negative(x):
            zeros = ops.zeros_like(ops.convert_to_tensor(bias))
            return ops.negative(Interval(x.low + zeros, x.high))

        run = torch.compile(negative, backend="eager")
        with mock.patch.object(keras_tensor, "_PLAIN_LEAVES", known):
            self.assertAllClose(run(interval()).high, -interval().low)
        # The compiler guards what is known, and must not see it change.
        self.assertNotIn(torch.nn.Parameter, known)

    def test_no_array_cuts_off_a_gradient(self):
        import torch

        class Dense(keras.CompositeTensor):
            value: keras.KerasTensor
            shape = property(lambda self: self.value.shape)
            dtype = property(lambda self: self.value.dtype)

            def to_dense(self):
                return self.value * 2

        x = Dense(torch.ones(2, requires_grad=True))
        with self.assertRaisesRegex(TypeError, "convert_to_numpy"):
            backend.convert_to_tensor(x)
        self.assertAllClose(ops.convert_to_numpy(x), [2, 2])
        with torch.no_grad():
            self.assertAllClose(np.asarray(x), [2, 2])

    def test_it_is_not_read_entry_by_entry(self):
        import torch

        for function in (torch.as_tensor, torch.tensor):
            with self.assertRaisesRegex(TypeError, "as_tensor.*`Interval`"):
                function(interval())

    def test_compiles_once_for_a_static_and_as_tensors_for_shapes(self):
        import torch
        from torch._dynamo.testing import CompileCounter

        def counts(function, values):
            # What the first call of a process remembers, a graph would guard.
            function(values[0])
            torch._dynamo.reset()
            counter = CompileCounter()
            run = torch.compile(function, backend=counter, fullgraph=True)
            found = []
            for x in values:
                run(x)
                found.append(counter.frame_count)
            return found

        of_tensors = counts(
            lambda x: x * 2.0, [torch.ones(n) for n in (4, 4, 3, 2, 5)]
        )
        for make, run in ((interval, lambda x: x + 1.0), (graph, doubled)):
            found = counts(run, [make(n) for n in (4, 4, 3, 2, 5)])
            self.assertEqual(found, of_tensors)
        values = [interval(), interval(closed="left"), interval()]
        self.assertEqual(counts(lambda x: x + 1.0, values), [1, 2, 2])

    def test_compiled_keeps_masked_parts(self):
        self.assert_graph(compiled(doubled)(graph()), 2.0)

    def test_matrix_products_by_an_operator_are_not_swapped(self):
        """PyTorch's compiler gives `x @ tensor` as if it were `tensor @ x`."""
        import torch

        a = np.array([[5, 3], [2, 7]], "float32")
        b = torch.tensor([[2.0, 2.0], [3.0, 1.0]])
        # It goes back to Python, or says so where it may not.
        run = torch.compile(lambda x, y: x @ y, backend="aot_eager")
        self.assertAllClose(run(Wrapped(a), b).content, a @ b.numpy())
        self.assertAllClose(run(b, Wrapped(a)).content, b.numpy() @ a)
        with self.assertRaises(torch._dynamo.exc.Unsupported):
            compiled(lambda x, y: x @ y)(Wrapped(a), b)
        found = compiled(lambda x, y: ops.matmul(x, y))(Wrapped(a), b)
        self.assertAllClose(found.content, a @ b.numpy())

    def test_gradients(self):
        import torch

        for run in (lambda f: f, compiled):
            low = torch.tensor([1.0, 2.0], requires_grad=True)
            x = run(lambda low: Interval(low, low * 2) + low)(low)
            torch.sum(x.high * x.high).backward()
            self.assertAllClose(low.grad, 18 * low.detach())
        gradient = torch.func.grad(lambda x: (x.high * x.high).sum())(
            interval()
        )
        self.assert_interval(gradient, np.zeros(4), 2 * np.arange(4) + 1)
        found = torch.vmap(lambda x: x + 1.0)(interval())
        self.assert_interval(found, np.arange(4) - 0.5, np.arange(4) + 1.5)
        low = torch.tensor([1.0, 2.0], requires_grad=True)
        x = torch.utils.checkpoint.checkpoint(
            lambda x: x + 1.0, Interval(low, low), use_reentrant=False
        )
        torch.sum(x.low * x.low).backward()
        self.assertAllClose(low.grad, [4.0, 6.0])

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

        for x in (interval(), graph()):
            with self.assertRaisesRegex(
                keras.UnsupportedTypeError, "Doubled.apply.*gradient"
            ):
                Doubled.apply(x)
        self.assertAllClose(Doubled.apply(torch.ones(3)), [2.0] * 3)
        found = compiled(lambda x: Doubled.apply(x))(torch.ones(3))
        self.assertAllClose(found, [2.0] * 3)

    def test_export_is_saved_and_loaded(self):
        import torch

        class Module(torch.nn.Module):
            def forward(self, x, y):
                return x + y, Box(x, y)

        x, y = interval(), torch.ones(4)
        program = torch.export.export(Module(), (x, y))
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        loaded = torch.export.load(file).module()
        total, box = loaded(x, y)
        self.assert_interval(total, np.arange(4) - 0.5, np.arange(4) + 1.5)
        self.assert_interval(box.interval, x.low, x.high)
        self.assertAllClose(box.ids, y)
        with self.assertRaisesRegex(Exception, "left"):
            loaded(interval(closed="left"), y)

    def test_export_of_a_structure(self):
        import torch

        class Module(torch.nn.Module):
            def forward(self, x):
                return Graph(x.nodes * 2.0, x.edges, x.weights, x.directed)

        # Of masked nodes.
        found = torch.export.export(Module(), (graph(),)).module()(graph())
        self.assert_graph(found, 2.0)
        nodes = torch.ones((4, 3, 2))
        x = Graph(nodes, arrays()["edges"], None, False)
        found = torch.export.export(Module(), (x,)).module()(x)
        self.assertIsInstance(found, Graph)
        self.assertAllClose(found.nodes, 2 * nodes)
        self.assertIsNone(found.weights)
        self.assertIs(found.directed, False)

    def test_files_of_weights_only(self):
        import torch

        file = io.BytesIO()
        torch.save({"x": interval(closed="left")}, file)
        file.seek(0)
        found = torch.load(file, weights_only=True)["x"]
        self.assert_interval(
            found, np.arange(4) - 1.5, np.arange(4) + 0.5, "left"
        )

    def test_functions_of_torch_name_the_type(self):
        import torch

        for x in (interval(), graph()):
            self.assertFalse(torch.is_tensor(x))
            for name, run in (
                ("torch.add", lambda x: torch.add(x, 1, alpha=2)),
                ("torch.atan2", lambda x: torch.atan2(torch.ones(4), x)),
                ("torch.add_", lambda x: torch.ones(4).add_(x)),
                ("torch.sin", torch.sin),
                ("torch.sum", lambda x: torch.sum(x, dim=0)),
                ("torch.stack", lambda x: torch.stack([x, x])),
                ("torch.relu", torch.nn.functional.relu),
                ("torch.copy_", lambda x: torch.ones(4).copy_(x)),
            ):
                with self.assertRaisesRegex(
                    keras.UnsupportedTypeError,
                    rf"`{name}`.*`{type(x).__name__}`.*`x\.",
                ):
                    run(x)

    def test_a_data_loader_batches_the_parts(self):
        import torch
        from torch.utils.data import DataLoader

        rows = [
            (
                Graph(
                    keras.MaskedTensor(x["values"][i], x["mask"][i]),
                    x["edges"][i],
                    x["weights"][i],
                ),
                i,
            )
            for x in (arrays(),)
            for i in range(4)
        ]
        for workers in (0, 1):
            loader = DataLoader(rows, batch_size=3, num_workers=workers)
            batches = list(loader)
            self.assert_graph(batches[0][0], rows=slice(3))
            self.assert_graph(batches[1][0], rows=slice(3, 4))
            self.assertAllEqual(batches[1][1], [3])
            self.assertIsInstance(batches[0][0].edges, torch.Tensor)

    def test_a_batch_of_two_types_is_none(self):
        from torch.utils.data import default_collate

        for other in (interval(closed="left"), Wrapped([1.0])):
            with self.assertRaisesRegex(TypeError, "of one type"):
                default_collate([interval(), other])
        with self.assertRaisesRegex(TypeError, "the same parts"):
            default_collate([graph(), graph(weights=False)])
        with self.assertRaisesRegex(RuntimeError, "equal size"):
            default_collate([interval(), interval(3)])
