"""The fine structure of a source, given back to what was made of it."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..scans.arrays import filtered, gaussian
from ..scans.intensity import bounds

GUIDE, FLAT = 25, 8e-4  # pixels (mm) of the window; variance in [-1, 1] that counts as none
CELL = 3  # pixels (mm) from window to window
THICK = 2  # mm from slice to slice: what lies farther apart is too coarse for `guide`'s lines
TABLE = 0.25  # share of `guide`'s table, chosen as the guidance was


def guide(
    synthetic: np.ndarray,
    source: np.ndarray,
    head: np.ndarray,
    share: float,
    apart: float = 0,
    sharpening: float = 0,
) -> np.ndarray:
    """The synthetic slices with the fine structure of their source, both (S, H, W) in [-1, 1].

    It comes from two regressions of the synthetic image on the source. One is the guided filter
    (He, Sun & Tang, IEEE Trans. Pattern Anal. 35:1397, 2013), of which the result has the `share`:
    in every window of GUIDE mm the straight line that fits best. Windows so wide are much alike, so
    there is one every CELL mm (He & Sun, arXiv:1505.00996). The slices are `apart` mm, or 0 if each
    is to have windows of its own; more than THICK apart they get no lines. The other is a table:
    the mean synthetic value of every grey of the source in the whole head. A mean of planes is
    blurred: to slices that get lines, if `apart` is not 0, `sharpening` times what is finer in them
    than a Gaussian of a pixel is added. Only pixels of the `head`, booleans of the same shape,
    count and change.
    """
    result = np.array(synthetic)
    if not head.any():
        return result
    box = bounds(head)  # so that windows lie the same whatever is around it
    made, source, head, near = (x[box] for x in (synthetic, source, head, result))
    # `find_head` adds 3 pixels of air, in which both are black whatever the tissues beside them.
    inner = np.pad(head, 3)
    for _ in range(3):
        beside = [(step, axis) for step in (-1, 1) for axis in ((0, 1, 2) if apart else (1, 2))]
        inner = np.all([inner, *(np.roll(inner, *place) for place in beside)], axis=0)
    inner = inner[3:-3, 3:-3, 3:-3]
    # (S, H, W) -> (N,): the 128 greys of the pixels inside
    greys = ((source[inner] + 1) * 63.5).astype(np.uint8)
    count = np.maximum(np.bincount(greys, minlength=128), 1)
    near[inner] *= 1 - TABLE
    near[inner] += TABLE * (np.bincount(greys, made[inner], 128) / count)[greys]
    if apart > THICK:
        return result
    steps = apart / GUIDE or 1, 1 / GUIDE, 1 / GUIDE
    windows, cells, between = zip(*map(_windows, inner.shape, steps), strict=True)
    mask = inner.astype(np.float32)
    whole = _along(windows, mask) + 1e-6

    def mean(images):  # (S, H, W) -> in each window
        return _along(windows, images * mask) / whole

    level, brightness = mean(source), mean(made)
    spread = mean(source**2) - level**2
    slope = (mean(source * made) - level * brightness) / (spread + FLAT)
    counted = _along(cells, mask)  # windows count by how much of the head they stand for
    # In each window -> (S, H, W): of a pixel's lines, one for each window around it, the mean
    slopes, offsets = (_along(between, counted * x) for x in (slope, brightness - slope * level))
    lines = (slopes * source + offsets) / (_along(between, counted) + 1e-6)
    near[inner] += (1 - TABLE) * share * (np.clip(lines, -1, 1) - made)[inner]
    if apart and sharpening:
        near[inner] += sharpening * (near - filtered(near, gaussian(1)))[inner]
    return result


def fill_between(slices: np.ndarray, known: np.ndarray) -> None:
    """Interpolate the slices (N, S, H, W) between those of the `known` numbers, which rise."""
    for before, after in pairwise(known):
        for k in range(before + 1, after):
            share = (k - before) / (after - before)
            slices[:, k] = (1 - share) * slices[:, before] + share * slices[:, after]


def _windows(side: int, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Windows along a side of pixels, of which each is a `step` of a window from the next.

    (W, side): which pixels are in each, and which lie nearest to its middle; (side, W): of how many
    windows around a pixel each is one, between the middles linearly.
    """
    cell = max(1, round(CELL / GUIDE / step))
    pixels = np.arange(side)
    middles = np.arange(min(cell, side) // 2, side, cell)
    far = np.abs(middles[:, None] - pixels)
    beside = np.abs(middles[:, None] - middles) * step < 0.5
    nearest = far.argmin(axis=0) == np.arange(len(middles))[:, None]
    between = np.stack([np.interp(pixels, middles, row) for row in beside.astype(float)], axis=1)
    return tuple(x.astype(np.float32) for x in (far * step < 0.5, nearest, between))


def _along(matrices: Sequence[np.ndarray], images: np.ndarray) -> np.ndarray:
    """(S, H, W) -> (S', H', W'): each axis times its matrix, (S', S), (H', H) and (W', W)."""
    through, down, across = matrices
    return np.tensordot(through, down @ (images @ across.T), 1)
