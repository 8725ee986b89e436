"""What it costs to find the rule of a composite tensor, in eager calls.

    KERAS_BACKEND=jax python benchmarks/composite_rules.py

The addition of two pairs of tensors by `keras.ops.add` and by `+`, less the two
additions that its rule makes. Beside it, where they are there, the same with
TensorFlow's `dispatch_for_api` and with quax (`pip install quax`).
"""

import importlib.util
import os
import statistics
import timeit

import numpy as np

if os.environ.get("KERAS_BACKEND") == "torch":
    import torch  # noqa: F401

import keras
from keras import ops

ROUNDS, CALLS = 15, 2000


class Pair(keras.CompositeTensor):
    left: keras.KerasTensor
    right: keras.KerasTensor
    shape = property(lambda self: self.left.shape)
    dtype = property(lambda self: self.left.dtype)


@keras.rule_for(ops.add, Pair)
def add(x1, x2):
    return Pair(x1.left + x2.left, x1.right + x2.right)


def microseconds(function):
    """The median time of a call."""
    times = timeit.repeat(function, number=CALLS, repeat=ROUNDS)
    return statistics.median(times) / CALLS * 1e6


def report(name, function, body):
    whole, alone = microseconds(function), microseconds(body)
    print(f"{name:34} {whole:8.1f} {alone:8.1f} {whole - alone:8.1f}")


def of_keras():
    x = Pair(np.ones(3, "float32"), np.ones(3, "float32"))
    report("keras.ops.add", lambda: ops.add(x, x), lambda: add(x, x))
    report("x + x", lambda: x + x, lambda: add(x, x))


def of_tensorflow():
    import tensorflow as tf

    class Both(tf.experimental.ExtensionType):
        left: tf.Tensor
        right: tf.Tensor

    def both(x, y):
        return Both(x.left + y.left, x.right + y.right)

    @tf.experimental.dispatch_for_api(tf.add, {"x": Both, "y": Both})
    def _add(x, y, name=None):
        return both(x, y)

    x = Both(tf.ones(3), tf.ones(3))
    report("tf.add, dispatch_for_api", lambda: tf.add(x, x), lambda: both(x, x))


def of_quax():
    import equinox
    import jax
    import quax

    class Both(quax.ArrayValue):
        left: jax.Array
        right: jax.Array

        def aval(self):
            return jax.core.ShapedArray(self.left.shape, self.left.dtype)

        def materialise(self):
            raise TypeError("It is not to be made dense.")

    def both(x, y):
        return Both(x.left + y.left, x.right + y.right)

    @quax.register(jax.lax.add_p)
    def _add(x: Both, y: Both):
        return both(x, y)

    del equinox
    x = Both(jax.numpy.ones(3), jax.numpy.ones(3))
    quaxified = quax.quaxify(jax.lax.add)
    report("quax", lambda: quaxified(x, x), lambda: both(x, x))


def main():
    print(f"{keras.backend.backend():34} {'us':>8} {'rule':>8} {'cost':>8}")
    of_keras()
    if keras.backend.backend() == "tensorflow":
        of_tensorflow()
    if keras.backend.backend() == "jax" and importlib.util.find_spec("quax"):
        of_quax()


if __name__ == "__main__":
    main()
