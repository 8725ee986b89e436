"""Layers of a graph have the order that they have in unpatched Keras.

`model.layers`, `get_weights()` and files of weights go by it. Upstream's masks
are operations of the graph, and move what makes them to the front.
"""

import json
import os
import pathlib
import random
import subprocess
import sys

import numpy as np
import pytest

import keras

UPSTREAM = pathlib.Path(keras.__file__).parents[1] / "upstream"
GRAPHS = 60
STEPS, UNITS = 6, 4


class Named:
    """Layers with names of our own: automatic ones count operations, too."""

    def __init__(self):
        self.count = 0

    def __getattr__(self, cls):
        self.count += 1
        name = f"{cls}_{self.count}"
        return lambda *args, **kwargs: getattr(keras.layers, cls)(
            *args, name=name, **kwargs
        )


def graph(seed):
    """A random model of ids and of steps, with masks and without."""
    draw, named = random.Random(seed), Named()
    inputs = [
        named.Input((STEPS,), dtype="int32") for _ in range(draw.randint(2, 3))
    ]
    shared = named.Embedding(20, UNITS, mask_zero=True)
    found = []
    for ids in inputs:
        embedding = draw.choice(
            [
                lambda: shared,
                lambda: named.Embedding(20, UNITS),
                lambda: named.Embedding(20, UNITS, mask_zero=True),
            ]
        )
        found.append(embedding()(ids))
    steps = named.Input((STEPS, UNITS))
    inputs.append(steps)
    found.append(draw.choice([lambda x: x, named.Masking()])(steps))
    for _ in range(draw.randint(3, 10)):
        x, y = draw.choice(found), draw.choice(found)
        found.append(draw.choice(LAYERS)(named, x, y))
    ends = [draw.choice(ENDS)(named, x) for x in draw.sample(found[-3:], 2)]
    return keras.Model(inputs, named.Concatenate()(ends))


LAYERS = [
    lambda named, x, y: named.Dense(UNITS)(x),
    lambda named, x, y: named.LSTM(UNITS, return_sequences=True)(x),
    lambda named, x, y: named.Add()([x, y]),
    lambda named, x, y: named.Multiply()([x, y]),
    lambda named, x, y: named.Dense(UNITS)(named.Concatenate()([x, y])),
    lambda named, x, y: named.MultiHeadAttention(2, 2)(x, y),
    lambda named, x, y: named.Attention()([x, y]),
    lambda named, x, y: named.LayerNormalization()(x),
    lambda named, x, y: named.BatchNormalization()(x),
    lambda named, x, y: named.Bidirectional(
        keras.layers.GRU(UNITS // 2, return_sequences=True)
    )(x),
    lambda named, x, y: named.TimeDistributed(keras.layers.Dense(UNITS))(x),
]
ENDS = [
    lambda named, x: named.LSTM(UNITS)(x),
    lambda named, x: named.GRU(UNITS, return_state=True)(x)[1],
    lambda named, x: named.GlobalAveragePooling1D()(x),
    lambda named, x: named.Dense(UNITS)(named.GlobalMaxPooling1D()(x)),
]


def names_of_layers():
    return [[layer.name for layer in graph(s).layers] for s in range(GRAPHS)]


def branches():
    """Two embeddings of one shape, of which the shallower makes a mask."""
    words = keras.Input((STEPS,), dtype="int32", name="words")
    tags = keras.Input((STEPS,), dtype="int32", name="tags")
    x = keras.layers.Embedding(20, UNITS, mask_zero=True)(words)
    y = keras.layers.Embedding(20, UNITS)(tags)
    y = keras.layers.Dense(UNITS)(y)
    x = keras.layers.Concatenate()([x, y])
    return keras.Model([words, tags], keras.layers.LSTM(3)(x))


def embedded(model):
    """The tables of the embeddings, by the name of the input of each."""
    layers = [x for x in model.layers if "embedding" in x.name]
    return {
        x.input.name: keras.ops.convert_to_numpy(x.weights[0]) for x in layers
    }


def unpatched(*args):
    """What this file prints when unpatched Keras runs it."""
    result = subprocess.run(
        [sys.executable, __file__, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(UPSTREAM)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_layers_have_the_order_of_unpatched_keras():
    theirs, ours = unpatched("names"), names_of_layers()
    assert len(theirs) == GRAPHS
    different = [s for s in range(GRAPHS) if ours[s] != theirs[s]]
    assert not different, [(ours[s], theirs[s]) for s in different[:2]]


def test_masks_move_layers(monkeypatch):
    """The graphs are such that the masks decide, or we would see nothing."""
    ours = names_of_layers()
    order = "keras.src.ops.graph_order.has_masks"
    monkeypatch.setattr(order, lambda nodes: False)
    assert sum(map(list.__ne__, ours, names_of_layers())) >= GRAPHS // 20


def test_weights_of_unpatched_keras_find_their_layers(tmp_path):
    file = tmp_path / "theirs.weights.h5"
    theirs = unpatched("weights", file)
    model = branches()
    model.load_weights(file)
    for name, table in embedded(model).items():
        np.testing.assert_allclose(table, theirs[name], rtol=1e-6)


@pytest.mark.parametrize("name", ["words", "tags"])
def test_our_weights_find_the_layers_of_unpatched_keras(tmp_path, name):
    file, model = tmp_path / "ours.weights.h5", branches()
    model.save_weights(file)
    theirs = unpatched("load", file)
    np.testing.assert_allclose(embedded(model)[name], theirs[name], rtol=1e-6)


if __name__ == "__main__":
    assert not hasattr(keras, "MaskedTensor"), keras.__file__
    if sys.argv[1] == "names":
        print(json.dumps(names_of_layers()))
    else:
        model = branches()
        act = {"weights": model.save_weights, "load": model.load_weights}
        act[sys.argv[1]](sys.argv[2])
        print(json.dumps({k: v.tolist() for k, v in embedded(model).items()}))
