"""A masked text is an empty one, and is not learned."""

from keras.src.masking.layers import adapting
from keras.src.masking.layers import preprocessing
from patchset.markers import keeps
from patchset.markers import new


class TextVectorization:
    @new
    def _choose_protocol(self):
        return preprocessing.instead_of_by_type(
            self, preprocessing.text_by_text
        )

    @keeps("_adapt_to_plain")
    def adapt(self, data, *args, **kwargs):
        data = adapting.of_foreign(data)
        adapting.warn_of_no_tokens(self, data)
        data = adapting.as_batches(data)
        self._adapt_to_plain(data, *args, **kwargs)

    @keeps("_count_plain")
    def update_state(self, data):
        data = adapting.of_foreign(data)
        if adapting.is_masked(data):
            data = adapting.valid_entries(data)
        self._count_plain(data)
