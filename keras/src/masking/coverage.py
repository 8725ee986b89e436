"""How many axes the mask of a result covers, told and not traced.

A mask covers leading axes of its values and has their sizes. So all there is
to know of it in a graph is their number, which a family tells from the types
and the ranks of the operands.
"""

import typing

from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.kinds import Nest
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.calls import Rule

# How many axes a mask covers, by a call and the spec of its values: a number,
# None where that is not known, or a nest of these for one of results.
Coverage: typing.TypeAlias = typing.Callable[[Call, Nest], Nest]


def covers(coverage: Coverage) -> typing.Callable[[Rule], Rule]:
    """Decorator: tells what the masks of a rule's results cover.

    The rule of an operation in a graph is not run then. One without is traced.

    Args:
        coverage: Function of the `Call`, whose operands may be symbolic, and
            of the spec of the values of one result. It gives the number of
            leading axes that its mask covers, 0 if it is plain, None if only
            tracing tells. What the rule refuses, it refuses.
    """

    def mark(rule):
        rule.coverage = coverage
        return rule

    return mark


def kept(call: Call, spec: Nest) -> int | None:
    """The mask of the masked operand."""
    return next(masks.covered(x) for x in call.operands() if has_mask(x))


def merged(call: Call, spec: Nest) -> int | None:
    """As far as any of the masks reaches, once the operands are broadcast."""
    operands = call.operands()
    return masks.reach(operands, max(len(x.shape) for x in operands))


def whole(call: Call, spec: Nest) -> int | None:
    """A mask over all axes, where there are any."""
    return len(spec.shape)


def plain(call: Call, spec: Nest) -> int | None:
    """No mask."""
    return 0
