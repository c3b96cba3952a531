"""What a scan shows, before it is translated: a head in which contrast, or no head at all.

A few measures of a slice that a radiologist would look at (which tissue is bright, which is at the
rim, which lies far from fluid) enter a network of one hidden layer, whose coefficients are in
`pretrained/gate.json`, and what it says of the slices is put together; `study.calibration` fits it
on simulated heads.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..contrasts import HEAD, SIMULABLE, SPOKEN
from ..scans.arrays import boxcar, depths, filtered, gaussian, steepness, zoom
from ..scans.intensity import bounds
from ..scans.scan import Scan

COEFFICIENTS = Path(__file__).parents[1] / "pretrained" / "gate.json"
FAILS = 0.1  # probability of what is wanted: below it is not that, above the file's "passes" it is
AGENT = 0.97  # share of "t1gd" in both kinds of T1w, above which it is spoken of
SURE = 0.97  # probability of a contrast in one image, above which it is none of those beside it
ALIKE = 1 / 3  # N slices of one head are alike, so they count as N to the power of this
SIDE = 160  # pixels of the head's box, geometric mean, so that a head of any size is alike
SMALLEST = 48  # pixels; smaller boxes and slices with less than a quarter of that area say nothing
SLICES = 12  # of a head that are measured; of more the middle half, which shows the brain
THIN = 5  # slices; the outlines of fewer are no proof
OUTLINE = 2  # the last of `features`: they tell heads from other things, and no network sees them


@dataclass(frozen=True)
class Verdict:
    """What scans show, and how sure that is."""

    probabilities: dict[str, float]
    """By `contrasts.NAMES`; empty where nothing can be measured."""
    wrong: bool = False
    """Whether this is no scan to translate; False if that cannot be told."""
    warning: str = ""
    """A sentence, if anything is doubtful."""

    @property
    def named(self) -> dict[str, float]:
        """The probabilities by the contrasts' names, the greatest first, as files have them."""
        ranked = sorted(self.probabilities.items(), key=lambda item: -item[1])
        return {SPOKEN[name]: round(share, 3) for name, share in ranked}


def judge(scans: Sequence[Scan], body_part: str = HEAD) -> Verdict:
    """The verdict on scans of one head, or of several images; of other parts nothing is known."""
    return judge_each(scans, body_part)[0]


def judge_each(scans: Sequence[Scan], body_part: str = HEAD) -> tuple[Verdict, list[str]]:
    """As `judge`; and for each scan a sentence, "" but for one of several images that is odd.

    Of one slice CT and no head cannot be told surely, as near the crown; other contrasts of MR can.
    """
    if body_part != HEAD:
        return Verdict({}), [""] * len(scans)
    shown = scans[:1] if scans[0].grid else scans  # in the plane that shows most
    measured, contrast = [measured_slices(scan) for scan in shown], scans[0].contrast
    verdict = judge_slices([row for rows in measured for row in rows], contrast)
    if len(measured) == 1 or not verdict.probabilities:
        return verdict, [""] * len(scans)
    return verdict, [_odd(judge_slices(rows, contrast), verdict) for rows in measured]


def _odd(alone: Verdict, together: Verdict) -> str:
    """A sentence if an image is surely of another contrast than those beside it."""
    found = [dict(one.probabilities) for one in (together, alone)]
    for one in found:  # after contrast agent or before is not told by one slice
        one["t1"] = one.get("t1", 0) + one.pop("t1gd", 0)
    common, best = (max(one, key=one.get) for one in found)
    odd = best != common and best in SIMULABLE and found[1][best] > SURE
    return f"By itself this looks like {SPOKEN[best]} ({found[1][best]:.0%})." * odd


def judge_slices(rows: Sequence[np.ndarray], contrast: str) -> Verdict:
    """The verdict on `measured_slices` of one head in which a contrast is expected."""
    known, wanted = coefficients(), SPOKEN[contrast]
    if not rows:
        return Verdict({}, warning=f"It cannot be told whether this is {wanted}: too little shows.")
    found, distance = shares(rows, known)
    filled, corner = np.mean(rows, axis=0)[-OUTLINE:]
    low, high = known["least filled"], known["fullest corner"]
    if filled < low or corner > high:
        odd = f"{filled:.1%} of its box, heads at least {low:.1%}"
        if filled >= low:
            odd = f"{corner:.1%} of its box's emptiest quarter, heads at most {high:.1%}"
        return Verdict(found, len(rows) >= THIN, f"It does not look like a head: it fills {odd}.")
    chance = sum(found[name] for name in accepted(contrast))
    best = max(found, key=found.get)
    odds = ", ".join(f"{name} {p:.0%}" for name, p in [*Verdict(found).named.items()][:3])
    if chance < FAILS:
        sentence = f"This looks like {SPOKEN[best]}, not {wanted} ({odds}): "
        return Verdict(found, True, f"{sentence}do not trust the translation.")
    if distance > known["farthest"]:
        return Verdict(found, True, "This is like none of the heads that were trained on.")
    if chance < known["passes"]:
        return Verdict(found, warning=f"It cannot be told whether this is {wanted} ({odds}).")
    if best in accepted(contrast)[1:] and found[best] > AGENT * chance:
        return Verdict(found, warning=f"This looks like {SPOKEN[best]} ({found[best]:.0%}).")
    return Verdict(found)


def accepted(contrast: str) -> tuple[str, ...]:
    """The contrasts that may be translated where this one is expected."""
    return (contrast, "t1gd") if contrast == "t1" else (contrast,)


def shares(rows: Sequence[np.ndarray], known: dict) -> tuple[dict[str, float], float]:
    """Probabilities by `contrasts.NAMES` of `measured_slices`, and how far from heads known.

    `known` are `coefficients`; the distance is the mean square of their standard scores.
    """
    mean, deviation, weights = (
        np.array([feature[part] for feature in known["features"].values()])
        for part in ("mean", "deviation", "weights")
    )
    # (slices, features)
    unit = np.clip((np.stack(rows)[:, :-OUTLINE] - mean) / deviation, -4, 4)
    hidden = np.maximum(unit @ weights + known["biases"], 0)
    odds = np.exp(hidden @ known["outputs"] + known["intercepts"])  # (slices, contrasts)
    evidence = np.log(odds / odds.sum(axis=1, keepdims=True)).mean(axis=0)
    odds = np.exp(evidence * len(rows) ** ALIKE)
    found = zip(known["contrasts"], (odds / odds.sum()).tolist(), strict=True)
    return dict(found), float(np.mean(unit**2))


@cache
def coefficients() -> dict:
    """What `study.calibration.fit_gate` has found."""
    return json.loads(COEFFICIENTS.read_text())


def measured_slices(scan: Scan) -> list[np.ndarray]:
    """The features of up to SLICES slices that show at least half as much head as the largest."""
    slices, heads = (array[(slice(None), *scan.box)] for array in (scan.slices, scan.head))
    side = np.sqrt(np.prod(slices.shape[1:]))
    areas = np.count_nonzero(heads, axis=(1, 2))
    shown = np.flatnonzero(areas > max(areas.max() / 2, SMALLEST**2 / 4))
    if side < SMALLEST or not len(shown):
        return []
    if len(shown) > SLICES:
        shown = shown[len(shown) // 4 : -(len(shown) // 4)]
    chosen = shown[np.unique(np.linspace(0, len(shown) - 1, min(len(shown), SLICES), dtype=int))]
    rows = []
    for image, head in zip(slices[chosen], heads[chosen], strict=True):
        blur = max(0.4 * side / SIDE - 0.3, 1e-3)
        image = filtered(image, gaussian(blur))
        image, head = (zoom(x, SIDE / side) for x in (image, head))
        rows.append(np.array([*features(image, head > 0.5).values()]))
    return rows


def features(image: np.ndarray, head: np.ndarray) -> dict[str, float]:
    """Measures of a slice (H, W) in [-1, 1] and of its head, booleans (H, W).

    Grey values are relative to the brightest tissue (98th percentile) of the head's inner half,
    `depth` is 0 at the head's edge and 1 at its deepest, lengths are of boxes of SIDE pixels.
    """
    depth = _depth(head)
    deepest = depth.max()
    depth /= deepest
    image = filtered((image + 1) / 2, gaussian(0.4))
    image = np.clip(image / max(np.quantile(image[depth > 0.5], 0.98), 1e-3), 0, 1.2)
    inner, body = image[depth > 0.5], depth > 0.3
    middle = max(np.median(inner), 0.05)
    found = {f"quantile {q}": np.quantile(inner, q / 100) for q in (2, 10, 25, 50, 75, 90)}
    found |= {"skewness": _skewness(inner, 0.02), "deviation": inner.std()}
    for name, low, high in (("rim", 0.12, 0.25), ("below the rim", 0.25, 0.4)):
        ring = image[(depth > low) & (depth <= high)]
        shares = {"": ring.mean(), ", dark": np.mean(ring < 0.25), ", bright": np.mean(ring > 0.98)}
        found |= {f"{name}{part}": value for part, value in shares.items()}
    found["core"] = image[depth > 0.75].mean()
    # What is smooth is white matter, or fluid in ventricles; what is rough is cortex and sulci.
    slope = steepness(image)
    low, high = np.quantile(slope[body], [0.3, 0.7])
    found["smooth"] = np.median(image[body & (slope <= low)])
    found["rough"] = np.median(image[body & (slope >= high)])
    found |= {"slope": slope[body].mean(), "slope with grey": _correlation(image, slope, body)}
    detail = (image - filtered(image, gaussian(3)))[body]
    found |= {"detail": detail.std(), "detail, skewness": _skewness(detail, 0.005)}
    # Cortex lies beside what is dark, fluid or air, in T1w and FLAIR alike; white matter does not.
    away = _depth((image >= 0.5 * middle) & head)
    for low, high in ((1, 2), (2, 3.5), (3.5, 5.5), (5.5, 9)):
        layer = body & (away > low) & (away <= high)
        found[f"{low} from dark"] = np.median(image[layer]) / middle if layer.sum() > 20 else 1.0
    # Grey and white matter are what is neither dark nor among the brightest, in two clusters.
    solid = body & (away > 1)
    if solid.any():
        solid &= image <= np.quantile(image[solid], 0.97)
    if not solid.any():
        solid = body
    away = np.minimum(away, 12)
    levels = _cluster(image[solid], (0.25, 0.75))
    bright = solid & (image > levels.mean())
    dark = solid & ~bright
    found |= {"contrast": np.ptp(levels) / middle, "bright": bright.sum() / solid.sum()}
    for name, values in (("away", away), ("deep", depth), ("slope", slope)):
        found[f"bright, {name}"] = _mean(values, bright) - _mean(values, dark)
    found["bright, compact"] = _compactness(bright) - _compactness(dark)
    found["away with grey"] = _correlation(image, away, solid)
    levels = _cluster(image[body], (0.1, 0.5, 0.9))
    labels = np.digitize(image, (levels[1:] + levels[:-1]) / 2)
    for number, name in enumerate(("dark", "grey", "light")):
        mask = body & (labels == number)
        share = mask.sum() / body.sum()
        found |= {f"{name} level": levels[number] / middle, f"{name} share": share}
        found |= {f"{name} compact": _compactness(mask), f"{name} deep": _mean(depth, mask)}
    sides = np.count_nonzero(head.any(axis=0)), np.count_nonzero(head.any(axis=1))
    halves = np.array_split(head[bounds(head)], 2)
    quarters = [part for half in halves for part in np.array_split(half, 2, axis=1)]
    # Both π / 4 of an ellipse. Where a scan cuts a side off, its box is fuller, but not everywhere.
    found["share of its box"] = head.sum() / np.prod(sides)
    return found | {"of its emptiest quarter": min(part.mean() for part in quarters)}


def _depth(mask: np.ndarray) -> np.ndarray:
    """How far inside a mask (H, W) a pixel is; beyond the image all is outside."""
    return depths(np.pad(mask, 1)[None])[0, 1:-1, 1:-1]


def _skewness(values: np.ndarray, least: float) -> float:
    centred = values - values.mean()
    return np.mean(centred**3) / (values.std() + least) ** 3


def _correlation(one: np.ndarray, other: np.ndarray, mask: np.ndarray) -> float:
    one, other = one[mask] - one[mask].mean(), other[mask] - other[mask].mean()
    return np.mean(one * other) / (one.std() * other.std() + 1e-6)


def _mean(values: np.ndarray, mask: np.ndarray) -> float:
    return values[mask].mean() if mask.any() else 0.0


def _compactness(mask: np.ndarray) -> float:
    """The share of like neighbours in 5 x 5 pixels."""
    return _mean(filtered(mask, boxcar(5)), mask)


def _cluster(values: np.ndarray, quantiles: Sequence[float]) -> np.ndarray:
    """Ascending means of the clusters of values (N,), by k-means from quantiles."""
    levels = np.quantile(values, quantiles)
    for _ in range(12):
        labels = np.digitize(values, (levels[1:] + levels[:-1]) / 2)
        count = np.bincount(labels, minlength=len(levels))
        total = np.bincount(labels, values, minlength=len(levels))
        levels = np.where(count > 0, total / np.maximum(count, 1), levels)
    return levels
