"""Shape inference carries masks beside the values, and no scan drops any."""

import tensorflow as tf
from keras.src import tree
from keras.src.backend.common import hooks
from patchset.markers import keeps


@keeps("_plain_compute_output_spec")
def compute_output_spec(fn, *args, **kwargs):
    return hooks.trace(_plain_compute_output_spec, fn, args, kwargs)


@keeps("_plain_scan")
def scan(f, init, xs=None, length=None, reverse=False, unroll=1):
    """Also of several tensors of unknown length, as values and a mask are.

    Upstream makes room for outputs that are like the carry, and would drop
    what goes beyond that, a mask for one: such outputs are refused.
    """

    def checked(state, x):
        new, y = f(state, x)
        if y is not None:
            names = "the carry", hooks.carry.together(new)
            names += "what a step puts out", hooks.carry.together(y)
            hooks.carry.agree("scan", *names)
        return new, y

    if not callable(f):
        return _plain_scan(f, init, xs, length, reverse, unroll)
    flat = [] if xs is None else tree.flatten(xs)
    flat = [convert_to_tensor(x) for x in flat]
    if len(flat) < 2 or length is not None or flat[0].shape[0] is not None:
        return _plain_scan(checked, init, xs, length, reverse, unroll)
    elements = tree.pack_sequence_as(xs, flat)

    def checked_at(state, i):
        return checked(state, tree.map_structure(lambda x: x[i], elements))

    steps = tf.range(tf.shape(flat[0])[0])
    return _plain_scan(checked_at, init, steps, None, reverse, unroll)


@keeps("_plain_associative_scan")
def associative_scan(f, elems, reverse=False, axis=0):
    """As upstream, which loses the rank where the size of a batch is unknown.

    Args:
        f: Function of two elements.
        elems: Nest of tensors.
        reverse: Whether to begin at the end.
        axis: The axis to scan along.

    Returns:
        A nest of tensors of the shapes of `elems`.
    """
    scans = _plain_associative_scan(f, elems, reverse=reverse, axis=axis)
    for y, x in zip(tree.flatten(scans), tree.flatten(elems)):
        y.set_shape(x.shape)
    return scans


@keeps("_plain_remat")
def remat(f):
    """As upstream, for masked tensors and for arguments by name as well.

    TensorFlow's own wants plain tensors by position, which are numbers. The
    rest has no gradient, and need not pass through it.

    Args:
        f: The function or operation to rematerialize.

    Returns:
        A function wrapping `f`, which recomputes it for its gradient.
    """
    # Late: it imports the backend.
    from keras.src.masking.calls import values_of
    from keras.src.masking.masks import wrap

    def are_numbers(x):
        return is_tensor(values_of(x)) and x.dtype not in (tf.bool, tf.string)

    def replaced(x, values):
        return wrap(next(values), getattr(x, "mask", None))

    def with_numbers(nest, values):
        values = iter(values)
        return tree.map_structure(
            lambda x: replaced(x, values) if are_numbers(x) else x, nest
        )

    def numbers(nest):
        return [values_of(x) for x in tree.flatten(nest) if are_numbers(x)]

    def wrapped(*args, **kwargs):
        outputs = None

        def run(*values):
            nonlocal outputs
            given, named = with_numbers((args, kwargs), values)
            outputs = f(*given, **named)
            return numbers(outputs)

        values = _plain_remat(run)(*numbers((args, kwargs)))
        return with_numbers(outputs, values)

    return wrapped
