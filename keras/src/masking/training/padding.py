"""What a compiled loss counts although the model has masked it.

It reads no mask, so padding counts unless a weight leaves it out. Who trains
that way is told so: where types tell, as a step is traced; where it depends on
what is masked, after a look at the first batch.
"""

import typing

from keras.src import backend
from keras.src import tree
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.composite import mask_or_spec
from keras.src.backend.common.kinds import Nest
from keras.src.backend.common.kinds import Tensor
from keras.src.masking.calls import values_of

# The functions of losses over classes, of which there is one target, and
# whether the output is their probabilities.
OF_CLASSES = {
    "categorical_crossentropy": True,
    "categorical_focal_crossentropy": True,
    "categorical_generalized_cross_entropy": True,
    "categorical_hinge": False,
    "kl_divergence": True,
    "sparse_categorical_crossentropy": True,
    "sparse_categorical_focal_crossentropy": True,
}

_COUNTS = (
    "The output '{name}' of model '{model}' is masked%s, and there is no "
    "`sample_weight` for it, so its loss and metrics count padding: they never "
    "read a mask. "
)
STEPS_COUNT = (_COUNTS % "") + (
    "Write\n"
    "    model.fit(x, y, sample_weight="
    "keras.utils.sample_weight_from_mask(x_ids != 0))\n"
    "to leave padding out of the loss (in `evaluate` likewise), and pass the "
    "metrics to `compile` as `weighted_metrics`, which use these weights."
)
ROWS_COUNT = (_COUNTS % " in whole rows of the first batch") + (
    "The last step of a sequence (`x[:, -1]`) is padding in all rows but the "
    "longest: take the last one that is valid, as a recurrent layer without "
    "`return_sequences` does, or a mean over steps. To leave these rows out, "
    "write\n"
    "    model.fit(x, y, sample_weight="
    "keras.utils.sample_weight_from_mask(x_ids[:, -1] != 0))\n"
    "and pass the metrics to `compile` as `weighted_metrics`."
)
ENTRIES_COUNT = (_COUNTS % " in entries of the first batch") + (
    "No axis of its mask, of shape {shape}, is as long as the inputs, so "
    "weights of their steps (`x_ids != 0`) do not fit it. Nothing that went "
    "into a masked entry is valid, as in a row that is padding alone: leave "
    "such rows out of the data, or write\n"
    "    model.fit(x, keras.MaskedTensor(y, counts))\n"
    "where `counts` covers leading axes of `y` and is False for the targets "
    "that are to be left out, and pass the metrics to `compile` as "
    "`weighted_metrics`."
)
CLASSES_COUNT = (
    "The output '{name}' of model '{model}' is masked along its last axis, "
    "whose entries are classes to its loss. It never reads a mask, so those "
    "that are masked count as classes whose logit is 0, and no `sample_weight` "
    "fits a class. Let the model return\n"
    "    keras.ops.filled(logits, float('-inf'))\n"
    "so that their probability is 0."
)


class Judged(typing.NamedTuple):
    """An output that a loss of its own judges.

    Attributes:
        name: Name of the output.
        loss: The loss.
        lengths: The lengths of the inputs of the model, None where one is not
            known.
        y_true: Its target.
        y_pred: The output.
        weight: Its `sample_weight`, or None.
    """

    name: str
    loss: typing.Callable
    lengths: typing.Collection
    y_true: typing.Any
    y_pred: typing.Any
    weight: typing.Any

    @property
    def is_unweighted(self) -> bool:
        """Whether the output is masked, and nothing leaves what is masked out.

        That is a weight, or the loss itself, which CTC alone does.
        """
        counts_all = self._function_name != "ctc"
        return counts_all and self.weight is None and has_mask(self.y_pred)

    @property
    def advice(self) -> str:
        """The text of the warning that is due, but for the names."""
        shape = mask_or_spec(self.y_pred).shape
        if len(shape) == 1:
            return ROWS_COUNT
        if self._masks_classes and not self._gives_probabilities:
            return CLASSES_COUNT
        if self._has_steps:
            return STEPS_COUNT
        text = ", ".join(map(str, ("batch", *shape[1:])))
        return ENTRIES_COUNT.replace("{shape}", f"({text})")

    @property
    def is_to_be_seen(self) -> bool:
        """Whether only a batch can tell that what is masked counts.

        A mask without an axis of steps (over the batch, over heads that were
        pooled over time) is hardly ever False; a class that the loss ignores
        may be the target wherever there is a mask; and a class that is masked
        has the probability 0.
        """
        return (
            not self._has_steps
            or self._option("ignore_class") is not None
            or (self._masks_classes and self._gives_probabilities)
        )

    def counts_in_batch(self) -> Tensor:
        """Whether the loss counts anything that is masked, of a batch.

        Returns:
            A scalar tensor of booleans.
        """
        mask, y_true = self.y_pred.mask, values_of(self.y_true)
        if self._masks_classes and len(mask.shape) > 1:
            # A class has the probability 0, but not the logit.
            all_count = self._has_steps or self._gives_probabilities
            over = backend.numpy.any if all_count else backend.numpy.all
            mask = over(mask, axis=-1)
        counted, ignored = ~mask, self._option("ignore_class")
        rank = len(mask.shape)
        added = tuple(y_true.shape)[rank:]
        if (
            ignored is not None
            and len(y_true.shape) >= rank
            and added
            in (
                (),
                (1,),
            )
        ):
            if added:
                y_true = backend.numpy.squeeze(y_true, axis=-1)
            counted &= backend.numpy.not_equal(y_true, ignored)
        return backend.numpy.any(counted)

    @property
    def _has_steps(self):
        """Whether the mask may be over steps, which are hardly all there.

        An axis that is as long as an input is taken for its steps, and any if
        it is not known what the inputs are.
        """
        sizes = mask_or_spec(self.y_pred).shape[1:]
        if not self.lengths:
            return len(sizes) > 0
        return any(n is None or n in self.lengths for n in sizes)

    @property
    def _masks_classes(self):
        """Whether the mask covers the axis of the classes of the loss."""
        covered = len(mask_or_spec(self.y_pred).shape)
        is_over_classes = self._function_name in OF_CLASSES
        return is_over_classes and covered == len(self.y_pred.shape)

    @property
    def _gives_probabilities(self):
        is_usual = OF_CLASSES[self._function_name]
        return is_usual and not self._option("from_logits")

    @property
    def _function_name(self):
        return getattr(getattr(self.loss, "fn", None), "__name__", "")

    def _option(self, name):
        return getattr(self.loss, "_fn_kwargs", {}).get(name)


class Watch:
    """What is known of the outputs of a compiled model.

    Attributes:
        is_pending: Whether a batch has to be looked at.
        seen: Names of the outputs of which the look has found something.
        notes: By the names of outputs, where compiled steps note what a look
            would find, and what to tell then.
        is_noted: Whether a step was traced that notes it.
        warned: Names of those that were warned of.
    """

    def __init__(self):
        self.is_pending = self.is_noted = False
        self.seen, self.warned = set(), set()
        self.notes = {}
        self._looked_at = set()

    def look_at(self, one: "Judged") -> None:
        """Looks at an output of the first batch."""
        if one.name not in self._looked_at and bool(
            backend.convert_to_numpy(one.counts_in_batch())
        ):
            self.seen.add(one.name)
        self._looked_at.add(one.name)


def watch_of(compile_loss: typing.Any) -> "Watch":
    """The `Watch` of a `CompileLoss`, which `compile` makes anew."""
    watch = vars(compile_loss).get("_padding_watch")
    if watch is None:
        watch = vars(compile_loss)["_padding_watch"] = Watch()
    return watch


def judged(
    compile_loss: typing.Any,
    x: Nest,
    y_true: Nest,
    y_pred: Nest,
    sample_weight: Nest,
) -> list["Judged"]:
    """The outputs that a compiled loss judges, each with its own loss.

    Args:
        compile_loss: The `CompileLoss`, built.
        x: Nest of inputs.
        y_true: Nest of targets.
        y_pred: Nest of outputs.
        sample_weight: Nest of weights, a weight for all, or None.

    Returns:
        A list of `Judged`.
    """
    names = tree.flatten(compile_loss.output_names)
    lengths = _lengths(x)
    found = []
    for path, loss, _, name in compile_loss._flat_losses:
        if names == [None]:
            name = "/".join(map(str, path)) or "output_0"
        parts = [
            _part(path, nest, names) for nest in (y_true, y_pred, sample_weight)
        ]
        if not any(tree.is_nested(part) for part in parts):
            found.append(Judged(name, loss, lengths, *parts))
    return found


def _lengths(x):
    """The sizes of the second axes of inputs, None for one not known."""
    shapes = [one.shape for one in tree.flatten(x) if hasattr(one, "shape")]
    # TensorFlow may not know of how many axes one is.
    known = [n for n in shapes if getattr(n, "rank", 0) is not None]
    return {shape[1] for shape in known if len(shape) > 1}


def _part(path, nest, names):
    """What a path leads to in a nest; all of it, if it is a single tensor."""
    if not tree.is_nested(nest):
        return nest
    flat = tree.flatten(nest)
    for step in path:
        if isinstance(nest, dict) and step in nest:
            nest = nest[step]
        elif isinstance(nest, (list, tuple)) and isinstance(step, int):
            nest = nest[step]
        elif step in names and len(names) == len(flat):
            # Losses by the names of outputs that are in a list.
            nest = flat[names.index(step)]
    return nest
