"""A masked tensor in each tensor argument of each public function.

No list decides which functions the door guards: the functions are walked, and
each may give a masked result, a plain one that `PLAIN` names, or an error that
names masks. Nothing else.
"""

import inspect

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.backend.common import global_state
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import UnsupportedMaskError
from keras.src.masking.registry import rule_for
from keras.src.ops.operation import Operation
from keras.src.random import random
from keras.src.testing.masked import testing_utils as u

M = np.array([[0.2, 0.4, 0.3], [0.5, 0.1, 0.7], [0.6, 0.9, 0.8]], "float32")
V = M[0]
S = (M @ M.T + np.eye(3)).astype("float32")
IDS = np.array([2, 0, 1], "int32")
# TensorFlow's counts have the dtype of the probabilities.
COUNTS = np.array([3, 4, 5], "int32")
if backend.backend() == "tensorflow":
    COUNTS = COUNTS.astype("float32")
J = np.array([[1, 0, 2], [0, 1, 1], [2, 2, 0]], "int32")
BATCH = np.arange(24, dtype="float32").reshape(2, 4, 3) / 24
IMAGE = np.arange(96, dtype="float32").reshape(2, 4, 4, 3) / 96
VOLUME = np.ones((1, 4, 4, 4, 1), "float32")
PICTURE = np.ones((1, 16, 16, 1), "float32")
SIGNAL = np.sin(np.arange(32, dtype="float32")).reshape(2, 16)
CHANNELS = {"data_format": "channels_last"}


def _plus(x):
    return x + 1.0


# Arguments of the functions that do not take 3 by 3 matrices. Arrays are the
# tensors; a dictionary at the end holds what is passed by name.
ARGUMENTS = {
    "adaptive_average_pool": (BATCH, 2, CHANNELS),
    "adaptive_max_pool": (BATCH, 2, CHANNELS),
    "affine_transform": (IMAGE, np.ones((2, 8), "float32")),
    "arange": (3,),
    "argpartition": (M, 1),
    "array_split": (M, 3),
    "associative_scan": (lambda a, b: a + b, M),
    "average": (M, 0, V),
    "average_pool": (BATCH, 2, 2, CHANNELS),
    "bartlett": (IDS[:1].reshape(()) + 3,),
    "batch_normalization": (M, V, V, -1, V, V),
    "binary_crossentropy": (M, M),
    "bincount": (IDS, V),
    "blackman": (IDS[:1].reshape(()) + 3,),
    "broadcast_to": (M, (2, 3, 3)),
    "cast": (M, "int32"),
    "categorical_crossentropy": (M, M),
    "cholesky": (S,),
    "cholesky_inverse": (S,),
    "clip": (M, 0.0, 1.0),
    "cond": (np.array(True), lambda: 1.0, lambda: 0.0),
    "conv": (BATCH, np.ones((2, 3, 2), "float32"), CHANNELS),
    "conv_transpose": (BATCH, np.ones((2, 2, 3), "float32"), CHANNELS),
    "convert_to_tensor": (M,),
    "correlate": (V, V),
    "crop_images": (IMAGE, 1, 1, {"target_height": 2, "target_width": 2}),
    "cross": (M, M),
    "ctc_decode": (BATCH, np.array([4, 4], "int32")),
    "ctc_loss": (
        np.array([[1, 2], [1, 2]], "int32"),
        BATCH,
        np.array([2, 2], "int32"),
        np.array([4, 4], "int32"),
    ),
    "depth_to_space": (np.ones((1, 2, 2, 4), "float32"), 2, CHANNELS),
    "depthwise_conv": (BATCH, np.ones((2, 3, 1), "float32"), CHANNELS),
    "digitize": (V, np.array([0.1, 0.5])),
    "dot_product_attention": (IMAGE, IMAGE, IMAGE),
    "dsplit": (IMAGE, 2),
    "dtype": (M,),
    "einsum": ("ij,jk->ik", M, M),
    "elastic_transform": (IMAGE,),
    "empty": ((2, 3),),
    "expand_dims": (M, 0),
    "extract_patches": (IMAGE, (2, 2)),
    "extract_patches_3d": (VOLUME, (2, 2, 2)),
    "extract_sequences": (SIGNAL, 4, 2),
    "eye": (3,),
    "fft": ((SIGNAL, SIGNAL),),
    "fft2": ((S, S),),
    "fold": (np.ones((1, 4, 4), "float32"), (4, 4), 2, {"stride": 2}),
    "fori_loop": (0, 2, lambda i, x: x + 1.0, M),
    "full": ((2, 3), 1.0),
    "full_like": (M, 1.0),
    "gaussian_blur": (IMAGE,),
    "gcd": (J, J),
    "geomspace": (1.0, 2.0),
    "get_item": (M, slice(1, 3)),
    "glu": (M[:, :2],),
    "grad": (_plus,),
    "hamming": (IDS[:1].reshape(()) + 3,),
    "hanning": (IDS[:1].reshape(()) + 3,),
    "histogram": (V,),
    "imag": ((M + 1j).astype("complex64"),),
    "hsplit": (M, 3),
    "hsv_to_rgb": (IMAGE,),
    "identity": (3,),
    "ifft2": ((S, S),),
    "image.resize": (IMAGE, (2, 2)),
    "in_top_k": (IDS, M, 2),
    "inv": (S,),
    "irfft": ((SIGNAL, SIGNAL),),
    "istft": ((np.ones((9, 3), "f"), np.ones((9, 3), "f")), 4, 2, 4),
    "jvp": (_plus, (M,), (M,)),
    "kaiser": (IDS[:1].reshape(()) + 3, 1.0),
    "lcm": (J, J),
    "ldexp": (M, J),
    "left_shift": (J, J),
    "linspace": (0.0, 1.0),
    "logspace": (0.0, 1.0),
    "lstsq": (S, V),
    "lu_factor": (S,),
    "map": (_plus, M),
    "map_coordinates": (M, np.ones((2, 4), "float32"), 1),
    "matrix_power": (S, 2),
    "max_pool": (BATCH, 2, 2, CHANNELS),
    "meshgrid": (V, V),
    "moments": (M, [0]),
    "moveaxis": (M, 0, 1),
    "multi_hot": (J, 3),
    "nanpercentile": (M, 50.0),
    "nanquantile": (M, 0.5),
    "one_hot": (IDS, 3),
    "ones": ((2, 3),),
    "pad": (M, ((1, 1), (1, 1))),
    "pad_images": (IMAGE, 1, 1, {"target_height": 8, "target_width": 8}),
    "percentile": (M, 50.0),
    "perspective_transform": (
        IMAGE,
        np.array([[[0, 0], [0, 3], [3, 0], [3, 3]]] * 2, "float32"),
        np.array([[[0, 1], [0, 3], [3, 0], [3, 3]]] * 2, "float32"),
    ),
    "psnr": (M, M, 1.0),
    "quantile": (M, 0.5),
    "rearrange": (M, "a b -> b a"),
    "reconstruct_patches": (np.ones((1, 2, 3, 12), "float32"), (2, 2)),
    "repeat": (M, 2),
    "reshape": (M, (9,)),
    "resize": (IMAGE, (2, 2)),
    "rgb_to_grayscale": (IMAGE,),
    "rgb_to_hsv": (IMAGE,),
    "right_shift": (J, J),
    "roll": (M, 1),
    "saturate_cast": (M, "int32"),
    "scale_and_translate": (
        IMAGE,
        (2, 4, 4, 3),
        np.ones(2, "float32"),
        np.ones(2, "float32"),
        (1, 2),
        "linear",
    ),
    "scan": (lambda c, x: (c + x, x), V, M),
    "scatter": (IDS[:, None], V, (3,)),
    "scatter_update": (V, IDS[:, None], V),
    "searchsorted": (np.array([0.1, 0.5, 0.7], "float32"), V),
    "segment_max": (V, np.array([0, 0, 1], "int32"), 2),
    "segment_min": (V, np.array([0, 0, 1], "int32"), 2),
    "segment_prod": (V, np.array([0, 0, 1], "int32"), 2),
    "segment_sum": (V, np.array([0, 0, 1], "int32"), 2),
    "select": ([M > 0.5, M > 0.1], [M, M]),
    "separable_conv": (
        BATCH,
        np.ones((2, 3, 1), "float32"),
        np.ones((1, 3, 2), "float32"),
        CHANNELS,
    ),
    "slice": (M, (0, 0), (2, 2)),
    "slice_update": (M, (0, 0), M[:2]),
    "slogdet": (S,),
    "sobel_edges": (IMAGE,),
    "solve": (S, M),
    "solve_triangular": (S, M),
    "space_to_depth": (np.ones((1, 4, 4, 1), "float32"), 2, CHANNELS),
    "sparse_categorical_crossentropy": (IDS, M),
    "split": (M, 3),
    "squeeze": (M[:, :1],),
    "ssim": (PICTURE, PICTURE, 1.0),
    "stft": (SIGNAL, 4, 2, 4),
    "swapaxes": (M, 0, 1),
    "switch": (np.array(0), [_plus, _plus], M),
    "take": (M, IDS),
    "take_along_axis": (M, J, 1),
    "threshold": (M, 0.5, 0.0),
    "tile": (M, 2),
    "top_k": (M, 2),
    "tri": (3,),
    "unfold": (np.ones((1, 1, 4, 4), "float32"), 2),
    "unravel_index": (IDS, (3, 3)),
    "vander": (V,),
    "vdot": (V, V),
    "vectorize": (_plus,),
    "vectorized_map": (_plus, M),
    "view": (M, "int32"),
    "view_as_complex": (M[:, :2],),
    "view_as_real": ((M + 1j).astype("complex64"),),
    "vsplit": (M, 3),
    "while_loop": (lambda x: ops.all(x < 0), _plus, M),
    "zeros": ((2, 3),),
    **{
        f"bitwise_{name}": (J, J)
        for name in ("and", "or", "xor", "left_shift", "right_shift")
    },
    "bitwise_invert": (J,),
    "bitwise_not": (J,),
    "column_stack": ([M, M],),
    "concatenate": ([M, M],),
    "stack": ([M, M],),
    "hstack": ([M, M],),
    "vstack": ([M, M],),
    "dstack": ([M, M],),
    "block": ([M, M],),
}
# Functions of functions, and those that take no tensor.
NOTHING_TO_WALK = {"custom_gradient", "get_mask", "grad"}
# A plain answer, since it asks about the tensor, or since no axis of the mask
# is left, or since the mask is of labels, which are counted.
PLAIN = set(
    """all allclose amax amin any argmax argmin average bincount
    count_nonzero ctc_loss dot dtype einsum filled histogram is_masked is_tensor
    isin last logsumexp matmul max mean median min moments nanargmax
    nanargmin nanmax nanmean nanmedian nanmin nanpercentile nanprod
    nanquantile nanstd nansum nanvar ndim norm percentile prod psnr ptp
    quantile scatter searchsorted shape size std sum tensordot trace
    unstack var vdot""".split()
)


def functions():
    found = {}
    for module in (ops, ops.image):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            paths = getattr(function, "_api_export_path", ())
            paths = [paths] if isinstance(paths, str) else paths
            if any(path.startswith("keras.ops.") for path in paths):
                found[name] = function
    return found


def arguments_of(name, function):
    if name in ARGUMENTS:
        args = ARGUMENTS[name]
        if isinstance(args[-1], dict):
            return list(args[:-1]), args[-1]
        return list(args), {}
    required = [
        p
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD
    ]
    return [M for _ in required], {}


def with_one(args, place, value):
    """The arguments, with another value at a place, counted flat."""
    flat = tree.flatten(args)
    flat[place] = value
    return tree.pack_sequence_as(args, flat)


def masked(x):
    mask = np.ones(x.shape[:1], "bool")
    mask[0] = False
    return backend.MaskedTensor(x, mask)


def numpy_masked(x):
    hidden = np.zeros(x.shape, "bool")
    hidden[0] = True
    return np.ma.MaskedArray(x, hidden)


class DoorTest(testing.TestCase):
    @parameterized.named_parameters(
        (name, name) for name in u.part(sorted(functions()))
    )
    def test_each_argument_in_turn(self, name):
        if name in NOTHING_TO_WALK:
            return
        function = functions()[name]
        args, kwargs = arguments_of(name, function)
        tensors = tree.map_structure(
            lambda x: (
                backend.convert_to_tensor(x) if isinstance(x, np.ndarray) else x
            ),
            args,
        )
        try:
            function(*tensors, **kwargs)
        except (NotImplementedError, ImportError) as error:
            self.skipTest(f"not on this backend: {error}")
        for place, x in enumerate(tree.flatten(args)):
            if not isinstance(x, np.ndarray) or not x.ndim:
                continue
            for make in (masked, numpy_masked):
                self.check(
                    name,
                    function,
                    with_one(tensors, place, make(x)),
                    kwargs,
                )

    def check(self, name, function, args, kwargs):
        try:
            result = function(*args, **kwargs)
        except (TypeError, ValueError, NotImplementedError) as error:
            self.assertRegex(str(error).lower(), "mask", name)
            return
        if not any(
            isinstance(x, (MaskedTensorBase, np.ma.MaskedArray))
            for x in tree.flatten(result)
        ):
            self.assertIn(name, PLAIN, f"silently plain: {result}")

    @parameterized.named_parameters(
        ("beta", "beta", ((3,), V, V), {"seed": 1}),
        ("binomial", "binomial", ((3,), COUNTS, V), {"seed": 1}),
        ("categorical", "categorical", (M, 2), {"seed": 1}),
        ("gamma", "gamma", ((3,), V), {"seed": 1}),
        ("normal", "normal", ((3,), V, V), {}),
        ("randint", "randint", ((3,), IDS, IDS), {}),
        ("shuffle", "shuffle", (M,), {"seed": 1}),
        ("truncated_normal", "truncated_normal", ((3,), V, V), {}),
        ("uniform", "uniform", ((3,), V, V), {}),
    )
    def test_each_argument_of_a_random_draw(self, name, args, kwargs):
        function = getattr(random, name)
        for place, x in enumerate(tree.flatten(args)):
            if not isinstance(x, np.ndarray):
                continue
            for make in (masked, numpy_masked):
                own = with_one(args, place, make(x))
                if kwargs:
                    result = function(*own, **kwargs)
                    self.assertIsInstance(result, MaskedTensorBase)
                    continue
                with self.assertRaisesRegex(UnsupportedMaskError, name):
                    function(*own)

    def test_random_dropout_keeps_the_mask(self):
        for make in (masked, numpy_masked):
            result = random.dropout(make(M), 0.5, seed=1)
            self.assertIsInstance(result, MaskedTensorBase)
            plain = random.dropout(backend.convert_to_tensor(M), 0.5, seed=1)
            self.assertAllClose(result.values[1:], plain[1:])


class NoRow(Operation):
    def call(self, x, y=None):
        return x * 2.0


class RowToCome(Operation):
    """Stands for an operation of Keras that has no row yet."""

    __module__ = "keras.src.ops.to_come"

    def call(self, x):
        return x

    def compute_output_spec(self, x):
        return backend.KerasTensor(x.shape, x.dtype)


class WithRow(Operation):
    def call(self, x):
        return x

    def compute_output_spec(self, x):
        return backend.KerasTensor(x.shape, x.dtype)


class DispatchTest(testing.TestCase):
    def test_an_op_without_a_row_says_what_to_do(self):
        with self.assertRaises(UnsupportedMaskError) as caught:
            RowToCome()(masked(S))
        text = str(caught.exception)
        for part in (
            "`row_to_come`",
            "operand 0: values of shape (3, 3), mask of shape (3,)",
            "There is no rule yet",
            "keras.ops.filled",
            "x.values",
            "add a rule",
        ):
            self.assertIn(part, text)
        self.assertIsInstance(caught.exception, TypeError)

    def test_the_error_names_the_operand_that_is_masked(self):
        with self.assertRaisesRegex(UnsupportedMaskError, r"operand 1: values"):
            ops.solve(S, masked(M))

    def test_an_operation_of_a_third_party_runs_its_own_call(self):
        result = NoRow()(masked(M))
        self.assertIsInstance(result, MaskedTensorBase)
        self.assertAllClose(result.values[1:], M[1:] * 2)

    def test_rule_for_gives_one_a_rule(self):
        @rule_for(WithRow)
        def rule(op, x):
            return backend.MaskedTensor(x.values * 3.0, x.mask)

        result = WithRow()(masked(M))
        self.assertAllClose(result.values[1:], M[1:] * 3)
        self.assertAllEqual(result.mask, [False, True, True])

    def test_an_error_inside_a_rule_carries_a_note(self):
        with self.assertRaises(Exception) as caught:
            ops.add(masked(M), np.ones((3, 5), "float32"))
        note = "In `add` of values of shape (3, 3), mask of shape (3,)"
        self.assertIn(note, caught.exception.__notes__)

    def test_eager_dispatch_uses_up_no_automatic_name(self):
        global_state.clear_session()
        x = masked(M)
        ops.add(x, x)
        ops.mean(x)
        self.assertEqual(layers.Add().name, "add")

    def test_a_symbolic_operand_makes_an_eager_masked_one_a_constant(self):
        x = backend.KerasTensor((3, 3))
        for y in (ops.add(x, masked(M)), masked(M) + x, x + masked(M)):
            self.assertIsInstance(y, backend.KerasTensor)
            self.assertEqual(y._mask_spec.shape, (3,))

    def test_a_symbolic_call_without_a_row_raises_as_well(self):
        x = backend.KerasTensor((3, 3), mask=backend.KerasTensor((3,), "bool"))
        with self.assertRaisesRegex(UnsupportedMaskError, "row_to_come"):
            RowToCome()(x)

    def test_a_size_that_one_of_values_and_mask_leaves_open(self):
        for sizes in ((None, None), (None, 4), (3, None)):
            mask = backend.KerasTensor(sizes, "bool")
            x = backend.KerasTensor((3, 4), mask=mask)
            self.assertEqual(x._mask_spec.shape, (3, 4))
        mask = backend.KerasTensor((3, 4), "bool")
        x = backend.KerasTensor((None, 4), mask=mask)
        y = ops.matmul(x, np.ones((4, 5), "float32"))
        self.assertEqual(y.shape, (None, 5))
        self.assertEqual(y._mask_spec.shape, (None,))

    def test_unknown_dimensions_in_specs(self):
        mask = backend.KerasTensor((None, None), "bool")
        x = backend.KerasTensor((None, None, 4), mask=mask)
        for y, shape, mask_shape in (
            (x + 1.0, (None, None, 4), (None, None)),
            (x + x, (None, None, 4), (None, None)),
            (ops.mean(x, axis=1), (None, 4), (None,)),
            (ops.sum(x, axis=-1), (None, None), (None, None)),
            (ops.matmul(x, np.ones((4, 5), "f")), (None, None, 5), (None,) * 2),
            (ops.transpose(x, (1, 0, 2)), (None, None, 4), (None, None)),
            (ops.softmax(x, axis=1), (None, None, 4), (None, None)),
            (ops.concatenate([x, x], -1), (None, None, 8), (None, None)),
            (x[:, 0], (None, 4), (None,)),
            (ops.log(x), (None, None, 4), (None, None)),
        ):
            self.assertEqual(y.shape, shape)
            self.assertEqual(y._mask_spec.shape, mask_shape)
