"""How many axes the mask of a result covers, told and not traced.

A mask covers leading axes of its values and has their sizes. So all there is
to know of it in a graph is their number, which a family tells from the types
and the ranks of the operands.
"""

from keras.src.masking import masks
from keras.src.masking.errors import has_mask


def covers(coverage):
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


def kept(call, spec):
    """The mask of the masked operand."""
    return next(masks.covered(x) for x in call.operands() if has_mask(x))


def merged(call, spec):
    """As far as any of the masks reaches, once the operands are broadcast."""
    operands = call.operands()
    return masks.reach(operands, max(len(x.shape) for x in operands))


def whole(call, spec):
    """A mask over all axes, where there are any."""
    return len(spec.shape)


def plain(call, spec):
    """No mask."""
    return 0
