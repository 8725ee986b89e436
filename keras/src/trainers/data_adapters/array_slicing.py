"""A masked tensor is sliced as a whole."""

from keras.src import tree
from keras.src.backend.common import foreign
from keras.src.backend.common.composite import has_mask
from keras.src.composite import fields
from patchset.markers import keeps


@keeps("_can_slice_plain")
def can_slice_array(x):
    return has_mask(x) or foreign.is_foreign(x) or _can_slice_plain(x)


@keeps("_plain_to_sliceable")
def convert_to_sliceable(arrays, *args, **kwargs):
    def convert(x):
        if has_mask(x):
            return Sliceable(x)
        return _plain_to_sliceable(x, *args, **kwargs)

    fields.check_rows(arrays)
    if not any(map(has_mask, tree.flatten(arrays))):
        return _plain_to_sliceable(arrays, *args, **kwargs)
    return tree.map_structure(convert, arrays)
