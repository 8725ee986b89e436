"""A plot with `show_masks=True` has the masks in the labels of its nodes."""

import functools
import re

from patchset.markers import keeps
from patchset.markers import new


@keeps("_plain_model_to_dot")
@keras_export("keras.utils.model_to_dot")
def model_to_dot(model, *args, show_masks=False, **kwargs):
    """Converts a Keras model to a graph in the DOT language.

    Args:
        model: Keras model, built.
        show_shapes: Whether to show shapes.
        show_dtype: Whether to show dtypes.
        show_layer_names: Whether to show the names of layers.
        rankdir: `"TB"` for a vertical plot, `"LR"` for a horizontal one.
        expand_nested: Whether to show the layers of nested models.
        dpi: Resolution in dots per inch.
        subgraph: Whether to return a `pydot.Cluster`.
        show_layer_activations: Whether to show the activations of layers.
        show_trainable: Whether to show if a layer is trainable.
        splines: How edges are drawn: `"ortho"`, `"curved"`, `"polyline"`,
            `"spline"` or `"line"`.
        show_masks: Whether to show the shape of the mask on what each layer
            returns: `-` where it has none, with `(ends)` where there was one
            on what it was given.

    Returns:
        A `pydot.Dot`, or a `pydot.Cluster` if `subgraph=True`.
    """
    dot = _plain_model_to_dot(model, *args, **kwargs)
    if show_masks:
        _add_masks(dot, _graph_masks().along_graph(model))
    return dot


@new
def _graph_masks():
    # Imported late: the backends import the utils, which import this module.
    from keras.src.masking.showing import graph_masks

    return graph_masks


@new
def _add_masks(dot, calls):
    """Adds a line with the masks to the label of each node of a graph."""
    for node in dot.get_nodes():
        # Upstream names a node by the `id` of its operation; pydot adds one
        # with the defaults for all others.
        if node.get_name().isdigit():
            text = _graph_masks().mask_text(calls.get(int(node.get_name())))
            node.set_label(_with_mask_row(node.get_label(), text))
    for nested in dot.get_subgraphs():
        _add_masks(nested, calls)


@new
def _with_mask_row(label, text):
    """The label of a node, a table of HTML, with a row more at its end."""
    columns = re.search(r'colspan="(\d+)"', label)[1]
    text = text.replace("\n", "<br/>")
    row = (
        f'<tr><td bgcolor="white" colspan="{columns}"><font point-size="14">'
        f"Mask: <b>{text}</b></font></td></tr>"
    )
    return label.replace("</table>", f"{row}</table>")


@keeps("_plain_plot_model")
@keras_export("keras.utils.plot_model")
def plot_model(*args, show_masks=False, **kwargs):
    """Draws a Keras model, and saves the picture to a file.

    Example:

    ```python
    inputs = keras.Input((None,))
    x = keras.layers.Embedding(10, 4, mask_zero=True)(inputs)
    outputs = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, outputs)
    keras.utils.plot_model(model, "model.png", show_masks=True)
    ```

    Args:
        model: Keras model, built.
        to_file: Name of the file.
        show_shapes: Whether to show shapes.
        show_dtype: Whether to show dtypes.
        show_layer_names: Whether to show the names of layers.
        rankdir: `"TB"` for a vertical plot, `"LR"` for a horizontal one.
        expand_nested: Whether to show the layers of nested models.
        dpi: Resolution in dots per inch.
        show_layer_activations: Whether to show the activations of layers.
        show_trainable: Whether to show if a layer is trainable.
        splines: How edges are drawn: `"ortho"`, `"curved"`, `"polyline"`,
            `"spline"` or `"line"`.
        show_masks: Whether to show the shape of the mask on what each layer
            returns: `-` where it has none, with `(ends)` where there was one
            on what it was given.

    Returns:
        The picture, to be shown in a notebook, if Jupyter is installed.
    """
    plot = _graph_masks().with_names(
        _plain_plot_model,
        model_to_dot=functools.partial(model_to_dot, show_masks=show_masks),
    )
    return plot(*args, **kwargs)
