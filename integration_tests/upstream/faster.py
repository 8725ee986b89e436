"""Pytest plugin that lets tests take less time; it changes none of them."""

import gc
import os


def pytest_collection_finish():
    _look_no_more_at_what_is_there()


def pytest_runtest_teardown(item, nextitem):
    if nextitem is not None and nextitem.path != item.path:
        _look_no_more_at_what_is_there()


def _look_no_more_at_what_is_there():
    """Leaves what has been imported and compiled out of garbage collection.

    There are millions of objects, and some of what is tested, as `quantize`,
    asks for a collection each time.
    """
    gc.collect()
    gc.freeze()


def _lower_in_one_context():
    """Lowers all functions of JAX in one context of MLIR, without tracebacks.

    JAX makes a context for each function that it compiles, with threads of its
    own, which takes a third of the time of tests.
    """
    import jax
    from jax._src.interpreters import mlir

    jax.config.update("jax_traceback_in_locations_limit", 0)
    context = mlir.make_ir_context()
    mlir.make_ir_context = lambda: context


if os.environ.get("KERAS_BACKEND") == "jax":
    _lower_in_one_context()
