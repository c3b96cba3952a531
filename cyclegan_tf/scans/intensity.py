"""The grey values of any scanner → [-1, 1], and where in them the head is."""

from typing import NamedTuple

import numpy as np

from .. import InputError
from ..contrasts import HEAD, NAMES
from .arrays import boxcar, depths, enclosed, filtered, label, li_threshold

# Where the brightest tissue of the brain lies between black (0) and white (1) in the published
# 8-bit images: white matter in T1w, whose scalp fat is brighter still, and fluid in T2w. Elsewhere
# there is room for what is brighter than healthy tissue, as in T1w.
BRIGHTEST = dict.fromkeys(NAMES, 0.62) | {"t2": 0.98}
INTENSITY_RULE = (
    "8-bit grey g: g / 127.5 - 1; all else, in MR of more than a few slices without its shading "
    "(N4): a constant background at -1, or 0 where air is noise around it, or else the darkest "
    "0.1 % of the head's box, and the brightest tissue of the brain (98th percentile of the head's "
    "inner half) as in 8-bit images, at 0.96 in T2w and 0.24 in all others"
)
BODY_RULE = (
    "8-bit grey g: g / 127.5 - 1; CT of h Hounsfield units: h / 1000; all else: a constant "
    "background at -1, or 0 where air is noise around it, or else the darkest 0.1 %, and the 98th "
    "percentile of the body, which is what is brighter than 1 % of the range, at 0.6"
)
BODY, HOUNSFIELD = 0.8, 1000  # what BODY_RULE says of a body, where 1 is white; -1000 HU is air
FAINT = -0.98  # what is darker is air around a body, of which muscle may be nearly as dark in T2w
NO_HEAD = "A scan shows no head, nothing stands out from its background: expected a head."
AIR = -0.8  # what is darker is air, or bone
SHARE = 0.05  # of a scan's border that has one value: as much is a constant background
CORNER = 0.01  # as SHARE, for a value that a corner has: no tissue lies there
SPECK = 0.05  # of the area of a head's largest part, or of a scan: what is no larger is no head
FLAT = 1e-3  # of the range of grey values: interpolation changes a constant by no more
FULL = 0.9  # of its box, at least, is filled by an image that was padded; a head cut out fills less
NOISE = 0.12  # of the range of grey values: the median step of neighbours in MP2RAGE's air is above
SIGNS = 0.1  # of neighbours in a scan's border differ in their sign where air is noise around 0
MARGIN = 3  # pixels of black around a head that count as its own
BAY = 8  # pixels: half the width of a gap in the scalp through which air does not reach the brain
SAMPLES = 96  # along a side, from which the grey values of a head are known
LEVELS = 5  # grey values at least has a scan; fewer are labels
SAME, APART = 0.55, 3.5  # share of neighbours that have one label; steps in rank between the others
GAPS = 0.15  # share of the steps between values that are larger than most: numbers are left out

Box = tuple[slice, ...]


class Filled(NamedTuple):
    """A scan with air's grey value where there is none, and what was doubtful about it."""

    voxels: np.ndarray
    warnings: list[str]
    """Sentences for the terminal and the sidecar, to stand after the file's name and a colon."""
    box: Box
    """Of the scan without the padding and the constant background around it."""
    black: float
    """Air's grey value."""
    constant: bool
    """Whether air has it, in the mean at least; else it is the darkest 0.1 % of the scan."""


def normalise(stack: np.ndarray, contrast: str, body_part: str = HEAD) -> np.ndarray:
    """Slices (S, H, W) of one head in any unit → float32 in [-1, 1], all by the same straight line.

    What is no scan becomes -1; see `fill_outside`, whose InputError is raised, and `find_levels`.
    """
    filled = fill_outside(np.asarray(stack, np.float32), contrast, body_part)
    return rescale(filled.voxels, find_levels(filled.voxels, filled, contrast, body_part))


def rescale(values: np.ndarray, levels: tuple[float, float]) -> np.ndarray:
    """Grey values in [-1, 1]: the `levels` become its ends, and so does what lies beyond them."""
    black, white = levels
    values = values - np.float32(black)
    values *= 2 / (white - black)
    values -= 1
    return np.clip(values, -1, 1, out=values)


def _in_hounsfield_units(contrast: str, body_part: str) -> bool:
    return contrast == "ct" and body_part != HEAD


def fill_outside(voxels: np.ndarray, contrast: str = "", body_part: str = HEAD) -> Filled:
    """Fill a scan, its three axes in any order, with air's grey value where there is none.

    Not of the scan is NaN; a constant background that is no black, since it lies amid the grey
    values (z-scored brains), above or far below them (padding); and air that is noise over the full
    range of grey values (MP2RAGE). Of the last two there are warnings. To be done before a volume
    is resized, which would mix -1000 or NaN into the head's edge. Raises InputError where all grey
    values are the same.
    """
    inside = ~np.isnan(voxels)
    if _in_hounsfield_units(contrast, body_part):
        filled = np.where(inside, voxels, -HOUNSFIELD).clip(-HOUNSFIELD)
        doubt = "Nothing is below 0, as fat and air are: is this in Hounsfield units?"
        warnings = [doubt] * bool(np.nanmin(voxels) >= 0)
        return Filled(filled, warnings, bounds(inside), -HOUNSFIELD, True)
    box, black, warnings = _find_scan(voxels, inside, contrast)
    constant = black is not None or np.mean(_border(inside[box])) < 1 - SHARE  # it is filled
    if black is None:
        black = np.percentile(_sample(voxels[box])[_sample(inside[box])], 0.1)
    if not inside.all():
        voxels = np.where(inside, voxels, np.asarray(black, voxels.dtype))
    return Filled(voxels, warnings, box, float(black), constant)


def find_levels(
    slices: np.ndarray, filled: Filled, contrast: str, body_part: str = HEAD
) -> tuple[float, float]:
    """The grey values that become -1 and 1 in the slices (S, H, W) of a scan that was filled.

    -1 is air: the background where that is constant, even if some voxels are darker by ringing, 0
    where it is noise around 0, else the darkest 0.1 % of the head's box. BRIGHTEST[contrast] of the
    way from there to 1 is the 98th percentile of the inner half of the head, which is white matter
    in T1w and fluid in T2w: the scalp has no part in it, so a head comes out the same with its
    skull and without, and the same as in published 8-bit images. What would exceed 1 is 1. The
    inner half of a slice are the points more than half as far from the head's edge as the deepest;
    the head is what is brighter than AIR on this scale (found from the threshold of Li & Tam,
    Pattern Recognit. Lett. 19:771, 1998, by repetition), with its holes. So nothing but the head
    decides: gain, offset, padding and crops change nothing. What is no head is scaled by BODY_RULE.
    """
    if _in_hounsfield_units(contrast, body_part):
        return -HOUNSFIELD, HOUNSFIELD
    scan = slices[box_above(slices, filled.black)]
    black = filled.black if filled.constant else None
    return _levels(scan, black, contrast) if body_part == HEAD else _body_levels(scan, black)


def box_above(values: np.ndarray, black: float) -> Box:
    """The box of what is brighter than air, so that padding changes nothing."""
    return bounds(values > np.float32(black))


def is_label_map(values: np.ndarray) -> bool:
    """Whether a volume, its axes in any order, or an image (1, H, W) holds labels, no grey values.

    Only the middle of it is looked at. With fewer than LEVELS values it is a label map. With more
    values two things must be true. Most neighbours, besides the background, have the same value.
    And where neighbours differ, many other values lie between them, or many numbers between the
    values are not used; in a scan of few grey values, neighbours that differ have values next to
    each other. NaN is no label. A plane that repeats the one before, as in a scan enlarged by its
    nearest voxels, does not count.
    """

    def middle(block: np.ndarray) -> np.ndarray:
        return block[
            tuple(slice(max(0, (n - SAMPLES) // 2), (n + SAMPLES) // 2) for n in block.shape)
        ]

    block = middle(values) if len(values) > 1 else values
    for axis in range(3):
        planes = np.moveaxis(block, axis, 0)
        changes = (planes[1:] != planes[:-1]).any(axis=(1, 2))
        block = np.compress(np.append(True, changes), block, axis)  # the axis gets shorter
    block = middle(block)  # of an image, which may have been enlarged much
    levels, ranks, counts = np.unique(block, return_inverse=True, return_counts=True)
    if len(levels) < LEVELS:
        return not np.isnan(block).any()
    ranks = ranks.reshape(block.shape)  # numpy 1 has them flat
    nothing = np.isnan(levels)
    background = (counts * ~nothing).argmax()
    ranks = np.where(nothing[ranks] | (ranks == background), np.nan, ranks)
    steps = np.concatenate([np.abs(np.diff(ranks, axis=axis)).ravel() for axis in range(3)])
    steps = steps[~np.isnan(steps)]
    others = steps[steps > 0]
    gaps = np.diff(levels)
    uneven = (gaps > 1.5 * np.nanmedian(gaps)).mean() > GAPS
    return len(others) < (1 - SAME) * len(steps) and (uneven or others.mean() > APART)


def _find_scan(
    values: np.ndarray, inside: np.ndarray, contrast: str
) -> tuple[Box, float | None, list[str]]:
    """The box of a scan (S, H, W) without its padding, what black is if air says so, and warnings.

    `inside` becomes False where there is no scan.
    """
    box, warnings = bounds(inside), []
    while backgrounds := _constant_border(values[box], inside[box]):
        known = inside[box]
        value, height, doubt = _first_to_go(values[box], known, backgrounds, contrast)
        alike = backgrounds[value]
        rest = known & ~alike
        inner = bounds(rest)
        full = rest[inner].size < rest.size and rest[inner].sum() > FULL * known[inner].sum()
        if not (doubt or full):
            return _within(box, inner), value, warnings
        warnings = warnings or [doubt] * bool(doubt)  # of several backgrounds one is enough
        if doubt and not 0 <= height <= 2:  # no voxel of a head has such a value, wherever it lies
            known &= rest
        elif not full:
            known &= ~_large(known & alike)
        if full:  # padding says nothing of what black is
            within = np.zeros_like(known)
            within[inner] = known[inner]
            known &= within
        box = _within(box, inner)
    known = inside[box]
    if (head := _head_in_noise(values[box], known)) is not None:
        known &= head
        warnings.append("The air is noise over the full range of grey values: it is painted black.")
        box = _within(box, bounds(known))
    around_0 = contrast != "ct" and _air_around_0(values[box], inside[box])
    return box, 0.0 if around_0 else None, warnings


def _first_to_go(
    values: np.ndarray, known: np.ndarray, backgrounds: dict[float, np.ndarray], contrast: str
) -> tuple[float, float, str]:
    """Which of the backgrounds of a scan (S, H, W), found by `_constant_border`, is removed next.

    Padding is removed before black is looked for, the farthest value first. Returns its grey value;
    its height between what is darkest in the scan, 0, and its 99th percentile, 1; and a sentence if
    it cannot be black.
    """
    rest = known
    for alike in backgrounds.values():
        rest = rest & ~alike
    inner = bounds(rest)
    low, high = np.percentile(_sample(values[inner])[_sample(rest[inner])], [0.1, 99])
    heights = {value: (value - low) / max(high - low, 1e-9) for value in backgrounds}
    # Of real brains in T1w, T2w and FLAIR, cut out as a whole or without their outer parts, the
    # darkest lies less than 0.1 above black. In PDw nothing in a brain is dark.
    least = -2 if contrast == "pd" else -0.15
    odd = [value for value, height in heights.items() if not least <= height <= 0.2]
    value = max(odd or [*heights][:1], key=lambda value: abs(heights[value]))
    height = heights[value]
    where = "far below" if height < 0 else "above" if height > 1 else "amid"
    doubt = (
        f"The background is {value:.4g}, {where} the grey values of the head "
        f"({low:.4g} to {high:.4g}): it is painted black."
    )
    return value, height, doubt if odd else ""


def _near(values: np.ndarray, value: float, flat: float) -> np.ndarray:
    return (values >= value - flat) & (values <= value + flat)


def bounds(mask: np.ndarray) -> Box:
    """The box, along each axis, of what is True somewhere, or else InputError is raised."""
    sides = []
    for axis in range(mask.ndim):
        shown = np.flatnonzero(mask.any(axis=tuple({*range(mask.ndim)} - {axis})))
        if not len(shown):
            raise InputError(NO_HEAD)
        sides.append(slice(shown[0], shown[-1] + 1))
    return tuple(sides)


def _within(box: Box, inner: Box) -> Box:
    """A box in a box, as one of the whole."""
    pairs = zip(box, inner, strict=True)
    return tuple(slice(a.start + b.start, a.start + b.stop) for a, b in pairs)


def even_steps(shape: tuple[int, ...], most: int) -> tuple[slice, ...]:
    """Steps from the first voxel on, the same along a side, of which `most` at most are taken."""
    return tuple(slice(None, None, -(-side // most)) for side in shape)


def _sample(values: np.ndarray) -> np.ndarray:
    """Voxels of (S, H, W) at even steps, at most SAMPLES along a side."""
    return values[even_steps(values.shape, SAMPLES)]


def _border(values: np.ndarray) -> np.ndarray:
    """The borders of slices (S, H, W), each followed along its edge: (L, S), with neighbours."""
    edges = values[:, 0], values[:, -1], values[:, :, 0], values[:, :, -1]
    return np.concatenate([edge.T for edge in edges])


def _constant_border(values: np.ndarray, known: np.ndarray) -> dict[float, np.ndarray]:
    """The values that are around a scan, and where in it they are: masks (S, H, W).

    The one that most of the border has comes first. Others count only if a corner has them: a
    simulated head may be cut through tissue that is constant, but no tissue lies in a corner.
    """
    shown = _sample(values)[_sample(known)]
    within = shown[(shown > shown.min()) & (shown < shown.max())]  # padding may lie anywhere
    low, high = np.percentile(within if within.size else shown, [0.05, 99.95])
    flat = FLAT * (high - low)
    border = np.where(_border(known), _border(values), np.nan)
    smooth = border[1:][np.abs(np.diff(border, axis=0)) <= flat]
    if not len(smooth) or not flat:
        return {}
    corners = values[np.ix_(*[[0, -1]] * values.ndim)]
    _, places, counts = np.unique(np.round(smooth / flat), return_inverse=True, return_counts=True)
    found = []
    for number in np.flatnonzero(counts >= CORNER * len(smooth)):
        value = float(np.median(smooth[places == number]))
        same = _near(border, value, flat)
        corner = _near(corners, value, flat).any()
        noise = (same[1:] & same[:-1]).sum() < 0.8 * same[1:].sum()  # of few levels
        noise &= 2 * low - high <= value <= 2 * high - low  # what lies farther off is padding
        if same.sum() >= (CORNER if corner else SHARE) * same.size and not noise:
            exact = (border == value).sum() >= FULL * same.sum()
            found.append((same.sum(), value, 0 if exact else flat, corner))
    for value in (shown.min(), shown.max()):  # padding far off, within black
        far = not 2 * low - high <= value <= 2 * high - low
        if far and np.mean(shown == value) > SHARE:
            found.append((0, float(value), flat, True))
    found.sort(reverse=True)
    return {
        value: _near(values, value, width)
        for place, (_, value, width, corner) in enumerate(found)
        if corner or place == 0
    }


def _large(mask: np.ndarray) -> np.ndarray:
    """A mask (S, H, W) without the few voxels of a head that have the value of its background."""
    labels = label(mask, through=True)
    sizes = np.bincount(labels.ravel())
    return mask & (sizes > 1e-3 * mask.sum())[labels]


def _head_in_noise(values: np.ndarray, known: np.ndarray) -> np.ndarray | None:
    """The head (S, H, W) in air of noise: where neighbours are alike, its largest part, filled.

    None where the air is no noise.
    """
    border = np.where(_border(known), _border(values), np.nan)
    steps = np.abs(np.diff(border, axis=0))
    steps = steps[~np.isnan(steps)]
    low, high = np.percentile(_sample(values)[_sample(known)], [1, 99])
    # Fewer steps are those of a head that touches its box there.
    if len(steps) <= SHARE * border.size or np.median(steps) <= NOISE * (high - low):
        return None
    unit = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    # Steps to the next pixel: where a head is coarse it varies as noise does, but not in these.
    steps = np.zeros_like(unit)
    steps[:, 1:] += np.diff(unit, axis=1) ** 2
    steps[:, :, 1:] += np.diff(unit, axis=2) ** 2
    rough = filtered(steps, boxcar(5))
    quiet = known & (rough < np.median(_border(rough)) / 2)
    labels = label(_shrink(quiet), through=True)
    largest = labels == 1 + np.bincount(labels[labels > 0], minlength=2)[1:].argmax()
    head = _fill(_grow(largest, 3))
    # Of less, the border is no air either, but that of a noisy head which is cut off.
    return head if head.sum() > SPECK * known.sum() else None


def _air_around_0(values: np.ndarray, known: np.ndarray) -> bool:
    """Whether the air of a scan (S, H, W) is noise around 0: so it is no magnitude's any more.

    At the border it changes its sign often, and it goes less far below 0 than a head above it,
    whose own grey values may lie around 0 where they are z-scores.
    """
    low, high = np.percentile(_sample(values)[_sample(known)], [0.1, 99])
    border = np.where(_border(known), _border(values), np.nan)
    signs = border[1:] * border[:-1]
    return -high / 2 < low < 0 and (signs < 0).sum() > SIGNS * (~np.isnan(signs)).sum()


def _levels(values: np.ndarray, black: float | None, contrast: str) -> tuple[float, float]:
    """As `find_levels`, of the box of a head; `black` is None where its air is not constant."""
    known = _sample(values)
    if np.ptp(known) == 0:
        raise InputError(NO_HEAD)
    threshold = li_threshold(known, 1e-3 * np.ptp(known))
    for _ in range(10):  # three are enough as a rule
        bright = values > threshold
        opened = _grow(_shrink(bright))
        bright = opened if opened.any() else bright
        box = bounds(bright)[0], *head_box(bright)
        part, depth = _sample(values[box]), depths(_fill(_sample(bright[box])))
        inner = depth > depth.max(axis=(1, 2), keepdims=True) / 2
        dark = np.percentile(part, 0.1) if black is None else black
        white = dark + (np.percentile(part[inner], 98) - dark) / BRIGHTEST[contrast]
        last, threshold = threshold, dark + (AIR + 1) / 2 * (white - dark)
        if threshold == last:
            break
    return float(dark), float(white)


def _body_levels(values: np.ndarray, black: float | None) -> tuple[float, float]:
    """As `_levels`, by BODY_RULE."""
    known = _sample(values)
    dark, bright = np.percentile(known, [0.1, 99.9])
    dark = dark if black is None else black
    body = known[known > dark + 0.01 * (bright - dark)]
    if not len(body):
        raise InputError(NO_HEAD)
    return float(dark), float(dark + (np.percentile(body, 98) - dark) / BODY)


def find_head(scaled: np.ndarray, body_part: str = HEAD) -> np.ndarray:
    """Where slices (S, H, W) in [-1, 1] show a head, or a body: booleans of the same shape.

    What is brighter than AIR, or of a body than FAINT, without single points of noise, with its
    holes and its bays of up to twice BAY pixels (dark bone and fluid between scalp and brain, where
    the scalp has a gap), and MARGIN pixels around, each slice by itself. Black around the slices
    changes nothing.
    """
    head, air = np.empty(scaled.shape, bool), AIR if body_part == HEAD else FAINT
    for image, result in zip(scaled, head, strict=True):
        wide = np.pad(image > air, BAY + 1)
        if wide.any():  # so far from it nothing changes
            box = tuple(slice(s.start - BAY - 1, s.stop + BAY + 1) for s in bounds(wide))
            bright = _grow(_shrink(wide[box][None]), 1 + BAY)
            (wide[box],) = _shrink(_fill(bright), BAY - MARGIN)
        result[:] = wide[BAY + 1 : -BAY - 1, BAY + 1 : -BAY - 1]
    return head


def cut_margins(
    slices: np.ndarray, head: np.ndarray, box: tuple[slice, slice]
) -> list[tuple[int, int]]:
    """How much of a head's MARGIN the slices' border cuts off: before and after, rows and columns.

    Slices and their `head` are (S, H, W), the `box` is that of the head. With as much black around
    a head lies in its box as it would if the slices went on.
    """
    bright = ((slices > AIR) & head).any(axis=0)
    if not bright.any():
        return [(0, 0), (0, 0)]
    margins = []
    for side, shown, length in zip(box, bounds(bright), bright.shape, strict=True):
        before = max(0, MARGIN - shown.start) if side.start == 0 else 0
        after = max(0, MARGIN - (length - shown.stop)) if side.stop == length else 0
        margins.append((int(before), int(after)))
    return margins


def head_box(head: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a head's mask (S, H, W), for all slices: all where there is no head.

    Specks beside the head count for nothing.
    """
    shown = np.count_nonzero(head.any(axis=(1, 2)))
    (labels,) = label(np.count_nonzero(head, axis=0, keepdims=True) > 0.01 * shown)
    areas = np.bincount(labels.ravel())[1:]
    if not len(areas):
        return slice(0, head.shape[1]), slice(0, head.shape[2])
    return bounds(np.isin(labels, 1 + np.flatnonzero(areas > SPECK * areas.max())))


def _grow(mask: np.ndarray, pixels: int = 1) -> np.ndarray:
    """A mask (S, H, W) with some pixels around it, in each slice."""
    for _ in range(pixels):
        grown = mask.copy()
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        grown[:, :, 1:] |= mask[:, :, :-1]
        grown[:, :, :-1] |= mask[:, :, 1:]
        mask = grown
    return mask


def _shrink(mask: np.ndarray, pixels: int = 1) -> np.ndarray:
    """A mask (S, H, W) without its outermost pixels: around the slices there is nothing."""
    outside = np.pad(~mask, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    return ~_grow(outside, pixels)[:, 1:-1, 1:-1]


def _fill(mask: np.ndarray) -> np.ndarray:
    """A mask (S, H, W) with the holes of each slice."""
    return mask | enclosed(~mask)
