"""Simulated heads: T1w/T2w axial slice pairs from tissue maps and the MR signal equations.

The ICBM152 2009a tissue maps that ship with nilearn are averages of 152 brains. Every simulated
head is a random individual around them: bent, with its own cortical folds, wrapped in cerebrospinal
fluid, bone, muscle, fat and skin. Sequences and tissue values are BrainWeb's.
"""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from scipy import ndimage

from .. import InputError
from .average import SHAPE, Head
from .physics import (
    T1W_FLASH,
    T2W_SPIN_ECHO,
    TISSUES,
    TISSUES_3T,
    Sequence,
    Tissue,
    acquire,
    flash_signal,
    jitter,
    spin_echo_signal,
)

T1W_WHITE, T2W_CSF = 151, 255
"""Grey values (8 bit) to which white matter in T1w and CSF in T2w are scaled, without variation."""


@dataclass(frozen=True)
class Physics:
    """What is scanned and how; change a field for a deliberately wrong simulator."""

    tissues: dict[str, Tissue] = field(default_factory=lambda: TISSUES)
    t1w: Sequence = T1W_FLASH
    t2w: Sequence = T2W_SPIN_ECHO
    skull: bool = True
    """False: skull-stripped heads, the brain and its CSF alone."""


@dataclass(frozen=True)
class Variation:
    """Sizes of the random deviations: standard deviations, unless said otherwise."""

    anatomy: float = 1.0
    """Factor on the deviations of size, pose, shape, folds and thickness of the layers; 0: none."""
    tissue: float = 0.02
    """Relative, of T1, T2, T2* and PD of every tissue; drawn once a head."""
    sequence: float = 0.0
    """Relative, of TR, TE and flip angle; drawn once a head."""
    gain: float = 0.02
    """Relative, of an image's brightness."""
    gamma: float = 0.0
    """Of the logarithm of the exponent applied to an image's grey values (0 to 1)."""
    bias: float = 0.0
    """Relative, of a smooth multiplicative receiver field."""
    noise: float = 0.0
    """Rician noise as a fraction of full scale: the largest, each image draws from 0 up to it."""
    stripped: float = 0.0
    """Fraction of the heads without skull and scalp."""


NO_VARIATION = Variation(anatomy=0, tissue=0, gain=0)
SLICES = (-2.0, 53.0)
"""MNI z (mm) between which slices are taken, as in the published data set."""
ONE_SCANNER = Variation(tissue=0.01, sequence=0.01, gain=0.03, gamma=0.02, bias=0.01, noise=0.004)
"""Wide enough that a network trained on it meets a real scanner's slices as one more head."""
SIMULATORS = {  # what `simulate_pairs` takes, by the preset's `simulator`
    "brainweb": {"variation": ONE_SCANNER},
    "wrong": {
        "variation": ONE_SCANNER,
        "physics": Physics(
            TISSUES_3T, Sequence(tr=30, te=5, flip=20), Sequence(tr=2500, te=80), skull=False
        ),
    },
}
"""Of the pairs that training learns from."""


def _received(
    image: np.ndarray, bias: np.ndarray, rng: np.random.Generator, variation: Variation
) -> np.ndarray:
    """The image (0 to 1) as a scanner gives it: receiver field, gain, noise, gamma; clipped."""
    gain, gamma = np.exp(rng.normal(0, [variation.gain, variation.gamma]))
    real, imaginary = variation.noise * rng.random() * rng.standard_normal((2, *SHAPE))
    image = image * gain * np.exp(variation.bias * bias)
    return np.clip(np.hypot(image + real, imaginary), 0, 1) ** gamma


def simulate_pairs(
    count: int,
    seed: int,
    heads: int = 8,
    variation: Variation = Variation(),
    physics: Physics = Physics(),
    slices: tuple[float, float] = SLICES,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T1w and T2w, float32 (count, 217, 181, 1) in [-1, 1], and labels, uint8 (count, 217, 181).

    Labels, by majority: 0 outside the brain, 1 CSF, 2 grey matter, 3 white matter. The slices are
    shared out over the `heads`, rising within each from the first to the second of `slices` (MNI z,
    mm). One gain a contrast, from the nominal physics: see `T1W_WHITE`. Deterministic in `seed`.
    Raises InputError if count or heads is below 1.
    """
    if count < 1 or heads < 1:
        raise InputError(f"count and heads must be at least 1, found count {count}, heads {heads}")
    t1_gain = T1W_WHITE / 255 / flash_signal(physics.tissues["white"], physics.t1w)
    t2_gain = T2W_CSF / 255 / spin_echo_signal(physics.tissues["csf"], physics.t2w)
    t1w, t2w = np.empty((2, count, *SHAPE, 1), np.float32)
    labels = np.empty((count, *SHAPE), np.uint8)
    for number, members in enumerate(np.array_split(np.arange(count), min(heads, count))):
        rng = np.random.default_rng([seed, number])
        head = Head(rng, variation.anatomy)
        tissues = {k: jitter(t, rng, variation.tissue) for k, t in physics.tissues.items()}
        flash, spin_echo = (jitter(s, rng, variation.sequence) for s in (physics.t1w, physics.t2w))
        skull = physics.skull and rng.random() >= variation.stripped
        heights = np.linspace(*slices, 2 * len(members) + 1)[1::2]
        for index, z in zip(members, heights, strict=True):
            parts = head.fractions(z, skull)
            brain = np.stack([parts["csf"], parts["grey"], parts["white"]])
            labels[index] = np.where(brain.max(0) > 0.5, 1 + brain.argmax(0), 0)
            t1 = t1_gain * acquire(parts, flash_signal, flash, tissues)
            t2 = t2_gain * acquire(parts, spin_echo_signal, spin_echo, tissues)
            for images, image, name in ((t1w, t1, "bias t1"), (t2w, t2, "bias t2")):
                image = ndimage.gaussian_filter(image, 0.5)  # the scanner's point spread
                image = _received(image, head.noise(name, 90, z), rng, variation)
                images[index, ..., 0] = 2 * image - 1
    return t1w, t2w, labels


def write_dataset(folder: Path | str, seed: int, t1_count: int = 43, t2_count: int = 46) -> Path:
    """Write a simulated data set in the layout of the published one; returns its folder.

    `Tr1/TrainT1` and `Tr2/TrainT2` (8-bit PNG) show different heads. Kept aside for evaluation, by
    T1 number: `Truth/T2`, the true T2w of each T1w slice, and `Truth/labels` (0 to 3). Whole or not
    at all. Raises InputError if the folder exists.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} exists already; a simulated data set needs a new folder")
    t1w, true_t2w, labels = simulate_pairs(t1_count, 2 * seed, heads=3)
    _, t2w, _ = simulate_pairs(t2_count, 2 * seed + 1, heads=3)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for part, images, first in (
            ("Tr1/TrainT1", t1w, 10),
            ("Tr2/TrainT2", t2w, 70),
            ("Truth/T2", true_t2w, 10),
            ("Truth/labels", labels, 10),
        ):
            (aside / part).mkdir(parents=True)
            for number, image in enumerate(images, first):
                grey = image if image.dtype == np.uint8 else np.rint(127.5 * (image[..., 0] + 1))
                iio.imwrite(aside / part / f"Image #{number}.png", grey.astype(np.uint8))
        aside.chmod(0o755)
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder
