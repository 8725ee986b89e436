"""Rules of `keras.ops.nn`."""

from keras.src.masking.families import attention
from keras.src.masking.families import normalize as n
from keras.src.masking.families import reduce as r
from keras.src.masking.families import window as w
from keras.src.masking.families.merge import guarded
from keras.src.masking.families.merge import merge
from keras.src.ops import nn as MODULE

RULES = {
    # Activations.
    "celu": guarded(0),
    "elu": guarded(0),
    "gelu": merge,
    "hard_shrink": merge,
    "hard_sigmoid": merge,
    "hard_silu": merge,
    "hard_tanh": merge,
    "leaky_relu": merge,
    "log_sigmoid": merge,
    "relu": merge,
    "relu6": merge,
    "selu": guarded(0),
    "sigmoid": merge,
    "silu": merge,
    "soft_shrink": merge,
    "softplus": merge,
    "softsign": merge,
    "sparse_plus": merge,
    "sparse_sigmoid": merge,
    "squareplus": merge,
    "tanh_shrink": merge,
    "threshold": merge,
    # Normalizations.
    "batch_normalization": n.batch_normalization,
    "layer_normalization": n.layer_normalization,
    "log_softmax": n.softmax,
    "moments": r.moments,
    "normalize": n.normalize,
    "rms_normalization": n.rms_normalization,
    "softmax": n.softmax,
    "sparsemax": n.sparsemax,
    # Attention.
    "dot_product_attention": attention.dot_product_attention,
    # Losses and measures.
    "psnr": r.psnr,
    # Windows.
    "average_pool": w.average_pool,
    "conv": w.conv,
    "max_pool": w.max_pool,
}

ELSEWHERE = {}
