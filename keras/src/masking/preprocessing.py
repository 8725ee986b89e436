"""How preprocessing layers take masked tensors, beside `protocols`.

They compute with functions of a backend that need not be Keras's own, as in a
`tf.data` pipeline, or with TensorFlow's functions on strings and tables.
"""

from keras.src import backend
from keras.src import tree
from keras.src.backend.common.keras_tensor import needs_dispatch
from keras.src.masking import symbolic
from keras.src.masking.dispatch import from_numpy_ma
from keras.src.masking.errors import refuse_masked
from keras.src.masking.protocols import by_type
from keras.src.utils.backend_utils import PublicFunctions


def by_public_functions(layer, run, args, kwargs):
    """By type, with public functions for those of the layer's backend."""
    if not needs_dispatch(args, kwargs) or not symbolic.any_masked(
        args, kwargs
    ):
        return by_type(layer, run, args, kwargs)
    with PublicFunctions():
        return by_type(layer, run, args, kwargs)


def at_the_door(layer, call, inputs, kwargs):
    """Calls a layer that converts its inputs for a backend of its own.

    Args:
        layer: The `DataLayer`.
        call: Its `__call__`.
        inputs: Its inputs. The arrays of `numpy.ma` are masked tensors.
        kwargs: Its arguments by name.
    """
    if not needs_dispatch((inputs,), kwargs):
        return call(inputs, **kwargs)
    inputs, kwargs = tree.map_structure(from_numpy_ma, (inputs, kwargs))
    if not symbolic.any_masked(inputs, kwargs):
        return call(inputs, **kwargs)
    with PublicFunctions():
        return call(inputs, **kwargs)
