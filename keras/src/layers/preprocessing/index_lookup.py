"""Masked tokens have no index, count as nothing, and are not learned."""

from keras.src.masking.layers import adapting
from keras.src.masking.layers import preprocessing
from patchset.markers import keeps
from patchset.markers import new


class IndexLookup:
    @new
    def _choose_protocol(self):
        return preprocessing.instead_of_by_type(self, preprocessing.lookup)

    @keeps("_adapt_to_plain")
    def adapt(self, data, *args, **kwargs):
        data = adapting.of_foreign(data)
        if adapting.is_masked(data) and len(data.shape) == 1:
            data = data[:, None]  # As upstream has it, a document each.
        adapting.warn_of_no_tokens(self, data)
        data = adapting.as_batches(data)
        self._adapt_to_plain(data, *args, **kwargs)

    @keeps("_count_plain")
    def update_state(self, data):
        data = adapting.of_foreign(data)
        if not adapting.is_masked(data):
            self._count_plain(data)
            return
        # What is counted by document is counted one at a time.
        if self.output_mode == "tf_idf":
            parts = adapting.documents(data)
        else:
            parts = [adapting.valid_entries(data)]
        for part in parts:
            self._count_plain(part)
