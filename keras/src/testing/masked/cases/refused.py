"""Calls that are refused, one for each reason that a rule gives."""

import typing

from keras.src.ops.nn import Conv
from keras.src.ops.nn import DotProductAttention
from keras.src.testing.masked.testing_utils import T
from keras.src.testing.masked.testing_utils import function_of
from keras.src.testing.masked.testing_utils import is_there
from keras.src.testing.masked.testing_utils import map_leaves


class Case(typing.NamedTuple):
    """A call that is refused.

    Attributes:
        name: Name of the row.
        reason: What the error says, or what that begins with.
        args: The operands, with `T` in them.
        kwargs: What is passed by name.
        function: The function that is called; None for that of the row.
    """

    name: str
    reason: str
    args: tuple
    kwargs: dict = {}
    function: typing.Callable | None = None

    def call(self, make):
        """Calls the function with what `make` makes of each `T`."""
        args = map_leaves(make, self.args, T)
        kwargs = {k: map_leaves(make, v, T) for k, v in self.kwargs.items()}
        return (self.function or function_of(self.name))(*args, **kwargs)


ROW, PLAIN_ROW = T((3,), 1), T((3,))
STEPS, FULL, PLAIN = T((3, 3), 1), T((3, 3), 2), T((3, 3))
IDS, PLAIN_IDS = T((3,), 1, "int32", 0, 2), T((3,), None, "int32", 0, 2)
FLAGS = T((3,), 1, "bool")
HEADS = T((2, 3, 1, 4), 2)
BOUNDS = "A draw like this one takes plain numbers for its bounds and moments."
SEED = {"seed": 1}

CASES = [
    # Rows that refuse every mask.
    Case("corrcoef", "Every pair of rows would have entries", (STEPS,)),
    Case("cov", "Every pair of rows would have entries", (STEPS,)),
    Case("nonzero", "How many entries are not 0 depends on the data.", (ROW,)),
    Case("unique", "How many entries differ depends on the data.", (ROW,)),
    Case("lstsq", "It takes one matrix, without a batch.", (PLAIN, ROW)),
    Case(
        "image.map_coordinates",
        "Coordinates reach all axes, so that none is left for a mask.",
        (STEPS, T((2, 4), None, "float32", 0, 2), 1),
    ),
    Case("random.normal", BOUNDS, ((3,), ROW), SEED),
    Case("random.truncated_normal", BOUNDS, ((3,), 0.0, ROW), SEED),
    Case("random.uniform", BOUNDS, ((3,), ROW), SEED | {"maxval": 4.0}),
    Case("random.randint", BOUNDS, ((3,), IDS, 9), SEED),
    # Rows that refuse some.
    Case("cdist", "A distance needs all features of a row.", (PLAIN, FULL)),
    Case("dot", "A product with a scalar is", (STEPS, T(()))),
    Case("outer", "`outer` flattens; reshape to one axis", (STEPS, ROW)),
    Case("einsum", "A label is repeated, so a diagonal", ("ii->i", STEPS)),
    Case(
        "layer_normalization",
        "The scale and the offset must be plain.",
        (PLAIN, ROW),
    ),
    Case(
        "max",
        "Only the tensor that is reduced may be masked.",
        (STEPS,),
        {"initial": T((1,), 1)},
    ),
    Case("max", "Complex numbers have no order.", (T((3,), 1, "complex64"),)),
    Case(
        "moments",
        "Replicas would have to agree on the valid counts.",
        (STEPS, [0]),
        {"synchronized": True},
    ),
    Case("norm", "Only the Euclidean norm has a rule", (ROW,), {"ord": 1}),
    Case("norm", "A matrix norm needs all entries", (STEPS,), {"ord": "fro"}),
    Case(
        "bincount",
        "Counts of a masked tensor are dense.",
        (IDS,),
        {"sparse": True},
    ),
    Case("view", "The dtypes differ in size, and the last", (FULL, "int16")),
    Case(
        "quantile",
        "The method must be one of",
        (ROW, 0.5),
        {"method": "unheard_of"},
    ),
    Case(
        "quantile",
        "Only the first argument may be masked.",
        (PLAIN, T((2,), 1, "float32", 0.1, 0.9)),
    ),
    Case(
        "random.gamma",
        "A shape is made of plain numbers.",
        (T((2,), 1, "int32", 2, 3), 1.0),
        SEED,
    ),
    Case(
        "convert_to_tensor",
        "A masked tensor is neither sparse nor ragged.",
        (ROW,),
        {"sparse": True},
    ),
    Case(
        "one_hot", "A masked tensor is not sparse.", (IDS, 3), {"sparse": True}
    ),
    Case("get_item", "The key of a masked tensor must be plain.", (ROW, IDS)),
    Case(
        "get_item",
        "Of several indices none may be masked; `keras.ops.take(x, key, "
        "axis)` takes a masked one along any axis.",
        (PLAIN, (PLAIN_IDS, IDS)),
    ),
    Case(
        "get_item",
        "A masked boolean key would select an unknown number of entries.",
        (PLAIN_ROW, FLAGS),
    ),
    Case("where", "How many entries are True depends on the data.", (FLAGS,)),
    Case(
        "dot_product_attention",
        "Only its first 3 arguments, `query`, `key`, `value`, may be masked.",
        (HEADS, HEADS, HEADS),
        {"bias": T((2, 1, 3, 3), 1)},
    ),
    Case(
        "dot_product_attention",
        "Steps are left out, not single heads or features.",
        (HEADS, T((2, 3, 1, 4), 4), HEADS),
    ),
    Case(
        "scatter_update",
        "An update without a place cannot be made.",
        (PLAIN_ROW, T((3, 1), 1, "int32", 0, 2), PLAIN_ROW),
    ),
    Case(
        "slice_update",
        "A window without a place cannot be written.",
        (PLAIN, T((2,), 1, "int32", 0, 0), T((2, 3))),
    ),
    Case(
        "cond",
        "A masked predicate is neither true nor false.",
        (T((1,), 1, "bool"), lambda: 1.0, lambda: 0.0),
    ),
    # The public functions of these do not let the masks come so far.
    Case(
        "conv",
        "Only the signal may be masked, not the kernel.",
        (T((1, 4, 2), 2), T((2, 2, 2), 1)),
        function=lambda x, kernel: Conv(data_format="channels_last")(x, kernel),
    ),
    Case(
        "dot_product_attention",
        "Only query, key and value may be masked.",
        (HEADS, HEADS, HEADS, T((2, 1, 3, 3), 1)),
        function=lambda *args: DotProductAttention()(*args),
    ),
    Case(
        "conv",
        "The window goes over",
        (T((2, 2, 3, 2), 2), T((2, 2, 2)), 1),
        {"data_format": "channels_last"},
    ),
    # Functions that look at their first arguments only.
    Case(
        "bartlett",
        "The length of a window is one number.",
        (T((1,), 1, "int32", 3, 5),),
    ),
    *[
        Case(
            name,
            "Only its first argument, `inputs`, may be masked.",
            (T((1, 4, 2)), T(kernel, 1)),
            {"data_format": "channels_last"},
        )
        for name, kernel in (
            ("conv", (2, 2, 2)),
            ("conv_transpose", (2, 2, 2)),
            ("depthwise_conv", (2, 2, 1)),
        )
    ],
    Case(
        "bincount",
        "Only its first argument, `x`, may be masked.",
        (PLAIN_IDS, ROW),
    ),
    Case(
        "trapezoid",
        "Only its first argument, `y`, may be masked.",
        (PLAIN_ROW, ROW),
    ),
]
CASES = [case for case in CASES if case.function or is_there(case.name)]
