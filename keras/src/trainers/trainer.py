"""Trainers build models on masked batches, and warn of padding that counts."""

from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.masking import refusals
from keras.src.masking.errors import has_mask
from pip_build import keeps
from pip_build import new


class Trainer:
    @keeps("_compute_loss_unwarned")
    def _compute_loss(
        self,
        x=None,
        y=None,
        y_pred=None,
        sample_weight=None,
        training=True,
    ):
        self._warn_of_padding(y_pred, sample_weight)
        return self._compute_loss_unwarned(
            x, y, y_pred, sample_weight, training
        )

    @new
    def _warn_of_padding(self, y_pred, sample_weight):
        """Warns once for each output whose padding the loss counts.

        Runs while a step is traced, and again when it is traced again, so
        what was warned of is remembered in Python: on the loss tracker, which
        `compile` makes anew.
        """
        if self._loss_tracker is None or not any(
            has_mask(x) for x in tree.flatten(y_pred)
        ):
            return
        warned = vars(self._loss_tracker).setdefault("_warned_outputs", set())
        names = getattr(self, "output_names", None)
        for name, output in _unweighted(y_pred, sample_weight, names):
            # A mask over the batch alone is hardly ever False anywhere.
            per_step = has_mask(output) and len(output.mask.shape) > 1
            if per_step and name not in warned:
                warned.add(name)
                # It is about the call of `fit` or `evaluate`.
                refusals.warn_at(
                    refusals.users_frame(),
                    _PADDING_COUNTS.format(name=name, model=self.name),
                    UserWarning,
                )

    @keeps("_symbolic_build_unmasked")
    def _symbolic_build(self, iterator=None, data_batch=None):
        if data_batch is None and not self._is_whole():
            *_, steps = next(iter(iterator), (None,))
            if isinstance(steps, (list, tuple)):
                data_batch = steps[0]
            elif steps is not None:
                data_batch = next(steps)
        if any_leaf((MaskedTensorBase, KerasTensor), (data_batch,)) and any(
            map(has_mask, tree.flatten(data_batch))
        ):
            self._build_on_masked(data_batch)
        self._symbolic_build_unmasked(iterator, data_batch)

    @new
    def _is_whole(self):
        """Whether all that a batch would build is built."""
        parts = (*self._flatten_layers(), self._compile_metrics)
        parts = (*parts, self._compile_loss)
        return all(part is None or part.built for part in parts)

    @new
    def _build_on_masked(self, data_batch):
        """Builds what is not built yet with specs that have masks."""
        x, y, sample_weight = data_adapter_utils.unpack_x_y_sample_weight(
            tree.map_structure(_spec_of, data_batch)
        )
        spec = backend.compute_output_spec
        y_pred = spec(self, x, training=False)
        weights = {"sample_weight": sample_weight}
        if self._compile_metrics is not None:
            spec(self.compute_metrics, x, y, y_pred, **weights)
        if self._compile_loss is not None:
            spec(self._compute_loss, x, y, y_pred, training=False, **weights)


__added__ = ("_PADDING_COUNTS",)
_PADDING_COUNTS = (
    "The output '{name}' of model '{model}' is masked, and there is no "
    "`sample_weight` for it, so its loss and metrics count padding: they never "
    "read a mask. Write\n"
    "    model.fit(x, y, sample_weight="
    "keras.utils.sample_weight_from_mask(x_ids != 0))\n"
    "to leave padding out of the loss (in `evaluate` likewise), and pass the "
    "metrics to `compile` as `weighted_metrics`, which use these weights."
)


@new
def _unweighted(y_pred, sample_weight, output_names):
    """The names and values of the outputs that have no weight."""
    if isinstance(y_pred, dict):
        output_names = sorted(y_pred)
    outputs = tree.flatten(y_pred)
    names = tree.flatten(output_names)
    if output_names is None or len(names) != len(outputs):
        names = [f"output_{i}" for i in range(len(outputs))]
    given = tree.flatten(sample_weight)
    if len(given) != len(outputs):
        given = given[:1] * len(outputs)
    triples = zip(names, outputs, given, strict=True)
    return [
        (name, output) for name, output, weight in triples if weight is None
    ]


@new
def _spec_of(x):
    """A symbolic tensor like `x`, its mask included."""
    if x is None:
        return None
    mask = None
    if has_mask(x):
        mask = backend.KerasTensor(x.mask.shape, "bool", record_history=False)
    dtype = backend.standardize_dtype(x.dtype)
    return backend.KerasTensor(x.shape, dtype, mask=mask)
