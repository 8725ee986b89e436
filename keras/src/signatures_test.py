"""Wrappers that pass their arguments on show those of what they wrap."""

import inspect

from absl.testing import parameterized

import keras
from keras.src import backend
from keras.src import testing
from keras.src.signatures import as_kept

DRAWN = """show_shapes show_dtype show_layer_names rankdir expand_nested dpi
show_layer_activations show_trainable splines show_masks"""
LINES = """line_length positions print_fn expand_nested show_trainable
layer_range show_masks"""
# What is shown of some public functions, whatever else a release adds.
SHOWN = {
    "Input": "shape batch_size dtype sparse ragged batch_shape name tensor "
    "optional mask_shape",
    "KerasTensor": "shape dtype sparse ragged record_history name mask",
    "Model.predict": "x batch_size verbose steps callbacks",
    "Model.summary": LINES,
    "layers.Discretization.adapt": "data steps",
    "layers.IntegerLookup.adapt": "data steps",
    "layers.TextVectorization.adapt": "data batch_size steps",
    "random.dropout": "inputs rate noise_shape seed",
    "saving.deserialize_keras_object": "config custom_objects safe_mode",
    "utils.FeatureSpace.adapt": "dataset",
    "utils.model_to_dot": f"model subgraph {DRAWN}",
    "utils.plot_model": f"model to_file {DRAWN}",
}


def kept(x, axis=None, **rest):
    """What is wrapped."""


class AsKeptTest(testing.TestCase):
    def test_a_wrapper_has_the_signature_and_its_own_parameters(self):
        @as_kept(kept)
        def wrapper(*args, own=1, **kwargs):
            return args, own, kwargs

        shown = str(inspect.signature(wrapper))
        self.assertEqual(shown, "(x, axis=None, *, own=1, **rest)")
        self.assertEqual(inspect.getfullargspec(wrapper).args, ["x", "axis"])
        self.assertEqual(wrapper.__doc__, "What is wrapped.")
        self.assertEqual(wrapper(1, 2, own=3, b=4), ((1, 2), 3, {"b": 4}))

    def test_a_docstring_of_its_own_stays(self):
        @as_kept(kept)
        def wrapper(x, *args, **kwargs):
            """Its own."""

        self.assertEqual(wrapper.__doc__, "Its own.")
        self.assertEqual(
            str(inspect.signature(wrapper)), "(x, axis=None, **rest)"
        )

    @parameterized.parameters(*SHOWN.items())
    def test_users_see_the_parameters(self, path, names):
        found = keras
        for name in path.split("."):
            found = getattr(found, name)
        shown = list(inspect.signature(found).parameters)
        self.assertEqual(set(names.split()) - set(shown), set())
        # Those that upstream has stand in its order.
        first = [n for n in names.split() if n in shown][0]
        self.assertEqual([n for n in shown if n != "self"][0], first)

    def test_arguments_by_position(self):
        x = keras.Input((3,), 2, "int32", name="ids", mask_shape=(3,))
        self.assertEqual((x.shape, x.dtype), ((2, 3), "int32"))
        self.assertEqual(x.mask.shape, (2, 3))
        x = backend.KerasTensor((2,), "int32", False, False, True, "ids")
        self.assertEqual((x.dtype, x.name), ("int32", "ids"))
