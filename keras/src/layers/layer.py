"""Layers take masked tensors by one of three protocols, see `masking`.

`__call__` loses its mask handling: what upstream did in it, before and after
the call, is a protocol now, below `__call__`, so that whatever runs `call`
meets it.
"""

import contextlib
import copy
import inspect

from keras.src import backend
from keras.src import ops
from keras.src import tree
from keras.src import utils
from keras.src.backend import KerasTensor
from keras.src.backend.common import composite
from keras.src.backend.common.composite import CompositeBase
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.backend.common.keras_tensor import any_symbolic_tensors
from keras.src.backend.common.keras_tensor import needs_dispatch
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.name_scope import current_path
from keras.src.composite import in_files
from keras.src.distribution import distribution_lib
from keras.src.layers import input_spec
from keras.src.masking import symbolic
from keras.src.masking.calls import values_of
from keras.src.masking.errors import keep_notes
from keras.src.masking.layers import coverage as layer_coverage
from keras.src.masking.layers import explicit
from keras.src.masking.layers import old_layers
from keras.src.masking.layers import origins
from keras.src.masking.layers import passing
from keras.src.masking.layers import protocols
from keras.src.masking.layers import scopes
from keras.src.masking.refusals import users_frame
from keras.src.masking.refusals import warn_at
from keras.src.ops.node import Node
from keras.src.ops.operation import Operation
from keras.src.utils import traceback_utils
from patchset.markers import keeps
from patchset.markers import new


class Layer:
    __added__ = ("name", "_auto_config", "_chosen_protocol")
    # Layers are named and configured when they are made, not when asked.
    name = None
    _auto_config = None
    _chosen_protocol = None

    @new
    @classmethod
    def _create(cls, args, kwargs):
        return Operation._configured_new(cls, *args, **kwargs)

    @new
    @property
    def _mask_protocol(self):
        protocol = self._chosen_protocol
        if protocol is None:
            protocol = protocols.of(self)
            vars(self)["_chosen_protocol"] = protocol
        return protocol

    @new
    def _choose_protocol(self):
        return protocols.choose(self)

    @new
    def _run_call(self, *args, **kwargs):
        """Runs `call` by the layer's protocol, without building or scopes."""
        return self._mask_protocol(self, self._call_to_run(), args, kwargs)

    @new
    def _seen_by_call(self, x):
        """What a `call` of Keras that asks for masks by name gets for `x`."""
        return values_of(x)

    @new
    def _call_to_run(self):
        is_quantized = getattr(self, "quantization_mode", None) is not None
        return self.quantized_call if is_quantized else self.call

    @property
    def supports_masking(self):
        """Deprecated, and not read by Keras: whether a layer of the old kind
        keeps masks. Types decide now."""
        return self._supports_masking

    @supports_masking.setter
    def supports_masking(self, value):
        self._supports_masking = value

    @new
    def _setattr_hook(self, name, value):
        # Not in the setter: TensorFlow calls none for a value that is there.
        if name == "supports_masking":
            place = origins.place_outside()
            if place is not None:
                vars(self)["_flagged_outside"] = place
        if composite.DEFINED:
            for x in _composites_in(value):
                _warn_of_values(self, name, x)
        return super()._setattr_hook(name, value)

    def symbolic_call(self, *args, **kwargs):
        # The node is made at the end of `__call__`.
        return self._call_spec(*args, **kwargs)

    @new
    def _call_spec(self, *args, **kwargs):
        """Spec of the outputs, with the masks that a call would give them."""
        if self._meets_composites(args, kwargs):
            return backend.compute_output_spec(self._run_call, *args, **kwargs)
        protocol = self._mask_protocol
        if protocol is protocols.legacy:
            return old_layers.legacy_spec(self, args, kwargs)
        masked = symbolic.any_masked(args, kwargs) or (
            protocol is protocols.named and kwargs.get("mask") is not None
        )
        if not masked:
            if protocol is protocols.named:
                args, kwargs = protocols.with_empty_masks(self, args, kwargs)
            return self.compute_output_spec(*args, **kwargs)
        coverage = layer_coverage.coverage_of(self, args, kwargs)
        if coverage is not None:
            return symbolic.told_spec(
                self, coverage, self._run_call, args, kwargs
            )
        if type(
            self
        ).compute_output_spec is Layer.compute_output_spec and utils.is_default(
            self.compute_output_shape
        ):
            # The layer has no spec of its own but what tracing it gives, and
            # its `call` may want the mask.
            return backend.compute_output_spec(self._run_call, *args, **kwargs)
        return symbolic.traced_spec(self, self._run_call, args, kwargs)

    @new
    def _meets_composites(self, args, kwargs):
        """Whether a call has to be traced for types of one's own."""
        return any_composite(args, kwargs) and not self._has_own_spec()

    @new
    def _has_own_spec(self):
        """Whether the layer tells the spec of its outputs by itself, of types
        that a layer of Keras does not know."""
        spec = type(self).compute_output_spec
        return spec is not Layer.compute_output_spec and not (
            spec.__module__.startswith("keras.src.layers.")
        )

    @traceback_utils.filter_traceback
    def __call__(self, *args, **kwargs):
        self._check_super_called()
        if not self._called:
            self._called = True
        given = (args, kwargs)
        symbolic_call = any_leaf(backend.KerasTensor, args, kwargs)
        if self._convert_input_args:
            args, kwargs = self._convert_arguments(args, kwargs)
        self._check_positional_arguments(args)

        call_spec = CallSpec(
            self._call_signature, self._call_context_args, args, kwargs
        )
        self._assert_input_compatibility(call_spec.first_arg)
        by_name = call_spec.arguments_dict
        if explicit.check(self, by_name) and not symbolic_call:
            args, kwargs = explicit.set_to_0(self, by_name, args, kwargs)
        self._maybe_build(call_spec)

        context = self._get_call_context()
        for name in self._call_context_args:
            self._resolve_and_populate_arg(name, call_spec, context, kwargs)
        try:
            with self._open_name_scope(), self._autocast_scope():
                outputs = (
                    self._undispatched_call(*args, **kwargs)
                    if symbolic_call
                    else self._mask_protocol(
                        self, self._undispatched_call, args, kwargs
                    )
                )
                outputs = self._lay_out(outputs)
                if not self.built:
                    self.built = True
                if self.activity_regularizer is not None:
                    self._regularize_activity(outputs)
        except Exception as error:
            keep_notes(error)
            raise
        finally:
            self._maybe_reset_call_context()
        outputs = scopes.handed_out(outputs, *given)
        if symbolic_call:
            Node(
                self, call_args=given[0], call_kwargs=given[1], outputs=outputs
            )
        return outputs

    @new
    def _convert_arguments(self, args, kwargs):
        """Arrays become tensors of the right dtype, old masks part of them."""
        if all(map(self._is_converted, (*args, *kwargs.values()))):
            return args, kwargs
        return tree.map_structure(self._convert_argument, (args, kwargs))

    @new
    def _is_converted(self, x):
        """Whether there is nothing to convert, as far as is seen quickly."""
        if x is None or isinstance(x, (bool, str)):
            return True
        return (
            is_backend_tensor_or_symbolic(x)
            and not isinstance(x, CompositeBase)
            and backend.standardize_dtype(x.dtype) == self.input_dtype
            and _hung_mask(x) is None
        )

    @new
    def _convert_argument(self, x):
        mask = _hung_mask(x)
        x = self.dtype_policy.convert_input(x, self.autocast, self.input_dtype)
        return x if mask is None else passing.masked_at_the_door(x, mask)

    @new
    def _check_positional_arguments(self, args):
        if self._allow_non_tensor_positional_args:
            return
        if all(map(is_backend_tensor_or_symbolic, args)):
            return
        for x in tree.flatten(args):
            if not is_backend_tensor_or_symbolic(x, allow_none=True):
                raise ValueError(
                    "Only input tensors may be passed as positional arguments "
                    f"to layer '{self.name}'. The following argument value "
                    f"should be passed as a keyword argument: {x} "
                    f"(of type {type(x)})"
                )

    @new
    def _autocast_scope(self):
        """The scope in which variables are cast, where it has to change."""
        current = backend.get_autocast_scope()
        if current is None:
            if self.compute_dtype == self.variable_dtype:
                return contextlib.nullcontext()
            return backend.AutocastScope(self.compute_dtype)
        # Preprocessing layers compute in other dtypes than floats.
        if not self.autocast or not backend.is_float_dtype(self.compute_dtype):
            return backend.AutocastScope(None)
        if current.dtype == self.compute_dtype:
            return contextlib.nullcontext()
        return backend.AutocastScope(self.compute_dtype)

    @new
    def _lay_out(self, outputs):
        """Distributes the outputs if a distribution has a layout for them."""
        distribution = distribution_lib.distribution()
        if distribution is None:
            return outputs
        layout = distribution.get_tensor_layout(f"{current_path()}/output")
        if not layout:
            return outputs
        return tree.map_structure(lambda x: _distribute(x, layout), outputs)

    @new
    def _regularize_activity(self, outputs):
        for output in tree.flatten(outputs):
            if not ops.is_tensor(output):
                continue
            loss = values_of(self.activity_regularizer(output))
            if len(output.shape) > 0:
                # By the batch size, so that the strength does not depend on it.
                count = ops.cast(ops.shape(output)[0], dtype=loss.dtype)
                loss = ops.divide_no_nan(loss, count)
            self.add_loss(loss)

    @keeps("_plain_stateless_call")
    def stateless_call(
        self,
        trainable_variables,
        non_trainable_variables,
        *args,
        return_losses=False,
        **kwargs,
    ):
        """Calls the layer without side effects.

        Args:
            trainable_variables: Values for the trainable variables.
            non_trainable_variables: Values for the others: moving statistics,
                states of seed generators, metrics.
            *args: Arguments of `call()`.
            return_losses: Whether to return the losses that `call()` creates.
            **kwargs: Arguments of `call()` by name.

        Returns:
            A tuple of the outputs, the new values of the non-trainable
            variables and, with `return_losses`, the list of losses.
        """
        rest = []

        def run(*args, **kwargs):
            outputs, *rest[:] = self._plain_stateless_call(
                trainable_variables,
                non_trainable_variables,
                *args,
                return_losses=return_losses,
                **kwargs,
            )
            return outputs

        outputs = self._mask_protocol(self, run, args, kwargs)
        return (outputs, *rest)

    @keeps("_plain_maybe_build")
    def _maybe_build(self, call_spec):
        if not self.built:
            with self._open_name_scope():
                self._build_for(call_spec)

    @new
    def _build_for(self, call_spec):
        arguments = call_spec.arguments_dict
        if not needs_dispatch((), arguments):
            with old_layers.tracing(self):
                return self._plain_maybe_build(call_spec)
        if not any_symbolic_tensors((), arguments):
            call_spec.eager = True
        if self._mask_protocol is not protocols.by_type:
            self._build_inner_layers(arguments)
            # `call` of such a layer is traced as it is run: on plain tensors.
            call_spec.arguments_dict = tree.map_structure(
                symbolic.values_spec, arguments
            )
        with old_layers.tracing(self):
            self._plain_maybe_build(call_spec)

    @new
    def _call_spec_on(self, tensors):
        """What a call is known by, of its tensors by the names of arguments."""
        signature = self._call_signature
        given = inspect.BoundArguments(signature, tensors)
        return CallSpec(
            signature, self._call_context_args, given.args, given.kwargs
        )

    @keeps("_build_from_plain_config")
    def build_from_config(self, config):
        if in_files.names_type(config):
            config = in_files.with_shapes(config)
        self._build_from_plain_config(config)

    @keeps("_assert_parts_compatible")
    def _assert_input_compatibility(self, arg_0):
        if composite.DEFINED:
            if isinstance(self.input_spec, input_spec.InputSpec):
                composite.check_array_like(self, arg_0)
            arg_0 = self._as_specified(arg_0)
        self._assert_parts_compatible(arg_0)

    @new
    def _as_specified(self, x):
        """An argument as `input_spec` is of it."""
        return composite.as_tensors(x)

    @new
    def _build_inner_layers(self, arguments):
        """Builds the layers inside by tracing a call with its masks.

        Without them, which is how upstream traces it, a `call` may fail that
        needs its mask. What is wrong with it otherwise, running it will tell.
        """
        if utils.is_default(self.build) and might_have_unbuilt_state(self):
            with contextlib.suppress(Exception):
                backend.compute_output_spec(self._run_call, **arguments)

    @keeps("_plain_add_loss")
    def add_loss(self, loss):
        """Adds a scalar loss, from inside `call()`.

        Args:
            loss: Scalar tensor, or a nest of them.

        Raises:
            ValueError: If a loss is no tensor, or a masked one: reduce it
                first, to say which entries count.
        """
        for x in tree.flatten(loss):
            if isinstance(x, MaskedTensorBase):
                raise ValueError(
                    "`add_loss()` takes scalars. Received a masked tensor of "
                    f"shape {tuple(x.shape)}. Reduce it over its valid "
                    "entries: `self.add_loss(keras.ops.mean(loss))`."
                )
        self._plain_add_loss(loss)


del Layer._set_mask_metadata


@new
def _composites_in(value):
    """A composite tensor, or those that a list or a dictionary has."""
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        value = (value,)
    return [x for x in value if isinstance(x, CompositeBase)]


@new
def _warn_of_values(layer, name, x):
    """Warns if a composite tensor keeps what a variable is as it is built."""
    if not hasattr(layer, "_tracker") or layer.built:
        return
    for part in composite.take_apart(x)[1][0]:
        value = getattr(x, part)
        for variable in layer.variables:
            if value is variable or value is variable._value:
                warn_at(
                    users_frame(),
                    f"`self.{name}` of layer '{layer.name}' keeps a value, and "
                    f"no variable: the part `{part}` of this "
                    f"`{type(x).__name__}` is what the variable "
                    f"`{variable.name}` is now, and not what training makes "
                    "of it. Keep the variables, and make the composite tensor "
                    "of them in `call()`.",
                    UserWarning,
                )


@new
def _hung_mask(x):
    """A mask that is hung on a plain tensor as an attribute."""
    if isinstance(x, (MaskedTensorBase, KerasTensor)):
        return None
    return backend.get_keras_mask(x)


@new
def _distribute(x, layout):
    if not isinstance(x, MaskedTensorBase):
        return distribution_lib.distribute_tensor(x, layout)
    values = distribution_lib.distribute_tensor(x.values, layout)
    return backend.MaskedTensor._wrap(values, x.mask)


def is_backend_tensor_or_symbolic(x, allow_none=False):
    if x is None:
        return allow_none
    return (
        isinstance(x, (backend.KerasTensor, MaskedTensorBase))
        or backend.is_tensor(x)
        or composite.is_array_like(x)
    )


@keeps("_shapes_of_parts")
def get_shapes_dict(call_spec):
    """The shapes of the arguments by name, for `build`."""
    given = call_spec.tensor_arguments_dict
    if not any_composite((), given):
        return _shapes_of_parts(call_spec)
    seen = copy.copy(call_spec)
    seen.tensor_arguments_dict = {
        name: composite.as_tensors(x) for name, x in given.items()
    }
    return _shapes_of_parts(seen)
