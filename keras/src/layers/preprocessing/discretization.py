"""The bins are those of the valid entries."""

from keras.src.masking.layers import adapting
from patchset.markers import keeps


class Discretization:
    @keeps("_adapt_to_plain")
    def adapt(self, data, *args, **kwargs):
        data, before = adapting.as_batches(data), self.bin_boundaries
        self._adapt_to_plain(data, *args, **kwargs)
        if not self.summary.size:
            adapting.warn_of_nothing(self, True, "the bins stay what they are")
            self.bin_boundaries = before

    @keeps("_summarize_plain")
    def update_state(self, data):
        data = adapting.of_foreign(data)
        if adapting.is_masked(data):
            data = adapting.valid_entries(data)
            if not data.size:
                return
        self._summarize_plain(data)
