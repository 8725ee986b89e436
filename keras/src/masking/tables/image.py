"""Rules of `keras.ops.image`."""

from keras.src.masking.rules import batch as b
from keras.src.masking.rules import pixels as p
from keras.src.masking.rules.arrange import moved
from keras.src.ops import image as MODULE

RULES = {
    "affine_transform": b.batch_only(b.IMAGE, b.TRANSFORM),
    "crop_images": p.reframed,
    "elastic_transform": b.batch_only(b.IMAGE),
    "extract_patches": p.patches,
    "gaussian_blur": b.batch_only(b.IMAGE),
    "hsv_to_rgb": b.batch_only(b.colour),
    "map_coordinates": b.refused(
        "Coordinates reach all axes, so that none is left for a mask."
    ),
    "pad_images": p.reframed,
    "perspective_transform": b.batch_only(b.IMAGE, b.CORNERS),
    "reconstruct_patches": moved,
    "resize": b.batch_only(b.IMAGE),
    "rgb_to_grayscale": b.batch_only(b.gray),
    "rgb_to_hsv": b.batch_only(b.colour),
    "scale_and_translate": b.batch_only(b.resampled),
    "sobel_edges": b.batch_only(b.IMAGE),
    "ssim": b.batch_only(b.IMAGE),
}

ELSEWHERE = {
    "extract_patches_3d": "It makes the operation of `extract_patches`.",
}
