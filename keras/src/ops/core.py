"""The op functions ask the wider question: masked operands are dispatched."""

import numpy as np

from keras.src import backend
from keras.src import tree
from keras.src.api_export import keras_export
from keras.src.backend import KerasTensor
from keras.src.backend.common import foreign
from keras.src.backend.common import hooks
from keras.src.backend.common.backend_utils import slice_along_axis
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.keras_tensor import (
    needs_dispatch as any_symbolic_tensors,
)
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.composite.errors import unsupported
from keras.src.ops.asking import asks_first
from keras.src.ops.asking import carries
from keras.src.ops.operation import Operation
from patchset.markers import keeps
from patchset.markers import new


@new
class _Carrying(Operation):
    """An operation that goes by its function, and whose specs know masks."""

    def _call_spec(self, *args, **kwargs):
        return self.compute_output_spec(*args, **kwargs)


class Map(_Carrying):
    def call(self, f, xs):
        return map(f, xs)

    @keeps("_plain_spec")
    def compute_output_spec(self, f, xs):
        return hooks.carry.map_(self._plain_spec, f, xs)


class Scan(_Carrying):
    def call(self, f, init, xs=None):
        return scan(f, init, xs, self.length, self.reverse, self.unroll)

    def compute_output_spec(self, f, init, xs=None):
        """Of nests as well, which upstream's takes for a tensor."""
        return hooks.carry.scan(self._nest_spec, f, init, xs)

    @new
    def _nest_spec(self, f, init, xs, **kwargs):
        steps = self.length
        if steps is None:
            steps = tree.flatten(xs)[0].shape[0]
        x = None if xs is None else tree.map_structure(lambda t: t[0], xs)
        end, y = backend.compute_output_spec(f, init, x)
        return end, tree.map_structure(
            lambda t: (
                None if t is None else KerasTensor((steps, *t.shape), t.dtype)
            ),
            y,
        )


class AssociativeScan(_Carrying):
    def call(self, f, elems):
        return associative_scan(f, elems, self.reverse, self.axis)

    def compute_output_spec(self, f, elems):
        """Of elements of several shapes as well."""
        return hooks.carry.associative_scan(
            self._nest_spec, f, elems, self.reverse, self.axis
        )

    @new
    def _nest_spec(self, f, elems, reverse, axis):
        flat = tree.flatten(elems)
        if len({x.shape[axis] for x in flat}) != 1:
            raise ValueError(
                "All tensors of `elems` must have the same first dimension, "
                f"axis={axis}. Received shapes {[x.shape for x in flat]}."
            )
        first = [slice_along_axis(x, 0, 1, axis=axis) for x in flat]
        first = tree.pack_sequence_as(elems, first)
        spec = backend.compute_output_spec(f, first, first)
        return tree.map_structure(
            lambda y, x: KerasTensor(x.shape, y.dtype), spec, elems
        )


class Switch(_Carrying):
    def call(self, index, branches, *operands):
        return switch(index, branches, *operands)

    def compute_output_spec(self, index, branches, *operands):
        return hooks.carry.switch(self._spec_of_all, index, branches, *operands)

    @new
    def _spec_of_all(self, index, branches, *operands):
        # All branches, so that they are found to disagree about masks.
        return [backend.compute_output_spec(f, *operands) for f in branches][0]


class WhileLoop(_Carrying):
    def call(self, loop_vars):
        return while_loop(
            self.cond, self.body, loop_vars, self.maximum_iterations
        )

    @keeps("_plain_spec")
    def compute_output_spec(self, loop_vars):
        return hooks.carry.while_loop(
            self._nest_spec, self.cond, self.body, loop_vars
        )

    @new
    def _nest_spec(self, cond, body, loop_vars, maximum_iterations):
        if isinstance(loop_vars, (list, tuple)):
            hooks.carry.look_at_step(body, *loop_vars)
        return self._plain_spec(loop_vars)


class ForiLoop(_Carrying):
    def call(self, init_val):
        return fori_loop(self.lower, self.upper, self.body_fun, init_val)

    def compute_output_spec(self, init_val):
        """Of nests as well: a loop keeps the shapes of its state."""
        return hooks.carry.fori_loop(
            self._nest_spec, self.lower, self.upper, self.body_fun, init_val
        )

    @new
    def _nest_spec(self, lower, upper, body_fun, init_val):
        hooks.carry.look_at_step(body_fun, lower, init_val)
        return tree.map_structure(
            lambda x: KerasTensor(x.shape, x.dtype), init_val
        )


@keeps("_plain_shape")
@keras_export("keras.ops.shape")
def shape(x):
    """Gets the shape of a tensor, that of the values of a masked one.

    Args:
        x: Tensor, masked tensor or anything with a shape.

    Returns:
        A tuple of integers, with tensors for the sizes that TensorFlow does
        not know yet and None for those of a symbolic tensor.

    Example:

    >>> keras.ops.shape(keras.MaskedTensor([[1.0, 2.0]], [True]))
    (1, 2)
    """
    _check_array_like("keras.ops.shape", x)
    if not isinstance(x, MaskedTensorBase):
        return _plain_shape(x)
    if x.is_packed:
        return (*_plain_shape(x.mask), *_plain_shape(x.flat)[1:])
    return _plain_shape(x.values)


@keeps("_plain_dtype")
@keras_export("keras.ops.dtype")
def dtype(x):
    """The dtype of a tensor, that of the values of a masked one, as a string.

    Args:
        x: Tensor, masked tensor or anything with a dtype.

    Example:

    >>> keras.ops.dtype(keras.MaskedTensor([1.0], [True]))
    'float32'
    """
    _check_array_like("keras.ops.dtype", x)
    return _plain_dtype(x)


@new
def _check_array_like(name, x):
    if isinstance(x, CompositeBase) and not x._is_array_like:
        raise unsupported(name, [x])


@keeps("_plain_is_tensor")
@keras_export("keras.ops.is_tensor")
def is_tensor(x):
    """Whether `x` is a tensor of the backend, a masked one included.

    Args:
        x: Anything.

    Example:

    >>> keras.ops.is_tensor(keras.MaskedTensor([1.0], [True]))
    True
    """
    return isinstance(x, MaskedTensorBase) or _plain_is_tensor(x)


@keeps("_plain_convert_to_numpy")
@asks_first
@keras_export("keras.ops.convert_to_numpy")
def convert_to_numpy(x):
    """Converts a tensor to a NumPy array, a masked one to a `numpy.ma` array.

    The mask of a `numpy.ma` array is True where an entry is *not* there. Mind
    that `np.concatenate` and `np.stack` drop it: use those of `numpy.ma`.

    Args:
        x: Tensor or masked tensor; or a column or table of another library.

    Returns:
        A NumPy array, or a `numpy.ma.MaskedArray` for a masked tensor and where
        entries of a column are missing.

    Example:

    >>> x = keras.MaskedTensor([1.0, 2.0], [True, False])
    >>> print(keras.ops.convert_to_numpy(x))
    [1.0 --]
    """
    if isinstance(x, MaskedTensorBase):
        return x.to_numpy()
    if foreign.is_foreign(x):
        return hooks.host_array(x)
    return _plain_convert_to_numpy(x)


@keeps("_plain_custom_gradient")
@keras_export("keras.ops.custom_gradient")
def custom_gradient(f):
    """Gives a function a gradient of one's own.

    Called with a masked tensor, the function sees its values, row by row in
    the features that the mask does not cover, and its result has the mask.
    The gradient function never meets a mask, which has no gradient.

    Args:
        f: Function of tensors that returns a tuple of its result and of the
            gradient function, as `keras.ops.custom_gradient` of Keras 3 does.

    Returns:
        A function that returns the result alone, with that gradient.

    Raises:
        UnsupportedMaskError: If several arguments are masked, or a mask covers
            all axes, so that it cannot be known what becomes of it.
    """
    return hooks.carry.custom_gradient(_plain_custom_gradient(f), f)


class Cast:
    @new
    def _dispatch(self, args, kwargs):
        # Layers cast what has their dtype, which for a rule takes as long as
        # small layers do.
        x = args[0] if len(args) == 1 else None
        is_masked = isinstance(x, MaskedTensorBase)
        if is_masked and backend.standardize_dtype(x.dtype) == self.dtype:
            return x
        return super()._dispatch(args, kwargs)


class Cond(_Carrying):
    @keeps("_plain_call")
    def call(self, pred, true_fn, false_fn):
        return hooks.carry.cond(self._plain_call, pred, true_fn, false_fn)

    @keeps("_plain_spec")
    def compute_output_spec(self, pred, true_fn, false_fn):
        return hooks.carry.cond(self._plain_spec, pred, true_fn, false_fn)


class VectorizedMap(_Carrying):
    def call(self, elements):
        return vectorized_map(self.function, elements)

    @keeps("_plain_spec")
    def compute_output_spec(self, elements):
        def plain(function, elements):
            return VectorizedMap(function)._plain_spec(elements)

        return hooks.carry.vectorized_map(plain, self.function, elements)


# The functions that they are given may return masked tensors even where no
# operand is masked, so these look for masks themselves.
for _name in (
    "associative_scan",
    "fori_loop",
    "grad",
    "scan",
    "switch",
    "vectorized_map",
    "while_loop",
):
    if _name in globals():  # Keras 3.15 has no `grad`.
        globals()[_name] = carries(_name)(globals()[_name])
globals()["map"] = carries("map_")(map)
