"""Simulated heads: axial slice pairs of two contrasts from tissue maps and the MR signal equations.

Heads are those of `average.Head`; sequences and tissue values are BrainWeb's.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from .. import InputError
from ..contrasts import HEAD, SPINE, T1_T2, Contrasts, check_simulable, short
from ..runs import write_atomically
from ..scans.images import write_image
from . import spine
from .average import SHAPE, Head
from .physics import (
    BRIGHT,
    FLAIR,
    SPIN_ECHOES,
    T1W_FLASH,
    TISSUES,
    TISSUES_3T,
    Sequence,
    Signal,
    Tissue,
    acquire,
    ct_signal,
    flair_signal,
    flash_signal,
    jitter,
    spin_echo_signal,
)

PROTOCOLS = {
    "t1": (flash_signal, T1W_FLASH),
    "t2": (spin_echo_signal, SPIN_ECHOES["T2w"]),
    "pd": (spin_echo_signal, SPIN_ECHOES["PDw"]),
    "flair": (flair_signal, FLAIR),
}
LEVELS = {c: (tissue, 255 if c == "t2" else 151) for c, tissue in BRIGHT.items()}
"""By contrast a tissue, and the grey (8 bit) that it is scaled to, without variation."""


@dataclass(frozen=True)
class Physics:
    """What is scanned and how; change a field for a deliberately wrong simulator."""

    tissues: dict[str, Tissue] = field(default_factory=lambda: TISSUES)
    protocols: dict[str, tuple[Signal, Sequence]] = field(default_factory=lambda: PROTOCOLS)
    skull: bool = True
    """False: skull-stripped heads, the brain and its CSF alone."""
    levels: dict[str, tuple[str, float]] = field(default_factory=lambda: LEVELS)
    body: type[Head] = Head


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


SLICES = (-2.0, 53.0)
"""MNI z (mm) between which slices are taken, as in the published data set."""
ONE_SCANNER = Variation(tissue=0.01, sequence=0.01, gain=0.03, gamma=0.02, bias=0.01, noise=0.004)
"""Wide enough that a network trained on it meets a real scanner's slices as one more head."""
WRONG = {
    "t1": (flash_signal, Sequence(tr=30, te=5, flip=20)),
    "t2": (spin_echo_signal, Sequence(tr=2500, te=80)),
}
SIMULATORS = {
    "brainweb": {"variation": ONE_SCANNER},
    "wrong": {
        "variation": ONE_SCANNER,
        "physics": Physics(TISSUES_3T, PROTOCOLS | WRONG, skull=False),
    },
}
"""What `simulate_pairs` takes, by the preset's `simulator`, for pairs to learn from."""
# As `intensity.BODY_RULE` would have it: what is brightest at 0.6, or Hounsfield units in a window.
SPINE_LEVELS = {"t1": "fat", "t2": "csf", "pd": "csf", "flair": "fat"}
PHYSICS = {
    HEAD: Physics(),
    SPINE: Physics(
        spine.TISSUES,
        PROTOCOLS | {"ct": (ct_signal, T1W_FLASH)},
        levels={c: (tissue, 204) for c, tissue in SPINE_LEVELS.items()} | {"ct": ("csf", 128.5)},
        body=spine.Spine,
    ),
}
"""By the body part."""
ANY_SCANNER = Variation(tissue=0.1, sequence=0.15, gain=0.1, gamma=0.15, bias=0.15, noise=0.06)
SPINES = {"variation": ANY_SCANNER, "physics": PHYSICS[SPINE]}
"""As SIMULATORS, of which a spine has but one."""


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
    contrasts: Contrasts = T1_T2,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both contrasts, float32 (count, 217, 181, 1) in [-1, 1], and labels, uint8 (count, 217, 181).

    Labels, by majority: 0 outside the brain, 1 CSF, 2 grey matter, 3 white matter. The slices are
    shared out over the `heads`, rising within each from the first to the second of `slices` (MNI z,
    mm). One gain a contrast, from the nominal physics: see LEVELS. Deterministic in `seed`.
    Raises InputError if count or heads is below 1.
    """
    if count < 1 or heads < 1:
        raise InputError(f"count and heads must be at least 1, found count {count}, heads {heads}")
    protocols, gains = [physics.protocols[contrast] for contrast in contrasts], []
    for contrast, (signal, sequence) in zip(contrasts, protocols, strict=True):
        tissue, grey = physics.levels[contrast]
        gains.append(grey / 255 / signal(physics.tissues[tissue], sequence))
    both = np.empty((2, count, *SHAPE, 1), np.float32)
    labels = np.zeros((count, *SHAPE), np.uint8)
    for number, members in enumerate(np.array_split(np.arange(count), min(heads, count))):
        rng = np.random.default_rng([seed, number])
        head = physics.body(rng, variation.anatomy)
        tissues = {k: jitter(t, rng, variation.tissue) for k, t in physics.tissues.items()}
        used = [(signal, jitter(s, rng, variation.sequence)) for signal, s in protocols]
        skull = physics.skull and rng.random() >= variation.stripped
        heights = np.linspace(*slices, 2 * len(members) + 1)[1::2]
        for index, z in zip(members, heights, strict=True):
            parts = head.fractions(z, skull)
            if "grey" in parts:  # and so a brain
                brain = np.stack([parts["csf"], parts["grey"], parts["white"]])
                labels[index] = np.where(brain.max(0) > 0.5, 1 + brain.argmax(0), 0)
            for images, contrast, gain, protocol in zip(both, contrasts, gains, used, strict=True):
                image = gain * acquire(parts, *protocol, tissues)
                image = ndimage.gaussian_filter(image, 0.5)  # the scanner's point spread
                bias = head.noise(f"bias {contrast}", 90, z)
                of_ct = replace(variation, gain=0, gamma=0, bias=0)  # whose scale is absolute
                image = _received(image, bias, rng, of_ct if contrast == "ct" else variation)
                images[index, ..., 0] = 2 * image - 1
    return *both, labels


def write_dataset(
    folder: Path | str,
    seed: int,
    x_count: int = 43,
    y_count: int = 46,
    contrasts: Contrasts = T1_T2,
    body_part: str = HEAD,
) -> Path:
    """Write a simulated data set in the layout of the published one; returns its folder.

    `Tr1/TrainT1` and `Tr2/TrainT2` (8-bit PNG), or what the contrasts are, show different heads.
    Kept aside for evaluation, by x's number: `Truth/T2`, the true y of each slice x, and
    `Truth/labels` (0 to 3). Whole or not at all. Raises InputError if the folder exists or cannot
    be written, and for contrasts and body parts that are not simulated.
    """
    folder = Path(folder)
    check_simulable(contrasts, "data of your own", body_part)
    if folder.exists():
        raise InputError(f"{folder} exists already; a simulated data set needs a new folder")
    options = {"heads": 3, "contrasts": contrasts, "physics": PHYSICS[body_part]}
    x, true_y, labels = simulate_pairs(x_count, 2 * seed, **options)
    _, y, _ = simulate_pairs(y_count, 2 * seed + 1, **options)
    names = [*map(short, contrasts)]
    with write_atomically(folder) as aside:
        for part, images, first in (
            (f"Tr1/Train{names[0]}", x, 10),
            (f"Tr2/Train{names[1]}", y, 70),
            (f"Truth/{names[1]}", true_y, 10),
            ("Truth/labels", labels[..., None] / 127.5 - 1, 10),
        ):
            for number, image in enumerate(images[..., 0], first):
                write_image(aside / part / f"Image #{number}.png", image)
    return folder
