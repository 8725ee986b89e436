"""What summaries and plots with `show_masks=True` show."""

import os
import re
import shutil
from unittest import mock

import pytest
from absl.testing import parameterized

from keras.src import layers
from keras.src import models
from keras.src import testing
from keras.src.utils import model_visualization
from keras.src.utils.model_visualization import model_to_dot
from keras.src.utils.model_visualization import plot_model


def tagger():
    """A graph with a nested model, a shared layer and several outputs."""
    ids = layers.Input((None,), name="ids")
    h = layers.Embedding(10, 4, mask_zero=True, name="embedding")(ids)
    inside = layers.Input((None, 4), name="inside")
    relu = layers.ReLU(name="relu")
    nested = models.Model(inside, relu(inside), name="nested")
    shared = layers.Dense(4, name="shared")
    h = nested(shared(h))
    conv = layers.Conv1D(4, 3, strides=2, name="conv")(h)
    pooled = layers.GlobalAveragePooling1D(name="pool")(conv)
    lstm = layers.LSTM(
        3, return_sequences=True, return_state=True, name="lstm"
    )(h)
    return models.Model(ids, [shared(pooled), *lstm], name="tagger")


def sequential():
    return models.Sequential(
        [
            layers.Input((6,)),
            layers.Embedding(10, 4, mask_zero=True, name="embedding"),
            layers.Reshape((3, 8), name="pairs"),
            layers.LSTM(3, name="lstm"),
        ]
    )


class Subclassed(models.Model):
    def __init__(self):
        super().__init__()
        self.embedding = layers.Embedding(
            10, 4, mask_zero=True, name="embedding"
        )

    def call(self, ids):
        return self.embedding(ids)


MASKS_OF_TAGGER = {
    "ids": "-",
    "embedding": "(None, None)",
    "shared": "(None, None) -",
    "nested": "(None, None)",
    "conv": "(None, None)",
    "pool": "- (ends)",
    "lstm": "[(None, None), -, -]",
}
# Entries of a pair come from steps of their own, so each has its own mask.
MASKS_OF_SEQUENTIAL = {
    "embedding": "(None, 6)",
    "pairs": "(None, 3, 8)",
    "lstm": "- (ends)",
}


def summary(model, line_length=180, **kwargs):
    texts = []
    # A line that is longer than the terminal would be cut.
    with mock.patch.dict(os.environ, COLUMNS="200"):
        model.summary(line_length, print_fn=texts.append, **kwargs)
    return "\n".join(texts)


def column(text, title):
    """The fields of a column of a printed table, by the first word beside."""
    rows = [
        [field.strip() for field in re.split("[│┃]", line)[1:-1]]
        for line in text.splitlines()
        if line[:1] in "│┃" and line
    ]
    place = rows[0].index(title)
    found = {}
    for row in rows[1:]:
        if row[0] and not row[0].startswith("("):
            name = row[0].removeprefix("└ ").split()[0]
            found[name] = row[place]
        elif row[place]:
            found[name] += f" {row[place]}"
    return found


class SummaryTest(testing.TestCase):
    def test_functional(self):
        text = summary(tagger(), show_masks=True)
        self.assertEqual(column(text, "Mask"), MASKS_OF_TAGGER)

    def test_nested_models(self):
        text = summary(tagger(), show_masks=True, expand_nested=True)
        inside = {"inside": "(None, None)", "relu": "(None, None)"}
        self.assertEqual(column(text, "Mask"), MASKS_OF_TAGGER | inside)

    def test_sequential(self):
        text = summary(sequential(), show_masks=True)
        self.assertEqual(column(text, "Mask"), MASKS_OF_SEQUENTIAL)
        self.assertNotIn("explain_mask", text)

    def test_masked_input(self):
        x = layers.Input((None, 4), name="x", mask_shape=(None,))
        model = models.Model(x, layers.Dense(2, name="dense")(x))
        masks = column(summary(model, show_masks=True), "Mask")
        self.assertEqual(masks, {"x": "(None, None)", "dense": "(None, None)"})

    def test_a_model_without_graph_says_so(self):
        model = Subclassed()
        model.build((None, 3))
        text = summary(model, show_masks=True)
        self.assertEqual(column(text, "Mask"), {"embedding": "?"})
        self.assertIn("?: not part of a graph", text)
        self.assertIn("keras.utils.explain_mask(model, x)", text)

    @parameterized.parameters(tagger, sequential)
    def test_the_other_columns_stay(self, make):
        model = make()
        plain = summary(model, show_trainable=True)
        masked = summary(model, show_trainable=True, show_masks=True)
        for title in ("Output Shape", "Param #", "Trainable"):
            self.assertEqual(column(plain, title), column(masked, title))
        self.assertNotIn("Mask", plain)
        self.assertEqual(
            plain[plain.index("Total") :], masked[masked.index("Total") :]
        )

    def test_length_and_range_of_layers(self):
        text = summary(
            tagger(), 100, show_masks=True, layer_range=("conv", "pool")
        )
        self.assertEqual(
            column(text, "Mask"), {"conv": "(None, None)", "pool": "- (ends)"}
        )
        lengths = {len(line) for line in text.splitlines() if line[:1] in "│┃"}
        self.assertEqual(len(lengths), 1)
        self.assertLessEqual(max(lengths), 100)

    def test_a_range_of_no_layers_is_refused(self):
        with self.assertRaisesRegex(ValueError, "Passed layer_names do not"):
            summary(tagger(), show_masks=True, layer_range=("a", "b"))


def labels(dot):
    """The masks in the labels of a plot, by the names of the layers."""
    found = {}
    for node in dot.get_nodes():
        label = node.get_label()
        if label:
            name = re.search("<b>(.*?)</b>", label)[1]
            mask = re.search("Mask: <b>(.*?)</b>", label)
            found[name] = mask and mask[1].replace("<br/>", " ")
    for nested in dot.get_subgraphs():
        found |= labels(nested)
    return found


@pytest.mark.skipif(
    not model_visualization.check_pydot(), reason="needs the package pydot"
)
class PlotTest(testing.TestCase):
    def test_labels(self):
        dot = model_to_dot(tagger(), show_masks=True)
        self.assertEqual(labels(dot), MASKS_OF_TAGGER)
        dot = model_to_dot(sequential(), show_masks=True, show_shapes=True)
        found = labels(dot)
        self.assertEqual(
            {name: found[name] for name in MASKS_OF_SEQUENTIAL},
            MASKS_OF_SEQUENTIAL,
        )

    def test_nested_models(self):
        dot = model_to_dot(tagger(), show_masks=True, expand_nested=True)
        self.assertEqual(labels(dot)["relu"], "(None, None)")

    def test_plots_without_masks_stay(self):
        self.assertEqual(set(labels(model_to_dot(tagger())).values()), {None})

    @pytest.mark.skipif(
        shutil.which("dot") is None, reason="needs graphviz's program `dot`"
    )
    def test_a_picture(self):
        path = os.path.join(self.get_temp_dir(), "model.svg")
        plot_model(tagger(), path, show_masks=True)
        with open(path) as picture:
            self.assertIn("(None, None)", picture.read())
