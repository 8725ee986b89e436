"""A summary with `show_masks=True` has a column for masks.

Upstream's function makes the whole table in one go. For such a summary it runs
with a table that has one column more.
"""

import functools
import inspect
import shutil
import types

import rich.table

from keras.src.masking.showing import graph_masks
from patchset.markers import keeps
from patchset.markers import new


@keeps("_print_plain_summary")
def print_summary(model, *args, show_masks=False, **kwargs):
    """Prints a summary of a model.

    Args:
        model: Keras model.
        line_length: Length of the lines. By default what the columns need, as
            far as the terminal has it.
        positions: Where columns end, as shares of the line or as numbers of
            characters. The column of the masks takes its share of the line
            first.
        print_fn: Function that gets the text. Defaults to `print`.
        expand_nested: Whether to show the layers of nested models.
        show_trainable: Whether to show if a layer is trainable.
        layer_range: Names, or patterns of names, of the first and of the last
            layer to show.
        show_masks: Whether to show the shape of the mask on what each layer
            returns: `-` where it has none, with `(ends)` where there was one
            on what it was given.
    """
    print_it = _print_plain_summary
    if show_masks:
        given = inspect.signature(print_it).bind(model, *args, **kwargs)
        line_length = given.arguments.get("line_length")
        print_it = graph_masks.with_names(
            print_it,
            rich=_rich_with(
                functools.partial(_TableWithMasks, wider=line_length is None)
            ),
            format_layer_shape=functools.partial(
                _format_shape_and_masks, graph_masks.along_graph(model)
            ),
        )
    print_it(model, *args, **kwargs)


# The share of the line that the masks take, and what they add to its length.
__added__ = ("_MASKS_SHARE", "_MASKS_LENGTH")
_MASKS_SHARE = 0.22
_MASKS_LENGTH = 24


@new
class _TableWithMasks(rich.table.Table):
    """The table of the layers, with the masks beside the shapes.

    The second field of a row is the pair that `_format_shape_and_masks` gives.
    """

    def __init__(self, *columns, width, wider, **kwargs):
        if wider:
            room = shutil.get_terminal_size().columns - 4
            width = max(width, min(width + _MASKS_LENGTH, room))
        taken = int(_MASKS_SHARE * width)
        scale = (width - taken) / sum(c.width for c in columns)
        for column in columns:
            column.width = int(scale * column.width)
        name, shape, *rest = columns
        masks = rich.table.Column("Mask", width=taken)
        super().__init__(name, shape, masks, *rest, width=width, **kwargs)

    def add_row(self, name, shape_and_masks, *rest):
        super().add_row(name, *shape_and_masks, *rest)
        if shape_and_masks[1] == graph_masks.UNKNOWN:
            self.caption = graph_masks.NOTE


@new
def _rich_with(table):
    """The parts of `rich` that a summary uses, with another table."""
    return types.SimpleNamespace(
        console=rich.console,
        markup=rich.markup,
        table=types.SimpleNamespace(Table=table, Column=rich.table.Column),
    )


@new
def _format_shape_and_masks(calls, layer):
    """The output shape of a layer, and the masks on it, as two fields."""

    def format_shape(shape):
        return f"({', '.join(highlight_number(n) for n in shape)})"

    masks = graph_masks.mask_text(calls.get(id(layer)), format_shape)
    return format_layer_shape(layer), masks
