"""Rules of `keras.ops.numpy`."""

import numpy as np

from keras.src.masking.rules import arrange
from keras.src.masking.rules import batch as b
from keras.src.masking.rules import contract as c
from keras.src.masking.rules import count
from keras.src.masking.rules import inquire
from keras.src.masking.rules import layout
from keras.src.masking.rules import order
from keras.src.masking.rules import reduce as r
from keras.src.masking.rules import scan
from keras.src.masking.rules.batch import refused
from keras.src.masking.rules.index import get_item
from keras.src.masking.rules.merge import each_entry
from keras.src.masking.rules.merge import guarded
from keras.src.masking.rules.merge import merge
from keras.src.masking.rules.merge import multiply
from keras.src.masking.rules.merge import straight
from keras.src.masking.rules.merge import unchanged
from keras.src.masking.rules.nan import cumulate_skipping_nan
from keras.src.masking.rules.nan import skip_nan
from keras.src.masking.rules.scan import cumulate
from keras.src.ops import numpy as MODULE
from patchset.markers import when

NAN = float("nan")
RULES = {
    # Elementwise.
    "absolute": merge,
    "add": straight,
    "angle": merge,
    "arcsinh": merge,
    "arctan": merge,
    "array": merge,
    "bitwise_and": merge,
    "bitwise_invert": merge,
    "bitwise_left_shift": merge,
    "bitwise_not": merge,
    "bitwise_or": merge,
    "bitwise_right_shift": merge,
    "bitwise_xor": merge,
    "ceil": merge,
    "clip": merge,
    "conjugate": merge,
    "copy": merge,
    "cos": merge,
    "deg2rad": merge,
    "equal": straight,
    "fabs": merge,
    "floor": merge,
    "fmax": merge,
    "fmin": merge,
    "gcd": guarded(1, 1),
    "greater": straight,
    "greater_equal": straight,
    "heaviside": merge,
    "imag": merge,
    "isclose": merge,
    "isfinite": merge,
    "isinf": merge,
    "isnan": merge,
    "isneginf": merge,
    "isposinf": merge,
    "isreal": merge,
    "lcm": guarded(1, 1),
    "left_shift": merge,
    "less": straight,
    "less_equal": straight,
    "logical_and": merge,
    "logical_not": merge,
    "logical_or": merge,
    "logical_xor": merge,
    "maximum": merge,
    "minimum": merge,
    "multiply": multiply,
    "nan_to_num": merge,
    "negative": merge,
    "nextafter": merge,
    "not_equal": straight,
    "rad2deg": merge,
    "real": merge,
    "right_shift": merge,
    "round": merge,
    "sign": merge,
    "signbit": merge,
    "sin": merge,
    "square": guarded(0),
    "subtract": straight,
    "tanh": merge,
    "trunc": merge,
    "where": layout.where,
    # Elementwise, with operands kept in their domain.
    "arccos": guarded(0),
    "arccosh": guarded(2),
    "arcsin": guarded(0),
    "arctan2": guarded(0, 1),
    "arctanh": guarded(0),
    "cbrt": guarded(1),
    "copysign": guarded(1, 1),
    "cosh": guarded(0),
    "divide": guarded(None, 1),
    "divide_no_nan": guarded(None, 1),
    "exp": guarded(0),
    "exp2": guarded(0),
    "expm1": guarded(0),
    "float_power": guarded(1, 1),
    "floor_divide": guarded(None, 1),
    "fmod": guarded(None, 1),
    "hypot": guarded(1, 1),
    "i0": guarded(0),
    "ldexp": guarded(0, 0),
    "log": guarded(1),
    "log10": guarded(1),
    "log1p": guarded(0),
    "log2": guarded(1),
    "logaddexp": guarded(0, 0),
    "logaddexp2": guarded(0, 0),
    "mod": guarded(None, 1),
    "power": guarded(1, 1),
    "reciprocal": guarded(1),
    "sinc": guarded(0.5),
    "sinh": guarded(0),
    "sqrt": guarded(1),
    "tan": guarded(0),
    "true_divide": guarded(None, 1),
    # Reductions.
    "all": r.reduce(True),
    "allclose": r.allclose,
    "amax": r.reduce("lowest"),
    "amin": r.reduce("highest"),
    "any": r.reduce(False),
    "argmax": r.arg_extreme("max"),
    "argmin": r.arg_extreme("min"),
    "average": r.average,
    "count_nonzero": r.count_nonzero,
    "max": r.reduce("lowest"),
    "mean": r.mean,
    "min": r.reduce("highest"),
    "prod": r.reduce(1),
    "ptp": r.ptp,
    "std": r.std,
    "sum": r.total,
    "trace": r.trace,
    "trapezoid": r.trapezoid,
    "var": r.var,
    # Reductions that skip NaN.
    "nanargmax": skip_nan("argmax", -1),
    "nanargmin": skip_nan("argmin", -1),
    "nanmax": skip_nan("max", NAN),
    "nanmean": skip_nan("mean", NAN),
    "nanmedian": skip_nan("median", NAN),
    "nanmin": skip_nan("min", NAN),
    "nanpercentile": skip_nan("percentile", NAN),
    "nanprod": skip_nan("prod", 1),
    "nanquantile": skip_nan("quantile", NAN),
    "nanstd": skip_nan("std", NAN),
    "nansum": skip_nan("sum", 0),
    "nanvar": skip_nan("var", NAN),
    # Sorts, ranks and counts.
    "argpartition": order.argpartition,
    "argsort": order.argsort,
    "bincount": count.bincount,
    "corrcoef": refused("Every pair of rows would have entries of its own."),
    "cov": refused("Every pair of rows would have entries of its own."),
    "digitize": each_entry,
    "histogram": count.histogram,
    "isin": count.isin,
    "median": order.median,
    "nonzero": refused("How many entries are not 0 depends on the data."),
    "percentile": order.percentile,
    "quantile": order.quantile,
    "searchsorted": order.searchsorted,
    "sort": order.sort,
    "unique": refused("How many entries differ depends on the data."),
    # Layout.
    "append": arrange.append,
    "broadcast_to": layout.broadcast_to,
    "column_stack": arrange.columns,
    "concatenate": layout.join(new_axis=False),
    "array_split": layout.along_axis,
    "diag": arrange.among_zeros,
    "diagflat": arrange.among_zeros,
    "diagonal": arrange.moved,
    "dsplit": arrange.split_along(2),
    "dstack": arrange.stacked(2, 3),
    "expand_dims": layout.axes_motion(np.expand_dims),
    "flip": layout.turned,
    "fliplr": arrange.flip_along(1),
    "flipud": arrange.flip_along(0),
    "full": arrange.full,
    "geomspace": arrange.spaced(1),
    "get_item": get_item,
    "hsplit": arrange.split_along(1),
    "hstack": arrange.stacked(1, 1),
    "linspace": arrange.spaced(0),
    "logspace": arrange.spaced(0),
    "meshgrid": arrange.meshgrid,
    "moveaxis": layout.axes_motion(np.moveaxis),
    "pad": layout.pad,
    "ravel": layout.reshape,
    "repeat": layout.along_axis,
    "reshape": layout.reshape,
    "roll": layout.along_axis,
    "rot90": arrange.rot90,
    "select": arrange.select,
    "split": layout.along_axis,
    "squeeze": layout.axes_motion(np.squeeze),
    "stack": layout.join(new_axis=True),
    "swapaxes": layout.axes_motion(np.swapaxes),
    "take": layout.take,
    "take_along_axis": layout.take_along_axis,
    "tile": layout.tile,
    "transpose": layout.axes_motion(np.transpose),
    "tril": unchanged,
    "triu": unchanged,
    "unravel_index": arrange.unravel_index,
    "vander": arrange.powers,
    "view": arrange.view,
    "vsplit": arrange.split_along(0),
    "vstack": arrange.stacked(0, 2),
    # Contractions.
    "correlate": c.correlate,
    "dot": c.contract(c.dot),
    "einsum": c.contract(c.einsum),
    "inner": c.contract(c.inner),
    "kron": c.kron,
    "matmul": c.contract(c.matmul),
    "outer": c.contract(c.outer),
    "tensordot": c.contract(c.tensordot),
    "vdot": c.contract(c.vdot),
    # Over core axes.
    "cross": b.cross,
    "slogdet": b.batch_only(b.MATRIX),
    # Running results and steps.
    "cumprod": cumulate(1),
    "cumsum": cumulate(0),
    "diff": scan.diff,
    "nancumprod": cumulate_skipping_nan("cumprod", 1),
    "nancumsum": cumulate_skipping_nan("cumsum", 0),
    # Questions and tensors of the same shape.
    "empty_like": inquire.empty_like,
    "full_like": inquire.full_like,
    "ndim": inquire.of_values,
    "ones_like": inquire.like,
    "size": inquire.of_values,
    "zeros_like": inquire.like,
}

NESTS = {
    "column_stack",
    "concatenate",
    "dstack",
    "get_item",
    "hstack",
    "select",
    "stack",
    "vstack",
}

FUNCTIONS = {
    "einsum": lambda *operands, subscripts: MODULE.einsum(
        subscripts, *operands
    ),
}

_NUMBERS = "Takes numbers and makes a tensor of them."
_LENGTH = "Its length is one number; a masked tensor is refused."

ELSEWHERE = {
    "abs": "Is `absolute`.",
    "arange": _NUMBERS,
    "bartlett": _LENGTH,
    "blackman": _LENGTH,
    "conj": "Is `conjugate`.",
    "empty": _NUMBERS,
    "eye": _NUMBERS,
    "hamming": _LENGTH,
    "hanning": _LENGTH,
    "identity": _NUMBERS,
    "kaiser": _LENGTH,
    "ones": _NUMBERS,
    "tri": _NUMBERS,
    "zeros": _NUMBERS,
    "vectorize": "It takes a function. The one that it returns looks for "
    "masks itself and merges them.",
}

if when(">=3.16"):
    # They make no operation any more.
    del RULES["ndim"], RULES["size"]
    ELSEWHERE = {
        **ELSEWHERE,
        "amax": "Is `max`.",
        "amin": "Is `min`.",
        "ndim": "It asks for the rank of the values.",
        "size": "It asks for the number of the values.",
    }
