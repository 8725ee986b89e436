"""The op functions ask the wider question: masked operands are dispatched."""

from keras.src.backend.common import hooks
from keras.src.backend.common.keras_tensor import (
    needs_dispatch as any_symbolic_tensors,
)
from keras.src.ops.asking import carries
from patchset.markers import keeps
from patchset.markers import new


class JVP:
    def call(self, fun, primals, tangents):
        return jvp(fun, primals, tangents, has_aux=self.has_aux)

    @keeps("_plain_spec")
    def compute_output_spec(self, fun, primals, tangents):
        def plain(fun, primals, tangents, has_aux):
            return JVP(has_aux=has_aux)._plain_spec(fun, primals, tangents)

        return hooks.carry.jvp(plain, fun, primals, tangents, self.has_aux)

    @new
    def _call_spec(self, *args, **kwargs):
        return self.compute_output_spec(*args, **kwargs)


# The function that it is given may return masked tensors.
globals()["jvp"] = carries("jvp")(jvp)
