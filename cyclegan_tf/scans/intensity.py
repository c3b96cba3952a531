"""The grey values of any scanner → [-1, 1], and where in them the head is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_li

# Where the brightest tissue of the brain lies between black (0) and white (1) in the published
# 8-bit images: white matter in T1w, whose scalp fat is brighter still, and fluid in T2w.
BRIGHTEST = {"t1": 0.62, "t2": 0.98}
INTENSITY_RULE = (
    "8-bit grey g: g / 127.5 - 1; all else: air, or the darkest 0.1 % around the head, at -1, "
    "brightest tissue of the brain (98th percentile of the head's inner half) as in 8-bit images, "
    "at 0.24 in T1w and 0.96 in T2w"
)
AIR = -0.8  # what is darker is air, or bone


@dataclass
class Scaled:
    """Slices on the scale of the networks, and what was doubtful."""

    slices: list[np.ndarray]
    """Float32 (H, W) in [-1, 1] each; what is not of the scan is -1."""
    warnings: list[str] = field(default_factory=list)
    """Sentences for the terminal and the sidecar; without a file's name."""


def scale_intensities(
    stack: Sequence[np.ndarray], contrast: str, valid: Sequence[np.ndarray] | None = None
) -> list[np.ndarray]:
    """The slices of `normalise`, for those who have read its warnings elsewhere."""
    return normalise(stack, contrast, valid).slices


def normalise(
    stack: Sequence[np.ndarray], contrast: str, valid: Sequence[np.ndarray] | None = None
) -> Scaled:
    """Slices (H, W) of one head in any unit → float32 in [-1, 1], all by the same straight line.

    `valid` (booleans of the same shapes) is False where there is no scan: that becomes -1.
    """
    sizes = [image.shape for image in stack]
    # list of (H, W) -> (S, H, W): what smaller slices lack is not valid
    values = np.zeros((len(sizes), *np.max(sizes, axis=0)), np.float32)
    inside = np.zeros(values.shape, bool)
    for number, (height, width) in enumerate(sizes):
        values[number, :height, :width] = stack[number]
        inside[number, :height, :width] = True if valid is None else valid[number]
    values[~inside] = 0
    threshold = threshold_li(values[inside])
    inner = []
    for image in values:
        depth = ndimage.distance_transform_edt(ndimage.binary_fill_holes(image > threshold))
        inner.append(image[depth > depth.max() / 2])
    black = np.percentile(values[inside], 0.1)
    bright = np.percentile(np.concatenate(inner), 98)
    scaled = np.clip((values - black) * (2 * BRIGHTEST[contrast] / (bright - black)) - 1, -1, 1)
    scaled[~inside] = -1
    return Scaled([image[:h, :w] for image, (h, w) in zip(scaled, sizes, strict=True)])


def find_head(scaled: np.ndarray) -> np.ndarray:
    """Where slices (S, H, W) in [-1, 1] show a head: booleans of the same shape.

    What is brighter than AIR without single points of noise, its holes, and 3 pixels around, each
    slice by itself. Black around the slices changes nothing.
    """
    cross = ndimage.generate_binary_structure(2, 1)[None]
    bright = ndimage.binary_opening(scaled > AIR, cross)  # without single points of noise
    return ndimage.binary_dilation(ndimage.binary_fill_holes(bright, cross), cross, 3)


def head_box(head: np.ndarray, margin: int = 0) -> tuple[slice, slice]:
    """Rows and columns of a head's mask (S, H, W) with `margin` pixels around, for all slices.

    Specks beside the head count for nothing. The box ends where the slices do.
    """
    shown = np.count_nonzero(head.any(axis=(1, 2)))
    labels, _ = ndimage.label(head.sum(axis=0) > 0.01 * shown)  # (S, H, W) -> (H, W)
    areas = np.bincount(labels.ravel())[1:]
    if not len(areas):
        return slice(0, head.shape[1]), slice(0, head.shape[2])
    large = np.isin(labels, 1 + np.flatnonzero(areas >= 0.05 * areas.max()))
    (box,) = ndimage.find_objects(large.astype(np.uint8))
    return tuple(
        slice(max(0, side.start - margin), min(length, side.stop + margin))
        for side, length in zip(box, large.shape, strict=True)
    )
