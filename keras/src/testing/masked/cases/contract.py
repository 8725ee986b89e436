"""Products of which sums are taken."""

import string

import numpy as np

from keras.src.testing.masked.testing_utils import FULL
from keras.src.testing.masked.testing_utils import STEPS
from keras.src.testing.masked.testing_utils import T
from keras.src.testing.masked.testing_utils import X
from keras.src.testing.masked.testing_utils import widened

EXAMPLES = {
    "dot": [(STEPS, T((4, 5))), (X, T((3, 2), 2)), (T((3,), 1), T((3,), 1))],
    "einsum": [
        ("btf,fd->btd", STEPS, T((4, 5))),
        ("btf,bt->bf", STEPS, X),
        ("btf,bsf->bts", STEPS, T((2, 2, 4), 2)),
        ("b...f,f->...", STEPS, T((4,))),
        ("ij,jk", X, T((3, 2), 1)),
        ("bt->b", X),
        ("btf->", STEPS),
    ],
    "inner": [(X, T((4, 3), 1)), (T((3,), 1), T((3,)))],
    "matmul": [
        (STEPS, T((4, 5))),
        (STEPS, T((2, 4, 3))),
        (T((2, 4, 3)), STEPS),
        (FULL, T((2, 4, 2), 3)),
        (FULL, T((4,), 1)),
        (T((3,), 1), STEPS),
        (T((2, 2, 3)), T((2, 3, 4), 2)),
        (T((5, 1, 2, 3), 2), T((2, 3, 2), 2)),
    ],
    "outer": [(T((2,), 1), T((3,), 1)), (T((2,)), T((3,), 1))],
    "tensordot": [
        (STEPS, T((4, 5)), 1),
        (STEPS, T((3, 4, 2), 1), 2),
        (STEPS, T((2, 5), 2), ((0,), (0,))),
    ],
}


def summed(operands, labels, out):
    """Products of valid entries, summed over the axes that `out` lacks.

    By NumPy's `einsum` on plain arrays. On those of `numpy.ma` it multiplies
    what lies under the masks and loses them, as `tensordot` and, of a masked
    and a plain one, `dot` do.

    Args:
        operands: Drawn operands.
        labels: A string for each of them, with a letter for each axis.
        out: The letters of the result.
    """
    values = np.einsum(
        ",".join(labels) + "->" + out,
        *(widened(np.where(x.cells, x.values, 0)) for x in operands),
    )
    own = [(x.mask, names) for x, names in zip(operands, labels)]
    own = [
        (mask, names[: mask.ndim]) for mask, names in own if mask is not None
    ]
    covered = set("".join(names for _, names in own))
    left = "".join(a for a in out if a in covered)
    if not left:
        return [(values, None)]
    pairs = np.einsum(
        ",".join(names for _, names in own) + "->" + left,
        *(mask.astype("int64") for mask, _ in own),
    )
    new = tuple(i for i, a in enumerate(out) if a not in left)
    return [
        (values, np.broadcast_to(np.expand_dims(pairs > 0, new), values.shape))
    ]


# The letters of axes that an ellipsis stands for.
HIDDEN = string.ascii_uppercase


def einsum(subscripts, *operands):
    inputs, arrow, out = subscripts.partition("->")
    labels = []
    for x, names in zip(operands, inputs.split(",")):
        hidden = x.values.ndim - len(names.replace("...", ""))
        labels.append(names.replace("...", HIDDEN[len(HIDDEN) - hidden :]))
    flat = "".join(labels)
    dots = "".join(a for a in HIDDEN if a in flat)
    if not arrow:
        once = {a for a in flat if flat.count(a) == 1} - {*dots}
        out = dots + "".join(sorted(once))
    return summed(operands, labels, out.replace("...", dots))


def matmul(x, y):
    batch = max(x.values.ndim, y.values.ndim) - 2
    batches = [
        HIDDEN[len(HIDDEN) - max(z.values.ndim - 2, 0) :] for z in (x, y)
    ]
    left = "n" if x.values.ndim > 1 else ""
    right = "m" if y.values.ndim > 1 else ""
    labels = [batches[0] + left + "k", batches[1] + "k" + right]
    out = HIDDEN[len(HIDDEN) - max(batch, 0) :] + left + right
    return summed((x, y), labels, out)


def dot(x, y):
    left = "abcd"[: x.values.ndim - 1]
    right = "ABCD"[: y.values.ndim - 1]
    labels = [left + "k", right[:-1] + "k" + right[-1:]]
    return summed((x, y), labels, left + right)


def inner(x, y):
    left = "abcd"[: x.values.ndim - 1]
    right = "ABCD"[: y.values.ndim - 1]
    return summed((x, y), [left + "k", right + "k"], left + right)


def outer(x, y):
    x, y = (z if z.values.ndim == 1 else flat(z) for z in (x, y))
    return summed((x, y), ["a", "b"], "ab")


def flat(x):
    return x._replace(
        values=x.values.ravel(),
        mask=None if x.mask is None else x.cells.ravel(),
    )


def tensordot(x, y, axes):
    x_names = "abcd"[: x.values.ndim]
    y_names = "ABCD"[: y.values.ndim]
    if isinstance(axes, int):
        pairs = zip(x_names[len(x_names) - axes :], y_names[:axes])
    else:
        pairs = ((x_names[i], y_names[j]) for i, j in zip(*axes))
    for mine, other in pairs:
        y_names = y_names.replace(other, mine)
    out = x_names + y_names
    out = "".join(a for a in out if out.count(a) == 1)
    return summed((x, y), [x_names, y_names], out)


ORACLES = {
    "dot": dot,
    "einsum": einsum,
    "inner": inner,
    "matmul": matmul,
    "outer": outer,
    "tensordot": tensordot,
}
