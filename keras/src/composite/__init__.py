"""Composite tensors of one's own: a map of the rooms.

The type is in `backend/common/composite.py`; a `composite.py` of each engine
makes it native there.

- `errors`: the one error, with the rule to write.
- `rules`: which function does what with which type, and the door.

"""

from keras.src.composite.errors import UnsupportedTypeError
