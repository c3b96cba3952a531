"""How far a translation may be off: what views of a slice that disagree say, calibrated.

The expected absolute error of a pixel is a generalised linear model of what can be seen without the
truth. A 90 % interval is that times the split-conformal quantile of |error| / expected error
(Lei et al., J Am Stat Assoc 113:1094, 2018; Angelopoulos & Bates, Found Trends Mach Learn 16:494,
2023). `study.calibration` fits both on heads simulated around people never trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..runs import intact
from ..scans.arrays import filtered, gaussian

COVERED = 0.9
"""The share of pixels whose error an interval is to cover."""
TERMS = 3  # of `terms`
LEAST = 0.003  # of the range: views that disagree by less agree
RANKS = 0.25  # where simulated errors are ranked by less, real ones were not ranked at all
MOST = 0.5  # of the range: the model is not to be believed where it expects more
# Axes that are mirrored, pixels it is moved by, gain: of eight such views the four that tell most.
VIEWS = ((), 0, 1.0), ((2,), 0, 1.0), ((2,), 1, 0.9), ((1, 2), 1, 0.9)

Network = Callable[[np.ndarray], np.ndarray]  # framed images (N, h, w, 1) in [-1, 1] -> the same


def views(generator: Network, images: np.ndarray) -> np.ndarray:
    """Translations (VIEWS, N, h, w, 1) of framed images, to compare.

    Of the images as they are, mirrored left-right, and mirrored left-right or both ways and then
    moved by a pixel (which the generators, working at half resolution, see differently) and
    darkened by a tenth; each output is set back in place. The first is the plain one.
    """
    outputs = []
    for axes, pixels, gain in VIEWS:
        moved = np.roll(np.flip(images, axes), pixels, axis=(1, 2))
        output = generator(gain * moved + (gain - 1))
        outputs.append(np.flip(np.roll(output, -pixels, axis=(1, 2)), axes))
    return np.stack(outputs)


def trust_map(views: np.ndarray) -> np.ndarray:
    """Where a translation is likely wrong: (N, h, w), the higher the less it is to trust.

    The standard deviation of the views on the intensity scale [0, 1], blurred by half a pixel:
    where the anatomy does not decide the output, an accident of the view does (test-time
    augmentation: Wang et al., Neurocomputing 338:34, 2019).
    """
    return filtered(views[..., 0].std(axis=0) / 2, gaussian(0.5))


@dataclass(frozen=True)
class Calibration:
    """The coefficients for one generator."""

    weights: tuple[float, ...]
    """Of `terms`, of which the first is 1."""
    quantile: float
    """Half the width of a COVERED interval, in expected errors."""
    ranks: float = 1.0
    """Spearman's correlation with the errors of the simulated heads that it was tested on."""

    @property
    def doubt(self) -> str:
        """A sentence, if the map itself is hardly to be trusted."""
        if self.ranks >= RANKS:
            return ""
        found = f"Spearman's correlation with simulated ones is {self.ranks:.2f}"
        return f"The trust map hardly knows where errors are: {found}."

    @classmethod
    def read(cls, folder: Path, direction: str) -> Calibration | None:
        """What the folder of the generators has of one, if it has any.

        Raises InputError where the file is damaged.
        """
        path = folder / "calibration.json"
        if not path.is_file():
            return None
        with intact(path, "calibrate the model again, or delete it to go without"):
            one = json.loads(path.read_text()).get(direction)
            if not one or len(one["weights"]) != TERMS:  # which were more in earlier versions
                return None
            ranks = one.get("test", {}).get("rank_correlation", 1.0)
            return cls(tuple(map(float, one["weights"])), float(one["quantile"]), float(ranks))

    @classmethod
    def fit(cls, terms: np.ndarray, errors: np.ndarray) -> Calibration:
        """From `terms` (N, TERMS) and absolute errors (N,) of pixels, person after person.

        The model is fitted to the first half, by the Poisson likelihood (its mean is the error),
        and the quantile found on the second.
        """
        from sklearn.linear_model import PoissonRegressor  # here, as translating has no use for it

        half = len(errors) // 2
        centre, spread = terms[:half, 1:].mean(axis=0), terms[:half, 1:].std(axis=0)
        model = PoissonRegressor(alpha=1e-4, max_iter=1000)
        model.fit((terms[:half, 1:] - centre) / spread, errors[:half])
        weights = model.coef_ / spread
        found = cls((float(model.intercept_ - weights @ centre), *map(float, weights)), 0.0)
        ratios = errors[half:] / found.of(terms[half:])
        return replace(found, quantile=float(np.quantile(ratios, COVERED, method="higher")))

    def of(self, terms: np.ndarray) -> np.ndarray:
        """The error to expect where there are these `terms` (..., TERMS)."""
        return np.minimum(np.exp(terms @ self.weights), MOST)

    def expected_error(self, spread: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
        """The error to expect (S, H, W), as a share of the range from black to white.

        `spread` is the trust map in [0, 1] and `synthetic` the translation in [-1, 1].
        """
        return self.of(terms(spread, synthetic))


def terms(spread: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """What the logarithm of the expected error is linear in: (S, H, W, TERMS).

    1, the logarithm of the views' spread, and the grey level. More of them (its square, the level
    around, the steepness) rank real errors no better.
    """
    spread = np.log(np.maximum(spread, LEAST))
    return np.stack([np.ones_like(spread), spread, (synthetic + 1) / 2], axis=-1)
