"""A summary can show masks, masked batches are taken on any backend, and what
is exported takes and gives masks as tensors of their own."""

from keras.src import backend
from keras.src import tree
from keras.src.backend.common.composite import any_composite
from keras.src.backend.common.composite import has_mask
from keras.src.backend.common.composite import mask_or_spec
from keras.src.backend.common.keras_tensor import needs_dispatch
from keras.src.composite import in_files
from keras.src.masking.training import batches
from keras.src.masking.training import data
from keras.src.trainers.trainer import spec_of
from keras.src.utils import summary_utils
from keras.src.utils import traceback_utils
from patchset.markers import keeps
from patchset.markers import new


class Model:
    __added__ = ("fit", "evaluate", "predict")

    fit = data.takes_ragged(Trainer.fit)
    evaluate = data.takes_ragged(Trainer.evaluate)
    predict = data.takes_ragged(batches.joins_batches(Trainer.predict))

    @new
    def train_on_batch(
        self,
        x,
        y=None,
        sample_weight=None,
        class_weight=None,
        return_dict=False,
    ):
        return super().train_on_batch(
            *data.whole_batch(
                *data.batch_for(self, x, y), sample_weight, class_weight
            ),
            return_dict,
        )

    @new
    def test_on_batch(
        self,
        x,
        y=None,
        sample_weight=None,
        return_dict=False,
    ):
        x, y, sample_weight, _ = data.whole_batch(
            *data.batch_for(self, x, y), sample_weight
        )
        return super().test_on_batch(x, y, sample_weight, return_dict)

    @new
    def predict_on_batch(self, x):
        x, _ = data.batch_for(self, x)
        x = data.whole_batch(x)[0]
        return batches.to_numpy(super().predict_on_batch(x))

    @new
    def _maybe_build(self, call_spec):
        arguments = call_spec.tensor_arguments_dict
        if needs_dispatch((), arguments):
            # What `export` can know of the inputs of a model of any class.
            inputs = {k: x for k, x in arguments.items() if k != "mask"}
            # As upstream has the inputs: in the order of the arguments.
            flat = tree.flatten(list(inputs.values()))
            ndims = list(map(_mask_ndim, flat))
            if any(ndims):
                vars(self)["_masks_of_call"] = ndims
            if not self.built and any_composite((), inputs):
                vars(self)["_composites_of_call"] = tree.map_structure(
                    spec_of, inputs
                )
        super()._maybe_build(call_spec)

    @new
    def get_build_config(self):
        """What `build_from_config()` builds the model with."""
        config = super().get_build_config()
        specs = vars(self).get("_composites_of_call")
        if config is None or specs is None:
            return config
        # Shapes alone do not say what is an integer, or masked.
        return config | {"composites": in_files.described(specs)}

    @keeps("_build_from_shapes")
    def build_from_config(self, config):
        """Builds the model as it was built before it was written to a file.

        Args:
            config: What `get_build_config()` gave.
        """
        if config and "composites" in config:
            specs = in_files.with_specs(config["composites"])
            self._maybe_build(self._call_spec_on(specs))
        elif in_files.names_type(config):
            super().build_from_config(config)
        else:
            self._build_from_shapes(config)

    @keeps("_export_plain")
    @traceback_utils.filter_traceback
    def export(
        self,
        filepath,
        format="tf_saved_model",
        verbose=None,
        input_signature=None,
        **kwargs,
    ):
        """Writes what the model computes, for inference without its code.

        What is written takes and gives plain tensors. A masked input `x`
        becomes two, `x` and `x_mask`, and all inputs are then passed by name,
        in a dictionary. A masked output becomes two by name, `output_0` and
        `output_0_mask`, or, where the model returns a dictionary, that of its
        key and the same with `_mask`. What is in `output_0` where its mask is
        False means nothing.

        A composite tensor becomes its parts, by their names. In ONNX, where
        inputs and outputs share their names, a part `x` goes out as `x_out` if
        it comes in as `x`.

        On TensorFlow, the endpoint `serve` of a SavedModel takes and gives
        masked tensors in a program that has imported Keras, as
        `keras.layers.TFSMLayer` does. Its signature, which is served, has the
        pairs.

        Inputs are masked if they are declared so, by `mask_shape`, or if the
        model was called with masked tensors. They are composite if they are
        declared so, or if a model that declares none was first called so.

        Args:
            filepath: Path to write to.
            format: "tf_saved_model", "onnx", "openvino", "litert" or "torch".
                Not all backends have all of them.
            verbose: Whether to print a message.
            input_signature: List of what describes the positional inputs:
                `keras.InputSpec`s, tensors or, for a masked input,
                `keras.Input(shape, mask_shape=...)`.
            **kwargs: As upstream takes them for the format.
        """
        # Late: export imports models.
        from keras.src.export import in_pairs

        # PyTorch's tracer, which OpenVINO reads from, knows no dictionaries.
        is_named = (backend.backend(), format) != ("torch", "openvino")
        model, input_signature = in_pairs.for_export(
            self, input_signature, is_named, is_one_graph=format == "onnx"
        )
        if format == "tf_saved_model" and backend.backend() == "jax":
            kwargs = in_pairs.with_shapes(model, kwargs)
        model._export_plain(
            filepath, format, verbose, input_signature, **kwargs
        )

    @keeps("_plain_summary")
    @traceback_utils.filter_traceback
    def summary(self, *args, show_masks=False, **kwargs):
        """Prints a summary of the model: its layers, shapes and weights.

        Args:
            line_length: Length of the lines. By default what the columns need,
                as far as the terminal has it.
            positions: Where columns end, as shares of the line or as numbers
                of characters.
            print_fn: Function that gets the text. Defaults to `print`.
            expand_nested: Whether to show the layers of nested models.
            show_trainable: Whether to show if a layer is trainable.
            layer_range: Names, or patterns of names, of the first and of the
                last layer to show.
            show_masks: Whether to show the shape of the mask on what each
                layer returns: `-` where it has none, with `(ends)` where there
                was one on what it was given.

        Raises:
            ValueError: If the model has no layer named as in `layer_range`, or
                the line is too short.
        """
        if not show_masks:
            return self._plain_summary(*args, **kwargs)
        summary_utils.print_summary(self, *args, show_masks=True, **kwargs)


@new
def _mask_ndim(x):
    return len(mask_or_spec(x).shape) if has_mask(x) else 0
