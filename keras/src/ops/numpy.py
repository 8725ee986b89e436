"""The op functions ask the wider question: masked operands are dispatched.

Some operations did or promised in a graph what their functions do not do.
"""

import functools
import inspect

from keras.src import backend
from keras.src.api_export import keras_export
from keras.src.backend import KerasTensor
from keras.src.backend.common import hooks
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.backend.common.keras_tensor import (
    needs_dispatch as any_symbolic_tensors,
)
from keras.src.ops.arguments import as_keys
from keras.src.ops.arguments import is_basic
from keras.src.ops.arguments import with_integers
from keras.src.ops.asking import asks_first
from keras.src.ops.asking import carries
from keras.src.ops.asking import first_only
from keras.src.ops.asking import plain_only
from patchset.markers import keeps
from patchset.markers import new
from patchset.markers import when


@keeps("_plain_get_item")
@keras_export(["keras.ops.get_item", "keras.ops.numpy.get_item"])
def get_item(x, key):
    """Return `x[key]`; a masked integer key looks up 0 and stays masked."""
    if any_symbolic_tensors((key,)):
        return GetItem().symbolic_call(x, key)
    return _plain_get_item(x, key)


@keeps("_plain_average")
@keras_export(["keras.ops.average", "keras.ops.numpy.average"])
def average(x, axis=None, weights=None):
    """Compute the weighted average; weights may be masked as well."""
    if any_symbolic_tensors((weights,)):
        return Average(axis=axis).symbolic_call(x, weights=weights)
    return _plain_average(x, axis=axis, weights=weights)


@keeps("_plain_clip")
@keras_export(["keras.ops.clip", "keras.ops.numpy.clip"])
def clip(x, x_min, x_max):
    """Clip the values in a tensor; the bounds may be masked as well."""
    bounds = (x_min, x_max)
    if any_symbolic_tensors(bounds) and not any_leaf(KerasTensor, bounds):
        return hooks.call(Clip(x_min, x_max), (x,), {})
    return _plain_clip(x, x_min, x_max)


class GetItem:
    def call(self, x, key):
        """Upstream's takes a list of numbers for a tuple of them."""
        return backend.masked_kernels.index(x, tuple(as_keys(key)))

    @keeps("_basic_output_spec")
    def compute_output_spec(self, x, key):
        """Upstream's knows no arrays, and nothing outside of a tuple."""
        keys = as_keys(key)
        if is_basic(keys):
            return self._basic_output_spec(x, tuple(keys))
        arguments = (x, tuple(keys))
        return hooks.trace(
            backend.compute_output_spec, self.call, arguments, {}
        )


@when("<3.16")
class Histogram:
    def call(self, x):
        """Upstream's calls a function that no backend has."""
        return histogram(x, bins=self.bins, range=self.range)


class Quantile:
    def call(self, x, q):
        """Upstream's drops `method`, and its list of axes fails on JAX."""
        axis = None if self.axis is None else tuple(self.axis)
        return quantile(
            x, q, axis=axis, method=self.method, keepdims=self.keepdims
        )


@when("<3.16")
class Slogdet:
    def compute_output_spec(self, x):
        """Upstream's has one sign for the whole batch."""
        sign, logdet = (KerasTensor(x.shape[:-2], x.dtype) for _ in range(2))
        return sign, logdet


@new
def _taking_integers_of_numpy(init):
    """An `__init__` that asks for `int`, as its function of tensors does not.

    Args:
        init: That of an operation.
    """

    @functools.wraps(init)
    def wider(self, *args, **kwargs):
        args, kwargs = with_integers(args), dict(kwargs)
        for key, value in kwargs.items():
            kwargs[key] = with_integers(value)
        # From which the config is made.
        vars(self)["_init_arguments"] = args, kwargs
        init(self, *args, **kwargs)

    # By which the config and the row of the operation know its arguments.
    wider.__signature__ = inspect.signature(init)
    return wider


for _name in (
    "Argpartition",
    "Dsplit",
    "ExpandDims",
    "Hsplit",
    "Moveaxis",
    "Split",
    "Vsplit",
):
    if _name in globals():  # Keras 3.14 has no `Dsplit`.
        # Not by the class itself: in the loop it would have two names.
        globals()[_name].__init__ = _taking_integers_of_numpy(
            globals()[_name].__init__
        )

# Their kernels, weights and indices go past the question above.
for _name in (
    "bincount",
    "trapezoid",
):
    globals()[_name] = first_only(globals()[_name])

for _name in ("bartlett", "blackman", "hamming", "hanning", "kaiser"):
    globals()[_name] = plain_only("The length of a window is one number.")(
        globals()[_name]
    )
# They read a shape before they ask, or do not ask of each argument.
for _name in ("clip", "diagonal", "vander"):
    globals()[_name] = asks_first(globals()[_name])
# What it returns looks for masks itself.
globals()["vectorize"] = carries("vectorize")(vectorize)
