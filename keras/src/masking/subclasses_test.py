"""A subclass that asks for the mask in a `call` of its own is given it.

It is generated for all public layers. What becomes of the mask is what
upstream makes of it: it asks `compute_mask`, where the layer says that it
supports masking.
"""

import inspect
import warnings

import numpy as np
from absl.testing import parameterized

from keras.src import backend
from keras.src import testing
from keras.src import tree
from keras.src.masking import testing_utils as u
from keras.src.masking.cases import layers as cases
from keras.src.masking.errors import has_mask
from keras.src.utils import set_random_seed


def drawn(args):
    return u.draw(args, seed=1, share=0.6)


# Each engine runs its part, and NumPy all.
NAMES = [
    name
    for name, (case, *_) in cases.CASES.items()
    if any(x.mask is not None for x in u.leaves(drawn(case.args[:1])))
]
ENGINES = ("jax", "tensorflow", "torch")
if backend.backend() in ENGINES:
    NAMES = NAMES[ENGINES.index(backend.backend()) :: len(ENGINES)]
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
        first, mask = seen[-1]
        wanted = masks_of(args[0])
        self.assertFalse(any(map(has_mask, tree.flatten(first))))
        for one, other in zip(tree.flatten(mask), wanted, strict=True):
            self.assertEqual(one is None, other is None)
            if other is not None:
                self.assertAllEqual(one, other)
        kept = None
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
