"""Trainers build models on masked batches, and warn of padding that counts."""

from keras.src import backend
from keras.src import tree
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.keras_tensor import KerasTensor
from keras.src.backend.common.keras_tensor import any_leaf
from keras.src.backend.common.masked_tensor import MaskedTensorBase
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.masking import refusals
from keras.src.masking.training import padding
from keras.src.trainers.data_adapters import data_adapter_utils
from patchset.markers import keeps
from patchset.markers import new


class Trainer:
    @keeps("_compute_loss_unwarned")
    def compute_loss(
        self,
        x=None,
        y=None,
        y_pred=None,
        sample_weight=None,
        training=True,
    ):
        """Computes the total loss of a batch; to be overridden for another.

        No mask of the predictions is read. An output that is masked and has no
        weight is warned of, once, since its padding counts.

        Args:
            x: Inputs.
            y: Targets.
            y_pred: Outputs of the model, masked ones among them.
            sample_weight: Weights over leading axes of the targets.
            training: Whether it is computed in training.

        Returns:
            The loss, a scalar, or None if there is none.
        """
        loss = self._compute_loss_unwarned(
            x, y, y_pred, sample_weight, training
        )
        if self._compile_loss is not None and any(
            map(has_mask, tree.flatten(y_pred))
        ):
            self._watch_padding(x, y, y_pred, sample_weight)
        return loss

    @new
    def _watch_padding(self, x, y, y_pred, sample_weight):
        """Warns once for each output whose padding the loss counts.

        Runs while a step is traced, and again when it is traced again.
        """
        watch = padding.watch_of(self._compile_loss)
        for one in padding.judged(
            self._compile_loss, x, y, y_pred, sample_weight
        ):
            if not one.is_unweighted or one.name in watch.warned:
                continue
            if in_symbolic_scope():
                # What a step of one's own does is not known yet.
                watch.is_pending |= one.is_to_be_seen
                continue
            if one.is_to_be_seen and not self._sees_padding(watch, one):
                continue
            self._warn_of_padding(one.name, one.advice)

    @new
    def _sees_padding(self, watch, one):
        """Whether the first batch has padding that counts in an output."""
        if backend.backend() == "numpy":
            # It has no step to be compiled.
            watch.look_at(one)
        return one.name in watch.seen

    @new
    def _warn_of_padding(self, name, advice):
        padding.watch_of(self._compile_loss).warned.add(name)
        # It is about the call of `fit` or `evaluate`.
        refusals.warn_at(
            refusals.users_frame(),
            advice.format(name=name, model=self.name),
            UserWarning,
        )

    @new
    def _look_for_padding(self, data_batch):
        """Looks once what the masks of outputs are, outside compiled code."""
        watch = padding.watch_of(self._compile_loss)
        if not watch.is_pending:
            return
        watch.is_pending = False
        x, y, sample_weight = data_adapter_utils.unpack_x_y_sample_weight(
            data_batch
        )
        # Layers of JAX take no nest of arrays and tensors.
        x = tree.map_structure(
            lambda x: x if has_mask(x) else backend.convert_to_tensor(x), x
        )
        # No assignment to a variable goes beyond this scope.
        with backend.StatelessScope():
            y_pred = self(x, training=False)
        for one in padding.judged(
            self._compile_loss, x, y, y_pred, sample_weight
        ):
            if one.is_unweighted and one.is_to_be_seen:
                watch.look_at(one)

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
            if not self._is_whole():
                self._build_on_masked(data_batch)
        self._symbolic_build_unmasked(iterator, data_batch)
        if data_batch is not None and self._compile_loss is not None:
            self._look_for_padding(data_batch)

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
            tree.map_structure(spec_of, data_batch)
        )
        spec = backend.compute_output_spec
        y_pred = spec(self, x, training=False)
        weights = {"sample_weight": sample_weight}
        if self._compile_metrics is not None:
            spec(self.compute_metrics, x, y, y_pred, **weights)
        if self._compile_loss is not None:
            spec(self._compute_loss, x, y, y_pred, training=False, **weights)


@new
def spec_of(x):
    """A symbolic tensor like `x`, its mask included."""
    if x is None:
        return None
    mask = None
    if has_mask(x):
        mask = backend.KerasTensor(x.mask.shape, "bool", record_history=False)
    dtype = backend.standardize_dtype(x.dtype)
    return backend.KerasTensor(x.shape, dtype, mask=mask)
