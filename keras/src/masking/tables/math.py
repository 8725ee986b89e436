"""Rules of `keras.src.ops.math`."""

from keras.src.masking.rules import batch as b
from keras.src.masking.rules import contract as c
from keras.src.masking.rules import order
from keras.src.masking.rules import reduce as r
from keras.src.masking.rules import scan
from keras.src.masking.rules import scatter
from keras.src.masking.rules.merge import each_entry
from keras.src.masking.rules.merge import guarded
from keras.src.masking.rules.merge import merge
from keras.src.ops import math as MODULE

RULES = {
    "cdist": c.cdist,
    "erf": merge,
    "erfc": merge,
    "erfinv": guarded(0),
    "gammainc": guarded(1, 1),
    "extract_sequences": scan.extract_sequences,
    "in_top_k": order.in_top_k,
    "lgamma": guarded(1),
    "logsumexp": r.logsumexp,
    "rsqrt": guarded(1),
    "top_k": order.top_k,
    # Over core axes.
    "fft": b.batch_only(b.VECTOR),
    "fft2": b.batch_only(b.Core(2)),
    "ifft2": b.batch_only(b.Core(2)),
    "irfft": b.batch_only(b.VECTOR),
    "istft": b.batch_only(b.Core(2)),
    "logdet": b.batch_only(b.MATRIX),
    "rfft": b.batch_only(b.VECTOR),
    "stft": b.batch_only(b.VECTOR),
    "view_as_complex": b.batch_only(b.VECTOR),
    "view_as_real": each_entry,
    "segment_max": scatter.segment("max"),
    "segment_min": scatter.segment("min"),
    "segment_prod": scatter.segment("prod"),
    "segment_sum": scatter.segment("sum"),
}

# A complex tensor is a pair of real ones.
NESTS = {"fft", "fft2", "ifft2", "irfft", "istft"}

ELSEWHERE = {}
