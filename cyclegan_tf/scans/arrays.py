"""What scipy and scikit-image would do with images, in numpy: translating needs neither of them.

Installed, these two are larger than all else that translating needs.
"""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

NOTHING = 1e-9  # of weights whose sum is 1


def label(mask: np.ndarray, through: bool = False, corners: bool = False) -> np.ndarray:
    """Number the connected parts of a mask (S, H, W) from 1 on; 0 is where it is False.

    Each slice has parts of its own, or they go `through` the slices. Pixels are neighbours by a
    side or, if `corners`, by a corner too.
    """
    padded = np.pad(mask, (0, 1))  # so that no row runs into the next, and no slice
    _, height, width = padded.shape
    steps = np.flatnonzero(np.diff(padded.ravel(), prepend=False))
    starts, ends = steps[::2], steps[1::2]  # of the runs of True
    slab, numbers, links = height * width, np.arange(len(starts)), []
    rows = [width, slab, slab - width, slab + width][: (4 if corners else 2) if through else 1]
    for row in rows:  # the runs that lie beside each run
        first = np.searchsorted(ends, starts + row - corners, "right")
        count = np.searchsorted(starts, ends + row + corners) - first
        ordinal = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        links.append([np.repeat(numbers, count), np.repeat(first, count) + ordinal])
    one, other = np.concatenate(links, axis=1)
    while (numbers[one] != numbers[other]).any():
        low, high = np.sort([numbers[one], numbers[other]], axis=0)
        np.minimum.at(numbers, high, low)
        while (numbers[numbers] != numbers).any():
            numbers = numbers[numbers]
    labels = np.zeros(padded.size, np.int32)
    parts = np.unique(numbers, return_inverse=True)[1] + 1
    labels[padded.ravel()] = np.repeat(parts, ends - starts)
    return labels.reshape(padded.shape)[:-1, :-1, :-1]


def enclosed(mask: np.ndarray, through: bool = False, corners: bool = False) -> np.ndarray:
    """The parts of a mask, as `label` finds them, that do not reach the border."""
    labels = label(mask, through, corners)
    open_ = np.zeros(labels.max(initial=0) + 1, bool)
    open_[0] = True
    for border in range(0 if through else 1, 3):
        open_[np.take(labels, [0, -1], axis=border)] = True
    return ~open_[labels]


def depths(mask: np.ndarray) -> np.ndarray:
    """How many pixels each one in a mask (S, H, W) is away from the nearest False of its slice."""
    places, far = np.arange(mask.shape[2], dtype=np.float32), np.float32(1e9)
    left = np.maximum.accumulate(np.where(mask, -far, places), axis=2)
    right = np.minimum.accumulate(np.where(mask, far, places)[:, :, ::-1], axis=2)[:, :, ::-1]
    within_row = np.minimum(places - left, right - places) ** 2
    squares = within_row.copy()
    for step in range(1, mask.shape[1]):
        if step**2 >= squares.max():
            break
        up, down = squares[:, step:], squares[:, :-step]
        np.minimum(up, within_row[:, :-step] + step**2, out=up)
        np.minimum(down, within_row[:, step:] + step**2, out=down)
    return np.sqrt(squares)


def li_threshold(values: np.ndarray, tolerance: float) -> float:
    """The threshold of least cross entropy (Li & Tam, Pattern Recognit. Lett. 19:771, 1998)."""
    lowest = values.min()
    values = values - lowest
    last, threshold = -np.inf, values.mean()
    while abs(threshold - last) > tolerance:
        last, bright = threshold, values > threshold
        low, high = values[~bright].mean(), values[bright].mean()
        if low == 0:
            break
        threshold = (low - high) / (np.log(low) - np.log(high))
    return threshold + lowest


@cache
def boxcar(size: int) -> Callable:
    """The kernel of a mean over `size` pixels, for `filtered`."""
    return lambda distance: 1.0 * (distance <= size // 2)


@lru_cache(maxsize=64)
def gaussian(sigma: float) -> Callable:
    """The kernel of a Gaussian, cut off as scipy does it, for `filtered`."""
    return lambda distance: (
        np.exp(-0.5 * (distance / sigma) ** 2) * (distance <= int(4 * sigma + 0.5))
    )


def filtered(images: np.ndarray, kernel: Callable) -> np.ndarray:
    """Images (…, H, W) → float32, filtered along both sides and mirrored at their borders."""
    return _product(*(_filter(kernel, side) for side in images.shape[-2:]), images)


@lru_cache(maxsize=32)
def _filter(kernel: Callable, side: int) -> np.ndarray:
    """Float32 (side, side): what each pixel of a side weighs in a filtered one."""
    return _weights(kernel, np.arange(side), side).astype(np.float32)


def resize(images: np.ndarray, shape: Sequence[int], order: int = 1) -> np.ndarray:
    """Images (…, H, W) → float32 (…, *shape), by linear interpolation or cubic splines (order 3).

    The same as skimage's `resize` with `clip` false: smoothed before where that shrinks.
    """
    sides = zip(images.shape[-2:], shape, strict=True)
    return _product(*(interpolation(old, new, order) for old, new in sides), images)


def zoom(image: np.ndarray, factor: float) -> np.ndarray:
    """An image (H, W) → another size, linearly, its outermost pixels in place; nothing smoothed."""
    down, across = (
        _weights(_linear, np.linspace(0, side - 1, round(side * factor)), side)
        for side in image.shape
    )
    return _product(down, across, image)


def steepness(image: np.ndarray) -> np.ndarray:
    """The magnitude of the gradient of an image (H, W) smoothed by a Gaussian of one pixel."""
    distance = np.arange(-4, 5)
    smooth = gaussian(1)(distance) / gaussian(1)(distance).sum()

    def along(axis: int, kernel: np.ndarray) -> np.ndarray:
        sides = [(4, 4) if side == axis else (0, 0) for side in (0, 1)]
        first, second = sides, sides[::-1]
        once = sliding_window_view(np.pad(image, first, "symmetric"), 9, axis) @ kernel
        return sliding_window_view(np.pad(once, second, "symmetric"), 9, 1 - axis) @ smooth

    return np.hypot(along(0, distance * smooth), along(1, distance * smooth))


def _product(down: np.ndarray, across: np.ndarray, images: np.ndarray) -> np.ndarray:
    down, across, images = (np.asarray(x, np.float32) for x in (down, across, images))
    return down @ images @ across.T


@lru_cache(maxsize=8)
def interpolation(old: int, new: int, order: int) -> np.ndarray:
    """(new, old): what each old pixel of a side weighs in a new one."""
    kernel = cubic_spline if order == 3 else _linear
    matrix = _weights(kernel, (np.arange(new) + 0.5) * old / new - 0.5, old)
    matrix = matrix @ np.linalg.inv(_weights(kernel, np.arange(old), old))
    sigma = (old / new - 1) / 2
    if sigma > 0:
        matrix = matrix @ _weights(gaussian(sigma), np.arange(old), old)
    return trimmed(matrix)


def trimmed(matrix: np.ndarray) -> np.ndarray:
    """A matrix of weights, rows of a sum of 1, without those that change no sum in float32.

    The weights of splines never end, and products with subnormal numbers take ten times as long.
    """
    return np.where(np.abs(matrix) < NOTHING, 0, matrix)


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - distance, 0)


def cubic_spline(distance: np.ndarray) -> np.ndarray:
    """The uniform cubic B-spline at a distance, 0 or more, in knots."""
    near = 2 / 3 - distance**2 + distance**3 / 2
    return np.where(distance < 1, near, np.maximum(2 - distance, 0) ** 3 / 6)


def spline_values(places: np.ndarray, knots: int) -> np.ndarray:
    """(n, knots): float32 values of the cubic B-splines of knots 0, 1, … at places (n,)."""
    return cubic_spline(np.abs(places[:, None] - np.arange(knots))).astype(np.float32)


def _weights(kernel: Callable, places: np.ndarray, length: int) -> np.ndarray:
    """(places, length): what each pixel of a side weighs at a place, in all 1."""
    mirrored = np.arange(-length, 2 * length)
    period = max(2 * length - 2, 1)
    inside = np.minimum(mirrored % period, -mirrored % period)
    beyond = kernel(np.abs(places[:, None] - mirrored))
    matrix = np.zeros((len(places), length))
    np.add.at(matrix.T, inside, beyond.T)
    return matrix / matrix.sum(axis=1, keepdims=True)
