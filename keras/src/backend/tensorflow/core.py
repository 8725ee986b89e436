"""Shape inference carries masks beside the values, and no scan drops any."""

from pip_build import keeps


@keeps("_plain_compute_output_spec")
def compute_output_spec(fn, *args, **kwargs):
    from keras.src.masking import symbolic

    return symbolic.carry_masks(_plain_compute_output_spec, fn, args, kwargs)


@keeps("_plain_scan")
def scan(f, init, xs=None, length=None, reverse=False, unroll=1):
    """Refuses outputs that are masked in other places than the carry.

    Upstream makes room for outputs that are like the carry, and would drop
    what goes beyond that, a mask for one.
    """
    from keras.src.masking.families import carry

    def checked(state, x):
        new, y = f(state, x)
        if y is not None:
            names = "the carry", carry.together(new)
            names += "what a step puts out", carry.together(y)
            carry.agree("scan", *names)
        return new, y

    return _plain_scan(checked, init, xs, length, reverse, unroll)
