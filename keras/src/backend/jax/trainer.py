"""`predict` joins the values and the masks of masked outputs apart.

So does what puts a batch on several devices, where each has a layout. A step
that is refused leaves the weights where they were.
"""

import jax
from keras.src import tree
from keras.src.backend.common.composite import has_mask
from keras.src.distribution import distribution_lib
from keras.src.masking import packing
from keras.src.masking.training import batches
from patchset.markers import keeps
from patchset.markers import new


class JAXTrainer:
    @keeps("_make_plain_function")
    def _make_function(self, step_function, **kwargs):
        if kwargs.get("concatenate_outputs"):
            step_function = batches.step_in_parts(step_function)
        return self._make_plain_function(step_function, **kwargs)

    @keeps("_make_plain_predict_function")
    def make_predict_function(self, force=False):
        if self.predict_function is not None and not force:
            return self.predict_function
        self._make_plain_predict_function(force)
        predict = self.predict_function

        def predict_in_parts(state, iterator):
            outputs, state = predict(state, iterator)
            return batches.promise(self, outputs), state

        self.predict_function = predict_in_parts

    @keeps("_purge_for_good")
    def _purge_model_variables(self, **which):
        # What is refused in the first step leaves the model as it was.
        self._jax_state = {
            name: [v.value for v in self._variables_named(name)]
            for name, is_purged in which.items()
            if is_purged
        }
        self._purge_for_good(**which)

    @new
    def _variables_named(self, name):
        if name == "optimizer_variables":
            return self.optimizer.variables
        return getattr(self, name)

    @keeps("_evaluate_without_care")
    def evaluate(self, *args, **kwargs):
        try:
            return self._evaluate_without_care(*args, **kwargs)
        finally:
            self.jax_state_sync()

    @keeps("_predict_without_care")
    def predict(self, *args, **kwargs):
        try:
            return self._predict_without_care(*args, **kwargs)
        finally:
            self.jax_state_sync()


@keeps("_distribute_plain_data")
def _distribute_data(data, layouts=None, **kwargs):
    if layouts is not None:
        layouts = tree.map_structure(_layouts_of_parts, data, layouts)
    if distribution_lib.distribution() is not None:
        packing.refuse_several_devices(data)
    apart = tree.map_structure(
        lambda x: x if packing.is_packed(x) else batches.to_parts(x), data
    )
    apart = _distribute_plain_data(apart, layouts, **kwargs)
    return batches.to_masked_tensors(apart)


@new
def _layouts_of_parts(x, layout):
    """The layout of a tensor; of a masked one that of values and of mask."""
    if not has_mask(x):
        return layout
    # The mask has fewer axes.
    spec = jax.sharding.PartitionSpec(*layout.spec[: len(x.mask.shape)])
    mask_layout = jax.sharding.NamedSharding(layout.mesh, spec)
    return batches.Parts(layout, mask_layout)
