"""The grey values of any scanner → [-1, 1]."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy import ndimage
from skimage.filters import threshold_li

# Where the brightest tissue of the brain lies between black (0) and white (1) in the published
# 8-bit images: white matter in T1w, whose scalp fat is brighter still, and fluid in T2w.
BRIGHTEST = {"t1": 0.62, "t2": 0.98}
INTENSITY_RULE = (
    "8-bit grey g: g / 127.5 - 1; all else: darkest 0.1 % at -1, brightest tissue of the brain "
    "(98th percentile of the head's inner half) as in 8-bit images, at 0.24 in T1w and 0.96 in T2w"
)


def scale_intensities(stack: Iterable[np.ndarray], contrast: str) -> list[np.ndarray]:
    """Slices (H, W) of one head in any unit → float32 in [-1, 1], all by the same straight line.

    -1 is the darkest 0.1 % of the stack. BRIGHTEST[contrast] of the way from there to 1 is the
    98th percentile of the inner half of the head, which is white matter in T1w and fluid in T2w:
    the scalp has no part in it, so a head comes out the same with its skull and without, and the
    same as in published 8-bit images. What would exceed 1 is 1. A gain or an offset of the
    scanner changes nothing. The inner half of a slice are the points more than half as far from
    the head's edge as the deepest; the head is what exceeds the threshold of Li & Tam (Pattern
    Recognit. Lett. 19:771, 1998) in the stack, with its holes.
    """
    stack = [np.asarray(image, np.float64) for image in stack]
    values = np.concatenate([image.ravel() for image in stack])
    threshold = threshold_li(values)
    inner = []
    for image in stack:
        depth = ndimage.distance_transform_edt(ndimage.binary_fill_holes(image > threshold))
        inner.append(image[depth > depth.max() / 2])
    black = np.percentile(values, 0.1)
    bright = np.percentile(np.concatenate(inner), 98)
    gain = 2 * BRIGHTEST[contrast] / (bright - black)
    return [np.clip((image - black) * gain - 1, -1, 1).astype(np.float32) for image in stack]
