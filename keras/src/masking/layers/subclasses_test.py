"""A `call` of a user's own that asks for the mask is given it.

It is generated for all public layers, of which one is the base of the user's
layer, or inside it. What becomes of the mask is what upstream makes of it: it
asks `compute_mask`, where the layer says that it supports masking, and the
layer inside sees the mask that is hung on its input.
"""

import inspect
import warnings

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import layers
from keras.src import ops
from keras.src import testing
from keras.src import tree
from keras.src.backend.common.composite import has_mask
from keras.src.testing.masked import testing_utils as u
from keras.src.testing.masked.cases import layers as cases
from keras.src.utils import set_random_seed
from patchset.markers import when


def drawn(args):
    return u.draw(args, seed=1, share=0.6)


NAMES = u.part(
    name
    for name, (case, *_) in cases.CASES.items()
    if any(x.mask is not None for x in u.leaves(drawn(case.args[:1])))
)
# Its function is all there is to its `call`, and to its `mask`.
NAMES = [name for name in NAMES if name != "Lambda"]


def asking(layer):
    """A layer like this one, of a subclass from outside that asks for masks."""
    cls = type(layer)
    signature = inspect.signature(cls.call)
    asks = [name for name in signature.parameters if name.endswith("mask")]
    if not asks:
        mask = inspect.Parameter(
            "mask", inspect.Parameter.KEYWORD_ONLY, default=None
        )
        *parameters, last = signature.parameters.values()
        if last.kind is inspect.Parameter.VAR_KEYWORD:
            parameters = [*parameters, mask, last]
        else:
            parameters = [*parameters, last, mask]
        signature = signature.replace(parameters=parameters)

    def call(self, *args, **kwargs):
        bound = signature.bind(self, *args, **kwargs)
        first = list(signature.parameters)[1]
        name = f"{first}_mask" if f"{first}_mask" in asks else "mask"
        seen.append((bound.arguments[first], bound.arguments.get(name)))
        if not asks:
            bound.arguments.pop("mask", None)
        return cls.call(*bound.args, **bound.kwargs)

    seen = []
    call.__signature__ = signature
    own = type(f"My{cls.__name__}", (cls,), {"call": call})
    own.__module__ = "outside"
    return own.from_config(layer.get_config()), seen


def masks_of(nest):
    return [getattr(x, "mask", None) for x in tree.flatten(nest)]


# What the layer inside it hands out carries the mask, and still does on the
# engines whose cast to the same dtype is no copy.
CARRIES = {"SpectralNormalization"}
if when(">=3.16"):
    # Upstream's loses it since then: its flag is off.
    CARRIES = {*CARRIES, "TimeDistributed"}


class SubclassesTest(testing.TestCase):
    @parameterized.named_parameters(zip(NAMES, NAMES))
    def test_it_gets_the_mask_and_keeps_it_as_upstream(self, name):
        # Upstream's takes a mask over all axes, or of one that broadcasts.
        case = cases.CASES[name][1 if name == "Softmax" else 0]
        set_random_seed(1)
        layer, seen = asking(case.make())
        args = u.masked(drawn(case.args))
        with warnings.catch_warnings():
            # Where the mask ends, as upstream.
            warnings.filterwarnings("ignore", ".*the mask ends here")
            outputs = tree.flatten(layer(*args))
        # A state that is as wide as there are steps is told by a trace, after.
        first, mask = seen[0]
        wanted = masks_of(args[0])
        self.assertFalse(any(map(has_mask, tree.flatten(first))))
        for one, other in zip(tree.flatten(mask), wanted, strict=True):
            self.assertEqual(one is None, other is None)
            if other is not None:
                self.assertAllEqual(one, other)
        kept = None
        if name in CARRIES and has_mask(outputs[0]):
            kept = u.array(wanted[0])
        if layer.supports_masking:
            previous = tree.map_structure(lambda x: x.mask, args[0])
            kept = tree.flatten(layer.compute_mask(first, previous))[0]
        if kept is not None:
            kept = np.asarray(backend.convert_to_numpy(kept))
            if outputs[0].shape[: kept.ndim] != kept.shape:
                kept = None
        self.assertEqual(has_mask(outputs[0]), kept is not None)
        if kept is not None:
            self.assertAllEqual(outputs[0].mask, kept)


def by_parts(base):
    """A layer from outside whose `call` puts the parts of `base` together."""

    class Own(base):
        def call(
            self, query, value, key=None, attention_mask=None, training=None
        ):
            outputs, _ = self._compute_attention(
                self._query_dense(query),
                self._key_dense(value),
                self._value_dense(value),
                attention_mask=attention_mask,
                training=training,
            )
            return self._output_dense(outputs)

    Own.__module__ = "outside"
    return Own


class OwnAttentionTest(testing.TestCase):
    @parameterized.product(
        base=(
            (layers.MultiHeadAttention, 2, 3),
            (layers.GroupedQueryAttention, 3, 2, 2),
        ),
        dropout=(0.0, 0.1),
        which=("both", "query", "value", "packed", "packed query"),
        seen=(None, "some"),
    )
    def test_parts_of_attention_know_masks(self, base, dropout, which, seen):
        base, *sizes = base
        rng = np.random.default_rng(0)
        mask = np.arange(5) < np.array([5, 3, 1])[:, None]
        values = rng.normal(size=(3, 5, 4)).astype("float32")
        x = backend.MaskedTensor(values, mask)
        plain = ops.convert_to_tensor(values)
        query = plain if which == "value" else x
        value = plain if which == "query" else x
        if which == "packed":
            query = value = x.packed()
        elif which == "packed query":
            query = x.packed()
        some = None
        if seen:
            some = rng.uniform(size=(3, 5, 5)) < 0.6
            some[:, :, 0] = True
        layer = by_parts(base)(*sizes, dropout=dropout)
        found = layer(query, value, attention_mask=some)
        # Scores of keys that are not there are none; one of its own is.
        self.assertTrue(has_mask(found))
        expected = base(*sizes)
        expected.build(values.shape, values.shape)
        expected.set_weights(layer.get_weights())
        for row, length in enumerate(mask.sum(1)):
            queries = 5 if which == "value" else length
            keys = 5 if which == "query" else length
            own = values[row : row + 1]
            rest = {}
            if seen:
                rest["attention_mask"] = some[row : row + 1, :queries, :keys]
            wanted = expected(own[:, :queries], own[:, :keys], **rest)
            self.assertAllClose(
                u.array(ops.filled(found, 0))[row : row + 1, :queries],
                wanted,
                atol=1e-5,
            )


class Around(layers.Layer):
    """A user's layer that asks for the mask, and does not hand it on."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, x, mask=None):
        self.seen = self.inner(x)
        return self.seen


class InnerLayersTest(testing.TestCase):
    @parameterized.named_parameters(zip(NAMES, NAMES))
    def test_it_sees_the_mask_and_hands_out_what_it_was_given(self, name):
        case = cases.CASES[name][0]
        if len(case.args) > 1:
            self.skipTest("`Around` hands on one argument.")
        x = u.masked(drawn(case.args))[0]
        layer = Around(case.make())
        with warnings.catch_warnings():
            # A state may be as wide as there are steps.
            warnings.filterwarnings("ignore", ".*the mask ends here")
            found, again = layer(x), layer(x)
        expected = layer.inner(x)
        self.assertFalse(any(map(has_mask, tree.flatten(layer.seen))))
        for one, other, wanted in zip(
            *map(tree.flatten, (found, again, expected)), strict=True
        ):
            masks = [x.mask for x in (one, other, wanted) if has_mask(x)]
            self.assertIn(len(masks), (0, 3))
            for mask in masks:
                self.assertAllEqual(mask, wanted.mask)
            one, other, wanted = (
                u.array(ops.filled(x, 0)) for x in (one, other, wanted)
            )
            # The others draw.
            if np.array_equal(one, other):
                self.assertAllClose(one, wanted)

    def test_an_explicit_mask_makes_masked_tensors(self):
        """They are told of, so what is made of them is masked, too."""

        class Tells(Around):
            def call(self, x, mask=None):
                self.seen = self.inner(x, mask=mask)
                return self.seen + 1.0

        x = u.masked(drawn(cases.CASES["LSTM"][0].args))[0]
        layer = Tells(layers.LSTM(3, return_sequences=True))
        self.assertAllEqual(layer(x).mask, x.mask)
        self.assertAllEqual(layer.seen.mask, x.mask)

    def test_masks_that_are_made_inside_are_masked_tensors(self):
        class Embeds(Around):
            def call(self, x, mask=None):
                self.seen = self.inner(x + 0)
                return self.seen * 2.0

        x = backend.MaskedTensor([[1, 2, 0], [1, 0, 0]], [[True] * 3] * 2)
        layer = Embeds(layers.Embedding(3, 2, mask_zero=True))
        self.assertAllEqual(layer(x).mask, x.values != 0)
