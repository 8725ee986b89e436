"""Rows with missing entries reach a model as masked ones."""

import numpy as np

from keras.src import ops
from keras.src.backend.common import foreign
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from patchset.markers import keeps
from patchset.markers import new


@keeps("_validate_plain_data")
def _validate_data(estimator, X, *args, **kwargs):
    """Checks data as scikit-learn does, with 0 where an entry is missing.

    Args:
        estimator: The wrapper.
        X: Array or table. NaN in it means missing, as it does everywhere in
            scikit-learn.
        *args: Targets, if there are any.
        **kwargs: As scikit-learn takes them.

    Returns:
        What scikit-learn returns, with a `numpy.ma` array for `X` if entries
        of it are missing, or were in `fit`.
    """
    array = _with_missing(X)
    if array is None:
        return _validate_plain_data(estimator, X, *args, **kwargs)
    filled = array.filled(0)
    if hasattr(X, "iloc"):
        # With the names of columns, which are compared with those of `fit`.
        filled = type(X)(filled, index=X.index, columns=X.columns)
    found = _validate_plain_data(estimator, filled, *args, **kwargs)
    mask = np.ma.getmaskarray(array)
    if isinstance(found, tuple):
        return np.ma.MaskedArray(found[0], mask), *found[1:]
    return np.ma.MaskedArray(found, mask)


@new
def _with_missing(X):
    """A `numpy.ma` array of data of which something is missing, or None."""
    if isinstance(X, MaskedTensorBase):
        X = ops.convert_to_numpy(X)
    if foreign.is_foreign(X):
        X = foreign.as_numpy(X)
        if isinstance(X, dict):
            raise TypeError(
                "Models in scikit-learn take numbers. Received a table of "
                f"numbers and strings, with the columns {list(X)}. Encode "
                "strings before, as with `sklearn.compose.ColumnTransformer`."
            )
    data = np.ma.getdata(X) if not hasattr(X, "iloc") else X.to_numpy()
    hidden = np.ma.getmaskarray(X) if isinstance(X, np.ma.MaskedArray) else None
    if data.dtype.kind == "f" and np.isnan(data).any():
        hidden = np.isnan(data) | (False if hidden is None else hidden)
    return None if hidden is None else np.ma.MaskedArray(data, hidden)
