"""A feature space has no masks, and says so."""

from keras.src.masking.errors import refuse_masked
from patchset.markers import keeps


class FeatureSpace:
    @keeps("_call_on_plain")
    def __call__(self, data):
        refuse_masked(
            self.name,
            data,
            "Features are joined into one vector, in which a masked one "
            "would be a number like any other.",
        )
        return self._call_on_plain(data)
