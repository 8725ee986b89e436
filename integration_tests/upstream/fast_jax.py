"""Lets JAX compile the many small functions of tests in less time."""

import os


def speed_up():
    """Lowers all functions in one context of MLIR, without tracebacks.

    JAX makes a context for each function that it compiles, with threads of its
    own, which takes a third of the time of tests.
    """
    import jax
    from jax._src.interpreters import mlir

    jax.config.update("jax_traceback_in_locations_limit", 0)
    context = mlir.make_ir_context()
    mlir.make_ir_context = lambda: context


if os.environ.get("KERAS_BACKEND") == "jax":
    speed_up()
