"""Masked tensors: a map of the rooms, and the way of one call through them.

The type is below, in `backend/common/masked_tensor.py`; each engine has a
`masked_tensor.py` beside its other files that makes it native there, and a
`masked_kernels.py` that says how it fills, sums, blocks and joins. Here is what
the rest asks of it.

- `errors`, `refusals`: the one error, and whether it is raised or warned of.
- `masks`: aligns, merges and broadcasts masks, and fills what is under them.
  `parts`: masked tensors as nodes of a nest. `casting`: as inputs of a layer.
- `calls`, `registry`, `dispatch`: a call as rules see it, the rows of all
  operations, and the door, which finds a row and runs its rule.
- `tables/`: a row for each public function, a module for each of `keras.ops`.
- `rules/`: what the rows name, a family in each file; `ops/carry`, beside the
  functions of control flow, is one more.
- `symbolic`, `coverage`: what a graph knows of masks, told by the family where
  it can, else traced.
- `layers/`: how a layer takes masked tensors. `protocols` chooses: by type, by
  name, or the old way (`old_layers`). `passing` fills in masks by name, in
  `scopes` plain tensors carry them as an attribute, `telling` warns authors;
  `coverage` is of layers. `steps`, `explicit`, `attention`, `recurrence`,
  `states`, `preprocessing`, `adapting` are what Keras's own layers need.
- `training/`: `data` and `ragged` on the way in, `batches` on the way out;
  `scoring`, `weighing`, `flat`, `padding`: what losses and metrics see, what
  weights weigh, how both go over packed steps, and who is told that padding
  counts.
- `showing/`: `explain` and `graph_masks`, masks along a model to look at.

Rooms below call what they need of these by name: `backend/common/hooks`.
Beside them are `keras/src/migration`, which reads code of the old way, and
`keras/src/testing/masked`, what tests share.

`ops.exp(x)`, with `x` masked:

1. The function asks `needs_dispatch` (of `keras_tensor`), as it asks upstream
   whether `x` is symbolic. The answer is yes, so `Exp().symbolic_call(x)` runs.
2. `Operation.symbolic_call` sees that nothing is symbolic: `hooks.call`, which
   is `dispatch.call`.
3. That finds the row in `tables/numpy`, and makes a `Call` of it.
4. The rule, `guarded(0)` of `rules/merge`, merges the masks, puts 0 where
   the result is masked, and computes `ops.exp` of plain values.
5. What it gives is wrapped with the merged mask. An error on the way gains a
   note that names the call; a refusal goes through `refusals.settle`.

With `x` symbolic, `Operation._call_spec` asks `symbolic.output_spec`: the
family tells how many axes the mask covers, or the rule is traced.

`layer(x)`: the protocol was chosen as the layer was first asked for it, and
`Layer._run_call` runs `call` through it, so that `stateless_call`, remat and
quantized calls meet it as well.

`model.fit(x, y)`: `training/data` takes masked arrays and ragged tensors apart
before an adapter cuts batches of them, puts them together in each batch, and
makes a weight of the mask of a target. `scoring` hands plain values to losses
and metrics. `predict` joins values and masks in `batches`.
"""

from keras.src.masking.errors import UnsupportedMaskError
