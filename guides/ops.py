"""
Title: What each op makes of a mask
Description: The families of ops, and attention, pooling and more in few lines.
Accelerator: None

`python guides/ops.py` runs this guide in seconds, with the fork and `rich`
installed. `KERAS_BACKEND` picks any backend, NumPy's too.

Read "Masked tensors in ten minutes" (`masked_tensors.py`) first. In one
sentence: a `keras.MaskedTensor` is values and a mask that says which of them
are there, and no valid result and no gradient depends on what is not there.
This guide is about what an op of `keras.ops` makes of that. What it makes of
each single one of them says the op table, `op_table.md`.

## Setup
"""

import os
import warnings

# TensorFlow is chatty, also where it is no more than installed.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

import keras
from keras import ops

console = Console()

"""
## Seven families

An op belongs to a family, and the family says what becomes of the mask. Who
knows the seven can tell what nearly any op will do.

- **Merge**: ops that work entry by entry, as `+`, `ops.maximum`, `ops.relu`.
  The result is valid where *every* masked operand is. A plain operand changes
  nothing about the mask. (`ops.where` chooses between masks as it does between
  values, see [below](#where-and-states-that-are-kept).)
- **Guarded merge**: those of them that leave their domain, or are infinitely
  steep, at ordinary numbers: `ops.log`, `/`, `ops.sqrt`. As merge; but what is
  masked goes in as a harmless number, so that it makes no NaN, neither in the
  result nor in a gradient.
- **Reduce**: `ops.mean`, `ops.max`, `ops.std`. Over the valid entries only. A
  row without any gives 0 (`ops.prod` 1, `ops.all` True), and is masked; where
  no axis of the mask is left, the result is plain.
- **Layout**: `ops.concatenate`, `ops.reshape`, `x[...]`. The mask makes the
  same motion as the values.
- **Contract**: `@`, `ops.einsum`. What is masked counts as 0 along an axis that
  is summed over. The other axes keep their masks.
- **Normalize**: `ops.softmax`, `ops.normalize`. What is masked takes no part,
  and stays masked.
- **Refuse**: where no answer is right, the op raises, and says why.

The others are for a few ops each, and are what one expects: what is masked
sorts last (`ops.sort`, `ops.top_k`), is padding to a window (`ops.conv`), is
not counted (`ops.bincount`), goes through a loop as it is (`ops.scan`). An op
that works on an axis as a whole, as `ops.fft` and `ops.inv` do, takes masks
over the axes before it, and refuses others.

A window is valid where its middle is. With `padding="valid"` all of it must lie
between the first and the last valid entry of its row: a row of `n` steps has
the same `n - k + 1` windows however far it is padded. Windows in larger steps
are counted from the first entry of the tensor, or with `padding="same"` from
its middle: pad *after* the rows, and to a multiple of the strides. What
`ops.pad` or `layers.ZeroPadding1D` add is masked, so no window of
`padding="valid"` reaches it: a causal convolution that is written as zeros
before the row, and `"valid"`, loses its first steps. Write `padding="causal"`;
or `ops.concatenate([zeros, x], axis=1)`, since plain zeros are valid.
"""


def seven_families():
    """One op of each family: the code, and what it gives."""
    x = keras.MaskedTensor([1.0, 2.0, 4.0], [True, False, True])
    y = keras.MaskedTensor([8.0, 5.0, 7.0], [True, True, False])
    return {
        "merge": ("x + y", x + y),
        "guarded merge": ("8 / x", 8 / x),
        "reduce": ("ops.mean(x)", ops.mean(x)),
        "layout": ("ops.concatenate([x, y])", ops.concatenate([x, y])),
        "contract": ("x @ y", x @ y),
        "normalize": ("ops.softmax(x)", ops.softmax(x)),
        "refuse": ("ops.unique(x)", refusal(ops.unique, x)),
    }


def refusal(function, *args):
    """The error with which a function refuses its arguments."""
    try:
        function(*args)
    except keras.masking.UnsupportedMaskError as error:
        return error
    raise AssertionError(f"`{function.__name__}` has found an answer.")


"""
## Examples

The functions below know nothing of masks, and have never heard of padding. Each
gives for a padded batch what it gives for its sequences one by one. So does
its gradient. The tests of this guide check both, for each function and backend,
with NaN as the padding.

### Attention in three lines

The scores of a query (rows) with a key (columns) are valid where both are.
`ops.softmax` leaves out what is masked in a row, and the last product is over
valid steps only. A query that is not there gets a masked result.
"""


def attend(q, k, v):
    scores = q @ ops.swapaxes(k, 1, 2)
    shares = ops.softmax(scores / q.shape[-1] ** 0.5)
    return shares @ v


"""
### Pooling

`ops.mean` divides by the number of the steps that are there. Of a mask of shape
`(batch, time)` the batch axis is left: a sequence without a step has a masked
mean, which is 0.
"""


def pool(x):
    return ops.mean(x, axis=1)


"""
### Standardizing

Mean and deviation are those of the valid steps. A sequence of one step has a
deviation of 0, where the slope of the root is infinite; `ops.std` of a masked
tensor has none there.
"""


def standardize(x):
    mean = ops.mean(x, axis=1, keepdims=True)
    std = ops.std(x, axis=1, keepdims=True)
    return (x - mean) / (std + 1e-3)


"""
### Running sums, steps, and the best of all

A masked entry adds nothing to a running sum. A difference is there where both
neighbours are. `ops.top_k` finds no more than there is: with less than `k`
entries the rest of the row is masked.
"""


def running_sum(x):
    return ops.cumsum(x, axis=1)


def steps(x):
    return x[:, 1:] - x[:, :-1]


def two_best(x):
    return ops.top_k(x, k=2)[0]


"""
### All pairs

Distances between all steps of a sequence, by broadcasting: two masks of shapes
`(batch, time, 1)` and `(batch, 1, time)` merge into that of all pairs. A matrix
of products between steps has the same mask; one between features is summed over
the steps, and is not masked along either.
"""


def distances(x):
    apart = x[:, :, None] - x[:, None]
    return ops.sqrt(ops.sum(ops.square(apart), axis=-1) + 1e-3)


def products_of_steps(x):
    return x @ ops.swapaxes(x, 1, 2)


def gram(x):
    return ops.swapaxes(x, 1, 2) @ x


"""
### `where`, and states that are kept

`ops.where(condition, new, old)` chooses between masks as between values, as
`numpy.ma.where` does, where both branches have an entry for each entry of the
mask. A recursion that keeps its state at padding is written so. A scalar, or
what is broadcast along the mask, is a fill, and as valid as what it fills:
`ops.where(causal, scores, -np.inf)` has the mask of the scores. Shapes decide
which is which; a size that is not known counts as one of entries of its own.
Where the condition tells single features apart and the masks do not, as in
`ops.where(x > 0, x, 0.1 * x)`, a step is valid if it is in both branches.

The same by arithmetic, `k * new + (1 - k) * old`, is masked where either of the
two is: what is not known, times 0, is not known. Write `ops.where(k > 0, new,
old)`, or fill what is masked: `k * ops.filled(new) + (1 - k) * old`.
"""


def running_state(x):
    """A state for each sequence, which its padding leaves as it is."""
    is_there = ops.get_mask(x)
    if is_there is None:
        is_there = ops.ones(ops.shape(x)[:2], "bool")

    def step(state, inputs):
        entry, is_there = inputs
        new = 0.5 * state + entry
        state = ops.where(is_there[:, None], new, state)
        return state, state

    # A carry that begins plain is all valid, as in `fori_loop`, `while_loop`.
    first = ops.zeros((len(x), x.shape[-1]))
    steps = ops.swapaxes(x, 0, 1), ops.swapaxes(is_there, 0, 1)
    state, _ = ops.scan(step, first, steps)
    return state


"""
## Indexing and assignment

A key falls on the axes of the mask as on those of the values. `x[:, 0]` has a
mask of shape `(batch,)`. A single entry is plain, and 0 if it is not there.

Masked tensors are immutable. `ops.slice_update` writes a window, and
`ops.scatter_update` writes single entries. What is written is valid if it is
valid where it comes from, whatever was there before. So writing plain numbers
into a masked place makes it valid.

A masked tensor of ids may look entries up. It finds the one with id 0 where it
is masked, and the result is masked there. That is what `Embedding` does.
"""


def start_with_zeros(x):
    return ops.slice_update(x, (0, 0, 0), ops.zeros_like(x[:, :1]))


def write(x, places, numbers):
    return ops.scatter_update(x, places, numbers)


def look_up(table, ids):
    return ops.take(table, ids, axis=0)


"""
## Refusals, and the ways out

`ops.unique` cannot know how many numbers it will find; a Fourier transform over
time needs every step. Such an op raises `keras.masking.UnsupportedMaskError`,
which names the op, the shapes, and the reason. There are three ways out:

- fill what is masked with a number that does no harm: `ops.filled(x, 0)`,
- drop the mask on purpose: `x.values`,
- give the op a rule.

For a script that cannot be changed today there is a setting:

```python
with keras.config.set_unsupported_mask("warn"):
    ...
```

Such an op then fills with 0 and gives a plain result, and a
`keras.masking.UnsupportedMaskWarning` names the line of your code, once.
Without `with` it holds until it is set to `"raise"` again, which is the
default. Mind that 0 is a number like any other to the op, and that the mask
ends there.
"""


def spectrum(x):
    """Of a signal that is silent where nothing is known of it."""
    signal = ops.filled(x, 0)
    real, imaginary = ops.rfft(signal)
    return ops.sqrt(ops.square(real) + ops.square(imaginary) + 1e-3)


def numbers_that_occur(x):
    """As a script would do it that has never heard of masks."""
    with keras.config.set_unsupported_mask("warn"):
        return ops.unique(x)


"""
## A rule for an operation of one's own

A function of `keras.ops`, or an `Operation` whose `call` uses nothing else,
needs no rule: its ops have theirs. A rule is for an operation that leaves
Keras, or for one that has a better answer than its ops. The last step of a
sequence is `x[:, -1]`; of a padded one that is padding. What is meant is the
last one that is there, as `ops.last(x)` gives it. By hand:
"""


class LastStep(keras.Operation):
    """The last step of each sequence."""

    def call(self, x):
        return x[:, -1]


@keras.masking.rule_for(LastStep)
def last_valid_step(op, x):
    places = ops.arange(ops.shape(x)[1])
    last = ops.max(ops.where(x.mask, places, -1), axis=1, keepdims=True)
    is_last = ops.expand_dims(places == last, -1)
    return ops.sum(ops.where(is_last, ops.filled(x, 0), 0.0), axis=1)


"""
The rule gets the operation and its operands, some of them masked, and returns
what the call gives. `x.mask` and `x.values` are plain tensors; here the result
is plain too, and 0 for a sequence without a step. The rule holds for eager
calls, compiled ones, and `keras.Input(..., mask_shape=...)`.

## What padding changes

Sequences of four, two and three steps, padded to nine: as a batch, and one by
one. On paper nothing changes; in numbers no more than rounding does.
"""

EXAMPLES = (
    attend,
    pool,
    standardize,
    running_sum,
    steps,
    distances,
    products_of_steps,
    gram,
    running_state,
    start_with_zeros,
    LastStep(),
)
LENGTHS = 4, 2, 3
PADDED = 9
FEATURES = 2


def change_by_padding(function):
    """The largest difference between a batch and its sequences one by one."""
    rng = np.random.default_rng(0)
    operands = [
        [rng.normal(size=(n, FEATURES)).astype("float32") for n in LENGTHS]
        for _ in range(3 if function is attend else 1)
    ]
    padded = [
        keras.MaskedTensor.from_ragged(rows, length=PADDED) for rows in operands
    ]
    together = ops.convert_to_numpy(ops.filled(function(*padded)))
    largest = 0.0
    for i, alone in enumerate(zip(*operands)):
        alone = (ops.convert_to_tensor(x[None]) for x in alone)
        (expected,) = ops.convert_to_numpy(function(*alone))
        found = together[(i, *(slice(n) for n in expected.shape))]
        largest = max(largest, float(np.max(np.abs(found - expected))))
    return largest


"""
## Running it
"""


def print_families():
    table = Table("family", "code", "result", title="One op of each family")
    for family, (code, result) in seven_families().items():
        table.add_row(family, Text(code), Text(text_of(result)))
    console.print(table)


def print_examples():
    x = keras.MaskedTensor.from_ragged([[3.0, 1.0, 2.0], [5.0]])
    show("x = keras.MaskedTensor.from_ragged([[3.0, 1.0, 2.0], [5.0]])", x)
    show("two_best(x)", two_best(x))
    show("x[:, ::2]", x[:, ::2])
    show("x[:, 0]", x[:, 0])
    show("x[1, 2]", x[1, 2])
    show("write(x, [[1, 1]], [9.0])", write(x, [[1, 1]], [9.0]))
    numbers = np.array([0.0, 10.0, 20.0], "float32")
    ids = keras.MaskedTensor([2, 1], [True, False])
    show("look_up([0, 10, 20], [2, --])", look_up(numbers, ids))
    show("ops.rfft(x)", refusal(ops.rfft, x))
    show("spectrum(x)", spectrum(x))
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        show("numbers_that_occur(x)", numbers_that_occur(x))
    for warning in given:
        place = f"{os.path.basename(warning.filename)}:{warning.lineno}"
        console.print(f"{place}: {warning.message}", highlight=False)


def print_changes():
    table = Table("function", "padding changes", title=f"Padded to {PADDED}")
    for function in EXAMPLES:
        name = getattr(function, "__name__", type(function).__name__)
        table.add_row(name, f"{change_by_padding(function):.1e}")
    console.print(table)


def show(code, result):
    console.print(f">>> {code}", style="bold", highlight=False, markup=False)
    console.print(text_of(result), highlight=False, markup=False)


def text_of(result):
    if isinstance(result, Exception):
        return f"{type(result).__name__}: {result}"
    array = ops.convert_to_numpy(result)
    if array.dtype.kind == "f":
        # As `numpy.ma` prints a float32, it has 17 digits.
        array = np.round(array.astype("float64"), 2)
    return str(array)


if __name__ == "__main__":
    print_families()
    print_examples()
    print_changes()
