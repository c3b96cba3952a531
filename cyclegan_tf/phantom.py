"""Simulated heads: T1w/T2w axial slice pairs from tissue maps and the MR signal equations.

The ICBM152 2009a tissue maps that ship with nilearn are averages of 152 brains. Every simulated head
is a random individual around them: deformed, with its own cortical folds, wrapped in shells of
cerebrospinal fluid, bone, muscle, fat and skin. Signals follow BrainWeb's sequences and tissue values.
"""

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

import imageio.v3 as iio
import numpy as np
from nilearn import datasets
from scipy import ndimage

from . import InputError

SHAPE = (217, 181)  # rows (nose up), columns; 1 mm
CENTRE_Y = -18.0  # MNI y (mm) of the middle row, as in BrainWeb's grid
MAP_CROP = 30  # mm of the maps below z = -30 are never reached by a slice


@dataclass(frozen=True)
class Tissue:
    """Relaxation times in ms, proton density relative to water."""

    t1: float
    t2: float
    t2_star: float
    pd: float


@dataclass(frozen=True)
class Sequence:
    """Repetition and echo time in ms, flip angle in degrees (not used by a spin echo)."""

    tr: float
    te: float
    flip: float = 90.0


# BrainWeb's values at 1.5 T (Kwan, Evans & Pike, IEEE Trans Med Imaging 18:1085, 1999); its skin
# has the values of CSF, its connective tissue those of white matter.
TISSUES = {
    "csf": Tissue(2569, 329, 58, 1.0),
    "grey": Tissue(833, 83, 69, 0.86),
    "white": Tissue(500, 70, 61, 0.77),
    "fat": Tissue(350, 70, 58, 1.0),
    "muscle": Tissue(900, 47, 30, 1.0),
    "skin": Tissue(2569, 329, 58, 1.0),
}
# 3 T: white matter, grey matter and muscle from Stanisz et al., Magn Reson Med 54:507, 2005; fat
# from Gold et al., AJR 183:343, 2004; T2* from Wansapura et al., J Magn Reson Imaging 9:531, 1999.
TISSUES_3T = {
    "csf": Tissue(4000, 329, 40, 1.0),
    "grey": Tissue(1820, 99, 52, 0.86),
    "white": Tissue(1084, 69, 45, 0.77),
    "fat": Tissue(365, 133, 40, 1.0),
    "muscle": Tissue(1412, 50, 20, 1.0),
    "skin": Tissue(4000, 329, 40, 1.0),
}
T1W_FLASH = Sequence(tr=18, te=10, flip=30)
T2W_SPIN_ECHO = Sequence(tr=3300, te=120)


def flash_signal(tissue: Tissue, sequence: Sequence) -> float:
    """Spoiled gradient echo: PD sin α (1 - E1) / (1 - E1 cos α) exp(-TE / T2*), E1 = exp(-TR / T1)."""
    e1, flip = np.exp(-sequence.tr / tissue.t1), np.radians(sequence.flip)
    steady_state = np.sin(flip) * (1 - e1) / (1 - e1 * np.cos(flip))
    return tissue.pd * steady_state * np.exp(-sequence.te / tissue.t2_star)


def spin_echo_signal(tissue: Tissue, sequence: Sequence) -> float:
    """Spin echo: PD (1 - exp(-TR / T1)) exp(-TE / T2)."""
    recovery = 1 - np.exp(-sequence.tr / tissue.t1)
    return tissue.pd * recovery * np.exp(-sequence.te / tissue.t2)


@dataclass(frozen=True)
class Physics:
    """What the simulated scanner is: change a field for a deliberately wrong simulator."""

    tissues: dict[str, Tissue] = field(default_factory=lambda: TISSUES)
    t1w: Sequence = T1W_FLASH
    t2w: Sequence = T2W_SPIN_ECHO
    skull: bool = True
    """False: skull-stripped heads, the brain and its CSF alone."""


@dataclass(frozen=True)
class Variation:
    """Size of the random deviations (standard deviations unless said otherwise); 0 = none."""

    anatomy: float = 1.0
    """Scales head size, pose, deformation, folds and shell thickness."""
    tissue: float = 0.03
    """Relative, of every tissue's T1, T2, T2* and PD, one draw a head."""
    sequence: float = 0.0
    """Relative, of TR, TE and flip angle, one draw a head."""
    gain: float = 0.02
    """Relative, of each image's brightness."""
    gamma: float = 0.0
    """Of the logarithm of a power applied to each image's grey values."""
    bias: float = 0.0
    """Relative, of a smooth multiplicative receiver field."""
    noise: float = 0.0
    """Largest Rician noise of an image, as a fraction of full scale (uniform from 0)."""
    stripped: float = 0.0
    """Fraction of heads without skull and scalp."""


NONE = Variation(0, 0, 0, 0, 0, 0, 0, 0)
WARM_START = Variation(1.0, 0.04, 0.03, 0.05, 0.06, 0.03, 0.02, 0.0)


@cache
def template() -> dict[str, np.ndarray]:
    """Logits of white matter and of CSF, distance (mm) outward from the inner skull; cropped, float32.

    Array axes are MNI x, y, z in mm, origin at (-98, -134, -72 + MAP_CROP).
    """
    load = (
        datasets.load_mni152_gm_template,
        datasets.load_mni152_wm_template,
        datasets.load_mni152_brain_mask,
    )
    grey, white, mask = (
        f(resolution=1).get_fdata(dtype=np.float32)[:, :, MAP_CROP : MAP_CROP + 140] for f in load
    )
    csf = np.clip(mask - grey - white, 0, 1)
    coarse = mask[::2, ::2, ::2] > 0.5
    # A morphological closing of 40 mm by distance transforms: the skull does not follow fissures.
    hull = ndimage.distance_transform_edt(np.pad(~coarse, 24, mode="edge")) > 20
    inside = ndimage.distance_transform_edt(~hull)[24:-24, 24:-24, 24:-24] > 20
    skull = ndimage.distance_transform_edt(~inside) - ndimage.distance_transform_edt(inside)
    distance = ndimage.zoom(ndimage.gaussian_filter(2 * skull, 2), 2, order=1)
    logit = [np.log((p + 0.01) / (1.01 - p)) for p in (white, csf)]
    return {"white": logit[0], "csf": logit[1], "distance": distance.astype(np.float32)}


@cache
def _spline_basis(size: int, spacing: float) -> np.ndarray:
    """(size, knots) matrix of uniform cubic B-splines, knots `spacing` pixels apart."""
    x = np.arange(size)[:, None] / spacing + 1 - np.arange(int(size / spacing) + 4)
    return _cubic(np.abs(x)).astype(np.float32)


def _cubic(x: np.ndarray) -> np.ndarray:
    near, far = 2 / 3 - x**2 + x**3 / 2, (2 - x) ** 3 / 6
    return np.where(x < 1, near, np.where(x < 2, far, 0))


class Head:
    """One random individual; `slice_at(z)` gives its tissue fractions."""

    def __init__(self, rng: np.random.Generator, anatomy: float):
        self.rng_seed = int(rng.integers(2**31))
        self.anatomy = anatomy
        self.scale = np.exp(anatomy * rng.normal(0, [0.03, 0.03, 0.04]))
        self.angles = anatomy * rng.normal(0, [0.05, 0.04, 0.03])
        self.shift = anatomy * rng.normal(0, [1.5, 2.5, 3.0])
        self.fields: dict[str, np.ndarray] = {}
        self.params = {k: anatomy * rng.normal() for k in ("white", "csf", "ribbon", "sharp")}

    def noise(self, name: str, spacing: float, z: float) -> np.ndarray:
        """Smooth random field, standard deviation about 1, on the plane z; consistent between planes."""
        knots = (int(200 / spacing) + 4, *(int(s / spacing) + 4 for s in SHAPE))
        if name not in self.fields:
            rng = np.random.default_rng([self.rng_seed, *name.encode()])
            self.fields[name] = 3.0 * rng.standard_normal(knots, dtype=np.float32)
        depth = _cubic(np.abs((z + 60) / spacing + 1 - np.arange(knots[0])))
        plane = np.tensordot(depth.astype(np.float32), self.fields[name], 1)
        return _spline_basis(SHAPE[0], spacing) @ plane @ _spline_basis(SHAPE[1], spacing).T

    def slice_at(self, z: float, skull: bool) -> dict[str, np.ndarray]:
        """Fractions (217, 181) of each of TISSUES in the plane z (mm); what is missing from 1 is air or bone."""
        maps, a = template(), self.anatomy
        row, column = np.indices(SHAPE, dtype=np.float32)
        at = np.stack([column - 90, CENTRE_Y + 108 - row, np.full(SHAPE, z, np.float32)])
        rotation = _rotation(self.angles)
        centre = np.array([0, CENTRE_Y, 20])[:, None]
        at = (rotation @ (at.reshape(3, -1) - centre)) / self.scale[:, None] + centre + self.shift[:, None]
        at = at.reshape(3, *SHAPE)
        head = at + a * np.stack([3.0 * self.noise(f"shape{i}", 60, z) for i in range(3)])
        brain = head + a * np.stack(
            [1.5 * self.noise(f"bend{i}", 22, z) + 0.8 * self.noise(f"fold{i}", 9, z) for i in range(3)]
        )

        def sample(name: str, points: np.ndarray) -> np.ndarray:
            origin = np.array([-98, -134, -72 + MAP_CROP])[:, None, None]
            return ndimage.map_coordinates(maps[name], points - origin, order=1, mode="nearest")

        distance = sample("distance", head)
        white = sample("white", brain) + a * (
            0.7 * self.noise("gyri", 7, z) + 0.4 * self.noise("branches", 4.5, z)
        )
        white = _ramp(white + 0.2 * self.params["white"], 3.0)
        # The cortex is a ribbon of even thickness: CSF begins where white matter is far.
        near_white = ndimage.gaussian_filter(white, 2.2 + 0.15 * self.params["ribbon"])
        csf = sample("csf", brain) + a * 0.5 * self.noise("sulci", 4.5, z)
        csf = csf + 1.0 + 4.0 * (0.12 - near_white) + 0.3 * self.params["csf"]
        csf = _ramp(csf, 3.0) * (1 - white)
        intracranial = _ramp(-distance, 1.0)
        fractions = {
            "csf": csf * intracranial,
            "grey": (1 - white - csf) * intracranial,
            "white": white * intracranial,
        }
        if skull:
            fractions |= self.shells(distance, head, z)
            water, air = fractions["skin"] + fractions["subarachnoid"], 1 - sum(fractions.values())
            # Where water meets air or bone, BrainWeb's T1w lies above the linear mixture.
            fractions["connective"] += 0.2 * water * air
        return fractions

    def shells(self, distance: np.ndarray, head: np.ndarray, z: float) -> dict[str, np.ndarray]:
        """Fractions of what covers the brain, outward from CSF through bone and muscle to skin."""
        lateral = np.abs(head[0]) / np.hypot(np.hypot(head[0], head[1] + 15), 1)
        temple = np.clip(4 * (lateral - 0.65), 0, 1) * np.clip((62 - head[2]) / 25, 0, 1)

        def thickness(name: str, mean: float, deviation: float, spacing: float = 50) -> np.ndarray:
            return np.maximum(mean + self.anatomy * deviation * self.noise(name, spacing, z), 0)

        layers = {
            "csf": thickness("csf", 1.3, 0.5, 25),
            "inner table": thickness("inner table", 1.6, 0.3),
            "diploe": thickness("diploe", 2.6, 0.6) * (1 - 0.7 * temple),
            "outer table": thickness("outer table", 1.5, 0.3),
            "periosteum": thickness("periosteum", 1.5, 0.5, 20),
            "muscle": 1.3 + thickness("muscle", 3.8, 0.7) * temple,
            "fat": thickness("fat", 2.8, 0.6),
            "fascia": thickness("fascia", 1.8, 0.3),
            "skin": thickness("skin", 2.3, 0.35),
        }
        edges = np.cumsum([np.zeros(SHAPE), *layers.values()], axis=0)
        inside = [_ramp(edge - distance, width) for edge, width in zip(edges, EDGE_WIDTHS)]
        layer = {name: inside[i + 1] - inside[i] for i, name in enumerate(layers)}
        marrow = np.clip(0.6 + 0.25 * self.noise("marrow", 5, z), 0, 1) * layer["diploe"]
        fatty = np.clip(0.2 + 0.35 * self.noise("fatty", 15, z), 0, 1) * layer["fat"]
        watery = layer["skin"] + layer["periosteum"] + marrow
        return {
            "subarachnoid": layer["csf"],
            "skin": watery,
            "connective": layer["fat"] - fatty,
            "fat": fatty,
            "muscle": layer["muscle"] + layer["fascia"],
        }


def _ramp(level: np.ndarray, width: float) -> np.ndarray:
    """0 to 1, smoothly, as the level rises through 0 over about `width`: a voxel cut by a surface."""
    x = np.clip(level / width + 0.5, 0, 1)
    return x * x * (3 - 2 * x)


def _rotation(angles: np.ndarray) -> np.ndarray:
    """Rotation about x, y, z by small angles (radians)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


EDGE_WIDTHS = (1.2, 1.5, 1.5, 1.5, 1.5, 1.5, 2.0, 2.5, 2.5, 1.6)
MADE_OF = {"subarachnoid": "csf", "connective": "white"}


def _jitter(values: Tissue | Sequence, rng: np.random.Generator, deviation: float):
    """The same tissue or sequence with every value off by a random factor."""
    return replace(values, **{k: v * np.exp(rng.normal(0, deviation)) for k, v in vars(values).items()})


def simulate_pairs(
    count: int,
    seed: int,
    heads: int = 8,
    variation: Variation = Variation(),
    physics: Physics = Physics(),
    slices: tuple[float, float] = (-2.0, 53.0),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """T1w and T2w float32 (count, 217, 181, 1) in [-1, 1], labels uint8 (count, 217, 181).

    Labels: 0 outside the brain, 1 CSF, 2 grey matter, 3 white matter. Slices lie between `slices`
    (MNI z, mm), shared out over the `heads` in order, rising within a head. The same seed gives the
    same slices. One gain a contrast, the same for all: nominal T1w white matter is 151 and T2w CSF
    255 on the 8-bit scale.
    """
    if count < 1 or heads < 1:
        raise InputError(f"count and heads must be at least 1, found {count} and {heads}")
    t1w, t2w, labels = [], [], []
    t1_gain = 151 / flash_signal(TISSUES["white"], T1W_FLASH)
    t2_gain = 255 / spin_echo_signal(TISSUES["csf"], T2W_SPIN_ECHO)
    for number, part in enumerate(np.array_split(np.arange(count), min(heads, count))):
        rng = np.random.default_rng([seed, number])
        head = Head(rng, variation.anatomy)
        tissues = {k: _jitter(t, rng, variation.tissue) for k, t in physics.tissues.items()}
        flash, spin = (_jitter(s, rng, variation.sequence) for s in (physics.t1w, physics.t2w))
        skull = physics.skull and rng.random() >= variation.stripped
        low, high = slices
        for z in low + (high - low) * (np.arange(len(part)) + 0.5) / len(part):
            fractions = head.slice_at(z, skull)
            for images, signal, sequence, gain in (
                (t1w, flash_signal, flash, t1_gain),
                (t2w, spin_echo_signal, spin, t2_gain),
            ):
                image = sum(
                    f * signal(tissues[MADE_OF.get(k, k)], sequence) for k, f in fractions.items()
                )
                image = ndimage.gaussian_filter(image, 0.5)
                images.append(_scan(gain / 255 * image, rng, variation))
            brain = np.stack([fractions[k] for k in ("csf", "grey", "white")])
            labels.append(np.where(brain.sum(0) > 0.5, 1 + brain.argmax(0), 0).astype(np.uint8))
    return *(np.stack(x)[..., None] * 2 - 1 for x in (t1w, t2w)), np.stack(labels)


def _scan(image: np.ndarray, rng: np.random.Generator, variation: Variation) -> np.ndarray:
    """The image (0 to 1) as a receiver would give it: bias field, gain, noise, gamma; clipped."""
    gain, gamma = np.exp(rng.normal(0, [variation.gain, variation.gamma]))
    noise = variation.noise * rng.random()
    rough = rng.standard_normal((3, 3))
    if variation.bias:
        image = image * np.exp(variation.bias * ndimage.zoom(rough, np.divide(SHAPE, 3), order=2))
    if noise:
        real, imaginary = rng.normal(0, noise, (2, *SHAPE))
        image = np.hypot(image + real, imaginary)
    return (np.clip(gain * image, 0, 1) ** gamma).astype(np.float32)


T1_NUMBERS = [*range(10, 20), *range(23, 56)]
T2_NUMBERS = [*range(70, 101), *range(111, 126)]


def write_dataset(folder: Path | str, seed: int, t1_count: int = 43, t2_count: int = 46) -> Path:
    """Write a simulated data set in the layout of the published one; returns its folder.

    `Tr1/TrainT1` and `Tr2/TrainT2` show different heads. Kept aside for evaluation, by T1 number:
    `Truth/T2` (the true T2w of each T1w slice) and `Truth/labels` (0 to 3). Whole or not at all.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} already exists; the data set needs a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    t1w, true_t2w, labels = simulate_pairs(t1_count, seed, heads=3)
    _, t2w, _ = simulate_pairs(t2_count, seed + 1, heads=3)
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
                if image.ndim == 3:
                    image = np.rint((image[..., 0] + 1) * 127.5).astype(np.uint8)
                iio.imwrite(aside / part / f"Image #{number}.png", image)
        aside.chmod(0o755)
        aside.rename(folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return folder
