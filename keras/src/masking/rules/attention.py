"""Attention in one op: masked keys take no part."""

from keras.src import backend
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.kinds import AnyTensor
from keras.src.masking import masks
from keras.src.masking.calls import Call
from keras.src.masking.coverage import covers


def _check(call):
    _, _, _, *others = call.args
    if any(map(has_mask, (*others, *call.kwargs.values()))):
        raise call.refuse("Only query, key and value may be masked.")
    if any(masks.covered(x) > 2 for x in call.args):
        raise call.refuse("Steps are left out, not single heads or features.")


def _covered(call, spec):
    _check(call)
    query, key, value = call.args[:3]
    if has_mask(key) or has_mask(value):
        return 2
    return masks.covered(query)


@covers(_covered)
def dot_product_attention(call: Call) -> AnyTensor:
    """Valid where the query is, if its batch has a valid key at all.

    The explicit mask and causality leave keys out for some of the queries, and
    make no mask. A query that is left with nothing gets 0.
    """
    query, key, value, *others = call.args
    bias, explicit = (*others, None, None)[:2]
    _check(call)
    valid = _joint([_per_step(x) for x in (key, value) if masks.is_masked(x)])
    if valid is None:
        return masks.wrap(call.compute(), query.mask)
    seen = [backend.numpy.expand_dims(valid, (1, 2))]
    if explicit is not None:
        seen.append(backend.cast(explicit, "bool"))
    if call.argument("is_causal"):
        seen.append(_past(query, key))
    seen = _joint(seen)
    call.kwargs |= {"is_causal": False}
    steps = map(masks.filled, (key, value))
    values = call.compute(query, *steps, bias, seen)
    any_seen = backend.numpy.any(seen, axis=-1, keepdims=True)
    any_seen = backend.numpy.transpose(any_seen, (0, 2, 1, 3))
    values = masks.fill(values, any_seen, 0)
    mask = backend.numpy.any(valid, axis=1, keepdims=True)
    if masks.is_masked(query):
        mask = backend.numpy.logical_and(mask, _per_step(query))
    return masks.wrap(
        values, backend.numpy.broadcast_to(mask, backend.shape(values)[:2])
    )


def _per_step(x):
    return masks.to_rank(x.mask, x.values, 2)


def _past(query, key):
    """Which keys are not after a query, as a mask of shape (1, 1, T, S)."""
    rows, columns = (
        backend.numpy.arange(
            backend.shape(x.values if masks.is_masked(x) else x)[1]
        )
        for x in (query, key)
    )
    past = backend.numpy.expand_dims(rows, 1) >= columns
    return backend.numpy.expand_dims(past, (0, 1))


def _joint(found):
    joint = None
    for mask in found:
        joint = (
            mask if joint is None else backend.numpy.logical_and(joint, mask)
        )
    return joint
