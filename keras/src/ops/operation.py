"""Sends masked operands to their rule, and makes an op object cheap to build.

A masked call builds an `Operation` to be dispatched on. Upstream works out its
config and uses up an automatic name right away, which would cost more than the
arithmetic and make layer names depend on it.
"""

import functools

import numpy as np

from keras.src import tree
from keras.src.backend.common import hooks
from keras.src.backend.common import remat
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.backend.common.keras_tensor import needs_dispatch
from keras.src.backend.config import is_nnx_enabled
from keras.src.masking.errors import UnsupportedMaskError
from keras.src.ops.node import Node
from keras.src.utils.naming import auto_name
from patchset.markers import keeps
from patchset.markers import new


class Operation:
    @keeps("_named_init")
    def __init__(self, name=None):
        if name is not None or "_init_arguments" not in vars(self):
            Operation._named_init(self, name)
            return
        self._inbound_nodes = []
        self._outbound_nodes = []
        self._remat_mode = remat.get_current_remat_mode()

    @new
    @functools.cached_property
    def name(self):
        return auto_name(self.__class__.__name__)

    @keeps("_configured_new")
    def __new__(cls, *args, **kwargs):
        return cls._create(args, kwargs)

    @new
    @classmethod
    def _create(cls, args, kwargs):
        """A new instance whose config is worked out when it is asked for."""
        instance = (
            Operation._configured_new(cls, *args, **kwargs)
            if is_nnx_enabled()
            else object.__new__(cls)
        )
        vars(instance)["_init_arguments"] = (args, kwargs)
        return instance

    @new
    @functools.cached_property
    def _auto_config(self):
        args, kwargs = self.__dict__.get("_init_arguments", ((), {}))
        twin = vars(Operation._configured_new(type(self), *args, **kwargs))
        self._auto_config_error_args = twin.get("_auto_config_error_args")
        return twin["_auto_config"]

    @keeps("_undispatched_call")
    def __call__(self, *args, **kwargs):
        if _is_masked_call(args, kwargs):
            return self._dispatch(args, kwargs)
        return self._undispatched_call(*args, **kwargs)

    @new
    def _dispatch(self, args, kwargs):
        """Runs the operation on masked operands."""
        return hooks.call(self, args, kwargs)

    def symbolic_call(self, *args, **kwargs):
        if _is_masked_call(args, kwargs):
            return self._dispatch(args, kwargs)
        if any_leaf(np.ma.MaskedArray, args, kwargs):
            args, kwargs = tree.map_structure(
                hooks.from_foreign, (args, kwargs)
            )
        # Named in the order of the graph, not of construction.
        _ = self.name
        try:
            outputs = self._call_spec(*args, **kwargs)
        except UnsupportedMaskError as error:
            # The graph fills what this node cannot take masked.
            args, kwargs = hooks.settle(error, args, kwargs)
            return self.symbolic_call(*args, **kwargs)
        Node(self, call_args=args, call_kwargs=kwargs, outputs=outputs)
        return outputs

    @new
    def _call_spec(self, *args, **kwargs):
        """Spec of the outputs, with the masks that a call would give them."""
        return hooks.output_spec(self, args, kwargs)


@new
def _is_masked_call(args, kwargs):
    """Whether operands are masked and none is symbolic."""
    return needs_dispatch(args, kwargs) and not any_leaf(
        KerasTensor, args, kwargs
    )
