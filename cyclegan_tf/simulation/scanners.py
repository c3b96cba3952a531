"""What scanners make of heads: sequences of many protocols, and all else that changes a scan.

Every head is one patient in one scanner: field strength, sequences, resolution, noise and receiver
field are drawn anew, within the ranges that protocols use.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from tqdm.auto import tqdm

from .. import InputError
from ..contrasts import T1_T2, Contrasts, check_simulable
from ..presets import PLANES
from ..scans.intensity import BRIGHTEST, normalise
from .average import SHAPE, Head
from .people import Person, find_anatomies, read_anatomy, smooth_noise, with_lesions
from .physics import acquire, jitter
from .protocols import IN_VIVO, IN_VIVO_3T, PROTOCOLS, SATURATED, at_rest, wanted

SLICES_A_HEAD = 8
HEIGHTS = (-38.0, 74.0)
"""MNI z (mm) between which slices of average heads are taken."""
FACE = {"axial": (-1.0, 0.0), "sagittal": (0.7, 0.7)}
"""Where the face is in a slice, seen from the brain: how far down and how far to the right."""
EVENED, LEFT = 0.6, 0.25  # scans whose shading was taken out, and what is left of it in them
SHOWN = 0.8  # of the slices of a person who is to teach lesions have some
NULLED = ("t1", "flair")  # in which a scanner may show what is darkest, fluid, as black


class Scanner:
    """One patient's session: the sequences of two contrasts, and how they are taken."""

    def __init__(
        self, rng: np.random.Generator, contrasts: Contrasts = T1_T2, evened: float = EVENED
    ):
        self.rng = rng
        tissues = (IN_VIVO, IN_VIVO_3T)[rng.choice(2)]
        self.tissues = {name: jitter(tissue, rng, 0.06) for name, tissue in tissues.items()}
        self.protocols, self.saturation = {}, {}
        for contrast in contrasts:
            self.choose(contrast)
        self.blur = dict(zip(contrasts, rng.uniform(0.2, 0.9, 2), strict=True))  # pixels of 1 mm
        sharper = 2 * np.maximum(rng.uniform(-1, 1, 2), 0)  # by filters, or by interpolation
        self.sharpness = dict(zip(contrasts, sharper, strict=True))
        self.noise = dict(zip(contrasts, 0.06 * rng.random(2) ** 4, strict=True))
        uneven = (rng.random() < 0.7) * rng.uniform(0, 0.18, 2)
        if evened and rng.random() < evened:
            uneven *= LEFT
        self.bias = dict(zip(contrasts, uneven, strict=True))
        # What becomes black by nulled fluid, corrections of the field and extraction of the brain.
        self.floor = (rng.random() < 0.5) * rng.uniform(0, 0.15)
        self.gamma = np.exp(rng.normal(0, 0.08))
        self.vessels = rng.choice(2) * rng.uniform(0.3, 1.2)  # flow: dark, or bright in T1w
        self.stripped = rng.random() < 0.55
        self.hull = rng.uniform(0.3, 0.75)  # `Anatomy.brain` at which a stripped head ends
        self.clean = rng.random() < 0.85  # nothing but the brain and its fluid is left
        self.edge = rng.choice([8, 60])  # how sharply: a resampled mask, or one on its own grid
        self.ragged = rng.uniform(0, 0.25)
        self.noisy = rng.random() < 0.2  # air of stripped heads, which else is exactly 0
        self.faceless = rng.random() < 0.25
        self.cropped = rng.integers(0, 60, 4) * (rng.random(4) < 0.1)  # pixels of each side
        self.resolved = rng.choice([1.0, 1.0, rng.uniform(0.6, 1)])  # share of the k-space
        self.moved = rng.choice([0, 0, 0, 1]) * rng.normal(0, 0.7, 2)  # pixels, from a line on
        self.moment = rng.uniform(0.1, 0.5)
        # White matter lies lower where fat, vessels or contrast agent are in a head's inner half.
        self.gain = rng.choice([1.0, rng.uniform(0.65, 1.05)])

    def choose(self, contrast: str) -> None:
        """Choose the sequence of a contrast anew.

        In turbo spin echoes of many slices white matter is darker by magnetisation transfer: by 15
        to 25 % (Melki & Mulkern, Magn Reson Med 24:122, 1992), or less with few slices.
        """
        self.protocols[contrast] = PROTOCOLS[contrast](self.rng, self.tissues)
        if contrast in SATURATED:
            self.saturation[contrast] = self.rng.uniform(0.75, 1)

    def left(self, parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The parts (217, 181) that a scan can show: of a well-stripped head, the brain alone."""
        return brain_alone(parts) if self.stripped and self.clean else parts

    def kept(self, brain: np.ndarray, plane: str) -> np.ndarray:
        """The share (217, 181) of each pixel that is in the file.

        It lies in the field of view, and is no skull that was stripped, no face that was removed.
        """
        kept = np.ones(SHAPE, np.float32)
        if self.stripped:
            level = brain - self.hull * (1 + self.ragged * smooth_noise(self.rng, SHAPE, 4))
            kept = np.clip(self.edge * level + 0.5, 0, 1)
        elif self.faceless and plane in FACE:
            rows, columns = np.indices(SHAPE)
            ahead = FACE[plane][0] * rows + FACE[plane][1] * columns
            if (inside := brain > 0.5).any():
                kept[(ahead > np.percentile(ahead[inside], 90)) & (brain < 0.05)] = 0
        top, bottom, left, right = self.cropped
        kept[:top] = kept[SHAPE[0] - bottom :] = kept[:, :left] = kept[:, SHAPE[1] - right :] = 0
        return kept

    def scan(self, parts: dict[str, np.ndarray], kept: np.ndarray, contrast: str) -> np.ndarray:
        """A slice (217, 181) as this scanner takes it; 1 is white matter or, in T2w, fluid."""
        signal, sequence = self.protocols[contrast]
        unit = signal(self.tissues["csf" if contrast == "t2" else "white"], sequence)
        still = at_rest(parts, self.saturation.get(contrast, 1.0))
        image = acquire(still, signal, sequence, self.tissues) / unit
        if contrast == "t1" and "vessel" in parts:
            image = image + self.vessels * parts["vessel"]
        image = self._read_out(self.resolve(image, contrast))
        image = np.maximum(image - self.floor * (contrast in NULLED), 0)
        image = image * np.exp(self.bias[contrast] * smooth_noise(self.rng, SHAPE, 70))
        real, imaginary = self.noise[contrast] * self.rng.standard_normal((2, *SHAPE))
        if self.noisy:
            return np.hypot(kept * image + real, imaginary) ** self.gamma
        return kept * np.hypot(image + real, imaginary) ** self.gamma

    def resolve(self, image: np.ndarray, contrast: str) -> np.ndarray:
        """An image (217, 181) as fine as this scanner's files of a contrast show it."""
        image = ndimage.gaussian_filter(image, self.blur[contrast])
        finest = image - ndimage.gaussian_filter(image, 0.9)
        return image + self.sharpness[contrast] * finest

    def _read_out(self, image: np.ndarray) -> np.ndarray:
        """Slight motion, and the ringing of a k-space that ends early, in one direction."""
        if self.resolved == 1 and not self.moved.any():
            return image
        lines, samples = (np.fft.fftfreq(side) for side in SHAPE)
        shift = lines[:, None] * self.moved[0] + samples * self.moved[1]
        moved = np.where(lines[:, None] > self.moment / 2, np.exp(2j * np.pi * shift), 1)
        ends = np.abs(lines)[:, None] <= self.resolved / 2
        return np.abs(np.fft.ifft2(np.fft.fft2(image) * moved * ends))


def brain_alone(parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parts (217, 181) of a head with fluid in place of all that covers the brain.

    What good extraction leaves beside the brain is fluid: what is black in its T1w, as fluid may
    be, is bright in its T2w, while bone would be black in both.
    """
    covers = ("fat", "muscle", "skin", "connective", "marrow", "mucosa")
    parts = {name: part for name, part in parts.items() if name not in covers}
    fluid = "sulcal" if "sulcal" in parts else "csf"
    return parts | {fluid: parts[fluid] + np.clip(1 - sum(parts.values()), 0, 1)}


class Scans(NamedTuple):
    """Slices of simulated heads, float32 (N, 217, 181, 1) in [-1, 1] each."""

    x: np.ndarray
    """As a scanner gives them, scaled as real scans are, so up to 1.1; `y` likewise."""
    y: np.ndarray
    wanted_x: np.ndarray
    """The same slices as a generator is to draw them, whatever the scanner: see WANTED."""
    wanted_y: np.ndarray


class Slices(NamedTuple):
    """Slices of one head, as they are before a scanner takes them."""

    plane: str
    """Of PLANES."""
    parts: list[dict[str, np.ndarray]]
    """Tissues' shares in each slice, float16 (217, 181)."""
    brains: list[np.ndarray]
    """`Anatomy.brain` in each slice, float16 (217, 181)."""


def simulate_scans(
    count: int,
    seed: int,
    anatomies: str = "",
    slices_a_head: int = SLICES_A_HEAD,
    contrasts: Contrasts = T1_T2,
) -> Scans:
    """Slices of many patients in many scanners, one patient's after the other's.

    Patients are as in `cut_heads`. Deterministic in `seed`. Raises InputError as that and for other
    contrasts.
    """
    check_simulable(contrasts, "others")
    scans = scan_heads(cut_heads(count, seed, anatomies, slices_a_head), [seed], contrasts)
    return Scans(*(images[:count] for images in scans))


def cut_heads(
    count: int, seed: int, anatomies: str = "", slices_a_head: int = SLICES_A_HEAD
) -> Iterator[Slices]:
    """At least `count` slices of many heads, a head's after the other's.

    They are of random individuals around the label maps in the folder `anatomies`, about as many
    around each, in slices of all planes, 1 to 6 mm thick, some with lesions; where it is empty,
    around the average brain, in axial slices of 1 mm. Deterministic in `seed`. Raises InputError as
    `find_anatomies` and `read_anatomy` and if `count` is below 1.
    """
    if count < 1:
        raise InputError(f"count must be at least 1, found {count}.")
    paths = find_anatomies(anatomies) if anatomies else [None]
    heads = -(-count // slices_a_head)
    parts = np.array_split(np.arange(heads), len(paths))
    patients = [(path, k) for path, part in zip(paths, parts, strict=True) for k in part]
    bar = tqdm(patients, "Simulating heads", unit="head", file=sys.stdout, disable=heads < 9)
    for path, k in bar:
        yield _cut_head(path, np.random.default_rng([seed, k]), slices_a_head)


def _cut_head(path: Path | None, rng: np.random.Generator, count: int) -> Slices:
    head = Person(read_anatomy(path), rng) if path else Head(rng, 1.0)
    plane = rng.choice(PLANES, p=[0.6, 0.2, 0.2]) if path else "axial"
    thickness = rng.choice([1.0, rng.uniform(1, 6)])
    shift = rng.normal(0, 6, 2)
    slices = Slices(plane, [], [])
    for place in (np.arange(count) + rng.random(count)) / count:
        if path:
            parts, brain = head.section(plane, place, thickness, shift, rng)
        else:
            parts = head.fractions(np.interp(place, (0, 1), HEIGHTS), True)
            brain = parts["csf"] + parts["grey"] + parts["white"]
        # Half as precise, for many are kept.
        slices.parts.append({name: np.float16(part) for name, part in parts.items()})
        slices.brains.append(np.float16(brain))
    return slices


def scan_heads(
    heads: Iterable[Slices], seed: Sequence[int], contrasts: Contrasts = T1_T2, ill: float = 0.0
) -> Scans:
    """Heads as they come out of a scanner each, which is drawn anew by each `seed`.

    A share `ill` of the heads, which must be of people, gets lesions in most slices, to teach what
    lesions look like.
    """
    scans = []
    for k, slices in enumerate(heads):
        # A key, as [*seed, k] may be what a head was cut with: scanners know nothing of patients.
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(k,)))
        scans.append(_scan_head(slices, rng, contrasts, ill))
    # Four arrays (heads x slices, 217, 181) -> (heads x slices, 217, 181, 1)
    return Scans(*(np.concatenate(images)[..., None] for images in zip(*scans, strict=True)))


def _scan_head(
    slices: Slices, rng: np.random.Generator, contrasts: Contrasts, ill: float
) -> tuple[np.ndarray, ...]:
    """The four arrays of `Scans` for one head, (slices, 217, 181) each."""
    scanner = Scanner(rng, contrasts)
    taught = rng.random() < ill
    rows = []
    for parts, brain in zip(slices.parts, slices.brains, strict=True):
        parts = {name: np.float32(part) for name, part in parts.items()}
        parts = with_lesions(parts, rng) if taught and rng.random() < SHOWN else parts
        parts = scanner.left(parts)
        kept = scanner.kept(np.float32(brain), slices.plane)
        images = [scanner.scan(parts, kept, contrast) for contrast in contrasts]
        for contrast, source in zip(contrasts, contrasts[::-1], strict=True):
            # As fine as the source, and clean: what is finer nobody can know from it.
            image = kept * scanner.resolve(wanted(parts, contrast), source)
            images.append(np.clip(2 * BRIGHTEST[contrast] * image - 1, -1, 1))
        rows.append(images)
    *taken, x, y = (np.stack(images).astype(np.float32) for images in zip(*rows, strict=True))
    for side, contrast in enumerate(contrasts):
        taken[side] = normalise(taken[side], contrast)
        if contrast == "t1":
            taken[side] = np.float32(scanner.gain) * (taken[side] + 1) - 1
    return *taken, x, y
