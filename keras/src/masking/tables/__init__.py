"""The tables: what each public op makes of a mask, a row an op.

`RULES` of a table maps the name of a public function to its rule. An op that
can do nothing sensible with a mask has the rule `refused`, with the reason.
`NESTS` names those of which an operand is a nest of tensors.
`ELSEWHERE` says of the functions that are not dispatched why they are not: they
take no tensor, or they are written in terms of others.
"""

from keras.src.masking.registry import make_row
from keras.src.masking.tables import activations
from keras.src.masking.tables import core
from keras.src.masking.tables import einops
from keras.src.masking.tables import image
from keras.src.masking.tables import linalg
from keras.src.masking.tables import masking
from keras.src.masking.tables import math
from keras.src.masking.tables import nn
from keras.src.masking.tables import numpy
from keras.src.masking.tables import random

TABLES = (
    numpy,
    nn,
    math,
    core,
    linalg,
    image,
    einops,
    activations,
    masking,
    random,
)

# Classes whose names do not follow from their function's.
CLASS_NAMES = {
    "allclose": "AllClose",
    "batch_normalization": "BatchNorm",
    "cdist": "CDist",
    "ctc_decode": "CTCDecode",
    "ctc_loss": "CTCLoss",
    "fft": "FFT",
    "fft2": "FFT2",
    "hsv_to_rgb": "HSVToRGB",
    "ifft2": "IFFT2",
    "irfft": "IRFFT",
    "isin": "IsIn",
    "istft": "ISTFT",
    "jvp": "JVP",
    "layer_normalization": "LayerNorm",
    "psnr": "PSNR",
    "relu": ("ReLU", "Relu"),
    "rfft": "RFFT",
    "rgb_to_grayscale": "RGBToGrayscale",
    "rgb_to_hsv": "RGBToHSV",
    "rms_normalization": "RMSNorm",
    "searchsorted": "SearchSorted",
    "ssim": "SSIM",
    "stft": "STFT",
    "svd": "SVD",
}

# Operation classes without a row, and why they need none. Neither do layers,
# which take masked tensors by their protocol.
WITHOUT_A_ROW = {
    "keras.src.ops.core._Carrying": "It is the base of those that take "
    "functions, which have rows.",
    "keras.src.ops.function.Function": "It runs its graph, whose operations "
    "are dispatched.",
    "keras.src.ops.masking.MakeMasked": "It takes plain parts and makes a "
    "masked tensor of them.",
    "keras.src.ops.math.SegmentReduction": "It is the base of the reductions "
    "of segments, which have rows.",
    "keras.src.ops.numpy.Abs": "`abs` makes an operation of `absolute`.",
    "keras.src.ops.numpy.Arange": "It takes numbers and makes a tensor of "
    "them.",
    "keras.src.ops.numpy.Conj": "`conj` makes an operation of `conjugate`.",
    "keras.src.quantizers.quantizers.FakeQuantWithMinMaxVars": "It is for "
    "weights, and they are plain.",
}


def rules_of(table):
    """The rules of the functions that this release has, by name."""
    return {
        name: rule
        for name, rule in table.RULES.items()
        if hasattr(table.MODULE, name)
    }


def all_rows():
    """Rows of all tables, by operation class, or by plain function."""
    rows = {}
    for table in TABLES:
        for name, rule in rules_of(table).items():
            public = getattr(table.MODULE, name)
            fn = getattr(table, "FUNCTIONS", {}).get(name, public)
            nests = name in getattr(table, "NESTS", ())
            if getattr(table, "KEYED_BY_FUNCTION", False):
                rows[fn.__wrapped__] = make_row(name, rule, None, fn)
                continue
            op_class = _op_class(table.MODULE, name)
            rows[op_class] = make_row(name, rule, op_class, fn, nests, public)
    return rows


def _op_class(module, name):
    camel = "".join(word[0].upper() + word[1:] for word in name.split("_"))
    names = CLASS_NAMES.get(name, camel)
    for candidate in (names,) if isinstance(names, str) else names:
        if hasattr(module, candidate):
            return getattr(module, candidate)
    raise AttributeError(
        f"No operation class was found for `{name}` in {module.__name__}: "
        f"looked for {names}. Name it in `CLASS_NAMES`."
    )
