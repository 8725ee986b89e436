"""The wrappers take rows with missing entries, and say so."""

import warnings

from patchset.markers import keeps
from patchset.markers import new


class SKLBase:
    @keeps("_plain_tags")
    def __sklearn_tags__(self):
        tags = self._plain_tags()
        # So one of scikit-learn's checks does not run on any of the three
        # wrappers: that NaN and what is infinite is refused. The latter still
        # is; our own test says so.
        tags.input_tags.allow_nan = True
        return tags

    @keeps("_reverse_plain_target")
    def _reverse_process_target(self, y):
        return self._reverse_plain_target(_without_mask(y))


@new
def _without_mask(y):
    """Predictions as a plain array, with a warning of those that say nothing.

    scikit-learn knows no masks.
    """
    if not isinstance(y, np.ma.MaskedArray):
        return y
    rows = np.ma.getmaskarray(y).any(axis=tuple(range(1, y.ndim)))
    if rows.any():
        warnings.warn(
            f"{rows.sum()} of {len(rows)} rows have not one entry that the "
            "model could go by: their predictions say nothing. Leave them out, "
            "or begin the model with `keras.layers.Fill`.",
            stacklevel=4,
        )
    return np.ma.getdata(y)
