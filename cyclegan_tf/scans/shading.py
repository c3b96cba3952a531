"""Shading: what a receiver coil makes brighter near its elements, found and taken out by N4.

N4 (Tustison et al., IEEE Trans. Med. Imaging 29:1310, 2010) as SimpleITK has it, in numpy: that is,
installed, larger than all else that translating needs.
"""

from typing import NamedTuple

import numpy as np

from ..contrasts import HEAD
from .arrays import li_threshold, spline_values
from .intensity import box_above, even_steps

FEW = 8  # slices: up to 5 say too little of shading (openms-mni-p07 loses 0.1 dB), 10 enough
SAMPLES = 32  # along a side, from which the field is known: all change it by 2 %
MESHES = (1, 2, 4)  # spans of the field's splines along each side of the head, coarse to fine
ITERATIONS = 50  # of each mesh, at most
SETTLED = 1e-3  # deviation of what an iteration multiplies by: less is the last (SimpleITK)
BINS, PADDED = 200, 512  # of the histogram of logarithms, alone and for its Fourier transform
WIDTH = 0.15  # of a logarithm: full width at half maximum of what the field blurs it by (N3)
NOISE = 0.01  # of the Wiener filter that takes the blur away (N3)
STRONG = 1.6  # times as bright as elsewhere: of real heads none was above 1.5, and some is left


class Shading(NamedTuple):
    """What evens out a scan."""

    gain: np.ndarray
    """Float32, of the scan's shape: what a grey value has above `black` is multiplied with it."""
    black: float
    """The grey value of air, which stays."""
    warnings: list[str]
    """A sentence, if it is STRONG, to stand after the file's name and a colon."""

    def taken_from(self, values: np.ndarray) -> np.ndarray:
        """The grey values (of the shape of `gain`) without it."""
        return self.gain * (values - np.float32(self.black)) + np.float32(self.black)


def find_shading(slices: np.ndarray, black: float, contrast: str, body_part: str = HEAD) -> Shading:
    """The shading of a scan (S, H, W), its axes in any order, in grey values whose air is `black`.

    There is none in CT, and none is looked for in what is no head or has no more than a FEW slices.
    Elsewhere the head's median stays.
    """
    nothing = Shading(np.broadcast_to(np.float32(1), slices.shape), black, [])
    if contrast == "ct" or body_part != HEAD or min(slices.shape) <= FEW:
        return nothing
    box = box_above(slices, black)
    steps = even_steps(slices[box].shape, SAMPLES)
    sample = slices[box][steps] - np.float32(black)
    if not np.ptp(sample):  # a few specks, between the voxels that are looked at
        return nothing
    bright = sample > max(0, li_threshold(sample, 1e-3 * np.ptp(sample)))
    logs = np.log(sample[bright])
    places = np.argwhere(bright) * [side.step for side in steps] + [side.start for side in box]
    first, length = places.min(axis=0), np.maximum(np.ptp(places, axis=0), 1)
    known, field = np.zeros_like(logs), np.zeros(slices.shape, np.float32)
    for spans in MESHES:
        within = (places - first) / length
        change, lattice = _fit(logs - known, [_basis(x, spans) for x in within.T])
        known += change
        for axis, side in enumerate(slices.shape):  # (knots, …) -> (…, side), each axis its turn
            within = (np.arange(side) - first[axis]) / length[axis]
            lattice = np.tensordot(lattice, _basis(np.clip(within, 0, 1), spans), (0, 1))
        field += lattice
    least, middle, most = np.percentile(known, [2, 50, 98])
    ratio = np.exp(most - least)
    doubt = f"A coil made some places {ratio:.1f} times as bright as others: evened out in part."
    np.clip(field, known.min(), known.max(), out=field)
    return Shading(np.exp(np.float32(middle) - field), black, [doubt] * bool(ratio > STRONG))


def _fit(logs: np.ndarray, bases: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The field of points whose logarithms (n,) are known, and its lattice (knots, knots, knots).

    `bases` are `_basis` of the points, along each axis. Splines are fitted as by Lee et al., IEEE
    Trans. Vis. Comput. Graph. 3:228, 1997: every knot takes its share of what points around miss.
    """
    # three times (n, knots) -> (n, knots³)
    weights = np.einsum("ni,nj,nk->nijk", *bases).reshape(len(logs), -1)
    squares = weights**2
    shares = squares * weights / squares.sum(axis=1, keepdims=True)
    total = squares.sum(axis=0) + 1e-6
    field, lattice = np.zeros_like(logs), np.zeros_like(total)
    for _ in range(ITERATIONS):
        even = logs - field
        missed = even - _sharpened(even)
        knots = missed.astype(np.float32) @ shares / total
        change = weights @ knots
        field, lattice = field + change, lattice + knots
        if change.std() < SETTLED:
            break
    return field, lattice.reshape([basis.shape[1] for basis in bases])


def _sharpened(logs: np.ndarray) -> np.ndarray:
    """What logarithms (n,) are likely to be without the field that blurs their histogram.

    Sled et al., IEEE Trans. Med. Imaging 17:87, 1998 (N3), equations 9 to 12.
    """
    low, high = logs.min(), logs.max()
    step = max((high - low) / (BINS - 1), 1e-6)
    place = (logs - low) / step + (PADDED - BINS) // 2  # of the bin, a fraction
    first = place.astype(int)
    counts = np.bincount(first, 1 - (place - first), PADDED)
    counts += np.bincount(first + 1, place - first, PADDED)
    distance = np.fft.fftfreq(PADDED, 1 / PADDED) * step
    blur = np.exp(-4 * np.log(2) * (distance / WIDTH) ** 2)
    blur = np.fft.rfft(blur / blur.sum()).real  # it is even

    def blurred(histogram: np.ndarray) -> np.ndarray:
        return np.fft.irfft(np.fft.rfft(histogram) * blur)

    sharp = np.fft.irfft(np.fft.rfft(counts) * blur / (blur**2 + NOISE))
    sharp = np.maximum(sharp, 0)
    bins = np.arange(PADDED)
    expected = blurred(sharp * bins) / np.maximum(blurred(sharp), 1e-6 * sharp.max())
    return logs + step * (np.interp(place, bins, expected) - place)


def _basis(within: np.ndarray, spans: int) -> np.ndarray:
    """(n, spans + 3): the cubic B-splines of a side at places from 0 to 1 along it."""
    return spline_values(within * spans + 1, spans + 3)
