"""Preprocessing layers, as `layers` has the others, and what they refuse."""

import typing

import numpy as np

from keras.src import layers
from keras.src.testing.masked.cases.layers import BOTH
from keras.src.testing.masked.cases.layers import IDS
from keras.src.testing.masked.cases.layers import Case
from keras.src.testing.masked.cases.layers import of_entries
from keras.src.testing.masked.cases.layers import same
from keras.src.testing.masked.testing_utils import T
from patchset.markers import when


class Refusal(typing.NamedTuple):
    """A layer and what it does not take.

    Attributes:
        make: Gives the layer.
        args: The arguments of its call.
        reason: A part of the reason.
    """

    make: typing.Callable
    args: tuple
    reason: str


# --------------------------------------------------------------------- masks


def any_step(mask):
    """Valid where any of the ids is that are counted."""
    return mask.any(1)


def of_batch(mask):
    """The mask over the batch alone, which is all that there is."""
    return mask.reshape(len(mask), -1)[:, 0]


def transformed(name, function, *args):
    """Cases of a layer that does to the mask what it draws for the images."""

    def make():
        return getattr(layers, name)(*args, seed=1)

    def oracle(mask):
        images = np.zeros(mask.shape, "float32")
        drawn = make().get_random_transformation(images, training=True)
        return function(mask, drawn)

    return {name: [Case(make, (pictures(rank),), oracle) for rank in (1, 3)]}


def mixed(mask, drawn):
    """Valid where both images are."""
    return mask & mask[np.asarray(drawn["permutation_order"])]


def in_a_grid(mask, drawn):
    """A window of four images, which are beside and below each other."""
    parts = mask[np.asarray(drawn["permutation_order"])]
    grid = np.concatenate(
        [np.concatenate([parts[:, i], parts[:, i + 1]], 2) for i in (0, 2)], 1
    )
    rows, columns = mask.shape[1:3]
    centers = np.round(np.asarray(drawn["mosaic_centers"]) * (columns, rows))
    starts = (columns, rows) - centers.astype(int)
    return np.stack(
        [
            image[top : top + rows, left : left + columns]
            for image, (left, top) in zip(grid, starts)
        ]
    )


def flipped(mask, drawn):
    return np.where(np.asarray(drawn["flips"]), mask[:, ::-1, ::-1], mask)


def cropped(mask, drawn):
    top, left = map(int, drawn)
    return mask[:, top : top + 4, left : left + 4]


def centre(mask):
    return mask[:, 1:5, 0:4]


# --------------------------------------------------------------------- cases


def pictures(rank):
    return T((3, 6, 5, 3), rank, low=0, high=255)


def of_images(name, *args, ranks=(1, 3), mask=same, **kwargs):
    """Cases of a layer, by its name, on images with masks of these ranks."""

    def make():
        return getattr(layers, name)(*args, **kwargs)

    return {name: [Case(make, (pictures(rank),), mask) for rank in ranks]}


def of_ids(make, mask=same):
    return [Case(make, (IDS,), mask, BOTH)]


# To each pixel by itself, or over the valid ones of an image.
BY_PIXEL = {
    **of_images("AutoContrast"),
    **of_images("CenterCrop", 4, 4, mask=centre),
    **transformed("CutMix", mixed),
    **of_images("Equalization", bins=4),
    **of_images("MaxNumBoundingBoxes", 4),
    **transformed("MixUp", mixed),
    **of_images("RandomBrightness", 0.3, seed=1),
    **of_images("RandomContrast", 0.3, seed=1),
    **transformed("RandomCrop", cropped, 4, 4),
    **of_images("RandomErasing", seed=1),
    **transformed("RandomFlip", flipped),
    **of_images("RandomInvert", seed=1),
    **of_images("RandomPosterization", 4, seed=1),
    **of_images("RandomSharpness", 0.5, seed=1),
    **of_images("Solarization", seed=1),
}

if when(">=3.16"):
    BY_PIXEL = {**BY_PIXEL, **transformed("Mosaic", in_a_grid)}

# As those, but the colour of a pixel is one.
BY_COLOUR = {
    **of_images("RandomColorDegeneration", 0.5, seed=1),
    **of_images(
        "RandomColorJitter",
        brightness_factor=0.3,
        contrast_factor=0.3,
        saturation_factor=0.3,
        hue_factor=0.3,
        seed=1,
    ),
    **of_images("RandomGrayscale", 0.5, seed=1),
    **of_images("RandomHue", 0.3, seed=1),
    **of_images("RandomSaturation", 0.5, seed=1),
}

# An image as a whole.
BY_IMAGE = {
    **of_images("AugMix", num_chains=1, chain_depth=1, seed=1, ranks=(1,)),
    **of_images(
        "ContrastLimitedAdaptiveHistogramEqualization",
        tile_grid_size=(2, 2),
        ranks=(1,),
    ),
    **of_images("RandAugment", num_ops=1, seed=1, ranks=(1,)),
    **of_images("RandomElasticTransform", seed=1, ranks=(1,)),
    **of_images("RandomGaussianBlur", seed=1, ranks=(1,)),
    **of_images("RandomPerspective", seed=1, ranks=(1,)),
    **of_images("RandomRotation", 0.3, seed=1, ranks=(1,)),
    **of_images("RandomShear", 0.3, 0.3, seed=1, ranks=(1,)),
    **of_images("RandomTranslation", 0.3, 0.3, seed=1, ranks=(1,)),
    **of_images("RandomZoom", 0.3, seed=1, ranks=(1,)),
    **of_images("Resizing", 4, 4, ranks=(1,), mask=of_batch),
}

IMAGES = BY_PIXEL | BY_COLOUR | BY_IMAGE


def mel():
    return layers.MelSpectrogram(
        fft_length=16, sequence_stride=8, sampling_rate=400, num_mel_bins=4
    )


def stft():
    return layers.STFTSpectrogram(
        frame_length=8, frame_step=4, fft_length=8, expand_dims=True
    )


CASES = {
    "CategoryEncoding": [
        *of_ids(
            lambda: layers.CategoryEncoding(9, output_mode="count"), any_step
        ),
        *of_ids(lambda: layers.CategoryEncoding(9), any_step),
        *of_ids(lambda: layers.CategoryEncoding(9, output_mode="one_hot")),
    ],
    "Discretization": [
        *of_entries(lambda: layers.Discretization([-1.0, 1.0])),
        *of_entries(
            lambda: layers.Discretization([-1.0, 1.0], output_mode="one_hot")
        ),
    ],
    "HashedCrossing": [
        Case(
            lambda mode=mode: layers.HashedCrossing(4, output_mode=mode),
            ([T((5,), 1, "int32", 0, 8), T((5,), 1, "int32", 0, 8)],),
            same,
        )
        for mode in ("int", "one_hot")
    ],
    "Hashing": [
        *of_ids(lambda: layers.Hashing(4)),
        *of_ids(lambda: layers.Hashing(4, output_mode="count"), any_step),
        # Of more than one column upstream tells another shape than it gives.
        Case(
            lambda: layers.Hashing(4, output_mode="one_hot"),
            (T((6, 1), 2, "int32", 0, 8),),
            of_batch,
        ),
    ],
    "IntegerLookup": [
        *of_ids(lambda: layers.IntegerLookup(vocabulary=[1, 5, 3])),
        *of_ids(
            lambda: layers.IntegerLookup(
                vocabulary=[1, 5, 3], output_mode="multi_hot"
            ),
            any_step,
        ),
        *of_ids(
            lambda: layers.IntegerLookup(
                vocabulary=[*range(9)], num_oov_indices=0
            ),
        ),
    ],
    "MelSpectrogram": [Case(mel, (T((3, 40), 1),), of_batch)],
    "Normalization": [
        *of_entries(lambda: layers.Normalization(mean=1.0, variance=4.0)),
        *of_entries(
            lambda: layers.Normalization(mean=1.0, variance=4.0, invert=True)
        )[:1],
    ],
    "Pipeline": of_entries(
        lambda: layers.Pipeline(
            [layers.Rescaling(0.5), layers.Discretization([-1.0, 1.0])]
        )
    ),
    "Rescaling": of_entries(lambda: layers.Rescaling(0.5, offset=1.0)),
    "STFTSpectrogram": [Case(stft, (T((3, 32, 2), 1),), of_batch)],
    **IMAGES,
}

# Layers without a case, with the reason.
ELSEWHERE = {
    "StringLookup": "It takes strings, see the test in its folder.",
    "TextVectorization": "It takes strings, see the test in its folder.",
}

_WHOLE_IMAGE = "last 3 axes as a whole"
_REASONS = {
    "AugMix": _WHOLE_IMAGE,
    "ContrastLimitedAdaptiveHistogramEqualization": "all of its pixels",
}

REFUSALS = {
    **{
        name: Refusal(
            cases[0].make, (pictures(3),), _REASONS.get(name, _WHOLE_IMAGE)
        )
        for name, cases in BY_IMAGE.items()
        if name not in ("AugMix", "RandAugment")
    },
    **{
        name: Refusal(cases[0].make, (pictures(4),), "last axis as a whole")
        for name, cases in BY_COLOUR.items()
    },
    "MelSpectrogram": Refusal(mel, (T((3, 40), 2),), "as a whole"),
    "STFTSpectrogram": Refusal(
        stft, (T((3, 32, 2), 2),), "all steps of a frame"
    ),
}
