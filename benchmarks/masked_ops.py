"""Times masked ops beside plain ones, and beside what users write today.

    python benchmarks/masked_ops.py --backend jax
    python benchmarks/masked_ops.py --backend torch --only reductions --compile
    python benchmarks/masked_ops.py --backend torch --only calls

`reductions`: over axis 1 of 256 x 512 x 64 float32 with a mask of 256 x 512,
compiled where the backend compiles (PyTorch with `--compile`); in turn the
plain reduction of the same backend (the limit), the masked one, the usual
formula with `where`, and the masked arrays of others: `numpy.ma`,
`torch.masked`, marray (if installed).

`calls`: microseconds that an eager call with a masked tensor of a few entries
takes beyond the same call with a plain one.
"""

import argparse
import importlib
import os
import statistics
import sys
import time
from functools import partial

ROWS = (256, 512)
FEATURES = 64
ROUNDS = 15


def reductions(keras):
    """Milliseconds by op and by who computes it."""
    import numpy as np

    ops = keras.ops
    rng = np.random.default_rng(0)
    array = rng.normal(size=(*ROWS, FEATURES)).astype("float32")
    valid = np.arange(ROWS[1]) < rng.integers(1, ROWS[1], (ROWS[0], 1))
    values, mask = map(ops.convert_to_tensor, (array, valid))
    x = keras.MaskedTensor(values, mask)
    found = {}
    for name in ("sum", "mean", "var", "max", "softmax", "logsumexp"):
        function = getattr(ops, name)

        def reduce(x, function=function):
            return function(x, axis=1)

        contestants = {
            "plain": compiled(keras, reduce, values),
            "masked": compiled(keras, reduce, x),
            "where": compiled(keras, FORMULAS[name], values, mask),
            **others(keras, name, array, valid),
        }
        found[name] = in_turns(contestants)
    return found


def compiled(keras, function, *args):
    """The call of a function, compiled if the backend does that when asked."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        function = jax.jit(function)
        return lambda: jax.block_until_ready(function(*args))
    if backend == "tensorflow":
        import tensorflow as tf

        function = tf.function(function, jit_compile=True, autograph=False)
        return lambda: keras.ops.convert_to_numpy(function(*args))
    if backend == "torch" and os.environ.get("COMPILE"):
        import torch

        # It gives up on code that it has compiled for too many functions.
        torch.compiler.reset()
        function = torch.compile(function, dynamic=False)
    return lambda: function(*args)


LOWEST = -3e38


def _filled(x, mask, value):
    from keras import ops

    return ops.where(mask[..., None], x, value)


def _sum(x, mask):
    from keras import ops

    return ops.sum(_filled(x, mask, 0.0), axis=1)


def _mean(x, mask):
    from keras import ops

    count = ops.sum(ops.cast(mask, "float32"), axis=1, keepdims=True)
    return _sum(x, mask) / count


def _var(x, mask):
    from keras import ops

    distance = x - ops.expand_dims(_mean(x, mask), 1)
    return _mean(ops.square(distance), mask)


def _of_filled(name):
    def formula(x, mask):
        from keras import ops

        return getattr(ops, name)(_filled(x, mask, LOWEST), axis=1)

    return formula


FORMULAS = {
    "sum": _sum,
    "mean": _mean,
    "var": _var,
    "max": _of_filled("max"),
    "softmax": _of_filled("softmax"),
    "logsumexp": _of_filled("logsumexp"),
}


def others(keras, name, array, valid):
    """The masked arrays of others, where they have the op."""
    import numpy as np

    backend, found = keras.backend.backend(), {}
    hidden = np.broadcast_to(~valid[..., None], array.shape).copy()
    if backend == "numpy" and hasattr(np.ma, name):
        x = np.ma.MaskedArray(array, mask=hidden)
        found["numpy.ma"] = partial(getattr(np.ma, name), x, axis=1)
    if backend == "torch":
        import torch

        function = getattr(torch.masked, {"max": "amax"}.get(name, name))
        x, mask = torch.tensor(array), torch.tensor(~hidden)
        found["torch.masked"] = partial(function, x, 1, mask=mask)
    if backend in ("numpy", "torch") and name in ("sum", "mean", "var", "max"):
        try:
            import marray

            space = importlib.import_module(f"array_api_compat.{backend}")
        except ImportError:
            return found
        space = marray.masked_namespace(space)
        x = space.asarray(array, mask=hidden)
        found["marray"] = partial(getattr(space, name), x, axis=1)
    return found


def in_turns(contestants):
    """Milliseconds a call of each, the median of rounds that alternate."""
    spent = {name: [] for name in contestants}
    for call in contestants.values():
        call()
    for _ in range(ROUNDS):
        for name, call in contestants.items():
            start = time.perf_counter()
            call()
            spent[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(times) for name, times in spent.items()}


def calls(keras):
    """Microseconds an eager call takes, plain and masked."""
    import numpy as np
    from against_upstream import finisher
    from against_upstream import per_call

    ops = keras.ops
    values = ops.convert_to_tensor(np.ones((4, 8, 8), "float32"))
    mask = np.arange(8) < np.arange(1, 5)[:, None]
    masked = keras.MaskedTensor(values, mask)
    other = ops.convert_to_tensor(np.ones((8, 8), "float32"))
    dense = keras.layers.Dense(8)
    dense(values)
    functions = {
        "x + 1.0": lambda x: x + 1.0,
        "ops.exp": ops.exp,
        "ops.sum": lambda x: ops.sum(x, axis=1),
        "ops.mean": lambda x: ops.mean(x, axis=1),
        "ops.max": lambda x: ops.max(x, axis=1),
        "ops.softmax": lambda x: ops.softmax(x, axis=1),
        "ops.matmul": lambda x: ops.matmul(x, other),
        "ops.reshape": lambda x: ops.reshape(x, (4, 8, 2, 4)),
        "x[:, 1:]": lambda x: x[:, 1:],
        "layers.Dense": dense,
    }
    finish = finisher(keras)
    return {
        name: {
            "plain": per_call(partial(function, values), finish),
            "masked": per_call(partial(function, masked), finish),
        }
        for name, function in functions.items()
    }


SECTIONS = {"reductions": (reductions, "ms"), "calls": (calls, "us")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="jax")
    parser.add_argument("--only", default="reductions,calls")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    os.environ["KERAS_BACKEND"] = args.backend
    os.environ["COMPILE"] = "1" if args.compile else ""
    import against_upstream

    sys.path.insert(0, str(against_upstream.TREES["fork"]))
    if args.backend == "torch":
        import torch

        torch.set_grad_enabled(False)
    from rich.console import Console
    from rich.table import Table

    import keras

    for section in args.only.split(","):
        function, unit = SECTIONS[section]
        found = function(keras)
        columns = list(next(iter(found.values())))
        table = Table(title=f"{args.backend}, {section}, {unit}")
        for column in ("", *columns, "masked / plain", "masked - plain"):
            table.add_column(column)
        for name, times in found.items():
            plain, masked = times["plain"], times["masked"]
            cells = [f"{times[c]:.2f}" if c in times else "" for c in columns]
            ratio, cost = f"{masked / plain:.2f}", f"{masked - plain:.2f}"
            table.add_row(name, *cells, ratio, cost)
        Console().print(table)


if __name__ == "__main__":
    main()
