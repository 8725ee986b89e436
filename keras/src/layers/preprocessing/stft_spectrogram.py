"""A masked signal has a masked spectrogram; no step of one may be masked."""

from keras.src.masking.layers import preprocessing
from patchset.markers import keeps


class STFTSpectrogram:
    @keeps("_call_on_plain")
    def call(self, inputs):
        return preprocessing.of_each(
            self,
            self._call_on_plain,
            inputs,
            core=2,
            reason="A Fourier transform is over all steps of a frame.",
        )
