"""Operations over core axes: masks may cover the batch axes alone."""


def refused(reason):
    """A rule for an op that can do nothing sensible with a mask.

    Args:
        reason: Why, a sentence of the error.
    """

    def rule(call):
        raise call.refuse(reason)

    rule.__name__ = "refused"
    rule.reason = reason
    return rule
