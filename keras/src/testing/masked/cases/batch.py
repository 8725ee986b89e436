"""Ops whose masks may cover batch axes only, windows and losses."""

import numpy as np

from keras.src import backend
from keras.src import ops
from keras.src.testing.masked.cases.window import Window
from keras.src.testing.masked.cases.window import is_valid
from keras.src.testing.masked.testing_utils import Drawn
from keras.src.testing.masked.testing_utils import T
from keras.src.testing.masked.testing_utils import leaves
from keras.src.testing.masked.testing_utils import over_all_axes
from keras.src.testing.masked.testing_utils import parts
from keras.src.testing.masked.testing_utils import plain
from keras.src.testing.masked.testing_utils import widened

STEPS = T((2, 3, 4), 2)
FULL = T((2, 3, 4), 3)


def matrices(*shape, mask=1):
    """Positive definite ones, with eigenvalues far apart, around 3, 6, 9."""
    middle = 3 * np.arange(1, shape[-2] + 1)[:, None] * np.eye(*shape[-2:])
    return T(shape, mask, "float32", middle - 0.8, middle + 0.8)


def images(*shape, mask=1, dtype="float32", high=1.0):
    return T(shape, mask, dtype, 0.0, high)


def both(*shape, mask=1):
    """The parts of complex numbers, one of them without a mask."""
    return [
        ((T(shape, mask), T(shape, mask)),),
        ((T(shape), T(shape, mask)),),
    ]


NAME = backend.backend()
SQUARE = [
    (matrices(3, 3, 3),),
    (matrices(0, 3, 3),),
    (matrices(2, 3, 2, 2, mask=1),),
    (matrices(2, 3, 2, 2, mask=2),),
]
TALL = [(matrices(3, 3, 2),), (matrices(2, 2, 3, 3, mask=2),)]
CORNERS = np.array([[0, 0], [0, 4], [4, 0], [4, 4]], "float32")
POINTS = T((2, 4, 2), None, "float32", CORNERS - 0.5, CORNERS + 0.5)
PICTURES = images(2, 5, 4, 3)
TRANSFORM = np.array([1, 0, 0, 0, 1, 0, 0, 0], "float32")

# The number of core axes of each operand, and examples.
CTC = 1, 2, 0, 0
BATCH_ONLY = {
    "cholesky": (2, [(x, False) for (x,) in SQUARE]),
    "det": (2, SQUARE),
    "eig": (2, SQUARE),
    "eigh": (2, SQUARE),
    "inv": (2, SQUARE),
    "logdet": (2, SQUARE),
    # NumPy's backend factors at least one matrix, TensorFlow's exactly one.
    "lu_factor": (
        2,
        [x for x in SQUARE if x[0].shape[0] and NAME != "tensorflow"],
    ),
    "matrix_power": (2, [(x, n) for (x,), n in zip(SQUARE, (3, 2, -2, 0))]),
    "matrix_rank": (2, TALL),
    "pinv": (2, TALL),
    "qr": (2, TALL),
    "slogdet": (2, SQUARE),
    "solve": (
        2,
        [
            (matrices(2, 3, 3), T((2, 3, 2), 1)),
            (matrices(2, 3, 3), T((2, 3, 2))),
            (matrices(2, 3, 3, mask=None), T((2, 3, 2), 1)),
        ],
    ),
    "solve_triangular": (
        2,
        [
            (matrices(2, 3, 3), T((2, 3, 2), 1), True),
            (matrices(2, 3, 3, mask=None), T((2, 3, 2), 1), False),
        ],
    ),
    "svd": (2, [(x, False, True) for (x,) in TALL]),
    # PyTorch has no transform of nothing.
    "fft": (
        1,
        both(2, 3, 4, mask=2) + (both(0, 3, 4) if NAME != "torch" else []),
    ),
    "fft2": (2, both(2, 3, 4)),
    "ifft2": (2, both(2, 3, 4)),
    "irfft": (1, both(2, 3, 5, mask=2)),
    "istft": (2, [(*x, 4, 2, 4) for x in both(2, 6, 3)]),
    "rfft": (1, [(STEPS,), (T((2, 8), 1), 10)]),
    "stft": (1, [(T((2, 3, 16), 2), 4, 2, 4), (T((2, 16), 1), 4, 2, 4)]),
    "view_as_complex": (1, [(T((2, 3, 2), 2),), (T((2, 3, 2), 1),)]),
    "view_as_real": (0, [(T((2, 3), 2, "complex64"),)]),
    "cross": (
        1,
        [
            (T((2, 4, 3), 2), T((2, 4, 3), 1)),
            (T((2, 1, 3)), T((2, 4, 3), 1)),
        ]
        # PyTorch's takes three components, and as many axes on both sides.
        + [
            (T((2, 4, 3), 2), T((4, 3))),
            (T((2, 4, 3)), T((4, 3), 1)),
            (T((2, 4, 2), 2), T((2, 4, 2), 2)),
        ]
        * (NAME != "torch"),
    ),
    "image.affine_transform": (
        (3, 1),
        [
            (PICTURES, np.stack([TRANSFORM] * 2)),
            (PICTURES, T((2, 8), 1, "float32", TRANSFORM, TRANSFORM + 0.1)),
            (
                images(2, 5, 4, 3, mask=None),
                T((2, 8), 1, "float32", TRANSFORM, TRANSFORM + 0.1),
            ),
        ],
    ),
    "image.elastic_transform": (
        3,
        # PyTorch's backend does not look at the seed.
        [(PICTURES, 2.0, 1.0, "bilinear", "constant", 0.0, 7)]
        * (NAME != "torch"),
    ),
    "image.gaussian_blur": (3, [(PICTURES,)]),
    "image.hsv_to_rgb": (
        1,
        [(PICTURES,), (images(2, 5, 4, 3, mask=3),)],
    ),
    "image.perspective_transform": (
        (3, 2, 2),
        [
            (PICTURES, POINTS, POINTS),
            (images(2, 5, 4, 3, mask=None), POINTS._replace(mask=1), POINTS),
        ],
    ),
    "image.resize": (
        3,
        [
            (PICTURES, (3, 6)),
            (PICTURES, (3, 3), "nearest"),
            (images(2, 5, 4, 3, dtype="uint8", high=255), (3, 6)),
            (images(2, 5, 4, 3, dtype="bfloat16"), (3, 6), "nearest"),
        ],
    ),
    "image.rgb_to_grayscale": (1, [(PICTURES,), (images(5, 4, 3, mask=2),)]),
    "image.rgb_to_hsv": (1, [(PICTURES,), (images(2, 5, 4, 3, mask=3),)]),
    "image.scale_and_translate": (
        (3, 1, 1),
        [
            (
                PICTURES,
                (2, 4, 4, 3),
                np.array([0.8, 1.0], "float32"),
                np.array([0.1, 0.2], "float32"),
                (1, 2),
                "linear",
            )
        ],
    ),
    "image.sobel_edges": (3, [(PICTURES,)]),
    "image.ssim": (
        3,
        [
            (PICTURES, images(2, 5, 4, 3), 1.0, 3),
            (PICTURES, images(2, 5, 4, 3, mask=None), 1.0, 3),
        ],
    ),
    "categorical_crossentropy": (
        1,
        [
            (
                T((2, 3, 4), a, "float32", 0.1, 1.0),
                T((2, 3, 4), b, "float32", 0.1, 1.0),
                logits,
            )
            for a, b in ((None, 2), (2, 1), (2, None))
            for logits in (False, True)
        ],
    ),
    "sparse_categorical_crossentropy": (
        (0, 1),
        [
            (
                T((2, 3), a, "int32", 0, 3),
                T((2, 3, 4), b, "float32", 0.1, 1.0),
                logits,
            )
            for a, b in ((None, 2), (2, 1), (2, None))
            for logits in (False, True)
        ],
    ),
    "ctc_loss": (
        CTC,
        [
            (
                T((3, 2), a, "int32", 1, 3),
                T((3, 5, 4), b),
                T((3,), None, "int32", 1, 2),
                T((3,), c, "int32", 5, 5),
            )
            for a, b, c in ((1, 1, 1), (None, 1, None), (None, None, 1))
        ]
        # One label or none: more do not fit into few frames.
        + [
            (
                T((3, 1), a, "int32", 1, 3),
                T((3, 5, 4), 2),
                T((3,), None, "int32", 1, 1),
                T((3,), c, "int32", 4, 5),
            )
            for a, c in ((None, None), (2, None), (None, 1))
        ],
    ),
}
CTC_DECODE = [
    (T((3, 5, 4), a), T((3,), b, "int32", 3, 5))
    for a, b in ((1, None), (None, 1), (1, 1), (2, None), (2, 1))
]
NAMES = {
    "adaptive_average_pool": ("output_size",),
    "adaptive_max_pool": ("output_size",),
    "categorical_crossentropy": ("from_logits",),
    "sparse_categorical_crossentropy": ("from_logits",),
    "conv_transpose": ("kernel", "strides", "padding"),
    "depthwise_conv": ("kernel", "strides", "padding"),
    "separable_conv": (
        "depthwise_kernel",
        "pointwise_kernel",
        "strides",
        "padding",
    ),
    "multi_hot": ("num_classes", "axis"),
    "one_hot": ("num_classes", "axis"),
}


def plainly(name, drawn):
    """The op on plain tensors: what lies under the masks is in its domain."""
    module, _, own_name = name.rpartition(".")
    function = getattr(ops.image if module else ops, own_name)
    names = NAMES.get(name, ())
    first = len(drawn) - len(names)
    args = plain(drawn)
    named = dict(zip(names, args[first:]))
    return [x for x, _ in parts(function(*args[:first], **named))]


def joint(drawn, cores):
    """AND of the masks over the batch axes."""
    operands = leaves(drawn)
    if isinstance(cores, int):
        cores = [cores] * len(operands)
    found = []
    for x, core in zip(operands, cores):
        shape = x.values.shape[: x.values.ndim - core]
        own = np.ones(shape, "bool") if x.mask is None else x.mask
        found.append(over_all_axes(own, shape))
    result = np.ones((), "bool")
    for mask in found:
        result = result & mask
    return result


def on_batch(name, cores):
    def oracle(*drawn):
        mask = joint(drawn, cores)
        return [(x, over_all_axes(mask, x.shape)) for x in plainly(name, drawn)]

    return oracle


def inverted(factors, upper):
    """The inverse of the matrix that has this factor, one by one."""
    values = np.zeros(factors.values.shape)
    for index in np.ndindex(values.shape[:-2]):
        factor = factors.values[index].astype("float64")
        factor = np.triu(factor).T if upper else np.tril(factor)
        values[index] = np.linalg.inv(factor @ factor.T)
    return [(values, factors.cells)]


def without_padding(x, lengths):
    """The valid steps of each row, one by one, and how many there are.

    The mask that is left is one over rows with a step.
    """
    if x.mask is None or x.mask.ndim < 2:
        return x, lengths
    values, counts = np.zeros_like(x.values), lengths.values.copy()
    for i, row in enumerate(x.mask):
        counts[i] = min(counts[i], row.sum())
        values[i, : row.sum()] = x.values[i][row]
    return Drawn(values, x.mask.any(1)), Drawn(counts, lengths.mask)


def ctc_loss(target, output, target_length, output_length):
    if target.mask is not None and target.mask.ndim > 1:
        target, target_length = without_padding(target, target_length)
        # A row without labels says nothing.
        target = target._replace(mask=None)
    output, output_length = without_padding(output, output_length)
    drawn = target, output, target_length, output_length
    mask = joint(drawn, CTC)
    # What is masked may not fit.
    lengths = [Drawn(np.where(mask, x.values, 1), None) for x in drawn[2:]]
    (values,) = plainly("ctc_loss", (target, output, *lengths))
    return [(values, mask)]


def decoded(inputs, lengths):
    inputs, lengths = without_padding(inputs, lengths)
    lengths = lengths._replace(values=np.maximum(lengths.values, 1))
    paths, scores = plainly("ctc_decode", (inputs, lengths))
    mask = joint((inputs, lengths), (2, 0))
    return [
        (paths, np.broadcast_to(mask[None, :, None], paths.shape)),
        (scores, np.broadcast_to(mask[:, None], scores.shape)),
    ]


# ------------------------------------------------------------------- windows


def zeroed(x):
    return np.where(x.cells, x.values, 0).astype("float32")


def convolved(name):
    def oracle(x, *rest):
        *kernels, stride, padding = rest
        filled = x._replace(values=zeroed(x), mask=None)
        (values,) = plainly(name, (filled, *rest))
        size = kernels[0].values.shape[0]
        cells = x.cells.any(-1)
        found = [Window(n, size, stride, padding) for n in cells.shape[1:]]
        mask = np.zeros(values.shape[:-1], "bool")
        for b, *position in np.ndindex(mask.shape):
            anchor = tuple(w.anchors[i] for w, i in zip(found, position))
            mask[(b, *position)] = is_valid(found, position, anchor, cells[b])
        return [(values, over_all_axes(mask, values.shape))]

    return oracle


def transposed(x, kernel, stride, padding):
    """Each step adds the kernel times itself, from its own place on."""
    kernel = kernel.values
    size, filters = kernel.shape[:2]
    length = x.values.shape[1]
    over = max(size - stride, 0)
    cut = over // 2 if padding == "same" else 0
    more = over if padding == "valid" else 0
    count = length * stride + more
    long = np.zeros((len(x.values), count + size + stride, filters))
    for i in range(length):
        spread = np.einsum("bc,kfc->bkf", zeroed(x)[:, i], kernel)
        long[:, i * stride : i * stride + size] += spread
    values = long[:, cut : cut + count]
    mask = np.zeros(values.shape[:2], "bool")
    for out, row in zip(mask, x.cells.any(-1)):
        # A row by itself.
        first, row = alone(row)
        if not len(row):
            continue
        # Blocks of a stride's length in the middle of what a step adds.
        blocks = (np.arange(len(row)) * stride - cut) + over // 2
        blocks = blocks[:, None] + np.arange(stride)
        for o in range(len(row) * stride + more):
            nearest = np.argmin(np.min(np.abs(blocks - o), axis=1))
            out[first * stride + o] = row[nearest]
    return [(values, over_all_axes(mask, values.shape))]


def alone(row, *others):
    """Where a row begins, and it without what is masked before and after.

    Args:
        row: A mask.
        *others: What else is cut in the same way.
    """
    valid = np.flatnonzero(row)
    own = slice(valid[0], valid[-1] + 1) if len(valid) else slice(0)
    return own.start or 0, *(x[own] for x in (row, *others))


def pooled(function):
    """Adaptive pooling row by row, window by window, of the valid entries."""

    def oracle(x, output_size):
        (count,) = output_size
        out = np.zeros((len(x.values), count, x.values.shape[2]))
        mask = np.zeros(out.shape, "bool")
        for b, j, c in np.ndindex(out.shape):
            row, values = x.cells[b, :, c], x.values[b, :, c]
            if x.mask.ndim > 1:
                _, row, values = alone(row, values)
            start = j * len(row) // count
            stop = -(-(j + 1) * len(row) // count)
            if stop > start:
                entries = values[start:stop][row[start:stop]]
                mask[b, j, c] = row[(start + stop - 1) // 2]
                out[b, j, c] = function(entries) if len(entries) else 0
        return [(out, mask)]

    return oracle


# -------------------------------------------------------------------- pixels


def marked(name):
    """Each entry is followed through the op by a mark of its own."""

    def oracle(x, *rest):
        (values,) = plainly(name, (x, *rest))
        marks = np.arange(1, x.values.size + 1, dtype="float32")
        marks = x._replace(values=marks.reshape(x.values.shape), mask=None)
        (sources,) = plainly(name, (marks, *rest))
        sources = np.round(sources).astype(int)
        if x.mask.ndim == 1:
            mask = over_all_axes(x.mask, values.shape)
        else:
            mask = np.append(False, x.cells)[sources]
        return [(values, mask)]

    return oracle


def unfolded(x, size, dilation=1, padding=0, stride=1):
    """As `marked`, of the patches that lie within the valid pixels' box."""
    ((values, mask),) = marked("unfold")(x, size, dilation, padding, stride)
    if x.mask.ndim == 1:
        return [(values, mask)]
    extents = (np.broadcast_to(size, 2) - 1) * dilation + 1
    mask = mask.copy()
    for cells, patches in zip(x.cells.any(1), mask):
        inside = in_box(np.pad(cells, padding, "edge"), extents, stride)
        patches &= inside.reshape(-1)
    return [(values, mask)]


def patched(x, size, strides, dilation=1, padding="valid"):
    """As `marked`, of the patches that lie within the valid pixels' box."""
    args = x, size, strides, dilation, padding
    ((values, mask),) = marked("image.extract_patches")(*args)
    if x.mask.ndim == 1 or padding != "valid":
        return [(values, mask)]
    extents = (np.broadcast_to(size, x.values.ndim - 2) - 1) * dilation + 1
    mask = mask.copy()
    for cells, patches in zip(x.cells.any(-1), mask):
        patches &= in_box(cells, extents, strides)[..., None]
    return [(values, mask)]


def in_box(cells, extents, stride):
    """Whether windows lie between the first and the last valid place.

    Args:
        cells: A mask.
        extents: How far a window reaches along each of its axes.
        stride: How far apart windows are along each.
    """
    axes = range(cells.ndim)
    inside = np.ones([1] * cells.ndim, "bool")
    for axis, extent in enumerate(extents):
        row = cells.any(tuple(a for a in axes if a != axis))
        before, after = np.cumsum(row) > 0, np.cumsum(row[::-1])[::-1] > 0
        own = [
            before[i] and after[i + extent - 1]
            for i in range(0, len(row) - extent + 1, stride)
        ]
        inside = inside & np.reshape(
            own, [-1 if a == axis else 1 for a in axes]
        )
    return inside


def folded(x, output_size, kernel_size, *rest):
    filled = x._replace(values=zeroed(x), mask=None)
    (values,) = plainly("fold", (filled, output_size, kernel_size, *rest))
    marks = x._replace(values=x.cells.astype("float32"), mask=None)
    (mask,) = plainly("fold", (marks, output_size, kernel_size, *rest))
    if x.mask.ndim == 1:
        return [(values, over_all_axes(x.mask, values.shape))]
    return [(values, mask > 0)]


def halves(x, axis):
    first, second = np.split(x.values, 2, axis)
    mask = np.logical_and(*np.split(x.cells, 2, axis))
    return [(first / (1 + np.exp(-second)), mask)]


def hot(x, num_classes, axis):
    rows = np.eye(num_classes)[x.values] * x.cells[..., None]
    mask = np.broadcast_to(x.cells[..., None], rows.shape)
    return [(np.moveaxis(rows, -1, axis), np.moveaxis(mask, -1, axis))]


def many_hot(x, num_classes, axis):
    ((rows, mask),) = hot(x, num_classes, axis)
    reduced = min(x.values.ndim - 1, 1)
    values = np.max(rows, reduced, initial=0)
    if x.mask.ndim <= reduced:
        return [(values, over_all_axes(x.mask, values.shape))]
    if x.mask.ndim == 1:
        return [(values, None)]
    return [(values, np.any(mask, reduced))]


def rotated(length, angle):
    values = length.values * np.exp(1j * angle.values)
    return [(values, length.cells & angle.cells)]


def surprise(target, output, from_logits):
    t, p = widened(target.values), widened(output.values)
    p = 1 / (1 + np.exp(-p)) if from_logits else p
    values = -t * np.log(p) - (1 - t) * np.log(1 - p)
    return [(values, target.cells & output.cells)]


MOVED = {
    "depth_to_space": [(T((2, 2, 3, 4), m), 2) for m in (1, 2, 3, 4)],
    "space_to_depth": [(T((2, 4, 2, 3), m), 2) for m in (1, 2, 3, 4)],
    "unfold": [
        (T((2, 2, 4, 3), 1), 2),
        (T((2, 2, 4, 3), 4), 2, 1, 1, 1),
        (T((2, 2, 4, 3), 3), (2, 1), 1, 0, 2),
        (T((2, 1, 6, 5), 4), 2, 2, 0, 1),
    ],
    "image.crop_images": [
        (T((2, 5, 4, 3), m), 1, 1, None, None, 2, 2) for m in (1, 2, 3, 4)
    ]
    + [(T((5, 4, 3), 2), 1, 1, None, None, 2, 2)],
    "image.pad_images": [
        (T((2, 3, 2, 3), m), 1, 1, None, None, 5, 4) for m in (1, 2, 3, 4)
    ],
    "image.extract_patches": [
        *[(T((2, 5, 4, 3), m), 2, 1) for m in (1, 2, 3, 4)],
        (T((2, 5, 4, 3), 3), (2, 2), 2, 1, "same"),
        (T((2, 3, 3, 3, 2), 4), (2, 2, 2), 1),
        (T((2, 3, 3, 3, 2), 1), (2, 2, 2), 1),
    ],
}
POOLS = [
    (T((2, 5, 4), 2), (3,)),
    (T((2, 5, 4), 3), (2,)),
    (T((2, 4, 3), 1), (2,)),
    (T((2, 9, 3), 2), (4,)),
]
EXAMPLES = {
    **{name: examples for name, (_, examples) in BATCH_ONLY.items()},
    **MOVED,
    "adaptive_average_pool": POOLS,
    "adaptive_max_pool": POOLS,
    "binary_crossentropy": [
        (
            T((2, 3, 4), a, "float32", 0.0, 1.0),
            T((2, 3, 4), b, "float32", 0.1, 0.9),
            logits,
        )
        for a, b in ((None, 2), (3, 1))
        for logits in (False, True)
    ],
    "cholesky_inverse": [
        (x, upper)
        for (x,) in SQUARE
        for upper in (False, True)
        # NumPy's backend solves at least one triangular system.
        if x.shape[0]
    ],
    "conv_transpose": [
        (STEPS, T((2, 5, 4)), 2, "same"),
        (FULL, T((3, 5, 4)), 1, "same"),
        (STEPS, T((3, 5, 4)), 2, "valid"),
        (STEPS, T((1, 5, 4)), 2, "valid"),
        (T((2, 6, 4), 2), T((4, 5, 4)), 1, "valid"),
        (T((2, 3, 4), 1), T((4, 5, 4)), 2, "same"),
    ],
    "ctc_decode": CTC_DECODE,
    "depthwise_conv": [
        (STEPS, T((3, 4, 2)), 1, "same"),
        (FULL, T((2, 4, 1)), 1, "valid"),
        (T((2, 6, 4, 3), 3), T((2, 2, 3, 1)), 1, "valid"),
        (T((2, 4, 4, 3), 2), T((2, 2, 3, 1)), 2, "same"),
    ],
    "fold": [
        (T((2, 4, 9), 1), (4, 4), 2),
        (T((2, 4, 9), 3), (4, 4), 2),
        (T((2, 4, 4), 2), (4, 4), 2, 1, 0, 2),
    ],
    "glu": [(STEPS, -1), (FULL, -1), (T((2, 4, 3), 2), 1)],
    "image.map_coordinates": [],
    "lstsq": [],
    "multi_hot": [
        (T((2, 3), 2, "int32", 0, 3), 4, -1),
        (T((2, 3), 1, "int32", 0, 3), 4, -1),
        (T((3,), 1, "int32", 0, 3), 4, -1),
        (T((2, 3, 2), 3, "int32", 0, 3), 4, -1),
    ],
    "one_hot": [
        (T((2, 3), 2, "int32", 0, 3), 4, -1),
        (T((2, 3), 1, "int32", 0, 3), 4, 1),
        (T((2, 3), 2, "int32", 0, 3), 4, 0),
        (T((2, 0), 2, "int32", 0, 3), 4, -1),
    ],
    "polar": [(STEPS, T((2, 3, 4), 3)), (T((2, 3)), T((2, 3), 1))],
    "separable_conv": [
        (STEPS, T((3, 4, 2)), T((1, 8, 5)), 1, "same"),
        (T((2, 4, 4, 3), 3), T((2, 2, 3, 1)), T((1, 1, 3, 2)), 1, "valid"),
    ],
}
ORACLES = {
    **{name: on_batch(name, cores) for name, (cores, _) in BATCH_ONLY.items()},
    **{name: marked(name) for name in MOVED},
    "image.extract_patches": patched,
    "unfold": unfolded,
    "adaptive_average_pool": pooled(np.mean),
    "adaptive_max_pool": pooled(np.max),
    "binary_crossentropy": surprise,
    "cholesky_inverse": inverted,
    "conv_transpose": transposed,
    "ctc_decode": decoded,
    "ctc_loss": ctc_loss,
    "depthwise_conv": convolved("depthwise_conv"),
    "fold": folded,
    "glu": halves,
    "multi_hot": many_hot,
    "one_hot": hot,
    "polar": rotated,
    "separable_conv": convolved("separable_conv"),
}
SPECS_DIFFER = {
    "eig": "The results are complex on most backends.",
    "lu_factor": "The pivots are integers.",
    "polar": "The result is complex.",
}
if NAME == "jax":
    SPECS_DIFFER["image.elastic_transform"] = "It cannot be traced."
