"""Simulated heads: T1w/T2w axial slice pairs from tissue maps and the MR signal equations.

The ICBM152 2009a tissue maps that ship with nilearn are averages of 152 brains. Every simulated
head is a random individual around them: bent, with its own cortical folds, wrapped in cerebrospinal
fluid, bone, muscle, fat and skin. Sequences and tissue values are BrainWeb's.
"""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from nilearn import datasets
from scipy import ndimage

from .. import InputError

SHAPE = (217, 181)
"""Rows (nose up) and columns of a slice, 1 mm each."""
CENTRE = np.array([0.0, -18.0, 18.0], np.float32)
"""MNI x, y (mm) of the middle pixel, as in BrainWeb's grid, and the z about which heads turn."""
MAP_ORIGIN = np.array([-98.0, -134.0, -42.0], np.float32)
"""MNI mm of the first voxel of `template`; no slice reaches below it."""
T1W_WHITE, T2W_CSF = 151, 255
"""Grey values (8 bit) to which white matter in T1w and CSF in T2w are scaled, without variation."""


@dataclass(frozen=True)
class Tissue:
    """Relaxation times in ms; proton density relative to water."""

    t1: float
    t2: float
    t2_star: float
    pd: float


@dataclass(frozen=True)
class Sequence:
    """Repetition and echo time in ms; flip angle in degrees (a spin echo does not use it)."""

    tr: float
    te: float
    flip: float = 90.0


# 1.5 T, BrainWeb (Kwan, Evans & Pike, IEEE Trans Med Imaging 18:1085, 1999): skin has the values of
# CSF, connective tissue those of white matter; bone and air give no signal.
TISSUES = {
    "csf": Tissue(2569, 329, 58, 1.0),
    "grey": Tissue(833, 83, 69, 0.86),
    "white": Tissue(500, 70, 61, 0.77),
    "connective": Tissue(500, 70, 61, 0.77),
    "fat": Tissue(350, 70, 58, 1.0),
    "muscle": Tissue(900, 47, 30, 1.0),
    "skin": Tissue(2569, 329, 58, 1.0),
}
# 3 T. T1, T2 of white and grey matter, muscle: Stanisz et al., Magn Reson Med 54:507, 2005; T2* of
# brain: Wansapura et al., J Magn Reson Imaging 9:531, 1999; fat: Gold et al., AJR 183:343, 2004;
# T1 of CSF: Rooney et al., Magn Reson Med 57:308, 2007. The rest: 1.5 T, with shorter T2*.
TISSUES_3T = {
    "csf": Tissue(4300, 329, 40, 1.0),
    "grey": Tissue(1820, 99, 52, 0.86),
    "white": Tissue(1084, 69, 45, 0.77),
    "connective": Tissue(1084, 69, 45, 0.77),
    "fat": Tissue(365, 133, 40, 1.0),
    "muscle": Tissue(1412, 50, 20, 1.0),
    "skin": Tissue(4300, 329, 40, 1.0),
}
T1W_FLASH = Sequence(tr=18, te=10, flip=30)
T2W_SPIN_ECHO = Sequence(tr=3300, te=120)
SPIN_ECHOES = {  # what TR and TE are chosen for
    "T1w": Sequence(tr=500, te=15),
    "PDw": Sequence(tr=3300, te=35),
    "T2w": T2W_SPIN_ECHO,
    "neither": Sequence(tr=500, te=120),
}


def flash_signal(tissue: Tissue, sequence: Sequence) -> float:
    """Spoiled FLASH: PD sin α (1 - E1) / (1 - E1 cos α) exp(-TE / T2*), with E1 = exp(-TR / T1)."""
    e1, flip = np.exp(-sequence.tr / tissue.t1), np.radians(sequence.flip)
    steady_state = np.sin(flip) * (1 - e1) / (1 - e1 * np.cos(flip))
    return tissue.pd * steady_state * np.exp(-sequence.te / tissue.t2_star)


def spin_echo_signal(tissue: Tissue, sequence: Sequence) -> float:
    """Spin echo: PD (1 - exp(-TR / T1)) exp(-TE / T2)."""
    recovery = 1 - np.exp(-sequence.tr / tissue.t1)
    return tissue.pd * recovery * np.exp(-sequence.te / tissue.t2)


def acquire(
    fractions: dict[str, np.ndarray],
    signal: Callable[[Tissue, Sequence], float],
    sequence: Sequence,
    tissues: dict[str, Tissue] = TISSUES,
) -> np.ndarray:
    """The slice that a sequence makes of tissue fractions (`Head.fractions`), without noise.

    `signal` is `flash_signal` or `spin_echo_signal`; 1 is water at TE 0, fully recovered.
    """
    return sum(part * signal(tissues[name], sequence) for name, part in fractions.items())


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
MANY_SCANNERS = Variation(
    tissue=0.05, sequence=0.1, gain=0.05, gamma=0.1, bias=0.1, noise=0.02, stripped=0.3
)
SIMULATORS = {  # what `simulate_pairs` takes
    "brainweb": {"variation": ONE_SCANNER},
    "varied": {"variation": MANY_SCANNERS, "slices": (-38.0, 74.0)},
    "wrong": {
        "variation": ONE_SCANNER,
        "physics": Physics(
            TISSUES_3T, Sequence(tr=30, te=5, flip=20), Sequence(tr=2500, te=80), skull=False
        ),
    },
}
"""Of the pairs that training learns from."""


@cache
def template() -> dict[str, np.ndarray]:
    """Maps from MNI z = -42 mm up, axes x, y, z, 1 mm, float32, first voxel at `MAP_ORIGIN`.

    Logits of the `white` matter and `csf` probabilities; `distance` (mm) outward from the skull.
    """
    grey, white, mask = (
        load(resolution=1).get_fdata(dtype=np.float32)[:, :, 30:170]
        for load in (
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_brain_mask,
        )
    )
    # A closing by 24 mm bridges the fissures, as the skull does; on every second voxel, for speed.
    outside = np.pad(mask[::2, ::2, ::2] < 0.5, 24, mode="edge")
    away = ndimage.distance_transform_edt(ndimage.distance_transform_edt(outside) <= 12)
    inside = away[24:-24, 24:-24, 24:-24] > 12
    distance = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    distance = ndimage.zoom(ndimage.gaussian_filter(2 * distance, 1.5), 2, order=1)
    # The brain mask ends about 1.2 mm outside the pia.
    maps = {"distance": (distance + 1.2).astype(np.float32)}
    for name, probability in (("white", white), ("csf", np.clip(1 - grey - white, 0, 1))):
        maps[name] = np.log((probability + 0.01) / (1.01 - probability))
    return maps


def _cubic_spline(x: np.ndarray) -> np.ndarray:
    """The uniform cubic B-spline at a distance of x knots."""
    x = np.abs(x)
    outer = np.clip(2 - x, 0, None) ** 3 / 6
    return np.where(x < 1, 2 / 3 - x**2 + x**3 / 2, outer).astype(np.float32)


@cache
def _spline_basis(size: int, spacing: float) -> np.ndarray:
    """(size, knots): values at every pixel of the splines of knots `spacing` pixels apart."""
    knots = np.arange(int(size / spacing) + 4)
    return _cubic_spline(np.arange(size)[:, None] / spacing + 1 - knots)


def _step(level: np.ndarray, width: float) -> np.ndarray:
    """0 to 1, smoothly, as the level rises through 0: how much of a voxel a surface cuts off."""
    x = np.clip(level / width + 0.5, 0, 1)
    return x * x * (3 - 2 * x)


class Head:
    """One random individual."""

    def __init__(self, rng: np.random.Generator, anatomy: float):
        self.anatomy, self.key = anatomy, int(rng.integers(2**32))
        self.size = np.exp(anatomy * rng.normal(0, [0.03, 0.03, 0.04]))
        self.shift = anatomy * rng.normal(0, [1.5, 2.5, 3.0])
        self.turn = anatomy * rng.normal(0, 0.04, (3, 3))
        self.turn -= self.turn.T  # antisymmetric: a small rotation
        self.white_matter, self.atrophy, self.ribbon = anatomy * rng.normal(0, [0.2, 0.3, 0.15])
        self.knots: dict[str, np.ndarray] = {}

    def noise(self, name: str, spacing: float, z: float) -> np.ndarray:
        """Smooth random field of unit deviation, (217, 181), at the height z (mm above -60).

        `spacing` (mm) of its knots sets its scale; slices of a head cut the same field.
        """
        shape = [int(size / spacing) + 4 for size in (180, *SHAPE)]
        if name not in self.knots:
            rng = np.random.default_rng([self.key, *name.encode()])
            self.knots[name] = 3 * rng.standard_normal(shape, dtype=np.float32)
        level = (z + 60) / spacing + 1
        near = slice(max(int(level) - 1, 0), int(level) + 3)
        plane = np.tensordot(
            _cubic_spline(level - np.arange(shape[0])[near]), self.knots[name][near], 1
        )
        return _spline_basis(SHAPE[0], spacing) @ plane @ _spline_basis(SHAPE[1], spacing).T

    def bend(self, size: float, name: str, spacing: float, z: float) -> np.ndarray:
        """Random displacement (3, 217, 181) in mm, of deviation `size`."""
        return size * self.anatomy * np.stack([self.noise(f"{name}{i}", spacing, z) for i in "xyz"])

    def fractions(self, z: float, skull: bool) -> dict[str, np.ndarray]:
        """Fraction (217, 181) of each of TISSUES on the plane z (MNI mm); the rest is air, bone."""
        rows, columns = np.indices(SHAPE, dtype=np.float32)
        plane = np.stack([columns - 90, 108 - rows, np.full(SHAPE, z - CENTRE[2])])
        turned = plane + np.tensordot(self.turn, plane, 1)
        place = (CENTRE + self.shift)[:, None, None]
        head = turned / self.size[:, None, None] + place + self.bend(3, "shape", 60, z)
        brain = head + self.bend(1.5, "lobes", 22, z) + self.bend(0.8, "folds", 9, z)

        def sample(name: str, points: np.ndarray) -> np.ndarray:
            voxels = points - MAP_ORIGIN[:, None, None]
            return ndimage.map_coordinates(template()[name], voxels, order=1, mode="nearest")

        # A random field on the logits makes of the average map one individual's sharp borders.
        gyri = 0.7 * self.noise("gyri", 7, z) + 0.4 * self.noise("branches", 4.5, z)
        white = _step(sample("white", brain) + self.anatomy * gyri + self.white_matter, 3)
        # The cortex is a ribbon of even thickness: fluid fills the sulci far from white matter.
        near_white = ndimage.gaussian_filter(white, 2.2 + self.ribbon)
        sulci = 1 + self.anatomy * 0.5 * self.noise("sulci", 4.5, z) + 4 * (0.12 - near_white)
        csf = _step(sample("csf", brain) + sulci + self.atrophy, 3) * (1 - white)
        distance = sample("distance", head) + self.anatomy * 0.1 * self.noise("rough", 2.5, z)
        parts = {"csf": csf, "grey": 1 - white - csf, "white": white}
        parts = {name: part * _step(-distance, 1.2) for name, part in parts.items()}
        return self.covered(parts, distance, head, z) if skull else parts

    def covered(
        self, brain: dict[str, np.ndarray], distance: np.ndarray, head: np.ndarray, z: float
    ) -> dict[str, np.ndarray]:
        """The brain's fractions and its covers', layer on layer from the fluid to the skin."""
        sideways = np.abs(head[0]) / np.hypot(np.hypot(head[0], head[1] + 15), 1)
        temple = np.clip(4 * sideways - 2.6, 0, 1) * np.clip((62 - head[2]) / 25, 0, 1)

        def layer(name: str, mean: float, deviation: float, spacing: float = 50) -> np.ndarray:
            return np.maximum(mean + self.anatomy * deviation * self.noise(name, spacing, z), 0)

        edges, masks = np.zeros(SHAPE), {}
        inside = _step(-distance, 1.2)
        for name, thickness, width in (  # mm; width of the layer's outer border
            ("fluid", layer("fluid", 0.8, 0.4, 25), 1.5),
            ("inner table", layer("inner table", 1.6, 0.3), 1.5),
            ("diploe", layer("diploe", 2.4, 0.6) * (1 - 0.7 * temple), 1.5),
            ("outer table", layer("outer table", 1.5, 0.3), 1.5),
            ("periosteum", layer("periosteum", 1.5, 0.5, 20), 1.5),
            ("muscle", layer("muscle", 1.3, 0.3) + 3.8 * temple, 2.0),
            ("fat", layer("fat", 3.0, 0.5), 2.5),
            ("fascia", layer("fascia", 1.5, 0.3), 2.5),
            ("skin", layer("skin", 2.4, 0.4, 30), 2.0),
        ):
            edges = edges + thickness
            beyond = _step(edges - distance, width)
            masks[name], inside = beyond - inside, beyond
        marrow = masks["diploe"] * np.clip(
            0.55 + self.anatomy * 0.25 * self.noise("marrow", 3.5, z), 0, 1
        )
        lobules = 0.35 * self.noise("fatty", 15, z) + 0.1 * self.noise("lobules", 2.5, z)
        fat = masks["fat"] * np.clip(0.2 + self.anatomy * lobules, 0, 1)
        skin = masks["skin"] + masks["periosteum"] + marrow
        water = skin + masks["fluid"]
        solid = sum(brain.values()) + masks["muscle"] + masks["fat"] + masks["fascia"]
        return {
            "csf": brain["csf"] + masks["fluid"],
            "grey": brain["grey"],
            "white": brain["white"],
            "skin": skin,
            # BrainWeb's T1w is brighter than a linear mixture where water meets air or bone.
            "connective": masks["fat"] - fat + 0.2 * water * (1 - water - solid),
            "fat": fat,
            "muscle": masks["muscle"] + masks["fascia"],
        }


def _jitter(values: Tissue | Sequence, rng: np.random.Generator, deviation: float):
    """The same tissue or sequence, every value multiplied by a random factor."""
    return replace(
        values, **{k: v * np.exp(rng.normal(0, deviation)) for k, v in vars(values).items()}
    )


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
        tissues = {k: _jitter(t, rng, variation.tissue) for k, t in physics.tissues.items()}
        flash, spin_echo = (_jitter(s, rng, variation.sequence) for s in (physics.t1w, physics.t2w))
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
