"""States of layers, which a step without a valid entry leaves as they are."""

import contextlib

from keras.src import backend
from keras.src.backend.common.variables import changed_only_where


def kept_without(mask, variables, axes=None):
    """Scope in which variables change only where there is something valid.

    Engines that compile decide it as they run: no mask is looked at here.

    Args:
        mask: Mask of what the layer learns from.
        variables: The variables; if there are none, nothing is done.
        axes: Axes of the values over which they are learned, so that a feature
            with a mask of its own is kept by itself. All, if it is None.

    Returns:
        A context manager.
    """
    if not variables:
        return contextlib.nullcontext()
    covered = range(len(mask.shape))
    axes = tuple(a for a in covered if axes is None or a in axes)
    return changed_only_where(backend.numpy.any(mask, axis=axes), variables)
