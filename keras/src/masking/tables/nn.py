"""Rules of `keras.ops.nn`."""

from keras.src.masking.rules import attention
from keras.src.masking.rules import encode
from keras.src.masking.rules import losses
from keras.src.masking.rules import normalize as n
from keras.src.masking.rules import pixels as p
from keras.src.masking.rules import reduce as r
from keras.src.masking.rules import window as w
from keras.src.masking.rules.merge import glu
from keras.src.masking.rules.merge import guarded
from keras.src.masking.rules.merge import merge
from keras.src.ops import nn as MODULE

RULES = {
    # Activations.
    "celu": guarded(0),
    "elu": guarded(0),
    "gelu": guarded(0),
    "glu": glu,
    "hard_shrink": merge,
    "hard_sigmoid": merge,
    "hard_silu": guarded(0),
    "hard_tanh": merge,
    "leaky_relu": merge,
    "log_sigmoid": merge,
    "polar": merge,
    "relu": merge,
    "relu6": merge,
    "selu": guarded(0),
    "sigmoid": merge,
    "silu": guarded(0),
    "soft_shrink": merge,
    "softplus": merge,
    "softsign": merge,
    "sparse_plus": merge,
    "sparse_sigmoid": merge,
    "squareplus": guarded(0),
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
    "adaptive_average_pool": w.adaptive_average_pool,
    "adaptive_max_pool": w.adaptive_max_pool,
    "average_pool": w.average_pool,
    "conv": w.conv,
    "conv_transpose": w.conv_transpose,
    "depthwise_conv": w.conv,
    "max_pool": w.max_pool,
    "separable_conv": w.conv,
    # Pixels that move.
    "depth_to_space": p.motion(3),
    "fold": p.fold,
    "space_to_depth": p.motion(3),
    "unfold": p.unfold,
    # Indices.
    "multi_hot": encode.multi_hot,
    "one_hot": encode.one_hot,
    # Losses.
    "binary_crossentropy": guarded(0, 0.5),
    "categorical_crossentropy": losses.crossentropy,
    "ctc_decode": losses.ctc_decode,
    "ctc_loss": losses.ctc_loss,
    "sparse_categorical_crossentropy": losses.crossentropy,
}

ELSEWHERE = {
    "hard_swish": "Is `hard_silu`.",
    "swish": "Is `silu`.",
}
