"""Rules of `keras.src.ops.core`."""

from keras.src.masking.rules import inquire
from keras.src.masking.rules import layout
from keras.src.masking.rules import scatter
from keras.src.masking.rules.merge import cast
from keras.src.masking.rules.merge import merge
from keras.src.ops import carry
from keras.src.ops import core as MODULE
from patchset.markers import when

RULES = {
    # One tensor.
    "cast": cast,
    "convert_to_tensor": inquire.to_tensor,
    "saturate_cast": merge,
    "slice": layout.slice_,
    "stop_gradient": merge,
    "unstack": layout.along_axis,
    # Writing to places.
    "scatter": scatter.scatter,
    "scatter_update": scatter.scatter_update,
    "slice_update": scatter.slice_update,
    # Control flow.
    "associative_scan": carry.by_function,
    "cond": carry.refused_predicate,
    "fori_loop": carry.by_function,
    "map": carry.by_function,
    "scan": carry.by_function,
    "switch": carry.by_function,
    "vectorized_map": carry.by_function,
    "while_loop": carry.by_function,
}

NESTS = {
    "associative_scan",
    "fori_loop",
    "map",
    "scan",
    "switch",
    "vectorized_map",
    "while_loop",
}

ELSEWHERE = {
    "convert_to_numpy": "It leaves the backend: a masked tensor becomes a "
    "`numpy.ma` array.",
    "custom_gradient": "It takes a function. The one that it returns looks "
    "for masks itself and sets the mask aside.",
    "dtype": "It reads an attribute, which a masked tensor has.",
    "is_tensor": "It asks for the type of its argument: True if masked.",
    "shape": "It asks for the shape of the values.",
}

if when(">=3.16"):
    ELSEWHERE = {
        **ELSEWHERE,
        "grad": "It takes a function. The one that it returns differentiates "
        "by the values, and puts the mask over what it gives.",
    }
