"""Composite tensors of one's own: a map of the rooms.

The type is in `backend/common/composite.py`; a `composite.py` of each engine
makes it native there.

- `errors`: the one error, with the rule to write.
- `rules`: what a function makes of a type, and the door that finds it.
- `fields`, `wholes`: composite tensors as named tuples for the pipelines and
  loops of engines, and as leaves for what counts tensors.
- `scoring`: what losses and metrics see; `in_files`: what configs say.

`ops.add(x, y)`, with `x` composite: the function asks `needs_dispatch`, as for
a masked tensor, and `masking.dispatch`, the one door, hands the call on to
`rules.call`, which finds the public function of the operation in its row, and
the rule for it and the type.
"""

from keras.src.composite.errors import UnsupportedTypeError
