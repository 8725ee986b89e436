"""A masked image is left out; no pixel of a tile may be."""

from keras.src.masking.layers import preprocessing
from patchset.markers import keeps


class ContrastLimitedAdaptiveHistogramEqualization:
    @keeps("_clahe_of_plain")
    def _clahe(self, images):
        return preprocessing.of_each(
            self,
            self._clahe_of_plain,
            images,
            core=3,
            reason="The histogram of a tile is over all of its pixels.",
        )
